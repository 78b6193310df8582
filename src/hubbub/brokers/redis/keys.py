"""What things are called in Redis.

Rules of this file:
1. A name is data: it is quoted, so that no brace, space or other byte of it means anything in a key.
2. All keys of a channel have one hash tag: they are in one slot of a Cluster, where one script may use them. Channels
   with an archive share the tag of a group, which has one stream for the archive: there is one group, or `GROUPS` of
   them in a Cluster.
3. Pub/sub knows no databases: what is said there has the database's number in its name.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import quote
from zlib import crc32

__all__ = ["GROUPS", "Keys"]

GROUPS = 16
"""Of channels with an archive, in a Cluster; another number is another place for all of them."""
SAFE = "!$&'()*+,-./:;=@^_~"


class Keys:
    """The keys of one app.

    Args:
        name: the app's.
        database: the number of the database.

    Attributes:
        groups: over how many streams channels with an archive are spread.
    """

    def __init__(self, name: str, database: int) -> None:
        self.groups = 1
        self._name = name
        self._spoken = f"{name}/{database}"

    @property
    def life(self) -> str:
        """Which life the server has."""
        return f"{self._name}:life"

    def head(self, channel: str, archive: bool) -> str:
        """Epoch and offset of a channel."""
        return f"{self._name}:{self._tag(channel, archive)}:head"

    def log(self, channel: str, archive: bool) -> str:
        """The stream of a channel."""
        return f"{self._name}:{self._tag(channel, archive)}:log"

    def known(self, channel: str, archive: bool, key: str) -> str:
        """Where the publication is for which its publisher has this name."""
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=15).hexdigest()
        return f"{self._name}:{self._tag(channel, archive)}:key:{digest}"

    def live(self, channel: str, archive: bool) -> str:
        """Where publications of a channel are told."""
        return f"{self._spoken}:{self._tag(channel, archive)}:live"

    def topic(self, topic: str) -> str:
        """Where nodes talk."""
        return f"{self._spoken}:{{+{_quote(topic)}}}:said"

    def claim(self, name: str) -> str:
        """Who has a name."""
        return f"{self._name}:{{+{_quote(name)}}}:claim"

    def archive(self, channel: str) -> str:
        """The stream of what the archive does not have, of this channel and others."""
        return self.archives[self._group(channel)]

    @property
    def archives(self) -> list[str]:
        """All streams of what the archive does not have."""
        return [f"{self._name}:{{{group}}}:archive" for group in range(self.groups)]

    def _tag(self, channel: str, archive: bool) -> str:
        return f"{{{self._group(channel)}}}:{_quote(channel)}" if archive else f"{{={_quote(channel)}}}"

    def _group(self, channel: str) -> int:
        return crc32(channel.encode("utf-8", "surrogatepass")) % self.groups


def _quote(name: str) -> str:
    return quote(name, SAFE, errors="surrogatepass")
