"""Read rendered locks: they have what the table asks for, and nothing else (docs/lock.md)."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from lock.files import committed
from lock.generate import RESERVED_NAMES, UV_LOCK, require_official_index
from lock.uv import find_python, pins_of
from lock.wheels import WITHOUT_WHEEL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness import locks
from harness.locks import LOCKS, NAME, Service, service, services
from harness.matrix import ENVIRONMENT, ROOT, choices, covering
from tests.conftest import Render

PACKAGES = sorted({name for name, _ in pins_of(committed(ROOT)[UV_LOCK])})

# One process renders and parses all of them once.
pytestmark = pytest.mark.xdist_group("rendered-locks")

# The answers with the most packages.
LARGEST = {"python_version": "3.11", "server": "fastapi", "database": "mysql", "cache": "redis"}


@pytest.fixture(scope="module")
def every() -> list[Service]:
    """Return a service for every combination of answers that locks differently."""
    return services()


def requirements(pyproject: str) -> tuple[list[str], list[str]]:
    """Return what a pyproject.toml asks for: the dependencies, and those of the group dev."""
    document = tomllib.loads(pyproject)
    return document["project"]["dependencies"], document["dependency-groups"]["dev"]


def as_written(entries: list[dict[str, Any]]) -> set[Requirement]:
    """Return requirements from the form that uv.lock has for them."""
    return {
        Requirement(
            entry["name"]
            + (f"[{','.join(entry['extras'])}]" if "extras" in entry else "")
            + entry.get("specifier", "")
            + (f"; {entry['marker']}" if "marker" in entry else "")
        )
        for entry in entries
    }


def brought(packages: dict[str, dict[str, Any]]) -> set[str]:
    """Return the packages that a service's own entry reaches, through extras too."""
    root = packages[NAME]
    waiting = [*root["dependencies"], *root["dev-dependencies"]["dev"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        edge = waiting.pop()
        for extra in ("", *edge.get("extra", [])):
            node = edge["name"], extra
            if node not in seen:
                seen.add(node)
                package = packages[edge["name"]]
                # uv.lock lacks an extra that adds nothing.
                extras = package.get("optional-dependencies", {})
                waiting += extras.get(extra, []) if extra else package.get("dependencies", [])
    return {name for name, _ in seen}


def pins(text: str) -> dict[str, str]:
    """Return the versions that a requirements.txt pins."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.MULTILINE))


def names(uv_lock: str) -> list[str]:
    """Return the names of a uv.lock in their order."""
    return re.findall(r'^\[\[package\]\]\nname = "(.*)"$', uv_lock, re.MULTILINE)


def test_no_other_answer_changes_the_requirements(every: list[Service]) -> None:
    known = [(each.answers["python_version"], requirements(each.pyproject)) for each in every]
    for answers in covering():
        pyproject = locks.render(locks.PYPROJECT, **answers)
        assert (answers["python_version"], requirements(pyproject)) in known


def test_the_services_own_entry_is_what_pyproject_asks_for(every: list[Service]) -> None:
    for rendered in every:
        dependencies, development = requirements(rendered.pyproject)
        metadata = rendered.packages[NAME]["metadata"]
        assert as_written(metadata["requires-dist"]) == set(map(Requirement, dependencies))
        assert as_written(metadata["requires-dev"]["dev"]) == set(map(Requirement, development))
        python = f'requires-python = ">={rendered.answers["python_version"]}"'
        assert python in rendered.pyproject
        assert python in rendered.locks["uv.lock"]


def test_every_pin_is_in_the_range_that_pyproject_allows(every: list[Service]) -> None:
    for rendered in every:
        versions = {name: package["version"] for name, package in rendered.packages.items()}
        for line in [line for group in requirements(rendered.pyproject) for line in group]:
            requirement = Requirement(line)
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), line


def test_a_lock_has_what_its_requirements_bring_and_nothing_else(every: list[Service]) -> None:
    for rendered in every:
        assert brought(rendered.packages) == rendered.packages.keys() - {NAME}, rendered.answers


def test_a_package_too_much_or_too_few_is_noticed() -> None:
    packages = service().packages
    assert "h11" in brought(packages)
    packages["uvicorn"]["dependencies"] = []
    packages["httpcore2"]["dependencies"] = []
    assert "h11" not in brought(packages)
    del packages["uvicorn"]
    with pytest.raises(KeyError):
        brought(packages)


def test_uv_and_pip_install_the_same_versions(every: list[Service]) -> None:
    for rendered in every:
        locked = {name: package["version"] for name, package in rendered.packages.items() if name != NAME}
        assert locked == pins(rendered.locks["requirements-dev.txt"]), rendered.answers


def test_the_list_for_development_pins_what_the_service_runs_on(every: list[Service]) -> None:
    for rendered in every:
        runtime = pins(rendered.locks["requirements.txt"])
        assert runtime["fastapi"]
        assert runtime.items() < pins(rendered.locks["requirements-dev.txt"]).items()


def test_every_pinned_requirement_has_a_hash(every: list[Service]) -> None:
    for rendered in every:
        for name in ("requirements.txt", "requirements-dev.txt"):
            for requirement in re.split(r"\n(?=\w)", rendered.locks[name])[1:]:
                assert re.search(r"\A[a-z0-9-]+==\S+ .*\\\n    --hash=sha256:[0-9a-f]{64}", requirement)


def test_every_file_comes_from_the_public_index(every: list[Service]) -> None:
    for rendered in every:
        require_official_index(rendered.locks["uv.lock"])


def test_uv_takes_every_lock_as_it_is_without_an_index(every: list[Service], tmp_path: Path) -> None:
    # uv takes no interpreter that is older than what it locks for.
    newest = find_python(max(choices("python_version"), key=lambda version: int(version.split(".")[1])))
    command = f"uv lock --check --offline --cache-dir cache --python {newest}".split()
    for rendered in every:
        (tmp_path / "pyproject.toml").write_text(rendered.pyproject)
        (tmp_path / "uv.lock").write_text(rendered.locks["uv.lock"])
        command = f"uv lock --check --offline --cache-dir cache --python {newest}".split()
        checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert checked.returncode == 0, (rendered.answers, checked.stderr)


@pytest.mark.parametrize("package_manager", ["uv", "pip"])
def test_copier_renders_the_same_locks(render: Render, package_manager: str) -> None:
    folder = render(package_manager, project_name=NAME, package_manager=package_manager)
    rendered = {path.name: path.read_text() for path in folder.iterdir() if path.name in LOCKS}
    assert rendered
    assert rendered.items() <= service().locks.items()


def test_only_dependencies_decide_what_is_locked(render: Render) -> None:
    plain = render("first", project_name="orders-api")
    other = render(
        "second", project_name="orders-api", layout="single-file", workers=4, description="{{ x }}"
    )
    assert (plain / "uv.lock").read_bytes() == (other / "uv.lock").read_bytes()


@pytest.mark.parametrize("name", ["a", "a0", "fastapi-0", "fastapi0", "uvicorn-x", "zz9"])
def test_packages_stay_in_order_whatever_the_service_is_called(render: Render, name: str) -> None:
    found = names((render(name) / "uv.lock").read_text())
    assert name in found
    assert found == sorted(found)


def test_each_name_that_is_next_to_a_package_has_its_place() -> None:
    nearby = {f"{package}-0" for package in PACKAGES} | {f"{package[:-1]}0" for package in PACKAGES}
    for name in nearby - set(PACKAGES):
        found = names(locks.render(LOCKS["uv.lock"], name, **LARGEST))
        assert found.count(name) == 1
        assert found == sorted(found), name


def test_no_service_can_be_called_what_it_depends_on() -> None:
    module: Any = ENVIRONMENT.get_template(RESERVED_NAMES).module
    assert module.reserved_names == PACKAGES


def test_a_reason_for_a_build_names_a_python_that_is_offered() -> None:
    assert {python for _, python in WITHOUT_WHEEL} <= choices("python_version").keys()
