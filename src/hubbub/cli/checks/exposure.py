"""Who can reach it, from where, and who reads along?"""

from __future__ import annotations

from collections.abc import Iterator

from hubbub.cli.certificate import check_certificate
from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.cli.exposure import check_lists
from hubbub.errors import ConfigError

__all__ = ["check_certificates", "check_encryption", "check_environment", "check_origins", "check_settings"]

ORIGINS = "HUBBUB_ORIGINS=https://example.com"


def check_settings(deployment: Deployment) -> Iterator[Finding]:
    """Read the lists of origins and proxies."""
    try:
        check_lists(deployment.settings)
    except ConfigError as error:
        yield Finding(Level.ERROR, "settings", str(error))


def check_certificates(deployment: Deployment) -> Iterator[Finding]:
    """Load the certificate and its key."""
    try:
        check_certificate(deployment.certfile, deployment.keyfile)
    except ConfigError as error:
        yield Finding(Level.ERROR, "certificate", str(error))


def check_environment(deployment: Deployment) -> Iterator[Finding]:
    """Ask whether what others can reach still believes it is being developed."""
    env = deployment.settings.deploy_env
    if deployment.public and env == "development":
        why = "secrets are made by themselves, and less is refused"
        yield Finding(
            Level.WARNING, "environment", f"development, on {deployment.host}: {why}", "DEPLOY_ENV=production"
        )
    else:
        yield Finding(Level.OK, "environment", env)


def check_origins(deployment: Deployment) -> Iterator[Finding]:
    """Ask whose pages may connect."""
    production = deployment.production
    for hub in deployment.hubs:
        origins = hub.node.entrance.origins
        if origins.any:
            level = Level.ERROR if production else Level.WARNING
            why = "every page on the web may connect in its visitor's name"
            yield Finding(level, "origins", f"{hub.path}: `*`: {why}", ORIGINS)
        elif not origins.given and (production or deployment.public):
            level = Level.ERROR if production else Level.WARNING
            why = "`hubbub serve` does not start in production" if production else "every browser is refused"
            yield Finding(level, "origins", f"{hub.path}: no list, so {why}", ORIGINS)
        elif not origins.given:
            yield Finding(Level.OK, "origins", f"{hub.path}: only pages of this very host and port")
        else:
            yield Finding(Level.OK, "origins", f"{hub.path}: {', '.join(sorted(map(str, origins.allowed))) or 'none'}")


def check_encryption(deployment: Deployment) -> Iterator[Finding]:
    """Ask where TLS ends, and whether clients' addresses are known."""
    proxies = deployment.settings.trusted_proxies
    if deployment.certfile is not None:
        yield Finding(Level.OK, "encryption", "TLS, by a certificate of its own")
    elif proxies:
        yield Finding(Level.OK, "encryption", f"left to the proxies at {', '.join(proxies)}")
    elif deployment.public:
        level = Level.ERROR if deployment.production else Level.WARNING
        what = f"no TLS on {deployment.host}, and no proxy is known: tokens and messages can be read on the way"
        yield Finding(
            level,
            "encryption",
            what,
            "--ssl-certfile cert.pem --ssl-keyfile key.pem, or HUBBUB_TRUSTED_PROXIES=10.0.0.5",
        )
    elif deployment.production:
        what = "on loopback in production without a trusted proxy: all clients have the proxy's address and its limits"
        yield Finding(Level.WARNING, "encryption", what, "HUBBUB_TRUSTED_PROXIES=127.0.0.1")
    else:
        yield Finding(Level.OK, "encryption", "none, on loopback")
