"""Run what `make lock` and `make lock ARGS=--check` run, without uv (docs/lock.md)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lock import LockError, files
from lock.files import check, committed, update
from lock.generate import REQUIREMENTS, UV_LOCK, require_official_index
from lock.uv import Pins

from harness.matrix import ROOT


@pytest.fixture
def template_copy(template: Path, tmp_path: Path) -> Path:
    """Return a copy of what the generator reads and writes."""
    return Path(shutil.copytree(template, tmp_path / "copy"))


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what locking again gives: what is committed, until a test says otherwise."""
    texts = committed(ROOT)
    monkeypatch.setattr(files, "generate", lambda *_: texts)
    return texts


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, Pins]]:
    """Return the folder, the moment and the pins of each time that something is locked."""
    asked: list[tuple[Path, str, Pins]] = []

    def generate(folder: Path, moment: str, pins: Pins) -> dict[str, str]:
        asked.append((folder, moment, pins))
        return committed(ROOT)

    monkeypatch.setattr(files, "generate", generate)
    return asked


def test_a_check_of_what_is_up_to_date_says_nothing(
    generated: dict[str, str], template_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(template_copy)
    assert not capsys.readouterr().out


def test_a_check_says_which_file_is_not_up_to_date(generated: dict[str, str], template_copy: Path) -> None:
    generated[REQUIREMENTS] += "a==1.0\n"
    expected = r"\Aincludes/generated/requirements\.jinja: not what locking again gives\. Run make lock"
    with pytest.raises(LockError, match=expected):
        check(template_copy)


def test_a_check_says_when_uv_writes_another_format(generated: dict[str, str], template_copy: Path) -> None:
    generated[UV_LOCK] = re.sub(r"(?m)^revision = \d+$", "revision = 999", generated[UV_LOCK])
    expected = (
        r"\Auv \S+ writes lock format 1\.999, the template's lock has 1\.\d+: run make lock with this uv"
    )
    with pytest.raises(LockError, match=expected):
        check(template_copy)


def test_a_check_without_a_lock_says_how_to_make_one(template_copy: Path) -> None:
    (template_copy / UV_LOCK).unlink()
    with pytest.raises(LockError, match=r"is missing .* run make lock"):
        check(template_copy)


def test_a_check_asks_for_the_moment_and_the_pins_of_the_last_time(
    asked: list[tuple[Path, str, Pins]], template_copy: Path
) -> None:
    check(template_copy)
    [(folder, moment, pins)] = asked
    assert folder == template_copy
    assert f"the index as of {moment}" in committed(ROOT)[UV_LOCK]
    assert "fastapi" in dict(pins)


def test_locking_again_later_writes_nothing(generated: dict[str, str], template_copy: Path) -> None:
    before = committed(template_copy)
    generated[UV_LOCK] = re.sub(r"index as of \d{4}", "index as of 9999", generated[UV_LOCK])
    update(template_copy)
    assert committed(template_copy) == before


def test_locking_again_writes_what_changed_and_the_moment(
    generated: dict[str, str], template_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated[UV_LOCK] = re.sub(r"index as of \d{4}", "index as of 9999", generated[UV_LOCK])
    generated[REQUIREMENTS] += "a==1.0\n"
    update(template_copy)
    assert committed(template_copy) == generated
    assert re.findall("wrote .*/(.*)", capsys.readouterr().out) == ["uv.lock.jinja", "requirements.jinja"]


def test_only_an_upgrade_forgets_the_pins(asked: list[tuple[Path, str, Pins]], template_copy: Path) -> None:
    update(template_copy)
    update(template_copy, upgrade=True)
    kept, upgraded = (pins for _, _, pins in asked)
    assert "fastapi" in dict(kept)
    assert not upgraded


def test_the_command_refuses_to_check_and_upgrade_at_once() -> None:
    command = [sys.executable, "-m", "lock", "--check", "--upgrade"]
    refused = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "scripts"}, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "not allowed with" in refused.stderr


def test_a_lock_from_another_index_is_refused() -> None:
    require_official_index('source = { registry = "https://pypi.org/simple" }')
    with pytest.raises(LockError, match=r"names mirror\.example: lock with the public index"):
        require_official_index('source = { registry = "https://mirror.example/simple" }')
