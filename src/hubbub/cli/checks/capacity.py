"""Is there room for the connections, and do they stay open?"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hubbub.cli.checks.finding import Deployment, Finding, Level

__all__ = ["check_descriptors", "check_heartbeat"]

SPARE = 100  # descriptors for databases, files and HTTP
PROXIES = {
    "HAProxy as its manual has it": 50,
    "Heroku": 55,
    "nginx": 60,
    "AWS's load balancer (ALB)": 60,
    "Cloudflare": 100,
    "Azure's load balancer": 240,
    "AWS's load balancer (NLB)": 350,
}
"""Seconds of silence after which they cut a connection, where nobody changed it, the shortest first."""
LIFETIME = "Google Cloud's 30 s are for a connection's whole life: raise them there"


def check_descriptors(deployment: Deployment) -> Iterator[Finding]:
    """Compare the limit on open files with that on connections."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = sum(hub.node.limits.connections for hub in deployment.hubs)
    needed = connections + SPARE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield Finding(Level.OK, "files", f"{connections:,} connections may come, and files enough may be open")
        return
    what = f"{soft:,} files may be open and {connections:,} connections may come: beyond that they hang"
    raised = hard == resource.RLIM_INFINITY or hard >= needed
    mend = f"ulimit -n {needed}" if raised else f"LimitNOFILE={needed}"
    yield Finding(Level.WARNING, "files", what, f"{mend}, or Limits(connections={max(soft - SPARE, 1)})")


def check_heartbeat(deployment: Deployment) -> Iterator[Finding]:
    """Compare the time to a ping with the silence that proxies allow."""
    for hub in deployment.hubs:
        ping = hub.node.timeouts.ping
        cutters = [f"{name} ({seconds} s)" for name, seconds in PROXIES.items() if ping >= seconds]
        if cutters:
            what = f"{hub.path}: a ping after {ping:g} s comes too late for {', '.join(cutters)}: idle clients are cut"
            yield Finding(Level.WARNING, "heartbeat", what, "WS_HEARTBEAT_INTERVAL=30000")
        else:
            what = f"{hub.path}: a ping after {ping:g} s is in time for proxies ({min(PROXIES.values())} s and more)"
            yield Finding(Level.OK, "heartbeat", f"{what}; {LIFETIME}")
