"""Compare rendered locks with what uv locks itself, from the package index (docs/lock.md)."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from lock import LockError, generate, wheels
from lock.files import committed, moment_of, update
from lock.generate import UV_LOCK
from lock.table import read_tables
from lock.uv import Uv, find_python
from lock.wheels import require_wheels

from harness import clones, owners
from harness.locks import Service, questions, service
from harness.matrix import ROOT, covering

# One process, because each of these has uv lock many times.
pytestmark = [pytest.mark.project, pytest.mark.xdist_group("lock-index")]

NEWEST = read_tables(ROOT)[-1]


@pytest.fixture(scope="module")
def uv() -> Uv:
    """Return uv with the index as of the moment when the template's lock was made."""
    return Uv(str(moment_of(committed(ROOT))), find_python(NEWEST.python))


@pytest.fixture
def template_copy(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of what the generator reads and writes, for one Python only, to be quick."""
    monkeypatch.setattr(generate, "read_tables", lambda folder: read_tables(folder)[-1:])
    return Path(shutil.copytree(template, tmp_path / "copy"))


# Every pair of choices


def locked_again(uv: Uv, rendered: Service) -> dict[str, str]:
    """Return what uv writes for a service that has the rendered locks."""
    own = {"uv.lock": uv.lock(rendered.pyproject, rendered.locks["uv.lock"])}
    for name in ("requirements.txt", "requirements-dev.txt"):
        # The command in the head of the file, where uv writes it again.
        command = rendered.locks[name].splitlines()[1].removeprefix("#    ")
        arguments = [*command.split()[1:], "--python", uv.interpreter]
        text = rendered.locks[name]
        # The settings in pyproject.toml count, and a developer's own don't.
        own[name] = uv.run(
            arguments,
            rendered.pyproject,
            name,
            text,
            UV_NO_CONFIG="0",
            XDG_CONFIG_HOME=os.devnull,
            UV_CUSTOM_COMPILE_COMMAND=command,
        )
    return own


def test_every_rendered_lock_is_byte_for_byte_what_uv_writes(uv: Uv) -> None:
    chosen = [service(**answers) for answers in covering(*questions())]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        own = executor.map(partial(locked_again, uv), chosen)
        for rendered, locks in zip(chosen, own, strict=True):
            assert rendered.locks == locks, rendered.answers


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("uv.lock", r".*anyio-.*\.whl.*\n"),
        ("uv.lock", r"    \{ name = \"idna\" \},\n"),
        ("requirements.txt", r"(?<=idna).* \\\n.*\n"),
        ("requirements-dev.txt", r" ; sys_platform == 'win32'"),
    ],
)
def test_a_lock_that_is_not_what_uv_writes_is_noticed(uv: Uv, name: str, line: str) -> None:
    rendered = service()
    changed = replace(
        rendered, locks=rendered.locks | {name: re.sub(line, "", rendered.locks[name], count=1)}
    )
    assert changed.locks != rendered.locks
    # Not always what was rendered: the index can get a release that is dated before its moment, and uv takes
    # it where the lock no longer holds the version.
    assert locked_again(uv, changed)[name] != changed.locks[name]


# Locking again


def runs(printed: str) -> tuple[int, int]:
    """Return how many requirements were locked, and how many times uv ran."""
    [requirements] = re.findall(r"(\d+) requirements", printed)
    [times] = re.findall(r"ran (\d+) times", printed)
    return int(requirements), int(times)


@pytest.fixture(scope="module")
def checked() -> str:
    """Return what `make lock ARGS=--check` prints."""
    done = clones.run(
        "python", "-m", "lock", "--check", cwd=ROOT, env=clones.ENVIRONMENT | {"PYTHONPATH": "scripts"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_locking_again_as_of_the_same_moment_gives_no_difference(checked: str) -> None:
    assert f"{UV_LOCK}: " in checked
    assert "wrote" not in checked


QUESTION = """
retries:
  type: bool
  help: Does it try again?
  default: false

structured:
  type: bool
  help: Does it log with structlog?
  default: false

with_retries:
  type: str
  when: false
  default: "{{ '.' if retries }}"

with_structured:
  type: str
  when: false
  default: "{{ '.' if structured }}"
"""

PARTS = """\\g<0>
    {'name': 'retries', 'when': with_retries, 'dependencies': ['tenacity>=9']},
    {'name': 'structured', 'when': with_structured, 'dependencies': ['structlog>=25']},
"""


def test_two_more_questions_cost_what_their_requirements_cost(checked: str, tmp_path: Path) -> None:
    copy = clones.clone(tmp_path)
    with (copy / "copier.yml").open("a") as file:
        file.write(QUESTION)
    owners.replace(copy / "includes/parts.jinja", r"{% set parts = \[", PARTS)
    done = clones.run("python", "-m", "lock", cwd=copy, env=clones.ENVIRONMENT | {"PYTHONPATH": "scripts"})
    assert done.returncode == 0, done.stderr
    assert "{% if wanted(['tenacity']) %}" in (copy / UV_LOCK).read_text()
    requirements, before = runs(checked)
    more, after = runs(done.stdout)
    assert more == requirements + 2
    # Four times as many combinations, but no requirement costs more runs than those before.
    assert before < after <= before / requirements * more


def test_pins_stay_until_they_are_upgraded(template_copy: Path) -> None:
    path = template_copy / UV_LOCK
    owners.replace(path, r'(?<=^name = "click"\nversion = ").*(?="$)', "8.3.0")
    update(template_copy)
    assert "click-8.3.0-py3-none-any.whl" in path.read_text()
    update(template_copy, upgrade=True)
    assert "click-8.3.0-py3-none-any.whl" not in path.read_text()


def test_a_range_that_a_pin_is_not_in_moves_the_pin(template_copy: Path) -> None:
    path = template_copy / UV_LOCK
    owners.replace(path, r'(?<=^name = "uvloop"\nversion = ").*(?="$)', "0.21.0")
    update(template_copy)
    assert "uvloop-0.21.0" not in path.read_text()


def test_requirements_that_exclude_each_other_are_refused_in_uvs_words(template_copy: Path) -> None:
    owners.replace(
        template_copy / "includes/parts.jinja", r"'gunicorn>=[\d.]+'", "'gunicorn>=27.0', 'click<7'"
    )
    with pytest.raises(LockError, match=r"uv lock failed:\n(?s:.)*No solution found"):
        update(template_copy)


# A developer's own settings


def test_a_developers_own_settings_change_nothing(
    uv: Uv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rendered = service()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example/simple")
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2020-01-01")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv.toml").write_text('prerelease = "allow"\nresolution = "lowest"\n')
    assert locked_again(uv, rendered) == rendered.locks


# Wheels

# The first release that has wheels for Python 3.15, and the one before.
WITH, WITHOUT = "pyyaml==6.0.4", "pyyaml==6.0.3"


def test_a_package_with_wheels_is_taken(uv: Uv) -> None:
    require_wheels(uv, NEWEST, {"pyyaml": WITH, "fastapi": "fastapi==0.165.0"})


def test_a_package_without_a_wheel_is_refused(uv: Uv) -> None:
    refused = (
        rf"No wheel for every platform: pyyaml on Python {NEWEST.python}\. Depend on(?s:.)*no usable wheels"
    )
    with pytest.raises(LockError, match=refused):
        require_wheels(uv, NEWEST, {"pyyaml": WITHOUT, "fastapi": "fastapi==0.165.0"})


def test_a_package_that_is_only_for_windows_needs_no_wheel(uv: Uv) -> None:
    require_wheels(uv, NEWEST, {"pyyaml": f"{WITHOUT} ; sys_platform == 'win32'"})


def test_a_package_without_a_wheel_may_have_a_reason(
    uv: Uv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wheels, "WITHOUT_WHEEL", {("pyyaml", NEWEST.python): "it is small"})
    require_wheels(uv, NEWEST, {"pyyaml": WITHOUT})
    assert capsys.readouterr().out == f"no wheel: pyyaml on Python {NEWEST.python} (it is small)\n"


@pytest.mark.parametrize("requirements", [{"pyyaml": WITH}, {}])
def test_a_reason_that_is_not_needed_any_more_has_to_go(
    uv: Uv, monkeypatch: pytest.MonkeyPatch, requirements: dict[str, str]
) -> None:
    monkeypatch.setattr(wheels, "WITHOUT_WHEEL", {("pyyaml", NEWEST.python): "it is small"})
    with pytest.raises(LockError, match=rf"pyyaml on Python {NEWEST.python}: has wheels now"):
        require_wheels(uv, NEWEST, requirements)
