"""Serve the chat with PostgreSQL for users and inbox and MongoDB for the archive, both started for it.

`make demo-multidb` runs this. The databases run beside the server, stop when it is gone, and take their data along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from services.mongo import Mongo
from services.postgres import Postgres

__all__ = ["keep", "serve"]

APP = "examples.chat.app:app"


def serve() -> None:
    """Start the databases and become the server; arguments go to `hubbub serve`."""
    print("==> Starting PostgreSQL and a MongoDB wire server", flush=True)
    # In a session of their own, so that Ctrl+C stops the server first, while it can still write.
    command = [sys.executable, "-m", "examples.chat.multidb", "--keep"]
    databases = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert databases.stdin is not None
    assert databases.stdout is not None
    if not (urls := databases.stdout.readline()):
        sys.exit("The databases did not start; the lines above say why.")
    os.set_inheritable(databases.stdin.fileno(), True)  # open for as long as the server lives
    os.environ.update(json.loads(urls))
    os.execv(sys.executable, [sys.executable, "-m", "hubbub.cli", "serve", APP, *sys.argv[1:]])


def keep() -> None:
    """Run the databases until standard input ends."""
    with Postgres(fsync=True) as postgres, Mongo() as mongo:
        urls = {"POSTGRES_DATABASE_URL": postgres.url("chat"), "MONGO_DB_URI": mongo.url("chat")}
        print(json.dumps(urls), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    keep() if "--keep" in sys.argv else serve()
