from __future__ import annotations

import pytest

from hubbub.core.channels import Channel
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from hubbub.core.namespaces import Slow
from hubbub.node.batch import Batch, Publication
from tests.fakes import read_messages

FORMS = [FRAMES, TEXTS, deflated(15)]
TEXT = b'{"type":"a"}'


@pytest.mark.parametrize("form", FORMS, ids=["frames", "texts", "deflated"])
def test_wire_data_is_made_once(form: Form) -> None:
    publication = Publication(1, TEXT)
    batch = Batch([publication, publication])
    assert publication.wire(form) is publication.wire(form)
    assert batch.data(form) is batch.data(form)
    assert list(read_messages(batch.data(form))) == [{"type": "a"}] * 2


@pytest.mark.parametrize(("slow", "droppable"), [("close", False), ("drop_oldest", True), ("latest_per_key", True)])
def test_the_channel_says_what_may_be_dropped(slow: Slow, droppable: bool) -> None:
    one = Publication(1, TEXT, Channel("a", slow))
    assert Batch([Publication(1, TEXT, Channel("b")), one]).droppable is droppable


def test_what_comes_from_no_channel_must_arrive() -> None:
    assert not Batch([Publication(0, TEXT)]).droppable
