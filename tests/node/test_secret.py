from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hubbub import ConfigError
from hubbub.config import Settings, load_settings
from hubbub.node.secret import Secret

GOOD = "s" * 32
LONGER = "t" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "secret"


def settings(place: Path, **given: str) -> Settings:
    return load_settings(hubbub_data_dir=place.parent, **given)


def test_the_apps_own_goes_first(place: Path) -> None:
    secret = Secret(GOOD, settings(place, hubbub_secret=LONGER))
    assert secret.find() == secret.need() == GOOD.encode()


def test_the_environments_comes_next(place: Path) -> None:
    secret = Secret(None, settings(place, hubbub_secret=LONGER))
    assert secret.find() == secret.need() == LONGER.encode()
    assert not place.parent.exists()


def test_for_development_one_is_made_when_something_is_signed(place: Path) -> None:
    secret, other = Secret(None, settings(place)), Secret(None, settings(place))
    assert secret.find() is None
    assert not place.parent.exists()
    made = secret.need()
    assert len(made) == 64
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in place.parent.iterdir()] == ["secret"]
    assert secret.find() == other.find() == other.need() == Secret(None, settings(place)).find() == made


def test_of_many_who_make_one_at_once_all_have_the_same(place: Path) -> None:
    found: set[bytes] = set()
    start = threading.Barrier(8)

    def make() -> None:
        secret = Secret(None, settings(place))
        start.wait()
        found.add(secret.need())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert [path.name for path in place.parent.iterdir()] == ["secret"]


def test_in_production_none_is_made_or_read(place: Path) -> None:
    Secret(None, settings(place)).need()
    secret = Secret(None, settings(place, deploy_env="production"))
    assert secret.find() is None
    with pytest.raises(ConfigError, match="set HUBBUB_SECRET to a random text of 32 bytes or more"):
        secret.need()


def test_a_weak_one_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"^Auth.secret has 31 bytes, 32 are needed"):
        Secret("s" * 31, settings(place))
    with pytest.raises(ConfigError, match=r"^HUBBUB_SECRET has 32 bytes, 64 are needed"):
        Secret(None, settings(place, hubbub_secret=GOOD), 64)
    with pytest.raises(ConfigError, match="HUBBUB_SECRET is not allowed: give 32 characters or more") as caught:
        settings(place, hubbub_secret="short")
    assert "short" not in str(caught.value)


def test_a_file_that_is_of_no_use_is_named(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("weak\n")
    with pytest.raises(ConfigError, match=r"data/secret has 4 bytes, 32 are needed"):
        Secret(None, settings(place)).find()
    place.write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match=r"data/secret cannot be read"):
        Secret(None, settings(place)).find()
    place.unlink()
    place.parent.rmdir()
    place.parent.write_text("not a directory")
    with pytest.raises(ConfigError, match=r"The secret in .* cannot be read|A secret cannot be kept in"):
        Secret(None, settings(place)).need()
