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
    """What the environment says; times in milliseconds, as in the original.

    Args:
        ws_path: where the WebSocket is, `WS_PATH`.
        ws_heartbeat_interval: silence before a ping, `WS_HEARTBEAT_INTERVAL`, milliseconds.
        ws_shutdown_timeout: goodbye to cut at shutdown, `WS_SHUTDOWN_TIMEOUT`, milliseconds.
        port: where `hubbub serve` listens, `PORT`.
        deploy_env: `development`, `test`, `staging` or `production`, `DEPLOY_ENV`.
    """

    model_config = SettingsConfigDict(env_file=".env", frozen=True, extra="ignore")

    ws_path: str = Field(default="/ws", pattern=r"^/[^?#\s]*$")
    ws_heartbeat_interval: int = Field(default=30_000, ge=100, le=3_600_000)
    ws_shutdown_timeout: int = Field(default=10_000, ge=0, le=600_000)
    port: int = Field(default=5000, ge=0, le=65535)
    deploy_env: Literal["development", "test", "staging", "production"] = "development"


def load_settings(**given: Any) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a value is not allowed; the message names the variable, its value and what is.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        raise ConfigError(f"{name}={first['input']!r} is not allowed: {first['msg'].lower()}.") from None
