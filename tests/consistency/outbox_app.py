"""An app whose only work is to relay the outbox at `HUBBUB_OUTBOX_URL`; it is killed while it does."""

from __future__ import annotations

import os

from starlette.applications import Starlette

from hubbub import Hub, Limits
from hubbub.node.relay import Relay

hub = Hub(limits=Limits(inbox=100_000))
hub.namespace("room", history=100_000, history_ttl=3600)
# Soon after a kill the next one goes on.
hub.node.relay = Relay(hub, os.environ["HUBBUB_OUTBOX_URL"], lease=float(os.environ.get("LEASE", "0.5")))
app = Starlette()
hub.attach(app)
