"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a busy machine is slow, not wrong. The blob lets a failure of CI be repeated at home.
settings.register_profile("hubbub", deadline=None, print_blob=True)
settings.load_profile("hubbub")
