"""Every input that `make fuzz` kept, on every platform and Python, without the fuzzer."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent / "corpus"
TARGETS = "deflate", "envelope", "frames", "handshake"
BIGGEST = 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_inputs_pass(target: str) -> None:
    check = importlib.import_module(f"tests.fuzz.{target}").check
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) > 10
    for file in inputs:
        try:
            check(file.read_bytes())
        except AssertionError as error:
            raise AssertionError(f"{target}/{file.name} fails") from error


def test_the_corpus_is_whole_and_small() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < BIGGEST
