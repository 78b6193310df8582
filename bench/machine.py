"""Where and with what a run was made: never a path or a name of the machine."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path

from bench.measure import ROOT
from bench.peers import NODE_PACKAGES

__all__ = ["commit", "describe"]

PACKAGES = ("msgspec", "uvloop", "uvicorn", "httptools", "fastapi", "starlette", "websockets", "socketify")


def commit() -> str:
    """The commit that is measured, with a + when files differ from it."""
    head = _output("git", "rev-parse", "--short=10", "HEAD")
    if head is None:
        return "uncommitted"
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return f"{head}+" if changed else head


def describe() -> dict[str, str]:
    """Day, commit, machine and versions, each with its name."""
    kernel = re.match(r"[\d.]+", platform.release())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": f"{cpu_count()} x {_cpu_model()}",
        "kernel": f"{platform.system()} {kernel.group() if kernel else ''}".strip(),
        "python": platform.python_version(),
        "gcc": _output("gcc", "-dumpfullversion") or "none",
        "node": (_output("node", "--version") or "none").removeprefix("v"),
        "ws": _ws_version(),
    } | {package: _package_version(package) for package in PACKAGES}


def _cpu_model() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _ws_version() -> str:
    manifest = NODE_PACKAGES / "node_modules" / "ws" / "package.json"
    return str(json.loads(manifest.read_text())["version"]) if manifest.is_file() else "none"


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
