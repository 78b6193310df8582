from __future__ import annotations

import pytest

from hubbub.core.session import TRANSITIONS, ConnectionState, Input, advance

CONNECTING, OPEN, CLOSING, CLOSED = ConnectionState


def test_states_have_the_numbers_of_the_browser() -> None:
    assert {state.name: state.value for state in ConnectionState} == {
        "CONNECTING": 0,
        "OPEN": 1,
        "CLOSING": 2,
        "CLOSED": 3,
    }


@pytest.mark.parametrize(
    ("inputs", "end"),
    [
        ([Input.ACCEPT], OPEN),
        ([Input.ACCEPT, Input.GOODBYE], CLOSING),
        ([Input.ACCEPT, Input.GOODBYE, Input.LOST], CLOSED),
        ([Input.ACCEPT, Input.LOST], CLOSED),
        ([Input.LOST], CLOSED),
        ([Input.GOODBYE, Input.LOST], CLOSED),
    ],
    ids=lambda value: "-".join(each.name.lower() for each in value) if isinstance(value, list) else value.name,
)
def test_a_life(inputs: list[Input], end: ConnectionState) -> None:
    state = CONNECTING
    for each in inputs:
        state = advance(state, each)
    assert state is end


@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("event", Input)
def test_an_input_that_is_not_in_the_table_changes_nothing(state: ConnectionState, event: Input) -> None:
    if (state, event) not in TRANSITIONS:
        assert advance(state, event) is state


def test_life_goes_one_way() -> None:
    assert all(after > before for (before, _), after in TRANSITIONS.items())
    assert all(advance(state, Input.LOST) is CLOSED for state in ConnectionState)
