"""Look for secrets in the tracked files: one that `.secrets.baseline` does not know fails; `--accept` adds it there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings

BASELINE = Path(".secrets.baseline")
LEFT_OUT = ("requirements/", "bench/results/", "tests/peers/package-lock.json", "tests/fuzz/corpus/", str(BASELINE))
"""Hashes of packages, measurements, and noise."""


def main() -> int:
    """Compare what is found with what is known."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], text=True)
    files = [name for name in listed.split("\0") if name and not name.startswith(LEFT_OUT) and Path(name).is_file()]
    found = SecretsCollection()
    with default_settings() as settings:
        # Nothing that looks like a secret is sent anywhere to see whether it is one.
        settings.disable_filters("detect_secrets.filters.common.is_ignored_due_to_verification_policies")
        found.scan_files(*files)
    if sys.argv[1:] == ["--accept"]:
        hashes = {name: sorted(secret.secret_hash for secret in found[name]) for name in sorted(found.files)}
        BASELINE.write_text(json.dumps(hashes, indent=1) + "\n", "utf-8")
        print(f"{BASELINE}: {len(list(found))} that are no secrets: read the difference before you commit it")
        return 0
    known = json.loads(BASELINE.read_text("utf-8"))
    new = [secret for name, secret in found if secret.secret_hash not in known.get(name, ())]
    for secret in sorted(new, key=lambda secret: (secret.filename, secret.line_number)):
        print(f"{secret.filename}:{secret.line_number}: looks like a secret ({secret.type})")
    if new:
        print("error: take it out and renew it; if it is a dummy, `.venv/bin/python scripts/find_secrets.py --accept`")
    else:
        print(f"No secrets in {len(files)} files")
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
