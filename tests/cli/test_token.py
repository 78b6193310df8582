from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner, Result

from hubbub import Hub
from hubbub.cli import app as command

SECRET = "the secret of the environment, which is long"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `hubbub token` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner(env=environment).invoke(command(), ["token", *arguments])

    return run


def test_it_prints_the_token_alone(run: Run) -> None:
    result = run("--user", "ada", HUBBUB_SECRET=SECRET)
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    claims = jwt.decode(result.stdout.strip(), SECRET, ["HS256"])
    assert claims["sub"] == "ada"
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 5
    assert len(claims["jti"]) > 20


def test_how_long_and_what_else(run: Run) -> None:
    more = ("--claim", "role=admin", "--claim", "level=3", "--claim", 'tags=["a"]', "--claim", "note=a=b")
    result = run("--user", "ada", "--ttl", "60", *more, HUBBUB_SECRET=SECRET)
    claims = jwt.decode(result.stdout.strip(), SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 60
    assert (claims["role"], claims["level"], claims["tags"], claims["note"]) == ("admin", 3, ["a"], "a=b")


async def test_a_hub_beside_it_takes_the_token_without_any_setting(run: Run) -> None:
    async with Hub().running() as hub:
        token = run("--user", "ada").stdout.strip()
        assert (await hub.node.gate.verify(token)).user_id == "ada"


WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no secret in production": (("--user", "ada"), {"DEPLOY_ENV": "production"}, "set HUBBUB_SECRET to a random text"),
    "weak secret": (("--user", "ada"), {"HUBBUB_SECRET": "short"}, "HUBBUB_SECRET is not allowed: give 32"),
    "no id": (("--user", ""), {}, "A user's id is a text of 1 to 255 bytes."),
    "no claim": (("--user", "ada", "--claim", "admin"), {}, "--claim 'admin' is not NAME=VALUE."),
    "our claim": (("--user", "ada", "--claim", "exp=1"), {}, "--claim exp is set by --user and --ttl."),
}


@pytest.mark.parametrize(("arguments", "environment", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(
    run: Run, arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("hubbub: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_user_is_needed(run: Run) -> None:
    assert run().exit_code == 2
    assert all(run("--user", "ada", "--ttl", ttl).exit_code == 2 for ttl in ("0", "nan", "inf"))
