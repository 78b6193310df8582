"""Ask for advisories on every locked package: a known vulnerability fails; no answer is a warning, and passes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PIP_AUDIT = Path(sys.executable).with_name("pip-audit")
LOCKS = sorted(Path("requirements").glob("*.txt"))
NO_ANSWER = "ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError", "ServiceError"
"""What the last line of `pip-audit` names where the service is out of reach; anything else is a fault of ours."""


def main() -> int:
    """Audit each lock; the exit is 1 for a finding and for a lock that cannot be read."""
    return max(map(_audit, LOCKS))


def _audit(lock: Path) -> int:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        command = [str(PIP_AUDIT), "--requirement", str(lock), "--require-hashes", "--disable-pip", "--timeout", "10"]
        options = ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        end = subprocess.run([*command, *options], stderr=subprocess.PIPE, text=True)
        if report.exists():
            return _judge(lock, json.loads(report.read_text("utf-8"))["dependencies"])
    return _explain(lock, end.stderr)


def _explain(lock: Path, errors: str) -> int:
    """Say why there is no report: that may be the network, and then it is no fault of the lock."""
    reason = (errors.strip().splitlines() or ["no report"])[-1]
    if any(name in reason for name in NO_ANSWER):
        _warn(f"{lock} was NOT audited, the service of advisories is out of reach: {reason[:200]}")
        return 0
    print(f"error: {lock} cannot be audited: {reason}")
    return 1


def _judge(lock: Path, dependencies: list[dict[str, object]]) -> int:
    """Say what was found, and what the service knew nothing of: that is no word for it."""
    known = [each for each in dependencies if "vulns" in each]
    found = [each for each in known if each["vulns"]]
    for each in found:
        ids = ", ".join(str(vulnerability["id"]) for vulnerability in each["vulns"])  # type: ignore[attr-defined]
        print(f"error: {lock}: {each['name']} {each['version']} has {ids}: raise it, then scripts/lock")
    if missing := len(dependencies) - len(known):
        _warn(f"{lock}: {missing} of {len(dependencies)} packages were NOT audited, the service did not know them")
    print(f"{lock}: {len(known)} packages audited, {len(found)} with a known vulnerability")
    return bool(found)


def _warn(text: str) -> None:
    print(f"warning: {text}")


if __name__ == "__main__":
    sys.exit(main())
