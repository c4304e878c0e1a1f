"""Generate templates of locks without uv (docs/lock.md)."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from lock import LockError
from lock.conditions import conditions
from lock.locking import Locked
from lock.pieces import Pieces, lock_pieces, requirement_pieces
from lock.table import PROJECT_NAME, Table, read_tables
from lock.templates import merged, uv_lock
from packaging.version import Version

from harness.matrix import ROOT, choices
from harness.owners import replace

# What requirements bring


def key(name: str, part: str = "") -> tuple[str, Version, str]:
    """Return the key of a piece."""
    return name, Version("1"), part


def table(dependencies: str, development: str = "", always: str = "", tools: str = "") -> Table:
    """Return a table of these requirements."""
    named = [dict.fromkeys(names.split(), "") for names in (dependencies, development)]
    return Table("3.14", named[0], named[1], {}, frozenset(always.split()), frozenset(tools.split()))


def found(
    brought: Mapping[str, Mapping[str, str]], requirements: Table, widest: str = "everywhere"
) -> dict[str, list[tuple[str, str]]]:
    """Return the conditions of pieces, where each requirement brings packages with these texts.

    Where two requirements bring a package with different texts, they bring it together with the `widest`.
    """

    def pieces_with(names: frozenset[str]) -> Pieces:
        texts: dict[str, set[str]] = {}
        for name in names:
            for package, text in brought[name].items():
                texts.setdefault(package, set()).add(text)
        return {key(package): min(found) if len(found) == 1 else widest for package, found in texts.items()}

    by_key = conditions(pieces_with, requirements, requirements.always)
    return {package: texts for (package, _, _), texts in by_key.items()}


def test_what_every_service_has_has_no_condition() -> None:
    assert found({"fastapi": {"pydantic": "text"}}, table("fastapi", always="fastapi")) == {
        "pydantic": [("", "text")]
    }


def test_what_some_requirements_bring_names_them() -> None:
    brought = {"alembic": {"mako": "a", "sqlalchemy": "b"}, "sqlalchemy[asyncio]": {"sqlalchemy": "b"}}
    assert found(brought, table("alembic sqlalchemy[asyncio]")) == {
        "mako": [("wanted(['alembic'])", "a")],
        "sqlalchemy": [("wanted(['alembic', 'sqlalchemy[asyncio]'])", "b")],
    }


def test_one_tool_that_every_service_has_stands_for_all_tools() -> None:
    brought = {name: {"click": "text"} for name in ("uvicorn", "pytest", "watchfiles", "granian[reload]")}
    requirements = table("uvicorn", "watchfiles pytest granian[reload]", tools="pytest")
    assert found(brought, requirements) == {"click": [("wanted(['uvicorn', 'pytest'])", "text")]}


def test_the_wider_of_two_texts_is_for_services_with_both() -> None:
    brought = {"uvicorn": {"h11": "everywhere"}, "httpx2": {"h11": "where there are sockets"}}
    assert found(brought, table("uvicorn", "httpx2")) == {
        "h11": [
            ("wanted(['uvicorn'])", "everywhere"),
            ("wanted(['httpx2']) and not wanted(['uvicorn'])", "where there are sockets"),
        ]
    }


def test_a_text_that_no_service_has_is_left_out() -> None:
    brought = {"fastapi": {"anyio": "everywhere"}, "httpx2": {"anyio": "where there are sockets"}}
    assert found(brought, table("fastapi", "httpx2", always="fastapi")) == {"anyio": [("", "everywhere")]}


def test_a_text_that_needs_two_requirements_is_refused() -> None:
    brought = {"one": {"both": "on Linux"}, "other": {"both": "on Windows"}}
    with pytest.raises(LockError, match="which text of both: with all of one, other it has"):
        found(brought, table("one other"), widest="on Linux and Windows")


def test_a_package_that_needs_two_requirements_is_refused() -> None:
    def pieces_with(names: frozenset[str]) -> Pieces:
        return {key("both"): "text"} if len(names) > 1 else {}

    with pytest.raises(LockError, match="which text of both"):
        conditions(pieces_with, table("one other"), frozenset())


# Pieces

UVICORN = """
[[package]]
name = "uvicorn"
version = "0.54.0"
wheels = [
    { url = "https://files.pythonhosted.org/uvicorn-0.54.0-py3-none-any.whl" },
]

[package.optional-dependencies]
dev = [
    { name = "watchfiles" },
]
standard = [
    { name = "httptools" },
]
"""

LOCK = f"""version = 1
requires-python = ">=3.14"

[[package]]
name = "{PROJECT_NAME}"
version = "0.1.0"

[package.metadata]
{UVICORN}"""


def test_an_extra_of_a_package_is_a_piece_of_its_own() -> None:
    head, root, pieces = lock_pieces(LOCK)
    assert head + root + "".join(pieces.values()) == LOCK
    assert [part for _, _, part in pieces] == ["", " ", "dev", "standard"]
    assert pieces["uvicorn", Version("0.54"), "dev"] == 'dev = [\n    { name = "watchfiles" },\n]\n'


def test_a_requirement_is_a_piece_with_its_hashes() -> None:
    pieces = requirement_pieces("a==1 \\\n    --hash=x\nb==2 ; marker \\\n    --hash=y\n")
    assert list(pieces.values()) == ["a==1 \\\n    --hash=x\n", "b==2 ; marker \\\n    --hash=y\n"]


@pytest.mark.parametrize(
    "lock", [LOCK + UVICORN.replace("uvicorn", "a"), LOCK.replace("httptools", "{{ x }}")]
)
def test_a_lock_in_an_order_or_form_that_is_not_known_is_refused(lock: str) -> None:
    with pytest.raises(LockError, match=r"scripts/lock/pieces\.py doesn't know"):
        lock_pieces(lock)


# Pythons


def test_pythons_that_have_a_piece_alike_share_it() -> None:
    assert merged({"3.13": {"a": [("", "text\n")]}, "3.14": {"a": [("", "text\n")]}}) == "text\n"


def test_a_piece_that_differs_between_pythons_is_there_once_for_each_run_of_them() -> None:
    pythons = {"3.11": "old\n", "3.12": "new\n", "3.13": "new\n", "3.14": "old\n"}
    assert merged({python: {"a": [("", text)]} for python, text in pythons.items()}) == (
        "{% if python_version in ['3.11'] %}\nold\n{% endif %}\n"
        "{% if python_version in ['3.12', '3.13'] %}\nnew\n{% endif %}\n"
        "{% if python_version in ['3.14'] %}\nold\n{% endif %}\n"
    )


def test_a_piece_of_some_pythons_keeps_its_own_condition() -> None:
    assert merged({"3.11": {"a": [("wanted(['redis'])", "text\n")]}, "3.12": {}}) == (
        "{% if python_version in ['3.11'] and wanted(['redis']) %}\ntext\n{% endif %}\n"
    )


def test_neighbours_share_a_condition() -> None:
    pieces = {"a": [("x", "1\n")], "b": [("x", "2\n")], "c": [("", "3\n")], "d": [("x", "4\n")]}
    assert merged({"3.14": pieces}) == "{% if x %}\n1\n2\n{% endif %}\n3\n{% if x %}\n4\n{% endif %}\n"


def lock_template(**wheels: list[str]) -> str:
    """Return the template of a lock with these wheels for each Python, such as p3_14."""
    locked = []
    for python, files in wheels.items():
        version = python.removeprefix("p").replace("_", ".")
        text = "wheels = [\n" + "".join(
            f'    {{ url = "https://files.pythonhosted.org/{name}" }},\n' for name in files
        )
        requirements = Table(version, {}, {}, {}, frozenset(), frozenset())
        locked.append(Locked(requirements, [], "", "", {key("a"): [("", text)]}, {}))
    return uv_lock(ROOT, locked, "2026-01-01T00:00:00Z")


OLD, NEW = "a-1-cp313-cp313-linux_x86_64.whl", "a-1-cp314-cp314-linux_x86_64.whl"


def test_wheels_of_an_older_python_make_no_difference() -> None:
    template = lock_template(p3_13=[OLD, NEW], p3_14=[NEW])
    assert template.count(NEW) == 1
    assert "python_version in" not in template


def test_any_other_wheel_makes_a_difference() -> None:
    assert "{% if python_version in ['3.14'] %}" in lock_template(p3_13=[OLD], p3_14=[NEW])


def test_a_wheel_that_uv_keeps_where_the_template_takes_it_out_is_refused() -> None:
    with pytest.raises(LockError, match="takes out a wheel of a that uv keeps"):
        lock_template(p3_13=[OLD, NEW], p3_14=[OLD, NEW])


# The table


@pytest.fixture
def template_copy(template: Path, tmp_path: Path) -> Path:
    """Return a copy of what the generator reads and writes."""
    return Path(shutil.copytree(template, tmp_path / "copy"))


def test_the_table_has_all_requirements_of_each_python_that_is_offered() -> None:
    tables = read_tables(ROOT)
    assert [each.python for each in tables] == sorted(choices("python_version"), key=Version)
    for each in tables:
        assert each.dependencies["redis[hiredis]"].startswith("redis[hiredis]>=")
        assert each.development["granian[reload]"] == "granian[reload]"
        assert f'requires-python = ">={each.python}"' in each.pyproject([])


def test_the_table_knows_what_every_service_has() -> None:
    for each in read_tables(ROOT):
        assert "fastapi" in each.always
        assert "pytest" in each.always_in_development
        assert not {"uvicorn", "watchfiles"} & (each.always | each.always_in_development)


@pytest.mark.parametrize("added", ["uvicorn>=0.54", "uvicorn[standard]>=0.54", "uvicorn>=0.55"])
def test_one_package_is_asked_for_in_one_way(template_copy: Path, added: str) -> None:
    replace(template_copy / "includes/parts.jinja", r"'fastapi-cli[^']*'", rf"\g<0>, '{added}'")
    if added == read_tables(ROOT)[0].dependencies["uvicorn"]:
        assert read_tables(template_copy)[0].dependencies["uvicorn"] == added
    else:
        with pytest.raises(LockError, match=r"in two ways: 'uvicorn>=0\.54' and 'uvicorn"):
            read_tables(template_copy)


def test_a_name_that_uv_writes_otherwise_is_refused() -> None:
    root = '\n[[package]]\ndependencies = [\n    { name = "redis" },\n]\n'
    assert "wanted(['redis'], dependencies)" in uv_lock(
        ROOT, [Locked(table("redis"), [], "", root, {}, {})], ""
    )
    with pytest.raises(LockError, match="asks for redis by another name"):
        uv_lock(ROOT, [Locked(table("Redis"), [], "", root, {}, {})], "")
