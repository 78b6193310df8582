"""What limits are written with: `from hubbub.limits import Rate, Rates`."""

from __future__ import annotations

from hubbub.core.limits import Limits, Timeouts
from hubbub.core.rates import Rate, Rates

__all__ = ["Limits", "Rate", "Rates", "Timeouts"]
