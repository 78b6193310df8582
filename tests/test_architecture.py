"""The shape of src/hubbub, read from its source: who may import whom, how big things get, what has a docstring."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeGuard

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 500, 60

# Each part, and what it may import beside itself. `hubbub` is the public face, `hubbub/__init__.py`.
BELOW = {
    "errors": "",
    "core": "errors",
    "contracts": "core errors",
    "config": "core.limits errors",
    "brokers": "contracts core errors",
    "stores": "contracts core errors stores.batch stores.dsn stores.migrations stores.windows",
    "outbox": "contracts core errors stores.dsn stores.migrations",
    "client": "core errors",
    "node": "config contracts core errors",
    "servers": "node contracts core errors",
    "hubbub": "node config contracts core errors",
    "channels": "node core errors",
    "limits": "core errors",
    "testing": "node contracts core errors",
    "cli": "hubbub client outbox servers node config contracts core errors",
    "__main__": "cli",
}
STRANGERS = {"brokers", "stores"}  # the modules and packages in these do not import each other
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "selectors", "socket", "ssl", "threading", "time"}
HOMES = {
    "asyncpg": "stores.postgres stores.dsn outbox.postgres",
    "bson": "stores.mongo.*",
    "cryptography": "node.tokens",
    "django": "servers.attach outbox.django",
    "httptools": "servers.http",
    "jwt": "node.keys node.tokens",
    "litestar": "servers.attach",
    "msgspec": "core.* node.* brokers.nats.* brokers.redis.* servers.api servers.api.*",
    "nats": "brokers.nats.*",
    "prompt_toolkit": "cli.prompt",
    "pydantic": "config",
    "pydantic_settings": "config",
    "pymongo": "stores.mongo stores.mongo.*",
    "redis": "brokers.redis.*",
    "rich": "cli.*",
    "sqlalchemy": "outbox.sqlalchemy",
    "starlette": "servers.asgi servers.attach",
    "typer": "cli cli.*",
    "uvicorn": "servers.uvicorn servers.http servers.server cli.application cli.serve",
    "uvloop": "cli.serve",
    "websockets": "cli.* client.* core.frames",
}
VAGUE = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed source file; `name` leaves out the leading `hubbub.`."""

    name: str
    source: str
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, source: str) -> Module:
        return cls(name, source, ast.parse(source))

    @classmethod
    def read(cls, path: Path) -> Module:
        parts = path.relative_to(SOURCE / "hubbub").with_suffix("").parts
        return cls.parse(".".join(part for part in parts if part != "__init__") or "hubbub", path.read_text("utf-8"))

    @property
    def part(self) -> str:
        return self.name.partition(".")[0]

    @property
    def public(self) -> set[str]:
        """The names in `__all__`."""
        lists = [node.value for node in self.tree.body if isinstance(node, ast.Assign) and _is_all(node.targets[0])]
        return set(ast.literal_eval(lists[0])) if lists else set()

    def imports(self) -> Iterator[tuple[int, str]]:
        """Each imported name with its line: `from a import b` gives `a.b`, wherever in the file it stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{package}.{alias.name}") for alias in node.names)


Function = ast.FunctionDef | ast.AsyncFunctionDef
Finding = tuple[int, str]


def imports_point_down(module: Module) -> Iterator[Finding]:
    """Imports go one way. Move the rule down, or have the upper part pass in what the lower one needs."""
    own = ".".join(module.name.split(".")[: 2 if module.part in STRANGERS else 1])
    allowed = {*BELOW.get(module.part, "").split(), own}
    for line, target in module.imports():
        if target.startswith("."):
            yield line, "a relative import; write it as `from hubbub...`"
        elif target.partition(".")[0] == "hubbub":
            path = target.removeprefix("hubbub.")
            inner = path if path.partition(".")[0] in BELOW else "hubbub"
            if not any(f"{inner}.".startswith(f"{name}.") for name in allowed):
                yield line, f"{module.name} imports {target}; {module.part} may import: {', '.join(sorted(allowed))}"


def parts_are_known(module: Module) -> Iterator[Finding]:
    """Every module belongs to a part of the design. Give the new part its line in BELOW, with a decision page."""
    if module.part not in BELOW:
        yield 1, f"{module.name} is in no known part"


def core_is_pure(module: Module) -> Iterator[Finding]:
    """core/ has no clock, sockets, tasks, randomness or log. Take the time, the id or the bytes as an argument."""
    for line, target in module.imports():
        if module.part == "core" and target.partition(".")[0] in IMPURE:
            yield line, f"{module.name} imports {target}"


def packages_stay_home(module: Module) -> Iterator[Finding]:
    """A third-party package is imported in few places. Use the file that has it, or add the new home to HOMES."""
    for line, target in module.imports():
        package = target.partition(".")[0]
        foreign = package not in {"", "hubbub", *sys.stdlib_module_names}
        if foreign and not any(fnmatch(module.name, home) for home in HOMES.get(package, "").split()):
            yield line, f"{module.name} imports {package}; its homes: {HOMES.get(package, 'none')}"


def modules_are_small(module: Module) -> Iterator[Finding]:
    """A module is at most 500 lines. Split it by noun or by kind of command, not in the middle."""
    lines = module.source.count("\n")
    if lines > MAX_MODULE_LINES:
        yield lines, f"{module.name} has {lines} lines"


def functions_are_small(module: Module) -> Iterator[Finding]:
    """A function is at most 60 lines without its docstring. Name its steps, and make them functions."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            lines = _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) else 0)
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines"


def public_names_are_documented(module: Module) -> Iterator[Finding]:
    """What is in __all__ has a docstring, and its public methods too. One sentence does."""
    if module.public and ast.get_docstring(module.tree) is None:
        yield 1, f"{module.name} has no docstring"
    for node in module.tree.body:
        if isinstance(node, Function | ast.ClassDef) and node.name in module.public:
            methods = filter(_is_public_method, node.body if isinstance(node, ast.ClassDef) else [])
            for item in (node, *methods):
                if ast.get_docstring(item) is None:
                    yield item.lineno, f"{node.name}: {item.name} has no docstring"


def every_module_says_what_is_public(module: Module) -> Iterator[Finding]:
    """Every module has __all__. List its public names under the imports, sorted."""
    says = any(isinstance(node, ast.Assign) and _is_all(node.targets[0]) for node in module.tree.body)
    if module.tree.body and module.part != "__main__" and not says:
        yield 1, f"{module.name} has no __all__"


def errors_are_named(module: Module) -> Iterator[Finding]:
    """No bare `except:`. Name what can happen, or `Exception` at the edge where user code is called."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "a bare except"


def names_say_something(module: Module) -> Iterator[Finding]:
    """A file is named after its one noun. Put a private helper under its only user."""
    if vague := VAGUE & set(module.name.split(".")):
        yield 1, f"{module.name}: `{vague.pop()}` says nothing"


def _is_all(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "__all__"


def _is_public_method(node: ast.stmt) -> TypeGuard[Function]:
    """Not an overload, nor the setter of a property: those have their docstring elsewhere."""
    if not isinstance(node, Function) or node.name.startswith("_"):
        return False
    marks = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return not marks & {"overload", "override", "setter"}


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


Rule = Callable[[Module], Iterator[Finding]]
RULES: list[Rule] = [
    imports_point_down,
    parts_are_known,
    core_is_pure,
    packages_stay_home,
    modules_are_small,
    functions_are_small,
    public_names_are_documented,
    every_module_says_what_is_public,
    errors_are_named,
    names_say_something,
]
MODULES = [Module.read(path) for path in sorted(SOURCE.rglob("*.py"))]
LONG = "    x = 1\n" * MAX_FUNCTION_LINES
PUBLIC = '"""Doc."""\n__all__ = ["f"]\n'

BROKEN = [
    (imports_point_down, "core.frames", "from hubbub.node.hub import Hub"),
    (imports_point_down, "core.frames", "def f():\n    import hubbub.node"),
    (imports_point_down, "core.frames", "from hubbub import Hub"),
    (imports_point_down, "core.frames", "from ..node import hub"),
    (imports_point_down, "node.hub", "from hubbub.servers.asgi import App"),
    (imports_point_down, "node.hub", "from hubbub.brokers import memory"),
    (imports_point_down, "brokers.nats", "from hubbub.brokers.memory import MemoryBroker"),
    (imports_point_down, "stores.sql", "from hubbub.node.hub import Hub"),
    (imports_point_down, "config", "from hubbub.core.frames import Parser"),
    (imports_point_down, "servers.asgi", "from hubbub.config import Settings"),
    (parts_are_known, "things.frames", ""),
    (core_is_pure, "core.frames", "from time import monotonic"),
    (core_is_pure, "core.frames", "import os.path"),
    (packages_stay_home, "core.frames", "import uvicorn"),
    (packages_stay_home, "cli.serve", "from unheard_of import thing"),
    (modules_are_small, "core.frames", "x = 1\n" * (MAX_MODULE_LINES + 1)),
    (functions_are_small, "core.frames", f"def f():\n{LONG}"),
    (functions_are_small, "core.frames", f"class C:\n  async def f():\n{LONG}"),
    (public_names_are_documented, "core.frames", '__all__ = ["X"]\nX = 1'),
    (public_names_are_documented, "core.frames", f"{PUBLIC}def f(): pass"),
    (public_names_are_documented, "core.frames", f'{PUBLIC}class f:\n    """Doc."""\n    async def g(): pass'),
    (every_module_says_what_is_public, "core.frames", "x = 1"),
    (errors_are_named, "core.frames", "try:\n    f()\nexcept:\n    pass"),
    (names_say_something, "core.utils", ""),
]
SOUND = [
    (imports_point_down, "servers.uvicorn", "from hubbub.servers.asgi import App"),
    (imports_point_down, "node.hub", "from hubbub.config import load\nfrom hubbub.core import frames"),
    (imports_point_down, "config", "from hubbub.core.limits import Limits\nfrom hubbub.errors import ConfigError"),
    (imports_point_down, "cli.serve", "from hubbub import __version__"),
    (imports_point_down, "node.hub", 'import importlib\nimportlib.import_module("hubbub.servers.asgi")'),
    (core_is_pure, "node.hub", "import asyncio"),
    (packages_stay_home, "cli.serve", "import uvicorn.config"),
    (modules_are_small, "core.frames", "x = 1\n" * MAX_MODULE_LINES),
    (functions_are_small, "core.frames", f'def f():\n    """Doc.\n\n    More.\n    """\n{LONG[:-10]}'),
    (public_names_are_documented, "core.frames", f'{PUBLIC}class f:\n    """Doc."""\n    def _g(): pass'),
    (every_module_says_what_is_public, "core", ""),
    (every_module_says_what_is_public, "__main__", "x = 1"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Rule) -> None:
    findings = [f"  {module.name}:{line} {text}" for module in MODULES for line, text in rule(module)]
    assert not findings, "\n".join(dict.fromkeys([rule.__doc__ or "", *findings]))


@pytest.mark.parametrize(("rule", "name", "source"), BROKEN)
def test_a_break_is_found(rule: Rule, name: str, source: str) -> None:
    assert list(rule(Module.parse(name, source)))


@pytest.mark.parametrize(("rule", "name", "source"), SOUND)
def test_what_is_allowed_is_not_found(rule: Rule, name: str, source: str) -> None:
    assert not list(rule(Module.parse(name, source)))


def test_every_rule_is_shown_to_find_something() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)
