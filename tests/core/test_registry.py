from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.registry import Registry


@dataclass(eq=False)
class Client:
    id: str
    user_id: str | None = None


def registry_of(*clients: Client) -> Registry[Client]:
    registry: Registry[Client] = Registry()
    for client in clients:
        registry.add(client)
    return registry


def test_connections_are_found_by_id_and_by_user() -> None:
    first, second, other, nobody = Client("1", "ann"), Client("2", "ann"), Client("3", "bob"), Client("4")
    registry = registry_of(first, second, other, nobody)
    assert len(registry) == 4
    assert list(registry) == [first, second, other, nobody]
    assert registry.ids() == ["1", "2", "3", "4"]
    assert registry.users() == ["ann", "bob"]
    assert registry.get("3") is other
    assert list(registry.of_user("ann")) == [first, second]
    assert registry.count_of_user("ann") == 2


def test_nothing_is_found_where_nothing_is() -> None:
    registry = registry_of()
    assert registry.get("x") is None
    assert list(registry.of_user("x")) == []
    assert registry.count_of_user("x") == 0


def test_a_removed_connection_is_gone_from_both() -> None:
    first, second = Client("1", "ann"), Client("2", "ann")
    registry = registry_of(first, second)
    registry.remove(first)
    assert list(registry.of_user("ann")) == [second]
    registry.remove(second)
    assert registry.users() == []
    assert len(registry) == 0


def test_to_remove_an_unknown_one_does_no_harm() -> None:
    registry = registry_of(Client("1", "ann"))
    registry.remove(Client("2", "ann"))
    assert registry.count_of_user("ann") == 1


def test_a_connection_moves_between_users() -> None:
    client = Client("1")
    registry = registry_of(client)
    for before, after in ((None, "ann"), ("ann", "bob"), ("bob", "bob"), ("bob", None)):
        client.user_id = after
        registry.move(client, before)
        assert registry.users() == ([] if after is None else [after])
        assert registry.get("1") is client


def test_one_that_is_not_here_does_not_move_in() -> None:
    registry = registry_of()
    registry.move(Client("1", "ann"), None)
    assert registry.users() == registry.ids() == []


def test_the_registry_may_change_while_it_is_walked() -> None:
    clients = [Client(str(number), "ann") for number in range(3)]
    registry = registry_of(*clients)
    for client in registry:
        registry.remove(client)
    registry = registry_of(*clients)
    for client in registry.of_user("ann"):
        registry.remove(client)
    assert len(registry) == 0


CLIENT, USER = st.integers(0, 4), st.sampled_from([None, "ann", "bob"])


@given(st.lists(st.tuples(st.sampled_from(["add", "move", "remove"]), CLIENT, USER)))
def test_both_indexes_agree(steps: list[tuple[str, int, str | None]]) -> None:
    clients = [Client(str(number)) for number in range(5)]
    registry, here = registry_of(), dict[Client, None]()
    for step, number, user in steps:
        client = clients[number]
        if step == "remove":
            registry.remove(client)
            here.pop(client, None)
        elif step == "add" and client not in here:
            client.user_id = user
            registry.add(client)
            here[client] = None
        elif step == "move":
            before, client.user_id = client.user_id, user
            registry.move(client, before)
        assert list(registry) == list(here)
        assert set(registry.users()) == {each.user_id for each in here} - {None}
        for name in ("ann", "bob"):
            assert set(registry.of_user(name)) == {each for each in here if each.user_id == name}
