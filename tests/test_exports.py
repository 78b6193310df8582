"""What the package shows: few names, each there and each documented."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import hubbub

PACKAGE = Path(hubbub.__file__).parent
MAX_NAMES = 20
MODULES = [
    ".".join(part for part in ("hubbub", *path.relative_to(PACKAGE).with_suffix("").parts) if part != "__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__main__" and path.read_text("utf-8").strip()
]


def test_the_public_face_stays_small() -> None:
    assert len(hubbub.__all__) <= MAX_NAMES, "take a name away before you add one"


@pytest.mark.parametrize("name", [name for name in hubbub.__all__ if not name.startswith("__")])
def test_a_public_name_is_documented(name: str) -> None:
    doc = getattr(hubbub, name).__doc__ or ""
    generated = doc.startswith(f"{name}(")  # what @dataclass writes by itself
    assert doc.strip(), f"hubbub.{name} has no docstring"
    assert not generated, f"hubbub.{name} has no docstring of its own"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_all_that_it_lists(name: str) -> None:
    module = import_module(name)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ lists {', '.join(missing)}, which it does not have"
    assert len(set(module.__all__)) == len(module.__all__), f"{name}.__all__ lists a name twice"
