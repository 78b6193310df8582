"""What is wrong with a certificate or its key is one line, and nothing is asked at the terminal."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from hubbub.cli import app as command
from hubbub.cli.certificate import check_certificate
from hubbub.errors import ConfigError
from tests.servers.places import certificate
from tests.serving import process

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with files, good and bad."""

    def save(name: str, key: PrivateKeyTypes, protection: serialization.KeySerializationEncryption = PLAIN) -> None:
        (tmp_path / name).write_bytes(key.private_bytes(PEM, PKCS8, protection))

    cert, key = (Path(file).read_bytes() for file in certificate().values())
    own = serialization.load_pem_private_key(key, None)
    save("other.pem", ec.generate_private_key(ec.SECP256R1()))
    save("rsa.pem", rsa.generate_private_key(65537, 2048))
    save("secret.pem", own, serialization.BestAvailableEncryption(b"open sesame"))
    files = {"cert": cert, "key": key, "both": cert + key, "empty": b"", "words": b"no key\n", "half": cert[:90]}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("cert", "key"),
    [(None, None), ("cert.pem", "key.pem"), ("both.pem", None), ("both.pem", "both.pem")],
    ids=["no TLS", "a pair", "both in one file", "the file twice"],
)
@pytest.mark.usefixtures("here")
def test_what_is_right(cert: str | None, key: str | None) -> None:
    check_certificate(cert and Path(cert), key and Path(key))  # type: ignore[arg-type]  # neither is empty


WRONG = {
    "a key alone": (None, "key.pem", "--ssl-keyfile is of no use alone: give its certificate with --ssl-certfile."),
    "a certificate alone": (
        "cert.pem",
        None,
        "--ssl-certfile cert.pem holds no private key: give it with --ssl-keyfile.",
    ),
    "no certificate": ("none.pem", "key.pem", "--ssl-certfile none.pem cannot be read: No such file or directory."),
    "no key": ("cert.pem", "none.pem", "--ssl-keyfile none.pem cannot be read: No such file or directory."),
    "a directory": (".", "key.pem", "--ssl-certfile . cannot be read: Is a directory."),
    "an empty certificate": ("empty.pem", "key.pem", "--ssl-certfile empty.pem holds no certificate: give one in PEM."),
    "half a certificate": ("half.pem", "key.pem", "--ssl-certfile half.pem holds no certificate: give one in PEM."),
    "the two exchanged": ("key.pem", "cert.pem", "--ssl-certfile key.pem holds no certificate: give one in PEM."),
    "the certificate twice": ("cert.pem", "cert.pem", "--ssl-keyfile cert.pem holds no private key: give one in PEM."),
    "words": ("cert.pem", "words.pem", "--ssl-keyfile words.pem holds no private key: give one in PEM."),
    "another key": ("cert.pem", "other.pem", "--ssl-keyfile other.pem is not the key of the certificate in cert.pem."),
    "another kind of key": (
        "cert.pem",
        "rsa.pem",
        "--ssl-keyfile rsa.pem is not the key of the certificate in cert.pem.",
    ),
    "an encrypted key": (
        "cert.pem",
        "secret.pem",
        "--ssl-keyfile secret.pem holds an encrypted key: decrypt it with `openssl pkey -in KEY -out PLAIN`.",
    ),
}


@pytest.mark.parametrize(("cert", "key", "said"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.usefixtures("here")
def test_what_is_wrong_is_one_line(cert: str | None, key: str | None, said: str) -> None:
    given = {"--ssl-certfile": cert, "--ssl-keyfile": key}
    options = [part for option, file in given.items() if file for part in (option, file)]
    result = CliRunner().invoke(command(), ["serve", "main:app", "--port", "0", *options])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"hubbub: {said}\n")


def test_a_certificate_that_openssl_refuses_is_named(here: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now)
    weak = builder.sign(key, hashes.SHA256()).public_bytes(PEM)
    (here / "weak.pem").write_bytes(weak + key.private_bytes(PEM, PKCS8, PLAIN))
    with pytest.raises(ConfigError, match=r"^--ssl-certfile weak.pem cannot be used: EE_KEY_TOO_SMALL\.$"):
        check_certificate(Path("weak.pem"), None)


async def test_nothing_is_asked(here: Path) -> None:
    """An encrypted key makes OpenSSL ask for its password, wherever it finds a terminal."""
    arguments = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "secret.pem")
    async with process("-m", "hubbub.cli", "serve", "main:app", *arguments, cwd=here) as running:
        assert await running.end() == 1
    assert (running.out, running.err.count("\n")) == ("", 1)
