from __future__ import annotations

from hubbub import Hub
from tests.fakes import open_connection


async def test_what_this_node_knows(hub: Hub) -> None:
    ann, _ = open_connection(hub, "ann")
    again, _ = open_connection(hub, "ann")
    bob, _ = open_connection(hub, "bob")
    nobody, _ = open_connection(hub)
    ann.metadata["tab"] = 1
    for connection in (bob, ann):
        connection.subscribe("news")
    local = hub.local
    assert local.connections() == [ann, again, bob, nobody]
    assert local.connections("ann") == [ann, again]
    assert local.connection(bob.id) is bob
    assert local.connection_ids() == [each.id for each in (ann, again, bob, nobody)]
    assert local.user_ids() == ["ann", "bob"]
    assert (local.is_user_connected("bob"), local.user_connection_count("ann")) == (True, 2)
    assert (local.metadata(ann.id), local.metadata(bob.id)) == ({"tab": 1}, {})
    assert local.subscribers("news") == [bob, ann]


async def test_what_it_does_not_know(hub: Hub) -> None:
    connection, _ = open_connection(hub, "ann")
    connection.close()
    local = hub.local
    assert local.connection(connection.id) is None
    assert local.metadata(connection.id) is None
    assert (local.connections(), local.connections("ann")) == ([], [])
    assert local.connection_ids() == local.user_ids() == []
    assert (local.is_user_connected("ann"), local.user_connection_count("ann")) == (False, 0)
    assert local.subscribers("news") == []


async def test_the_lists_are_for_keeps(hub: Hub) -> None:
    for _ in range(3):
        connection, _ = open_connection(hub, "ann")
        connection.subscribe("news")
    for found in (hub.local.connections(), hub.local.connections("ann"), hub.local.subscribers("news")):
        for connection in found:
            connection.close()
        assert len(found) == 3
