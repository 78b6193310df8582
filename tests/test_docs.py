"""The documentation: links lead somewhere, code is code, and what it says of names, codes and limits is so.

Tables between `<!-- table: name -->` and `<!-- end -->` are made here; `HUBBUB_WRITE_DOCS=1 pytest tests/test_docs.py`
writes them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import hubbub
from hubbub.config import Settings
from hubbub.core.namespaces import Namespace
from hubbub.core.session import TRANSITIONS
from hubbub.errors import CLOSE_CODES, ERROR_CODES
from hubbub.limits import Rate, Rates
from hubbub.node.local import Local
from hubbub.node.sync import Sync
from hubbub.servers import http, server
from hubbub.servers.api.failures import STATUSES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
VECTORS = sorted((ROOT / "tests" / "vectors").glob("*.json"))

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "(.+)"$')


def table(titles: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; titles are given as `One | Two`."""
    count = titles.count("|") + 1
    lines = [f"| {titles} |", "|---" * count + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    return "\n".join(lines) + "\n"


def arguments(kind: Any) -> dict[str, str]:
    """What a class says of its arguments in its docstring."""
    parts = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in parts}


def defaults(kind: Any) -> str:
    """The table of a dataclass of numbers."""
    return table(
        "Name | Default | Means",
        ((f"`{name}`", f"{getattr(kind(), name):,}", text) for name, text in arguments(kind).items()),
    )


def described(kind: Any) -> str:
    """The table of a dataclass, without its defaults."""
    return table("Argument | Means", ((f"`{name}`", text) for name, text in arguments(kind).items()))


def yes(value: bool) -> str:
    """A truth, for people."""
    return "yes" if value else "no"


def shown(default: object) -> str:
    """A default, for people."""
    return "none" if default is None else f"`{default}`"


def rate(value: Any) -> str:
    """A rate or a factor, for people."""
    if isinstance(value, Rate):
        return f"{value.count:,} in {value.per:g} s, {value.most:,} at once"
    return f"{value:g}" if isinstance(value, int | float) else "none"


def settings() -> str:
    """The table of settings, each with its variable."""
    rows = (
        (f"`{name.upper()}`", shown(field.default), field.description, text.partition(f", `{name.upper()}`")[0])
        for (name, field), text in zip(Settings.model_fields.items(), arguments(Settings).values(), strict=True)
    )
    return table("Variable | Default | Allowed | Means", rows)


TABLES = {
    "errors": table(
        "Code | Means | Again",
        ((f"`{code}`", entry.meaning, yes(entry.retry)) for code, entry in ERROR_CODES.items()),
    ),
    "closes": table(
        "Code | Name | Means | Come back",
        ((int(code), f"`{code.name}`", entry.meaning, yes(entry.reconnect)) for code, entry in CLOSE_CODES.items()),
    ),
    "auth": described(hubbub.Auth),
    "namespace": described(Namespace),
    "identity": described(hubbub.Identity),
    "limits": defaults(hubbub.Limits),
    "timeouts": defaults(hubbub.Timeouts),
    "rates": table(
        "Name | Default | Means",
        ((f"`{name}`", rate(getattr(Rates(), name)), text) for name, text in arguments(Rates).items()),
    ),
    "serve": table(
        "What | Limit | Beyond it",
        [
            ("time for a request's head", f"{http.HEAD_SECONDS:g} s", "408"),
            ("size of the head", f"{http.HEAD_BYTES:,} bytes", "431"),
            ("length of the target", f"{http.HEADER_LINE:,} bytes", "414"),
            ("length of a header line", f"{http.HEADER_LINE:,} bytes", "431"),
            ("header lines", f"{http.HEADER_COUNT}", "431"),
            ("time for a TLS handshake, and for its end", f"{server.TLS_HANDSHAKE:g} s", "the connection is closed"),
            ("time for the whole shutdown", f"{server.FORCED_EXIT:g} s", "the process exits with 1"),
        ],
    ),
    "settings": settings(),
    "statuses": table(
        "Status | Code",
        (
            (status, ", ".join(f"`{code}`" for code, other in STATUSES.items() if other == status))
            for status in sorted(set(STATUSES.values()))
        ),
    ),
    "states": table(
        "State | Input | Next state",
        ((f"`{state.name}`", event.name.lower(), f"`{after.name}`") for (state, event), after in TRANSITIONS.items()),
    ),
    "tree": "```text\n" + (inspect.getdoc(hubbub.errors) or "").split("\n\n")[1].strip() + "\n```\n",
}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [textwrap.dedent(code) for _, name, code in BLOCK.findall(page.read_text("utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(page.read_text("utf-8")))
    return {word.strip().replace(" ", "-") for word in words}


def name_of(page: Path) -> str:
    """A page, in the name of a test."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_a_file_or_compiles(page: Path) -> None:
    for code in [*blocks(page, "python"), *blocks(page, "html")]:
        if snippet := SNIPPET.match(code.strip()):
            assert (ROOT / snippet[1]).is_file(), f"{snippet[1]} is not there"
        else:
            compile(code, page.name, "exec")
    for code in blocks(page, "json"):
        json.loads(code)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_what_the_code_says(page: Path) -> None:
    text = page.read_text("utf-8")
    made = MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]}\n{found[4]}", text)
    if os.environ.get("HUBBUB_WRITE_DOCS"):
        page.write_text(made, "utf-8")
    else:
        assert made == text, "run HUBBUB_WRITE_DOCS=1 pytest tests/test_docs.py"


def test_every_table_has_a_place() -> None:
    used = {name for page in PAGES for _, name, _, _ in MARKED.findall(page.read_text("utf-8"))}
    assert used == TABLES.keys()


def test_the_readme_shows_an_example_that_is_tested() -> None:
    _, _, shop = (ROOT / "examples" / "shop.py").read_text("utf-8").partition("\n\n")
    assert shop in blocks(ROOT / "README.md", "python")


def test_the_reference_has_every_public_name() -> None:
    reference = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    missing = [name for name in hubbub.__all__ if f"`{name}" not in reference]
    assert not missing


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hub", hubbub.Hub),
        ("hub", hubbub.Receipt),
        ("hub", Local),
        ("hub", Sync),
        ("connection", hubbub.Connection),
        ("connection", hubbub.Handshake),
    ],
)
def test_the_reference_has_every_member(name: str, kind: type) -> None:
    page = (DOCS / "reference" / f"{name}.md").read_text("utf-8")
    members = [name for name, _ in inspect.getmembers_static(kind, is_member) if not name.startswith("_")]
    missing = [name for name in members if not re.search(rf"`[^`]*\b{name}\b", page)]
    assert not missing


def is_member(value: object) -> bool:
    """Whether it is a method or a property."""
    return inspect.isfunction(value) or isinstance(value, (property, staticmethod, classmethod))


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (DOCS / "topics" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", page)
    assert named
    assert not [name for name in named if not any((ROOT / base / name).is_file() for base in ("src/hubbub", "."))]


def test_every_type_on_the_wire_page_has_a_vector() -> None:
    page = (DOCS / "protocol.md").read_text("utf-8")
    sends, pushes = page.split("## What a client may send")[1].split("## What a server may send by itself")
    vectors = "".join(path.read_text("utf-8") for path in VECTORS)
    for part in (sends, pushes.partition("## Errors")[0]):
        types = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        assert types
        assert not [name for name in types if f'"type": "{name}"' not in vectors]


def test_every_decision_is_listed() -> None:
    decisions = DOCS / "decisions"
    listed = LINK.findall((decisions / "index.md").read_text("utf-8"))
    assert sorted(listed) == sorted(page.name for page in decisions.glob("0*.md"))
