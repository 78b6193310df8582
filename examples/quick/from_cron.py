"""A script that cron runs: it publishes through the broker, waits until that is done, and ends."""

from examples.quick.anywhere import hub
from hubbub import Publisher

if __name__ == "__main__":
    with Publisher(hub) as publisher:
        receipt = publisher.publish("reports", "ready", {"month": "2026-10"}, key="2026-10")
        publisher.notify("ann", "Reports", "October is ready.", durable=True)
        print("published at", receipt.offset)
