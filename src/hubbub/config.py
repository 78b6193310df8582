"""Settings from the environment and a `.env` file, and the parts that are found by name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from hubbub.errors import ConfigError

__all__ = ["ATTACH", "DOOR", "Settings", "load_settings"]

DOOR = "hubbub.servers.asgi:Door"
ATTACH = "hubbub.servers.attach:attach"


class Settings(BaseSettings):
    """What the environment says; times in milliseconds, as in the original. An empty variable counts as none.

    Args:
        ws_path: where the WebSocket is, `WS_PATH`.
        ws_heartbeat_interval: silence before a ping, `WS_HEARTBEAT_INTERVAL`, milliseconds.
        ws_shutdown_timeout: goodbye to cut at shutdown, `WS_SHUTDOWN_TIMEOUT`, milliseconds.
        port: where `hubbub serve` listens, `PORT`.
        deploy_env: `development`, `test`, `staging` or `production`, `DEPLOY_ENV`.
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


def load_settings(**given: Any) -> Settings:
    """Read the settings; what is given here wins over the environment, and that over the `.env` file.

    Raises:
        ConfigError: a value is not allowed; the message names the variable, its value and what is.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).lower()
        allowed = Settings.model_fields[name].description
        raise ConfigError(f"{name.upper()}={first['input']!r} is not allowed: give {allowed}.") from None
    except UnicodeDecodeError:
        raise ConfigError("The file .env cannot be read: save it as UTF-8.") from None
