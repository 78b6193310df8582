"""What `hubbub doctor` looks at: each check yields findings and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

from hubbub.cli.checks.capacity import check_descriptors, check_heartbeat
from hubbub.cli.checks.channels import check_channels, check_sign_in
from hubbub.cli.checks.databases import check_databases, check_directories
from hubbub.cli.checks.exposure import (
    check_certificates,
    check_encryption,
    check_environment,
    check_origins,
    check_settings,
)
from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.cli.checks.keys import check_api_key, check_secret
from hubbub.cli.checks.nodes import check_broker, check_workers
from hubbub.cli.checks.outbox import check_outbox
from hubbub.cli.checks.packages import check_packages

__all__ = ["Deployment", "Finding", "Level", "examine", "examine_surroundings"]

SURROUNDINGS: list[Callable[[Deployment], Iterator[Finding]]] = [
    check_packages,
    check_settings,
    check_certificates,
    check_api_key,
]
"""What can be looked at without the app, and where an error keeps it from being imported."""
CHECKS: list[Callable[[Deployment], Iterator[Finding]]] = [
    check_environment,
    check_secret,
    check_origins,
    check_encryption,
    check_workers,
    check_descriptors,
    check_heartbeat,
    check_channels,
    check_sign_in,
    check_directories,
]
SLOW: list[Callable[[Deployment], AsyncIterator[Finding]]] = [check_databases, check_outbox, check_broker]
"""What asks others."""


def examine_surroundings(deployment: Deployment) -> list[Finding]:
    """Look at all but the app."""
    return [finding for check in SURROUNDINGS for finding in check(deployment)]


async def examine(deployment: Deployment) -> list[Finding]:
    """Look at the app's hubs, and at what they need."""
    findings = [finding for check in CHECKS for finding in check(deployment)]
    for ask in SLOW:
        findings += [finding async for finding in ask(deployment)]
    return findings
