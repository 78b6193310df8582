"""Fuzz one target: `python -m tests.fuzz TARGET [libFuzzer options]`; `keep TARGET DIRECTORY` minimises a corpus."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import hubbub

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
TRACED = str(Path(hubbub.__file__).parent), str(HERE)

Step = tuple[CodeType, int, int, int]
"""From a line to a line of a function, and how often as a power of two."""


def main(target: str, *options: str) -> None:
    """Fuzz until an option says to stop; an input that fails is written to a file, and the exit is not 0."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]  # there are no wheels for some platforms

    with atheris.instrument_imports(include=["hubbub.core"]):
        check = importlib.import_module(f"tests.fuzz.{target}").check
    atheris.Setup([target, *options], check)
    atheris.Fuzz()


def keep(target: str, directory: str) -> None:
    """Make the corpus of a target the smallest inputs, of it and of a directory, that reach all that they reach."""
    check = importlib.import_module(f"tests.fuzz.{target}").check
    kept = CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    files = sorted({*kept.iterdir(), *Path(directory).iterdir()}, key=lambda file: (file.stat().st_size, file.name))
    inputs = [file.read_bytes() for file in files]
    for file in kept.iterdir():
        file.unlink()
    seen: set[Step] = set()
    count = 0
    for data in inputs:
        new = _steps(check, data) - seen
        if new:
            seen |= new
            (kept / f"{count:03}").write_bytes(data)
            count += 1
    print(f"{target}: {count} of {len(inputs)} inputs kept")


def _steps(check: Callable[[bytes], None], data: bytes) -> set[Step]:
    """The steps that an input makes our code, and the target itself, take."""
    steps: Counter[tuple[CodeType, int, int]] = Counter()
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        if event == "line":
            steps[frame.f_code, last.get(frame, 0), frame.f_lineno] += 1
            last[frame] = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return {(*step, count.bit_length()) for step, count in steps.items()}


if __name__ == "__main__":
    (keep if sys.argv[1] == "keep" else main)(*sys.argv[2 if sys.argv[1] == "keep" else 1 :])
