"""What Redis does in one step.

Rules of this file:
1. Nothing random is made in a script: a new epoch is an argument of each that may begin one.
2. A channel belongs to the life of the server in which it was last written, which is the server's replication id: a
   server that was restarted or took another's place has a new one. What it knows may be old then; so its channels begin
   anew, unless the server can be shown to have lost nothing (`sure`, which names who can). See `server.Server`.
3. A script does nothing if it was meant for another life of the server than this.
4. Entries of a stream name the offset before theirs: what was forgotten is seen there. The id of an entry is its
   offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1

__all__ = ["CLAIM", "LEARN", "MENTION", "PUBLISH", "PURGE", "READ", "RESET", "SCRIPTS", "STALE", "Script"]

STALE = "STALE"
"""How the error of a script begins that was meant for another life of the server."""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A script.

    Args:
        text: what it does.
        dated: whether its first two arguments are the server's life and who is sure of what it knows.
    """

    text: str
    dated: bool = False
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text.encode()).hexdigest())


BEGIN = """
local life = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if life ~= ARGV[1] then return redis.error_reply('STALE this is another life of the server') end
local found = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'at', 'life', 'sure')
local epoch, offset, at = found[1], tonumber(found[2]), tonumber(found[3])
if not epoch or (found[4] ~= life and (ARGV[2] == '' or ARGV[2] ~= found[5])) then
  epoch, offset, at = ARGV[3], 0, 0
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0, 'at', 0, 'life', life, 'sure', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
elseif found[4] ~= life then
  redis.call('HSET', KEYS[1], 'life', life, 'sure', ARGV[2])
end
"""

PUBLISH = Script(
    BEGIN
    + """
local known = redis.call('GET', KEYS[3])
if known and string.sub(known, -#epoch) == epoch then return known end
local previous = offset
offset, at = offset + 1, math.max(at, tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'offset', offset, 'at', at)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[6], offset .. '-0', 'p', previous, 't', at, 'b', ARGV[11])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
local place = offset .. ' ' .. epoch
redis.call('SET', KEYS[3], place, 'PX', ARGV[8])
if KEYS[4] then
  redis.call('XADD', KEYS[4], '*', 'c', ARGV[12], 'e', epoch, 'o', offset, 't', at, 'b', ARGV[11])
end
redis.call(ARGV[9], ARGV[10], epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. at .. '\\n' .. ARGV[11])
return place
""",
    dated=True,
)
"""Keys: head, log, key and perhaps archive. Arguments: life, sure, a new epoch, for how long a head is kept, the time,
how many publications the channel remembers and for how long, how long the key is known, PUBLISH or SPUBLISH, where it
is told, the body, the channel. Times in milliseconds. Gives offset and epoch."""

READ = Script(
    BEGIN
    + """
local entries = {}
if ARGV[5] ~= '' then
  entries = redis.call('XRANGE', KEYS[2], '(' .. ARGV[5] .. '-0', '+', 'COUNT', ARGV[6])
elseif ARGV[6] ~= '0' then
  entries = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', ARGV[6])
end
return {epoch, offset, entries}
""",
    dated=True,
)
"""Keys: head, log. Arguments: as before up to how long a head is kept, the offset behind which to read (or nothing: the
last), how many. Gives epoch, offset, entries."""

PURGE = Script(
    BEGIN
    + """
local previous = offset
offset = offset + 1
redis.call('HSET', KEYS[1], 'offset', offset)
redis.call('DEL', KEYS[2])
redis.call(ARGV[5], ARGV[6], epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. at .. '\\n')
return offset
""",
    dated=True,
)
"""Keys: head, log. Arguments: as before up to how long a head is kept, PUBLISH or SPUBLISH, where it is told."""

RESET = Script(
    """
local found = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
if found[1] == ARGV[1] and tonumber(found[2]) < tonumber(ARGV[2]) then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
"""
)
"""Keys: head, log. Let a channel begin anew that has forgotten what was told. Arguments: its epoch, the offset."""

MENTION = Script(
    """
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then redis.call(ARGV[2], ARGV[3], ARGV[4]) end
return 1
"""
)
"""Keys: key. Tell what is not remembered, once. Arguments: how long the key is known, PUBLISH or SPUBLISH, where and
what."""

CLAIM = Script(
    """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)
"""Keys: claim. Arguments: who wants it, for how many milliseconds."""

LEARN = Script(
    """
local found = redis.call('HMGET', KEYS[1], 'life', 'sure', 'name')
local name = found[3]
if not name or (found[1] ~= ARGV[1] and not (found[2] == '1' and ARGV[2] == '1')) then name = ARGV[3] end
redis.call('HSET', KEYS[1], 'life', ARGV[1], 'sure', ARGV[2], 'name', name)
return name
"""
)
"""Keys: life. What the data of a server is called, which is new where some of it may be lost. Arguments: the server's
life, 1 if it loses nothing when it is restarted, a new name."""

SCRIPTS = (CLAIM, LEARN, MENTION, PUBLISH, PURGE, READ, RESET)
