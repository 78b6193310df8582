"""Settings from the environment and a `.env` file, and the parts that are found by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from hubbub.errors import ConfigError

__all__ = ["ATTACH", "BROKERS", "DOOR", "OUTBOX", "STORES", "Auth", "Settings", "load_settings"]

DOOR = "hubbub.servers.asgi:Door"
ATTACH = "hubbub.servers.attach:attach"
OUTBOX = "hubbub.outbox.tables:find_table"
BROKERS = {
    "memory": "hubbub.brokers.memory:MemoryBroker",
    "nats": "hubbub.brokers.nats:NatsBroker",
    "tls": "hubbub.brokers.nats:NatsBroker",
    "redis": "hubbub.brokers.redis:RedisBroker",
    "rediss": "hubbub.brokers.redis:RedisBroker",
    "valkey": "hubbub.brokers.redis:RedisBroker",
    "redis+sentinel": "hubbub.brokers.redis:RedisBroker",
    "redis+cluster": "hubbub.brokers.redis:RedisBroker",
}
"""The class that moves publications between nodes, by the scheme of its URL."""
STORES = {
    "sqlite": "hubbub.stores.sqlite:SqliteStore",
    "postgres": "hubbub.stores.postgres:PostgresStore",
    "postgresql": "hubbub.stores.postgres:PostgresStore",
    "mongodb": "hubbub.stores.mongo:MongoStore",
    "mongodb+srv": "hubbub.stores.mongo:MongoStore",
}
"""The class that keeps data behind a URL, by the URL's scheme; it is made with the URL alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """How a client proves who it is. Tokens are JSON Web Tokens (RFC 7519) with `sub` and `exp`.

    Args:
        secret: signs and checks HS256, HS384 and HS512 tokens, and tickets; 32 bytes or more; `HUBBUB_SECRET` or none.
        public_key: checks RS256, ES256 or EdDSA tokens of an issuer with one key, in PEM.
        jwks_url: where an issuer publishes its keys (RFC 7517).
        algorithms: those that are accepted, and no others.
        issuer: what `iss` must be.
        audience: what `aud` must be or contain; without one, tokens that name an audience are refused.
        leeway: seconds by which clocks may differ.
        cookie: the cookie that may carry a token.
        query: accept `?token=` in the URL. URLs end up in the logs of proxies: use tickets where you can.
    """

    secret: str | None = field(default=None, repr=False)
    public_key: str | None = None
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("HS256",)
    issuer: str | None = None
    audience: str | None = None
    leeway: float = 5.0
    cookie: str = "hubbub_token"
    query: bool = False


POSTGRES = "a URL like postgresql://user:password@host/database"
MONGO = "a URL like mongodb://user:password@host/database"
DATABASES = (
    f"a URL like sqlite:///file.db, or {POSTGRES.removeprefix('a URL like ')}, or {MONGO.removeprefix('a URL like ')}"
)
SECRET = {
    "hubbub_api_key",
    "hubbub_secret",
    "hubbub_broker_url",
    "hubbub_inbox_url",
    "hubbub_archive_url",
    "hubbub_outbox_url",
    "postgres_database_url",
    "mongo_db_uri",
}
BROKER = rf"^({'|'.join(map(re.escape, BROKERS))})://"
BROKER_URLS = "a URL like nats://host:4222, redis://host:6379, or memory:// for one process"
DATABASE = rf"^({'|'.join(map(re.escape, STORES))})://"


class Settings(BaseSettings):
    """What the environment says; times in milliseconds, as in the original. An empty variable counts as none.

    Args:
        ws_path: where the WebSocket is, `WS_PATH`.
        ws_heartbeat_interval: silence before a ping, `WS_HEARTBEAT_INTERVAL`, milliseconds.
        ws_shutdown_timeout: goodbye to cut at shutdown, `WS_SHUTDOWN_TIMEOUT`, milliseconds.
        port: where `hubbub serve` listens, `PORT`.
        deploy_env: `development`, `test`, `staging` or `production`, `DEPLOY_ENV`.
        hubbub_secret: signs tokens and tickets, `HUBBUB_SECRET`.
        hubbub_data_dir: where SQLite files are kept, and a secret made for development, `HUBBUB_DATA_DIR`.
        hubbub_inbox_url: the database of inboxes and revocations, `HUBBUB_INBOX_URL`.
        hubbub_archive_url: the database of the archive, `HUBBUB_ARCHIVE_URL`.
        hubbub_outbox_url: the database of your app that has an outbox to relay, `HUBBUB_OUTBOX_URL`.
        hubbub_broker_url: what is between several nodes, `HUBBUB_BROKER_URL`; `memory://` is one node alone.
        hubbub_api_key: turns the HTTP API on, for who has it, `HUBBUB_API_KEY`.
        hubbub_origins: whose pages may connect, `HUBBUB_ORIGINS`.
        hubbub_trusted_proxies: who may say for whom it speaks, `HUBBUB_TRUSTED_PROXIES`.
        postgres_database_url: the same for both as the original has it, where those are not set: first choice for the
            inbox, `POSTGRES_DATABASE_URL`.
        mongo_db_uri: first choice for the archive, `MONGO_DB_URI`.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    ws_path: str = Field(
        default="/ws",
        pattern=r"^/[^?#\s]*$",
        description="a path that starts with `/`, without `?`, `#` and spaces",
    )
    ws_heartbeat_interval: int = Field(
        default=30_000, ge=100, le=3_600_000, description="milliseconds, from 100 to 3600000"
    )
    ws_shutdown_timeout: int = Field(default=10_000, ge=0, le=600_000, description="milliseconds, from 0 to 600000")
    port: int = Field(default=5000, ge=0, le=65535, description="a number from 0 to 65535")
    deploy_env: Literal["development", "test", "staging", "production"] = Field(
        default="development", description="`development`, `test`, `staging` or `production`"
    )
    hubbub_secret: SecretStr | None = Field(default=None, min_length=32, description="32 characters or more")
    hubbub_data_dir: Path = Field(default=Path(".hubbub"), description="a directory")
    hubbub_inbox_url: str | None = Field(default=None, pattern=DATABASE, description=DATABASES)
    hubbub_archive_url: str | None = Field(default=None, pattern=DATABASE, description=DATABASES)
    hubbub_outbox_url: str | None = Field(
        default=None,
        pattern=r"^(sqlite|postgres(ql)?)://",
        description=f"a URL like sqlite:///file.db, or {POSTGRES.removeprefix('a URL like ')}",
    )
    hubbub_broker_url: str = Field(default="memory://", pattern=BROKER, description=BROKER_URLS)
    hubbub_api_key: SecretStr | None = Field(default=None, min_length=32, description="32 characters or more")
    hubbub_origins: str | None = Field(
        default=None, description="origins like `https://example.com`, with commas between, or `*`"
    )
    hubbub_trusted_proxies: str | None = Field(
        default=None, description="addresses, networks and `unix`, with commas between"
    )
    postgres_database_url: str | None = Field(default=None, pattern=r"^postgres(ql)?://", description=POSTGRES)
    mongo_db_uri: str | None = Field(default=None, pattern=r"^mongodb(\+srv)?://", description=MONGO)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show all but what may hold a secret."""
        return [(name, value) for name, value in super().__repr_args__() if name not in SECRET]

    @property
    def inbox_url(self) -> str:
        """Where inboxes and revocations are kept; a SQLite file by default."""
        return self.hubbub_inbox_url or self.postgres_database_url or self.mongo_db_uri or self._file("inbox.db")

    @property
    def archive_url(self) -> str:
        """Where the archive is kept; a SQLite file by default."""
        return self.hubbub_archive_url or self.mongo_db_uri or self.postgres_database_url or self._file("archive.db")

    @property
    def inbox_given(self) -> bool:
        """Whether somebody chose the inbox's database."""
        return (self.hubbub_inbox_url or self.postgres_database_url or self.mongo_db_uri) is not None

    @property
    def archive_given(self) -> bool:
        """Whether somebody chose the archive's database."""
        return (self.hubbub_archive_url or self.postgres_database_url or self.mongo_db_uri) is not None

    @property
    def origins(self) -> list[str] | None:
        """The origins whose pages may connect; None if nobody said."""
        return _parts(self.hubbub_origins)

    @property
    def trusted_proxies(self) -> list[str]:
        """The addresses and networks of proxies whose word counts, and `unix`."""
        return _parts(self.hubbub_trusted_proxies) or []

    def _file(self, name: str) -> str:
        return f"sqlite:///{self.hubbub_data_dir / name}"


def load_settings(**given: Any) -> Settings:
    """Read the settings; what is given here wins over the environment, and that over the `.env` file; None is nothing.

    Raises:
        ConfigError: a value is not allowed; the message names the variable, its value and what is.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).lower()
        allowed = Settings.model_fields[name].description
        # A database's URL may hold a password, and what is wrong with a secret is still a secret.
        value = "" if name in SECRET else f"={first['input']!r}"
        raise ConfigError(f"{name.upper()}{value} is not allowed: give {allowed}.") from None
    except UnicodeDecodeError:
        raise ConfigError("The file .env cannot be read: save it as UTF-8.") from None


def _parts(text: str | None) -> list[str] | None:
    """What stands between the commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
