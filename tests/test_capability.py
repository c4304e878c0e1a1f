"""Tests that a capability, added as CONTRIBUTING.md says, is one folder, one entry and one question."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from harness.matrix import DEFAULTS, ROOT, Answers, label, values
from harness.pages import page, section
from harness.running import install, missing_python, run
from tests.conftest import RenderTo

DATA: list[Answers] = [
    {"database": database, "cache": cache} for database in values("database") for cache in values("cache")
]


def page_files() -> dict[str, str]:
    """Return the blocks of the section, each by the path that the sentence before it names."""
    text = section(page("CONTRIBUTING.md"), "Add a capability")
    found = re.findall(r"((?:[^\n]+\n)+)\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {
        next(iter(re.findall(r"`([\w./{} ]+\.(?:py|yml|yaml|jinja))`", prose))): block
        for prose, block in found
    }


@pytest.fixture(scope="module")
def extended(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the template with the capability of the page."""
    copy = shutil.copytree(template, tmp_path_factory.mktemp("extended") / "copier-fastapi")
    files = page_files()
    question, fact = re.split(r"\n(?=with_)", files.pop("copier.yml"), maxsplit=1)
    configuration = (copy / "copier.yml").read_text()
    for before, after in (
        ("cache, layout, observability", "cache, mail, layout, observability"),
        ("or cache != 'none' }}", "or cache != 'none' or mail != 'none' }}"),
        ("# What has modules of its own", f"{question}\n# What has modules of its own"),
        ("with_cache:\n", f"{fact}\nwith_cache:\n"),
    ):
        assert configuration.count(before) == 1, before
        configuration = configuration.replace(before, after)
    (copy / "copier.yml").write_text(configuration)
    parts = (copy / "includes/parts.jinja").read_text()
    database = "    {\n        'name': 'database',"
    assert parts.count(database) == 1
    entry = files.pop("includes/parts.jinja")
    (copy / "includes/parts.jinja").write_text(parts.replace(database, entry + database))
    for name, text in files.items():
        assert name.startswith("template/{{ with_mail }}/"), f"{name} is outside of the capability's folder"
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    return copy


@pytest.fixture(scope="module")
def render_extended(extended: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("services")

    def render_extended(**answers: Any) -> Path:
        place = folder / (label(answers) or "default")
        if not place.exists():
            data = answers | {"project_name": "orders-api"}
            copier.run_copy(str(extended), place, data=data, defaults=True, quiet=True, unsafe=False)
        return place

    return render_extended


def contents(service: Path) -> dict[str, str]:
    return {
        path.relative_to(service).as_posix(): path.read_text()
        for path in service.rglob("*")
        if path.is_file() and path.name != ".copier-answers.yml"
    }


@pytest.mark.parametrize("data", DATA, ids=label)
def test_a_service_without_the_capability_is_as_before(
    render_extended: Callable[..., Path], render_to: RenderTo, tmp_path: Path, data: Answers
) -> None:
    before = contents(render_to(tmp_path / "orders-api", project_name="orders-api", **data))
    assert contents(render_extended(mail="none", **data)) == before


@pytest.mark.parametrize("data", DATA, ids=label)
def test_a_service_with_the_capability_is_whole(render_extended: Callable[..., Path], data: Answers) -> None:
    service = render_extended(mail="smtp", **data)
    assert (service / "app/mail.py").exists()
    assert 'state["mail"] = await enter(open_mail(settings))' in (service / "app/lifespan.py").read_text()
    assert "    mail_url: pydantic.Secret[" in (service / "app/runtime_settings.py").read_text()
    development = yaml.safe_load((service / "compose.yaml").read_text())["services"]
    assert development["app"]["environment"]["MAIL_URL"] == "smtp://mail:1025"
    assert development["mail"]["image"] == "axllent/mailpit:v1"
    production = yaml.safe_load((service / "compose.prod.yaml").read_text())
    assert "mail_url" in production["services"]["app"]["secrets"]
    assert production["secrets"].keys() >= {"mail_url", "mail_password"}
    assert "| `MAIL_URL` |" in (service / "DEPLOYMENT.md").read_text()
    for command in (["check", "--no-fix"], ["format", "--check"]):
        ruff = subprocess.run(
            ["ruff", *command, "--no-cache", "."], cwd=service, capture_output=True, text=True
        )
        assert ruff.returncode == 0, ruff.stdout


def test_the_capability_changes_no_file_for_owners(render_extended: Callable[..., Path]) -> None:
    without, with_mail = (contents(render_extended(mail=mail)) for mail in ("none", "smtp"))
    for name in ("app/main.py", "app/settings.py", "tests/conftest.py", "README.md"):
        assert without[name] == with_mail[name]


def test_a_single_file_has_no_place_for_the_capability(extended: Path, tmp_path: Path) -> None:
    answers = {"mail": "smtp", "layout": "single-file"}
    with pytest.raises(ValueError, match="the other answers need layout=package"):
        copier.run_copy(str(extended), tmp_path / "x", data=answers, defaults=True, quiet=True, unsafe=False)


@pytest.mark.project
@pytest.mark.parametrize("database", ["none", "sqlite"])
def test_the_own_tests_of_a_service_with_the_capability_pass(
    render_extended: Callable[..., Path], shared: Path, database: str
) -> None:
    answers = DEFAULTS | {"database": database}
    if missing := missing_python(answers["python_version"]):
        pytest.skip(missing)
    service = render_extended(mail="smtp", **answers)
    install(service, answers, shared)
    run("mypy .\npytest", service)


def test_the_section_names_files_of_the_repository_that_exist() -> None:
    for name in page_files():
        assert "{{ with_mail }}" in name or (ROOT / name).exists()
