"""Who has a journal: the name of one broker in one process, and whether the process behind a name has died."""

from __future__ import annotations

import os
import secrets
import socket
from weakref import WeakSet

__all__ = ["Owner"]


class Owner:
    """One that may have a journal; its name is `host pid token`."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(4)
        _alive.add(self)

    @property
    def name(self) -> str:
        """Its name, which no other one has."""
        return f"{_host()} {os.getpid()} {self._token}"

    @staticmethod
    def died(name: str) -> bool:
        """Whether the owner of this name has died for sure; of another machine's owner nobody here knows."""
        host, _, rest = name.partition(" ")
        pid, _, token = rest.partition(" ")
        if host != _host() or not pid.isdecimal() or os.name != "posix":
            return False
        if int(pid) == os.getpid():
            return all(owner._token != token for owner in _alive)
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def _host() -> str:
    return socket.gethostname().replace(" ", "-")


_alive: WeakSet[Owner] = WeakSet()
