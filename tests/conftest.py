"""What every test shares."""

from __future__ import annotations

import os
import tempfile
from itertools import count

import pytest
from hypothesis import settings

# No deadline: a busy machine is slow, not wrong. The blob lets a failure of CI be repeated at home.
settings.register_profile("hubbub", deadline=None, print_blob=True)
settings.load_profile("hubbub")


# For apps that are made while tests are collected; it goes with the last reference to it.
data = tempfile.TemporaryDirectory(prefix="hubbub-")
os.environ["HUBBUB_DATA_DIR"] = f"{data.name}/apps"
directories = (f"{data.name}/{number}" for number in count())


@pytest.fixture(autouse=True)
def data_directory() -> None:
    """A place of its own, not made yet, for what the hubs of a test keep where nobody says where."""
    os.environ["HUBBUB_DATA_DIR"] = next(directories)
