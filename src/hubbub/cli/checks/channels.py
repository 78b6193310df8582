"""May clients do more on channels than somebody meant?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.core.namespaces import ANY, Namespace

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["check_channels", "check_sign_in"]


def check_channels(deployment: Deployment) -> Iterator[Finding]:
    """Look for kinds of channels that no rule guards."""
    for hub in deployment.hubs:
        subscriptions = hub.node.subscriptions
        free = [
            each for each in subscriptions.namespaces if not each.personal and not subscriptions.rules.guards(each.name)
        ]
        findings = [_open(hub, namespace) for namespace in free]
        yield from findings or [Finding(Level.OK, "channels", f"{hub.path}: every kind has a rule, or there are none")]


def _open(hub: Hub, namespace: Namespace) -> Finding:
    name = namespace.name
    who = "every signed-in user" if hub.node.gate.required else "every client, signed in or not,"
    rule = f'@hub.channel("{name}:{{id}}")'
    if namespace.publish == "server":
        return Finding(Level.INFO, "channels", f"{hub.path}: {who} may subscribe to {name}: there is no rule", rule)
    if name == ANY:
        what = f"{hub.path}: `*` and no rule: {who} may make up channels, listen and publish there"
        return Finding(Level.WARNING, "channels", what, 'name your namespaces, or hub.namespace("*", publish="server")')
    if namespace.publish == "anyone":
        what = f'{hub.path}: publish="anyone" and no rule: {who} may publish on {name}, unseen by its members'
        return Finding(Level.WARNING, "channels", what, rule)
    return Finding(
        Level.INFO, "channels", f"{hub.path}: {who} may subscribe and publish on {name}: there is no rule", rule
    )


def check_sign_in(deployment: Deployment) -> Iterator[Finding]:
    """Say where strangers may stay though channels are users' own."""
    for hub in deployment.hubs:
        personal = [each.name for each in hub.node.subscriptions.namespaces.personal()]
        if personal and not hub.node.gate.required:
            what = f"{hub.path}: {', '.join(personal)} is for users, and strangers may connect all the same"
            yield Finding(Level.INFO, "sign-in", what, "Hub(require_auth=True)")
