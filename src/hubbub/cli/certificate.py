"""The certificate and key of `hubbub serve`, tried before anything listens: what is wrong with them is one line."""

from __future__ import annotations

import ssl
from pathlib import Path

from hubbub.errors import ConfigError

__all__ = ["check_certificate"]

NO_KEY = {None, "PEM_LIB"}
ANOTHER_KEY = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Load both as the server will; a certificate's file may hold its key too.

    Raises:
        ConfigError: they cannot be used.
    """
    if certfile is None:
        if keyfile is not None:
            raise ConfigError("--ssl-keyfile is of no use alone: give its certificate with --ssl-certfile.")
        return
    _check_readable("--ssl-certfile", certfile)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certfile)
    except ssl.SSLError:
        raise ConfigError(f"--ssl-certfile {certfile} holds no certificate: give one in PEM.") from None
    if keyfile is not None:
        _check_readable("--ssl-keyfile", keyfile)
    _load(certfile, keyfile)


def _check_readable(option: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be read: {error.strerror or error}.") from None


def _load(certfile: Path, keyfile: Path | None) -> None:
    place = f"--ssl-keyfile {keyfile}" if keyfile is not None else f"--ssl-certfile {certfile}"

    def password() -> str:
        # OpenSSL would ask at the terminal, and a service has none.
        raise ConfigError(f"{place} holds an encrypted key: decrypt it with `openssl pkey -in KEY -out PLAIN`.")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as error:
        if error.reason in ANOTHER_KEY:
            raise ConfigError(f"{place} is not the key of the certificate in {certfile}.") from None
        if error.reason in NO_KEY:
            way = "give one in PEM" if keyfile is not None else "give it with --ssl-keyfile"
            raise ConfigError(f"{place} holds no private key: {way}.") from None
        raise ConfigError(f"--ssl-certfile {certfile} cannot be used: {error.reason or error}.") from None
