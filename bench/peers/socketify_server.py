"""socketify: uWebSockets under Python, publishing by its own topics."""

from __future__ import annotations

import gc
import json
import sys
from itertools import count
from typing import Any

from socketify import App, CompressOptions, OpCode

from bench.wire import FIRST_N, WELCOME, now, ticks

__all__ = ["main"]

TOPIC = "news"
numbers = count(FIRST_N)


def main(port: int) -> None:
    """Serve on `port` until killed."""
    app = App()

    def opened(ws: Any) -> None:
        ws.send(WELCOME, OpCode.TEXT)

    def received(ws: Any, text: str, opcode: OpCode) -> None:
        match json.loads(text):
            case {"type": "echo", "payload": payload}:
                ws.send(json.dumps({"type": "echo_response", "payload": payload, "timestamp": now()}), OpCode.TEXT)
            case {"type": "subscribe", "payload": payload}:
                ws.subscribe(TOPIC)
                ws.send(json.dumps({"type": "subscribed", "payload": payload}), OpCode.TEXT)
            case {"type": "burst", "payload": payload}:
                for message in ticks(payload["count"], numbers):
                    app.publish(TOPIC, message, OpCode.TEXT)
            case {"type": "collect"}:
                gc.collect()

    app.ws("/ws", {"compression": CompressOptions.DISABLED, "open": opened, "message": received})
    app.listen({"port": port, "host": "127.0.0.1"})
    app.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
