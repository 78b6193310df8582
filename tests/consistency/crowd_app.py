"""An app with the channels of a crowd, for nodes that are processes; `LOG_LEVEL=DEBUG` lets them tell more."""

from __future__ import annotations

import logging
import os

from starlette.applications import Starlette

from tests.consistency.hubs import make_hub

logging.getLogger("hubbub").setLevel(os.environ.get("LOG_LEVEL", "WARNING"))
app = Starlette()
make_hub().attach(app)
