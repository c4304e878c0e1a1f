"""The locks that the template renders, and the script that writes them (docs/lock.md)."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lock
import pytest
from lock_matrix import PROJECT_NAME, Combination, combinations, environment, python_versions
from lock_merge import Block, Matrix, merge
from lock_uv import Locked, LockError, lock_all
from lock_wheels import packages_without_wheel

from harness.matrix import DEFAULTS, ROOT
from tests.conftest import Render

Uv = Callable[..., str]

# Merging

SERVERS = ["uvicorn", "granian", "gunicorn"]
PYTHONS = ["3.12", "3.13", "3.14"]
MATRIX = Matrix([{"python": python, "server": server} for python in PYTHONS for server in SERVERS])


def merged(lines: Callable[..., Sequence[str]], matrix: Matrix = MATRIX) -> str:
    """The template of a text of one block, whose lines depend on the answers."""
    texts = [[Block((), tuple(lines(**answers)))] for answers in matrix.combinations]
    return merge(texts, matrix)


def rendered(template: str, **answers: Any) -> str:
    return environment(ROOT).from_string(template).render(answers)


def test_what_all_texts_share_has_no_condition() -> None:
    assert merged(lambda python, server: ["a", "b"]) == "a\nb\n"


@pytest.mark.parametrize(
    ("holds", "condition"),
    [
        (lambda python, server: server == "granian", "server == 'granian'"),
        (lambda python, server: server != "granian", "server != 'granian'"),
        (lambda python, server: python > "3.12", "python >= '3.13'"),
        (lambda python, server: python < "3.14", "python <= '3.13'"),
        (
            lambda python, server: python == "3.12" and server == "granian",
            "python == '3.12' and server == 'granian'",
        ),
        (
            lambda python, server: python == "3.12" or server == "granian",
            "python == '3.12' or server == 'granian'",
        ),
        (
            lambda python, server: (python, server) in {("3.12", "uvicorn"), ("3.14", "granian")},
            "(python == '3.12' and server == 'uvicorn') or (python == '3.14' and server == 'granian')",
        ),
    ],
)
def test_a_condition_is_as_short_as_it_can_be(holds: Callable[[str, str], bool], condition: str) -> None:
    template = merged(lambda python, server: ["a", *["b"] * holds(python, server)])
    assert template == f"a\n{{% if {condition} %}}\nb\n{{% endif %}}\n"


def test_a_middle_version_is_a_range() -> None:
    matrix = Matrix([{"python": python} for python in ("3.11", *PYTHONS)])
    template = merged(lambda python: ["b"] * (python in {"3.12", "3.13"}), matrix)
    assert "{% if '3.12' <= python <= '3.13' %}" in template


def test_versions_that_do_not_sort_as_texts_are_listed() -> None:
    matrix = Matrix([{"python": python} for python in ("3.8", "3.9", "3.10", "3.11")])
    template = merged(lambda python: ["b"] * (python in {"3.8", "3.9"}), matrix)
    assert "{% if python in ['3.8', '3.9'] %}" in template


def test_a_combination_that_is_not_offered_makes_no_condition_longer() -> None:
    offered = [
        answers for answers in MATRIX.combinations if answers != {"python": "3.14", "server": "granian"}
    ]
    template = merged(
        lambda python, server: ["b"] * (server == "granian" and python != "3.14"), Matrix(offered)
    )
    assert template == "{% if server == 'granian' %}\nb\n{% endif %}\n"


def test_a_yes_or_no_is_asked_as_such() -> None:
    matrix = Matrix([{"kubernetes": False}, {"kubernetes": True}])
    template = merged(lambda kubernetes: ["a"] * kubernetes, matrix)
    assert template == "{% if kubernetes %}\na\n{% endif %}\n"


def test_one_line_instead_of_another_is_an_else() -> None:
    template = merged(lambda python, server: ["a"] if server == "uvicorn" else ["b"])
    assert template.count("{% if ") == template.count("{% else %}") == template.count("{% endif %}") == 1


def test_neighbours_that_go_together_share_a_condition() -> None:
    texts = [
        [Block((name,), (name,)) for name in "abc" if name == "c" or answers["server"] == "granian"]
        for answers in MATRIX.combinations
    ]
    assert merge(texts, MATRIX) == "{% if server == 'granian' %}\na\nb\n{% endif %}\nc\n"


def test_inside_a_block_only_what_the_block_leaves_open_is_asked() -> None:
    texts = [
        [Block(("a",), ("a", *["new"] * (answers["python"] == "3.14")))] * (answers["server"] == "granian")
        for answers in MATRIX.combinations
    ]
    assert merge(texts, MATRIX) == (
        "{% if server == 'granian' %}\na\n{% if python == '3.14' %}\nnew\n{% endif %}\n{% endif %}\n"
    )


def test_a_line_that_is_let_through_by_other_means_needs_no_condition() -> None:
    texts = [[Block((), ("a", *["old"] * (answers["python"] == "3.12")))] for answers in MATRIX.combinations]
    shown = {"old": MATRIX.where({"python": ["3.12"]})}
    assert merge(texts, MATRIX, lambda line: shown.get(line, MATRIX.all)) == "a\nold\n"


def test_whatever_the_lines_are_the_template_renders_them() -> None:
    def lines(python: str, server: str) -> list[str]:
        chosen = [name for name in ("x", "y", "]", "z", "]") if hash((name, python, server)) % 2]
        return ["[", *chosen, *sorted({python, server}), *chosen]

    template = merged(lines)
    for answers in MATRIX.combinations:
        assert rendered(template, **answers).splitlines() == lines(
            str(answers["python"]), str(answers["server"])
        )


def test_blocks_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order of their keys"):
        merge([[Block(("b",), ("b",)), Block(("a",), ("a",))]], Matrix([{"server": "granian"}]))


def test_a_line_that_jinja_would_read_is_refused() -> None:
    with pytest.raises(ValueError, match="Jinja"):
        merged(lambda python, server: ["{{ x }}"])


# The matrix


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what the script reads and writes."""
    copy = tmp_path / "repository"
    shutil.copytree(ROOT / "template", copy / "template")
    shutil.copytree(ROOT / "includes", copy / "includes")
    shutil.copy(ROOT / "copier.yml", copy)
    return copy


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.fixture(scope="session")
def found() -> list[Combination]:
    return combinations(ROOT)


SMALL = """
_subdirectory: template
python_version:
  type: str
  choices: ["3.13", "3.14"]
  default: "3.14"
server:
  type: str
  default: uvicorn
  choices:
    Uvicorn: uvicorn
    Granian:
      value: granian
      validator: "{% if python_version == '3.14' %}no wheel{% endif %}"
broker:
  type: str
  choices: [none, nats, rabbitmq]
  default: none
broker_package:
  when: false
  default: "{{ 'nats-py' if broker == 'nats' else 'aio-pika' }}"
"""

SMALL_PYPROJECT = """
[project]
name = "{{ project_name | d('x') }}"
requires-python = ">={{ python_version }}"
dependencies = ["{{ server }}"]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A template with a question that its dependencies do not need."""
    folder = tmp_path / "small"
    (folder / "template").mkdir(parents=True)
    (folder / "copier.yml").write_text(SMALL)
    (folder / "template/pyproject.toml.jinja").write_text(SMALL_PYPROJECT)
    return folder


def answers_in(repository: Path) -> list[tuple[Any, ...]]:
    return [tuple(combination.answers.values()) for combination in combinations(repository)]


def test_a_combination_that_a_validator_refuses_is_not_in_the_matrix(small: Path) -> None:
    assert answers_in(small) == [("3.13", "uvicorn"), ("3.13", "granian"), ("3.14", "uvicorn")]


def test_a_question_that_changes_the_dependencies_is_in_the_matrix(small: Path) -> None:
    edit(
        small / "template/pyproject.toml.jinja",
        '"]',
        "\"{% if broker != 'none' %}, '{{ broker_package }}'{% endif %}]\n",
    )
    assert len(answers_in(small)) == 9
    assert {broker for _, _, broker in answers_in(small)} == {"none", "nats", "rabbitmq"}


def test_a_choice_that_is_added_is_in_the_matrix(small: Path) -> None:
    edit(small / "copier.yml", '"3.14"]', '"3.14", "3.15"]')
    assert ("3.15", "uvicorn") in answers_in(small)


def test_a_question_that_changes_only_something_else_is_not_in_the_matrix(small: Path) -> None:
    before = answers_in(small)
    edit(small / "template/pyproject.toml.jinja", "[project]", "# {{ broker }}\n[project]")
    assert answers_in(small) == before


def test_a_question_that_is_not_asked_beside_an_answer_has_its_default_there(small: Path) -> None:
    edit(small / "template/pyproject.toml.jinja", '"]', '", "{{ broker }}"]')
    edit(small / "copier.yml", "broker:\n", "broker:\n  when: \"{{ server == 'granian' }}\"\n")
    assert {answers for answers in answers_in(small) if answers[2] != "none"} == {
        ("3.13", "granian", "nats"),
        ("3.13", "granian", "rabbitmq"),
    }
    assert ("3.13", "uvicorn", "none") in answers_in(small)


def test_the_dependencies_of_the_template_depend_on_these_questions(found: list[Combination]) -> None:
    assert set(found[0].answers) == {"python_version", "server", "database", "cache"}


# What is rendered

UV_LOCK = (ROOT / lock.UV_LOCK).read_text(encoding="utf-8")
PACKAGES = sorted(set(re.findall(r'^\[\[package\]\]\nname = "([a-z].*)"$', UV_LOCK, re.MULTILINE)))


LOCKS = {
    "uv.lock": lock.UV_LOCK,
    "requirements.txt": "template/{% if package_manager == 'pip' %}requirements.txt{% endif %}.jinja",
    "requirements-dev.txt": "template/{% if package_manager == 'pip' %}requirements-dev.txt{% endif %}.jinja",
}


@pytest.fixture(scope="session")
def services(found: list[Combination], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Each combination's pyproject.toml with the locks of uv and of pip, and nothing else of a service."""
    jinja = environment(ROOT)
    folders = []
    for combination in found:
        folder = tmp_path_factory.mktemp("locked")
        (folder / "pyproject.toml").write_text(combination.pyproject)
        for name, template in LOCKS.items():
            answers = {"project_name": PROJECT_NAME, **combination.answers}
            (folder / name).write_text(jinja.get_template(template).render(answers))
        folders.append(folder)
    return folders


def test_copier_renders_the_same_locks(render: Render, services: list[Path]) -> None:
    default, *_ = [
        folder
        for folder, version in ((folder, (folder / "pyproject.toml").read_text()) for folder in services)
        if f'requires-python = ">={DEFAULTS["python_version"]}"' in version
    ]
    for package_manager in ("uv", "pip"):
        service = render(package_manager, project_name=PROJECT_NAME, package_manager=package_manager)
        for name in LOCKS.keys() & {path.name for path in service.iterdir()}:
            assert (service / name).read_text() == (default / name).read_text()


@pytest.fixture(scope="session")
def newest_python(found: list[Combination]) -> str:
    """uv locks with an interpreter that is no older than what it locks for."""
    newest = python_versions(found)[-1]
    return subprocess.run(
        ["uv", "python", "find", newest], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def uv(newest_python: str) -> Uv:
    """Run uv in a service; the error is what uv says."""

    def run(*arguments: str | Path, cwd: Path, **variables: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment |= {"UV_PYTHON": newest_python, **{name: str(value) for name, value in variables.items()}}
        result = subprocess.run(["uv", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def pins(requirements: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", requirements, re.MULTILINE))


def locked_versions(uv_lock: str) -> dict[str, str]:
    packages = tomllib.loads(uv_lock)["package"]
    return {package["name"]: package["version"] for package in packages if "registry" in package["source"]}


def test_uv_takes_every_lock_as_it_is_without_an_index(services: list[Path], uv: Uv, tmp_path: Path) -> None:
    for service in services:
        uv("lock", "--check", "--offline", cwd=service, UV_CACHE_DIR=tmp_path / "cache")


def test_only_dependencies_decide_what_is_locked(render: Render) -> None:
    plain = render("first", project_name="orders-api")
    other = render(
        "second", project_name="orders-api", layout="single-file", workers=4, description="{{ x }}"
    )
    assert (plain / "uv.lock").read_bytes() == (other / "uv.lock").read_bytes()


@pytest.mark.parametrize("name", ["a", "a0", "fastapi-0", "fastapi0", "uvicorn-x", "zz9"])
def test_packages_stay_in_order_whatever_the_service_is_called(render: Render, name: str) -> None:
    names = re.findall(
        r'^\[\[package\]\]\nname = "(.*)"$', (render(name) / "uv.lock").read_text(), re.MULTILINE
    )
    assert name in names
    assert names == sorted(names)


def test_each_name_that_is_next_to_a_package_has_its_place() -> None:
    template = environment(ROOT).from_string(UV_LOCK)
    nearby = {f"{package}-0" for package in PACKAGES} | {f"{package[:-1]}0" for package in PACKAGES}
    for name in nearby - set(PACKAGES):
        answers = {"python_version": "3.12", "server": "fastapi", "database": "mysql", "cache": "redis"}
        text = template.render(project_name=name, **answers)
        names = re.findall(r'^\[\[package\]\]\nname = "(.*)"$', text, re.MULTILINE)
        assert names.count(name) == 1
        assert names == sorted(names), name


def test_every_pinned_requirement_has_a_hash(services: list[Path]) -> None:
    for service in services:
        for name in ("requirements.txt", "requirements-dev.txt"):
            for requirement in re.split(r"\n(?=\w)", (service / name).read_text())[1:]:
                assert re.search(r"\A[a-z0-9-]+==\S+ .*\\\n    --hash=sha256:[0-9a-f]{64}", requirement)


def test_the_list_for_development_pins_what_the_service_runs_on(services: list[Path]) -> None:
    for service in services:
        runtime = pins((service / "requirements.txt").read_text())
        assert runtime["fastapi"]
        assert runtime.items() < pins((service / "requirements-dev.txt").read_text()).items()


def test_uv_and_pip_install_the_same_versions(services: list[Path]) -> None:
    for service in services:
        assert locked_versions((service / "uv.lock").read_text()) == pins(
            (service / "requirements-dev.txt").read_text()
        )


def test_every_file_comes_from_the_public_index(services: list[Path]) -> None:
    for service in services:
        lock.require_official_index((service / "uv.lock").read_text())


def test_a_lock_from_another_index_is_refused() -> None:
    with pytest.raises(LockError, match=r"names mirror\.example: lock with the public index"):
        lock.require_official_index('source = { registry = "https://mirror.example/simple" }')


def test_no_service_can_be_called_what_it_depends_on() -> None:
    names = environment(ROOT).get_template(lock.RESERVED_NAMES).module
    assert names.reserved_names == PACKAGES  # type: ignore[attr-defined]


# Wheels

LINUX = {"a-1.0-cp314-cp314-manylinux_2_28_x86_64.whl", "a-1.0-cp314-cp314-manylinux_2_28_aarch64.whl"}
MACOS = {"a-1.0-cp314-cp314-macosx_11_0_arm64.whl"}


@pytest.mark.parametrize(
    ("requirement", "wheels", "missing"),
    [
        ("a==1.0", {"a-1.0-py3-none-any.whl"}, set()),
        ("a==1.0", LINUX | MACOS, set()),
        ("a==1.0", LINUX, {"a"}),
        ("a==1.0", set(), {"a"}),
        ("a==1.0", {"a-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"}, {"a"}),
        ("a==1.0 ; sys_platform == 'linux'", LINUX, set()),
        ("a==1.0 ; sys_platform == 'win32'", set(), set()),
        ("a==1.0 ; python_full_version < '3.14'", set(), set()),
    ],
)
def test_a_package_needs_a_wheel_wherever_it_is_installed(
    requirement: str, wheels: set[str], missing: set[str]
) -> None:
    assert packages_without_wheel("3.14", [requirement], {"a": wheels}) == missing


@pytest.fixture
def without_wheel() -> tuple[list[Combination], list[Locked]]:
    """A lock with a package that every Python has to build."""
    uv_lock = '\n[[package]]\nname = "a"\nversion = "1.0"\n'
    return [Combination({"python_version": "3.14"}, "")], [Locked(uv_lock, "", "a==1.0 \\\n    --hash=x\n")]


def test_a_package_without_a_wheel_stops_the_lock(
    without_wheel: tuple[list[Combination], list[Locked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WITHOUT_WHEEL", {})
    with pytest.raises(LockError, match=r"No wheel for every platform: a on Python 3\.14\. Depend on"):
        lock.require_wheels(*without_wheel)


def test_a_package_without_a_wheel_may_have_a_reason(
    without_wheel: tuple[list[Combination], list[Locked]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lock, "WITHOUT_WHEEL", {("a", "3.14"): "it is one file"})
    lock.require_wheels(*without_wheel)
    assert capsys.readouterr().out == "no wheel: a on Python 3.14 (it is one file)\n"


def test_a_reason_that_is_not_needed_any_more_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WITHOUT_WHEEL", {("a", "3.14"): "it is one file"})
    with pytest.raises(LockError, match=r"a on Python 3\.14: has wheels now"):
        lock.require_wheels([], [])


# The script, with uv left out


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What locking again gives: what is committed, until a test says otherwise."""
    files = {
        path: (ROOT / path).read_text(encoding="utf-8")
        for path in (lock.UV_LOCK, lock.REQUIREMENTS, lock.RESERVED_NAMES)
    }
    monkeypatch.setattr(lock, "generate", lambda *_: files)
    return files


def test_a_check_of_what_is_up_to_date_says_nothing(
    generated: dict[str, str], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.check(repository)
    assert not capsys.readouterr().out


def test_a_check_says_which_file_is_not_up_to_date(generated: dict[str, str], repository: Path) -> None:
    generated[lock.REQUIREMENTS] += "a==1.0\n"
    with pytest.raises(
        LockError, match=r"\Aincludes/requirements\.jinja: not what locking again gives\. Run make"
    ):
        lock.check(repository)


def test_a_check_says_when_uv_writes_another_format(generated: dict[str, str], repository: Path) -> None:
    generated[lock.UV_LOCK] = re.sub(r"(?m)^revision = \d+$", "revision = 999", generated[lock.UV_LOCK])
    with pytest.raises(
        LockError, match=r"\Auv \S+ writes lock format 1\.999, the template's lock has 1\.\d+: "
    ):
        lock.check(repository)


def test_a_check_without_a_lock_says_how_to_make_one(repository: Path) -> None:
    (repository / lock.UV_LOCK).unlink()
    with pytest.raises(LockError, match=r"is missing .* run make lock"):
        lock.check(repository)


def test_locking_again_later_writes_nothing(generated: dict[str, str], repository: Path) -> None:
    before = (repository / lock.UV_LOCK).read_bytes()
    generated[lock.UV_LOCK] = re.sub(r"index as of \d{4}", "index as of 9999", generated[lock.UV_LOCK])
    lock.update(repository)
    assert (repository / lock.UV_LOCK).read_bytes() == before


# With the index


@pytest.fixture(scope="session")
def uvs_own() -> Callable[..., tuple[list[Locked], str]]:
    """What uv writes for each combination now, which takes it a minute: once for the same question."""
    known: dict[str, tuple[list[Locked], str]] = {}

    def uvs_own(*question: Any) -> tuple[list[Locked], str]:
        key = repr(question)
        if key not in known:
            known[key] = lock_all(*question)
        return known[key]

    return uvs_own


@pytest.mark.project
@pytest.mark.xdist_group("uv-locks-all")
class TestLockingAgain:
    def test_it_gives_no_difference(
        self, uvs_own: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock, "lock_all", uvs_own)
        lock.check(repository)

    def test_every_rendered_lock_is_byte_for_byte_what_uv_writes(
        self, uvs_own: Any, services: list[Path], found: list[Combination], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def remember(*question: Any) -> Any:
            asked.append(question)
            return uvs_own(*question)

        monkeypatch.setattr(lock, "lock_all", remember)
        lock.check(ROOT)
        [question] = asked
        for service, own in zip(services, uvs_own(*question)[0], strict=True):
            assert (service / "uv.lock").read_text() == own.uv_lock
            assert (service / "requirements.txt").read_text() == own.requirements
            assert (service / "requirements-dev.txt").read_text() == own.development


@pytest.mark.project
@pytest.mark.parametrize("name", ["a", "fastapi-0", "pydantic-core0", "uvloo0", "zz9"])
def test_uv_puts_any_name_where_the_template_puts_it(render: Render, uv: Uv, name: str) -> None:
    service = render("renamed", project_name="orders-api")
    edit(service / "pyproject.toml", 'name = "orders-api"', f'name = "{name}"')
    uv("lock", cwd=service)
    assert (service / "uv.lock").read_text() == (render("named", project_name=name) / "uv.lock").read_text()


@pytest.mark.project
def test_pins_stay_until_they_are_upgraded(
    repository: Path, found: list[Combination], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each lock of each combination takes uv its time, and here a few are enough.
    monkeypatch.setattr(lock, "combinations", lambda _: found[:4])
    path = repository / lock.UV_LOCK
    older = re.sub(
        r'(?<=^name = "click"\nversion = ").*(?="$)', "8.3.0", path.read_text(), flags=re.MULTILINE
    )
    assert older != path.read_text()
    path.write_text(older)
    lock.update(repository)
    assert "click-8.3.0-py3-none-any.whl" in path.read_text()
    lock.update(repository, upgrade=True)
    assert "click-8.3.0-py3-none-any.whl" not in path.read_text()


SAMPLE = [
    ("3.11", "granian"),
    ("3.12", "fastapi"),
    ("3.13", "gunicorn"),
    ("3.14", "uvicorn"),
    ("3.15", "uvicorn"),
]


def test_the_sample_has_every_python(found: list[Combination]) -> None:
    assert [python for python, _ in SAMPLE] == python_versions(found)


def builds_to_develop(python_version: str) -> bool:
    return any(version == python_version for _, version in lock.WITHOUT_WHEEL)


@pytest.mark.project
@pytest.mark.parametrize(("python_version", "server"), SAMPLE)
def test_uv_installs_from_wheels_only(render: Render, uv: Uv, python_version: str, server: str) -> None:
    service = render(python_version=python_version, server=server)
    groups = ["--no-dev"] if builds_to_develop(python_version) else []
    uv("sync", "--locked", "--no-build", *groups, cwd=service, UV_PYTHON=python_version)
    uv("pip", "check", cwd=service, UV_PYTHON=service / ".venv")


@pytest.mark.project
@pytest.mark.parametrize(("python_version", "server"), SAMPLE)
def test_pip_installs_from_wheels_only(render: Render, uv: Uv, python_version: str, server: str) -> None:
    service = render(python_version=python_version, server=server, package_manager="pip")
    uv("venv", "--seed", cwd=service, UV_PYTHON=python_version)
    files = ["requirements.txt"] + ["requirements-dev.txt"] * (not builds_to_develop(python_version))
    for file in files:
        pip = [
            ".venv/bin/python",
            "-m",
            "pip",
            "install",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
            file,
        ]
        installed = subprocess.run(pip, cwd=service, capture_output=True, text=True)
        assert installed.returncode == 0, installed.stderr
    uv("pip", "check", cwd=service, UV_PYTHON=service / ".venv")


@pytest.mark.project
@pytest.mark.parametrize(
    ("python_version", "server"), [sample for sample in SAMPLE if not builds_to_develop(sample[0])]
)
def test_the_oldest_releases_that_the_ranges_allow_work(
    render: Render, uv: Uv, python_version: str, server: str
) -> None:
    service = render(python_version=python_version, server=server)
    (service / "uv.lock").unlink()
    oldest = {"UV_PYTHON": python_version, "UV_RESOLUTION": "lowest-direct"}
    uv("run", "pytest", cwd=service, **oldest)
    uv("run", "mypy", ".", cwd=service, **oldest)


def difference(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went and the lines that came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


@pytest.mark.project
def test_a_package_that_an_owner_adds_changes_only_its_own_lines(render: Render, uv: Uv) -> None:
    service = render()
    before = (service / "uv.lock").read_text()
    uv("add", "--no-sync", "tenacity", cwd=service)
    gone, came = difference(before, (service / "uv.lock").read_text())
    assert not gone
    assert came
    assert all("tenacity" in line or line.startswith("version = ") for line in came)


@pytest.mark.project
def test_an_owner_adds_a_package_for_pip_with_the_command_in_the_file(render: Render, uv: Uv) -> None:
    service = render(package_manager="pip")
    edit(service / "pyproject.toml", '    "uvicorn', '    "tenacity",\n    "uvicorn')
    for name in ("requirements.txt", "requirements-dev.txt"):
        before = (service / name).read_text()
        command = before.splitlines()[1].removeprefix("#    uv ").split()
        uv(*command, cwd=service)
        gone, came = difference(before, (service / name).read_text())
        assert not gone
        assert came[0].startswith("tenacity==")
        assert all(line.startswith("    --hash=") for line in came[1:])
