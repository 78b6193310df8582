"""Is installed what the server and the URLs need, in a version that this one works with?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.config import BROKERS, STORES

__all__ = ["check_packages", "fits"]

CHECK = "packages"
NEEDS = {"postgres": "asyncpg", "mongo": "pymongo", "nats": "nats-py", "redis": "redis"}
"""The package behind an extra's module."""
MODULES = {"nats-py": "nats"}
SERVER = ("uvicorn", "httptools", "uvloop")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<range>[<>=!~0-9.,]*)")
BOUND = re.compile(r"(?P<sign>>=|<=|==|!=|<|>)(?P<version>[0-9.]+)")
SIGNS = {
    ">=": lambda found, bound: found >= bound,
    "<": lambda found, bound: found < bound,
    "!=": lambda found, bound: found != bound,
}


def check_packages(deployment: Deployment) -> Iterator[Finding]:
    """Look for the server's packages, and for those of the databases and the broker that the settings name."""
    settings = deployment.settings
    urls = {"HUBBUB_BROKER_URL": (settings.hubbub_broker_url, BROKERS)}
    urls |= {"the inbox": (settings.inbox_url, STORES), "the archive": (settings.archive_url, STORES)}
    needed = dict.fromkeys(SERVER, ("hubbub serve", "server"))
    for name, (url, homes) in urls.items():
        extra = homes[url.partition("://")[0]].partition(":")[0].rpartition(".")[2]
        if extra in NEEDS:
            needed[NEEDS[extra]] = (name, extra)
    findings = [
        finding for package, (user, extra) in needed.items() if (finding := _look(package, user, extra)) is not None
    ]
    yield from findings or [Finding(Level.OK, CHECK, f"installed: {', '.join(needed)}")]


def _look(package: str, user: str, extra: str) -> Finding | None:
    mend = f'pip install "hubbub[{extra}]"'
    try:
        missing = find_spec(MODULES.get(package, package)) is None
    except ValueError:
        missing = True
    if missing:
        if package == "uvloop":
            if sys.platform == "win32":
                return None
            return Finding(Level.WARNING, CHECK, "uvloop is not installed: everything works, but slower", mend)
        return Finding(Level.ERROR, CHECK, f"{package} is not installed, and {user} needs it", mend)
    try:
        found, wanted = version(package), _wanted(package)
    except PackageNotFoundError:
        return None  # it can be imported, and does not say which it is
    if fits(found, wanted):
        return None
    return Finding(Level.ERROR, CHECK, f"{package} {found} is installed, and Hubbub is made for {wanted}", mend)


def fits(found: str, wanted: str) -> bool:
    """Whether a version is in a range like `>=0.35,<0.55`."""
    return all(
        SIGNS[bound["sign"]](_numbers(found), _numbers(bound["version"]))
        for bound in BOUND.finditer(wanted)
        if bound["sign"] in SIGNS
    )


def _wanted(package: str) -> str:
    """The range that Hubbub's own metadata has for a package."""
    for line in requires("hubbub") or []:
        requirement = REQUIREMENT.match(line.replace(" ", ""))
        if requirement is not None and requirement["name"].lower() == package:
            return requirement["range"]
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    """A version's numbers, without what is behind them."""
    found = re.match(r"[0-9.]*[0-9]", text)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()  # 1.0 is 1
    return tuple(numbers)
