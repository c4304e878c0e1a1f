"""Tests that the pages are true: their questions, variables, files, links and commands."""

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from opentelemetry import environment_variables as api_variables
from opentelemetry.sdk import environment_variables as sdk_variables

from benchmarks.__main__ import NAMES
from harness.clones import ENVIRONMENT, clone, commit, run, tracked
from harness.containers import docker, unique, why_no_engine
from harness.matrix import ASKED, CONFIGURATION, MATRIX, QUESTIONS, ROOT, Answers, default, values
from harness.pages import ADDRESS, blocks, codes, page, prose, rows, section
from harness.terminal import Terminal
from harness.waiting import until
from tests.conftest import Render, RenderTo, Services
from tests.test_command_blocks import commands_of, followed_by_test_docs

# The pages of rendered examples are tested with the services that have them.
DOCS = sorted(name for name in tracked("docs", ":!docs/examples") if name.endswith(".md"))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]
TOUR = [name for name in DOCS if not name.startswith("docs/decisions/")]


# Questions


def test_the_page_of_questions_begins_with_each_and_its_choices() -> None:
    table = rows(page("docs/questions.md"), "question")
    assert [codes(name) for name, _, _ in table] == [[name] for name in ASKED]
    for name, choices, _ in table:
        [question] = codes(name)
        if "choices" in QUESTIONS[question]:
            assert codes(choices) == values(question)
        for shown in codes(choices)[:1]:
            assert shown == str(default(question))


def test_the_page_of_questions_has_a_section_for_each_in_order() -> None:
    assert re.findall(r"^## `(\w+)`$", page("docs/questions.md"), re.MULTILINE) == [*ASKED]


@pytest.mark.parametrize("name", [name for name in ASKED if "choices" in ASKED[name]])
def test_the_page_of_questions_lists_every_choice(name: str) -> None:
    table = rows(section(page("docs/questions.md"), f"`{name}`"), "choice")
    assert [codes(choice) for choice, _ in table] == [[value] for value in values(name)]


def said_to_change(question: str) -> set[str]:
    text = section(page("docs/questions.md"), f"`{question}`")
    return set(codes(text[text.index("\nChanges: ") :]))


def contents(service: Path) -> dict[str, str]:
    return {
        path.relative_to(service).as_posix(): path.read_text()
        for path in service.rglob("*")
        if path.is_file() and path.name != ".copier-answers.yml"
    }


def differences(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@pytest.mark.xdist_group("rendering")
def test_the_page_of_questions_names_the_files_that_each_choice_changes(services: Services) -> None:
    rendered = [(answers, contents(service)) for answers, service in services]
    for question in MATRIX:
        # Services that differ only in this answer.
        others: dict[str, dict[str, str]] = {}
        changed: set[str] = set()
        for answers, files in rendered:
            rest = json.dumps({name: value for name, value in answers.items() if name != question})
            changed |= differences(others.setdefault(rest, files), files)
        assert said_to_change(question) == changed, question


@pytest.mark.parametrize(("question", "value"), [("project_name", "billing"), ("description", "Bills.")])
def test_the_page_of_questions_names_the_files_that_a_text_changes(
    render: Render, question: str, value: str
) -> None:
    changed: set[str] = set()
    cases: tuple[Answers, ...] = (
        {},
        {"package_manager": "pip"},
        {"layout": "single-file"},
        {"kubernetes": "yes", "database": "postgresql"},
    )
    for number, answers in enumerate(cases):
        plain: Answers = {"project_name": "orders-api"} | answers
        one, other = render(f"one{number}", **plain), render(f"other{number}", **plain | {question: value})
        changed |= differences(contents(one), contents(other))
    assert said_to_change(question) == changed


# Files


def shown_tree(text: str) -> set[str]:
    """Return the files of a tree drawn with lines, as paths."""
    files: set[str] = set()
    folders: list[str] = []
    for indent, name in re.findall(r"^([│ ]*)[├└]── (\S+)", text, re.MULTILINE):
        folders = folders[: len(indent) // 4]
        if name.endswith("/"):
            folders.append(name)
        else:
            files.add("".join(folders) + name)
    return files


def test_the_page_of_files_shows_those_of_a_default_service(render: Render) -> None:
    service = render()
    shown = shown_tree(page("docs/what-you-get.md"))
    assert shown == {p.relative_to(service).as_posix() for p in service.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def every_path(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths of the repository, and those of services that together have every file."""
    every: tuple[Answers, ...] = (
        {"server": "gunicorn"},
        {"server": "granian", "package_manager": "pip", "layout": "single-file"},
        {"database": "postgresql", "cache": "redis", "workers": 2, "proxy": "caddy", "kubernetes": "yes"},
        {"proxy": "traefik", "ci": "gitlab"},
        {"database": "sqlite", "observability": "opentelemetry"},
    )
    roots = [render_to(tmp_path_factory.mktemp("every") / "orders-api", **answers) for answers in every]
    files = [file.relative_to(root) for root in roots for file in root.rglob("*") if file.is_file()]
    files += [Path(name) for name in tracked()]
    folders = {folder.as_posix() + "/" for file in files for folder in file.parents}
    return {file.as_posix() for file in files} | folders


SUFFIXES = (".py", ".md", ".toml", ".yml", ".yaml", ".jinja", ".json", ".txt", ".lock", "/")


def named_paths(text: str) -> set[str]:
    """Return all code that looks like the path of a file or, with a slash at its end, of a folder."""
    return {
        code
        for code in codes(prose(text))
        if code.endswith(SUFFIXES) or re.fullmatch(r"\.[a-z][\w./-]+", code)
        if not re.match(r"/|<|-|https?:|[a-z]+ |template/{{ with_mail }}", code)
        if "*" not in code
        if code not in {".env", ".git", ".venv", "compose.override.yaml"}
    }


@pytest.mark.parametrize("name", PAGES)
def test_the_paths_that_a_page_names_exist(name: str, every_path: set[str]) -> None:
    # A reader creates some of them, with this page or with a recipe that it continues.
    recipes = re.findall(r"\]\((recipes/[\w-]+\.md)\)", page(name))
    text = "".join(map(page, [name, *(f"docs/{recipe}" for recipe in recipes)]))
    created = set(re.findall(r"\bCreate `([^`\n]+)`:$", text, re.MULTILINE))
    assert named_paths(page(name)) - every_path <= created


def test_a_path_is_told_from_other_code() -> None:
    text = (
        "`app/items.py`, `docs/`, `.ci/run`, `.python-version`, `/health/`, `uv sync`, `cat x.py`, `--wait`"
    )
    assert named_paths(text) == {"app/items.py", "docs/", ".ci/run", ".python-version"}


def test_the_table_of_where_to_change_what_names_only_paths_that_exist(every_path: set[str]) -> None:
    table = rows(page("CONTRIBUTING.md"), "I want to change")
    assert len(table) > 10
    for _, places in table:
        named = [place for place in codes(places) if place != "make lock"]
        assert named
        assert [place for place in named if place not in every_path] == []


def anchors(text: str) -> set[str]:
    """Return the anchors with which links name the headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    # What is in a comment is on the site alone, whose links `make docs` checks.
    text = re.sub(r"<!--.*?-->", "", page(name), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        place = (ROOT / name).parent / file if file else ROOT / name
        assert place.exists(), target
        assert not anchor or anchor in anchors(place.read_text()), target


def linked(name: str) -> set[str]:
    """Return the files that a page links to."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page(name))
    return {(Path(name).parent / target).as_posix() for target in targets}


def test_every_page_is_reached_from_the_readme() -> None:
    reached = linked("README.md")
    indexes = [name for name in reached if name.endswith("/README.md")]
    # The first page of the site has its links for it alone.
    assert set(TOUR) - {"docs/index.md"} <= reached.union(*map(linked, indexes))


@pytest.mark.parametrize("name", PAGES)
def test_the_make_targets_that_a_page_names_exist(name: str) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", page("Makefile"), re.MULTILINE)
    assert targets
    # Only in code, because "make" is also a word of the prose.
    named = re.findall(r"(?:^|`)(?:[A-Z]+=\S+ )*make ([a-z-]+)", page(name), re.MULTILINE)
    assert set(named) <= set(targets[1].split())


# Environment variables

OF_THE_SERVERS = {"WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "PORT", "UVICORN_PORT"}


def settings_of(service: Path) -> set[str]:
    """Return the variables that a service reads its settings from."""
    of_a_package = service / "app" / "runtime_settings.py"
    own = of_a_package if of_a_package.exists() else service / "main.py"
    classes = [
        node
        for code in (own, service / "app" / "limits.py")
        for node in ast.parse(code.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name in {"Settings", "RuntimeSettings", "LimitSettings"}
    ]
    assert len(classes) == 2
    return {
        field.target.id.upper()
        for settings in classes
        for field in settings.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def variables_in(text: str) -> set[str]:
    return {codes(name)[0] for name, *_ in rows(text, "variable")}


def test_the_page_of_variables_has_every_variable(render: Render) -> None:
    service = render(database="postgresql", cache="redis")
    assert variables_in(page("docs/environment-variables.md")) == settings_of(service) | OF_THE_SERVERS


@pytest.mark.parametrize("layout", values("layout"))
@pytest.mark.parametrize("server", values("server"))
def test_the_page_of_a_service_has_its_variables(render: Render, server: str, layout: str) -> None:
    service = render(server=server, layout=layout)
    expected = settings_of(service) | {"WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"}
    assert variables_in((service / "DEPLOYMENT.md").read_text()) == expected
    example = (service / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == expected | {"HOST_PORT"}


@pytest.mark.parametrize("cache", values("cache"))
@pytest.mark.parametrize("database", values("database"))
def test_the_page_of_a_service_has_the_variables_of_its_data(
    render: Render, database: str, cache: str
) -> None:
    service = render(database=database, cache=cache)
    expected = settings_of(service) | {"WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"}
    assert variables_in((service / "DEPLOYMENT.md").read_text()) == expected
    # Beside them, .env.example has the ports of the compose files. SQLite's address has a default.
    compose = (service / "compose.yaml").read_text()
    published = set(re.findall(r"127\.0\.0\.1:\$\{(\w+)", compose))
    example = (service / ".env.example").read_text()
    without = {"DATABASE_URL"} if database == "sqlite" else set()
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == (expected | published) - without


@pytest.mark.parametrize("server", values("server"))
def test_a_variable_that_a_server_is_started_with_is_on_its_page(render: Render, server: str) -> None:
    service = render(server=server)
    code = "".join(path.read_text() for path in service.glob("*.py"))
    assert set(re.findall(r"environ(?:\.get\(|\[)[\"'](\w+)", code)) <= OF_THE_SERVERS


def test_no_page_names_a_variable_that_nothing_reads(render: Render) -> None:
    service = render(database="mysql", cache="redis", proxy="caddy", observability="opentelemetry")
    compose = "".join(path.read_text() for path in service.glob("compose*.yaml"))
    known = settings_of(service) | OF_THE_SERVERS | set(re.findall(r"\$\{(\w+)", compose))
    known |= set(re.findall(r"\b[A-Z_]+\b", (service / "deploy" / "release").read_text()))
    for file in (*service.glob(".github/workflows/*.yml"), render("gitlab", ci="gitlab") / ".gitlab-ci.yml"):
        known |= set(re.findall(r"(?:vars\.|secrets\.|\$)([A-Z_]+)", file.read_text()))
    # Pages also name constants of the service's code, which are not variables.
    code = "".join(path.read_text() for path in service.glob("app/*.py"))
    known |= set(re.findall(r"^([A-Z_]+) = ", code, re.MULTILINE))
    known |= vars(api_variables).keys() | vars(sdk_variables).keys()
    for name in ["README.md", *TOUR]:
        named = {code for code in codes(page(name)) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code)}
        # A page may add fields to the settings.
        added = {field.upper() for field in re.findall(r"^    (\w+): ", page(name), re.MULTILINE)}
        assert named <= known | added, name


# Commands


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clone of the working tree, which takes the place of the repository's address."""
    return str(clone(tmp_path_factory.mktemp("clone")))


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


@pytest.fixture
def environment(port: int, tmp_path: Path) -> dict[str, str]:
    """The variables for a page's commands, with a free port. Skips a test without the default Python."""
    version = str(QUESTIONS["python_version"]["default"])
    if run("uv", "python", "find", "--no-project", "--no-python-downloads", version, cwd=tmp_path).returncode:
        pytest.skip(f"this machine has no Python {version}")
    return ENVIRONMENT | {"UVICORN_PORT": str(port)}


@pytest.fixture
def serve(environment: dict[str, str], port: int) -> Iterator[Callable[[str, Path], None]]:
    """Start a command that keeps running, in a session of its own, and wait until the service responds."""
    started = []

    def serve(command: str, folder: Path) -> None:
        server = subprocess.Popen(
            ["bash", "-ec", f"exec {command}"], cwd=folder, env=environment, start_new_session=True
        )
        started.append(server)

        def answers() -> bool:
            assert server.poll() is None, command
            try:
                return httpx2.get(f"http://127.0.0.1:{port}/").status_code == 200
            except httpx2.TransportError:
                return False

        until(answers, command)

    yield serve
    for server in started:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def followed() -> list[Any]:
    """Return the pages with commands. Those that begin in an existing service are about containers."""
    pages = []
    for name in DOCS:
        if followed_by_test_docs(name):
            begins_with_a_copy = "copier copy" in page(name)
            mark = pytest.mark.project if begins_with_a_copy else pytest.mark.docker
            pages.append(pytest.param(name, begins_with_a_copy, id=name, marks=[mark]))
    return pages


@pytest.fixture
def reader(environment: dict[str, str]) -> Iterator[str]:
    """The unique name of the reader's service. Containers and images of others can't be taken for its own."""
    name = unique("orders")
    yield name
    if why_no_engine():
        return
    for kind, removal in (("container", "rm --force"), ("network", "network rm"), ("image", "rmi --force")):
        found = docker(
            kind, "ls", "--quiet", f"--filter={'reference' if kind == 'image' else 'name'}={name}*"
        )
        for identifier in set(found.split()):
            docker(*removal.split(), identifier)


@pytest.mark.parametrize(("name", "begins_with_a_copy"), followed())
def test_a_page_can_be_followed(
    name: str,
    begins_with_a_copy: bool,
    address: str,
    environment: dict[str, str],
    port: int,
    reader: str,
    render: Render,
    serve: Callable[[str, Path], None],
    tmp_path: Path,
) -> None:
    folder = tmp_path if begins_with_a_copy else render(reader)
    if not begins_with_a_copy:
        run("git", "init", "--quiet", cwd=folder)
        commit(folder, "Start from copier-fastapi")
    environment = environment | {"HOST_PORT": str(port)}
    printed = ""
    for language, block in blocks(page(name)):
        script = block.replace(ADDRESS, shlex.quote(address))
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        if not begins_with_a_copy:
            script = script.replace("orders-api", reader)
        if language == "diff":
            (tmp_path / "edit.diff").write_text(block)
            done = run("git", "apply", tmp_path / "edit.diff", cwd=folder)
            assert done.returncode == 0, done.stderr
        elif language == "json":
            assert json.loads(block) == json.loads(printed)
        elif language == "shell":
            # A command that runs until Ctrl-C is the last one of its block.
            commands, server = script.splitlines(), ""
            if commands[-1].endswith("--reload"):
                server = commands.pop()
            ending = f"\npwd > {shlex.quote(str(tmp_path / 'folder'))}"
            done = run("bash", "-ec", "\n".join(commands) + ending, cwd=folder, env=environment)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout
            folder = Path((tmp_path / "folder").read_text().strip())
            if server:
                serve(server, folder)
        else:
            assert language == "text", f"nothing checks a block of {language}"


@pytest.mark.project
@pytest.mark.parametrize(
    "line",
    # Both pages have the same commands.
    dict.fromkeys(
        line
        for name in ("README.md", "docs/index.md")
        for block in commands_of(name)
        if block.language == "shell"
        for line in block.text.splitlines()
    ),
)
def test_a_command_of_a_first_page_asks_and_takes_enter_for_every_answer(
    line: str, address: str, tmp_path: Path
) -> None:
    transcript = with_enter(line.replace(ADDRESS, shlex.quote(address)), tmp_path)
    assert "orders-api is ready. Next:" in transcript
    answers: dict[str, Any] = yaml.safe_load((tmp_path / "orders-api" / ".copier-answers.yml").read_text())
    assert answers["project_name"] == "orders-api"
    for name in MATRIX:
        assert answers[name] == default(name)


def with_enter(command: str, folder: Path) -> str:
    """Run a command in a terminal and press Enter after each question. Return the text that it showed."""
    transcript = ""
    with Terminal(command, folder) as terminal:
        for name in ASKED:
            transcript += terminal.wait_for(CONFIGURATION[name]["help"].splitlines()[0])
            terminal.type("\r")
        assert terminal.end() == 0, terminal.shown
        return transcript + terminal.shown


def test_the_page_on_performance_has_a_command_for_each_comparison() -> None:
    named = re.findall(r"^\| .* \| `make bench NAME=(\w+)` \|$", page("docs/performance.md"), re.MULTILINE)
    assert named == [*NAMES]
