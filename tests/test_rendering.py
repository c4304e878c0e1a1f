"""Checks that every combination of answers renders exactly its files, each of them well-formed and tidy."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.matrix import DEFAULTS, ENVIRONMENT, facts
from tests.conftest import Render, Services


def files(service: Path) -> set[str]:
    return {path.relative_to(service).as_posix() for path in service.rglob("*") if path.is_file()}


Texts = list[tuple[Path, str]]


@pytest.fixture(scope="session")
def texts(services: Services) -> Texts:
    """Return each different text of each file, with the path of one file that has it."""
    found: dict[tuple[str, str], Path] = {}
    for _, service in services:
        for path in service.rglob("*"):
            if path.is_file():
                found.setdefault((path.relative_to(service).as_posix(), path.read_text()), path)
    return [(path, text) for (_, text), path in found.items()]


ALWAYS = {
    "app/__init__.py",
    "app/access_log.py",
    "app/environment.py",
    "app/errors.py",
    "app/limits.py",
    "app/open_streams.py",
    "app/logging.json",
    "app/logs.py",
    "app/request_log.py",
    "app/service.py",
    "app/validation.py",
    ".copier-answers.yml",
    ".dockerignore",
    ".editorconfig",
    ".env.example",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    ".python-version",
    "DEPLOYMENT.md",
    "DEVELOPMENT.md",
    "Dockerfile",
    "README.md",
    "compose.prod.yaml",
    "compose.yaml",
    "pyproject.toml",
    "tests/client_fixtures.py",
    "tests/conftest.py",
    "tests/limited_service.py",
    "tests/test_body_limits.py",
    "tests/test_errors.py",
    "tests/test_health.py",
    "tests/test_items.py",
    "tests/test_limits.py",
    "tests/test_logs.py",
    "tests/test_main.py",
    "tests/test_open_streams.py",
    "tests/test_request_log.py",
    "tests/test_unhandled_errors.py",
    "tests/test_validation.py",
    "tests/test_websockets.py",
    "tests/websocket_client.py",
}
WITH_DATABASE = {
    "app/database.py",
    "app/engine.py",
    "app/models.py",
    "app/schema.py",
    "deploy/backup/backup.sh",
    "deploy/backup/engine.sh",
    "migrations/env.py",
    "migrations/script.py.mako",
    "migrations/versions/0001_items.py",
    "tests/database_fixtures.py",
    "tests/empty_database.py",
    "tests/test_database.py",
    "tests/test_migrations.py",
}
BY_ANSWER = {
    ("layout", "package"): {
        f"app/{name}"
        for name in (
            "factory.py",
            "health.py",
            "items.py",
            "lifespan.py",
            "main.py",
            "runtime_settings.py",
            "settings.py",
        )
    },
    ("layout", "single-file"): {"main.py"},
    ("package_manager", "pip"): {"requirements.txt", "requirements-dev.txt"},
    ("package_manager", "uv"): {"uv.lock"},
    ("server", "gunicorn"): {"gunicorn.conf.py"},
    ("server", "granian"): {"granian_server.py"},
    ("database", "sqlite"): WITH_DATABASE | {"deploy/backup/sqlite.py"},
    ("database", "postgresql"): WITH_DATABASE,
    ("database", "mysql"): WITH_DATABASE,
    ("cache", "redis"): {"app/cache.py", "tests/cache_fixtures.py", "tests/test_cache.py"},
    ("observability", "opentelemetry"): {
        "app/process_metrics.py",
        "app/redaction.py",
        "app/request_metrics.py",
        "app/request_telemetry.py",
        "app/telemetry.py",
        "app/trace_id.py",
        "tests/test_redaction.py",
        "tests/test_request_telemetry.py",
    },
    ("proxy", "caddy"): {"deploy/release", "deploy/caddy/Caddyfile"},
    ("proxy", "traefik"): {"deploy/release", "deploy/traefik/service.yaml"},
    ("kubernetes", "yes"): {
        f"deploy/kubernetes/{name}"
        for name in (
            "base/deployment.yaml",
            "base/horizontal-pod-autoscaler.yaml",
            "base/http-route.yaml",
            "base/ingress.yaml",
            "base/kustomization.yaml",
            "base/network-policy.yaml",
            "base/pod-disruption-budget.yaml",
            "base/service.yaml",
            "overlays/production/kustomization.yaml",
            "overlays/staging/kustomization.yaml",
        )
    },
    ("ci", "github"): {
        ".github/update.sh",
        ".github/workflows/ci.yml",
        ".github/workflows/release.yml",
        ".github/workflows/update.yml",
        "renovate.json",
    },
    ("ci", "gitlab"): {".gitlab-ci.yml", ".gitlab/update.sh", "renovate.json"},
}


def test_each_combination_has_exactly_its_files(services: Services) -> None:
    for answers, service in services:
        expected = ALWAYS.union(*(BY_ANSWER.get(answer, set()) for answer in answers.items()))
        if answers["server"] == "uvicorn" and answers["workers"] > 1:
            expected = expected | {"uvicorn_server.py"}
        if answers["observability"] == "opentelemetry" and answers["database"] != "none":
            expected = expected | {"app/database_telemetry.py"}
        if answers["kubernetes"] == "yes" and answers["database"] != "none":
            expected = expected | {"deploy/kubernetes/base/migration.yaml"}
        assert files(service) == expected, answers


# The templates of Docker and Traefik, GitHub's expressions, and the length of a text in a shell look alike.
OTHER_TEMPLATES = re.compile(
    r"--format '\{\{[^}]+\}\}'|\{\{ env \"DOMAIN\" \}\}|\$\{\{ [^{}]+ \}\}|\$\{#\w+\}"
)


def test_nothing_of_jinja_is_left(texts: Texts) -> None:
    for path, text in texts:
        assert not re.search(r"\{\{|\{%|%\}|\{#|#\}", OTHER_TEMPLATES.sub("", text)), path


def test_no_file_has_scars_of_removed_lines(texts: Texts) -> None:
    for path, text in texts:
        if text:
            assert text == text.strip("\n") + "\n", f"{path} begins or ends with empty lines"
        assert "\r" not in text, path
        assert not re.search(r"[ \t]$", text, re.MULTILINE), f"{path} has trailing space"
        allowed = 2 if path.suffix in {".py", ".mako"} else 1
        assert "\n" * (allowed + 2) not in text, f"{path} has more than {allowed} empty lines in a row"


def test_no_module_of_a_default_service_is_longer_than_120_lines(render: Render) -> None:
    for path in render().rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 120, path


def test_every_file_parses(texts: Texts) -> None:
    parsers: dict[str, Callable[[str], object]] = {
        ".json": json.loads,
        ".py": ast.parse,
        ".toml": tomllib.loads,
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
    }
    for path, text in texts:
        parsers.get(path.suffix, str)(text)


@pytest.mark.parametrize("command", [["format", "--check"], ["check", "--no-fix"]])
def test_ruff_has_nothing_to_change(services: Services, command: list[str]) -> None:
    folder = services[0][1].parent
    ruff = subprocess.run(["ruff", *command, "--no-cache", "."], cwd=folder, capture_output=True, text=True)
    assert ruff.returncode == 0, ruff.stdout[-3000:]


# Owners add their own lines to these files, so neither another answer nor an update may change them.
FOR_OWNERS = ("app/main.py", "app/settings.py", "tests/conftest.py", "README.md")


@pytest.mark.parametrize("name", FOR_OWNERS)
def test_a_file_for_owners_is_the_same_whatever_was_answered(services: Services, name: str) -> None:
    assert len({(service / name).read_text() for _, service in services if (service / name).exists()}) == 1


# The page with the section on updates, the answers, and what runs updates or keeps Renovate from them.
ON_UPDATES = {
    "DEVELOPMENT.md",
    ".copier-answers.yml",
    ".gitlab-ci.yml",
    "renovate.json",
    "update.sh",
    "update.yml",
}


# The field that Kubernetes has for the pods of a Deployment or a Job, as a key and in a path.
FIELD_OF_PODS = re.compile(r"^ *template:$|\bspec\.template\.spec\b", re.MULTILINE)


def test_a_service_looks_handwritten(texts: Texts) -> None:
    """Check that only the files on updates say where it came from."""
    for path, text in texts:
        if "kubernetes" in path.parts:
            text = FIELD_OF_PODS.sub("", text)
        if path.name not in ON_UPDATES:
            assert not re.search("copier|template", text, re.IGNORECASE), path


def test_the_application_is_the_same_under_every_server(services: Services) -> None:
    applications: dict[str, set[str]] = {}
    for answers, service in services:
        for path in service.rglob("*.py"):
            if path.name not in {"gunicorn.conf.py", "granian_server.py", "uvicorn_server.py"}:
                shaping = ("layout", "database", "cache", "observability", "kubernetes")
                case = [answers[name] for name in shaping]
                name = f"{case}/{path.relative_to(service).as_posix()}"
                applications.setdefault(name, set()).add(path.read_text())
    assert {name for name, contents in applications.items() if len(contents) > 1} == set()


HARD_DESCRIPTIONS = [
    "He said \"hi\" and 'bye'",
    "back\\slash \\n \\",
    "{{ project_name }} {% raw %} {# c #}",
    "$HOME ${HOME} $$ `id` %s",
    "# not: a - comment, &anchor *alias !tag",
    "emoji 🦄 and 日本語, é, \u202e",
    "</script><!-- -->",
    "'''" + '"""',
    "x" * 200,
]


def called_with(main: str) -> dict[str, str]:
    """Return the texts that Service() is called with, by the names of their arguments."""
    [call] = [
        node
        for node in ast.walk(ast.parse(main))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Service"
    ]
    return {
        str(keyword.arg): ast.literal_eval(keyword.value)
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant)
    }


def description_in(service: Path) -> dict[str, str]:
    """Return the description as it is read from each file that holds it."""
    return {
        "pyproject.toml": tomllib.loads((service / "pyproject.toml").read_text())["project"]["description"],
        "app/factory.py": called_with((service / "app" / "factory.py").read_text()).get("description", ""),
        ".copier-answers.yml": yaml.safe_load((service / ".copier-answers.yml").read_text())["description"],
        "README.md": (service / "README.md").read_text().split("\n")[2],
    }


@pytest.mark.parametrize("text", HARD_DESCRIPTIONS)
def test_a_description_is_the_same_in_every_file(render: Render, text: str) -> None:
    service = render(description=text)
    for name, found in description_in(service).items():
        assert found == text, name
    ruff = subprocess.run(["ruff", "format", "--diff", "."], cwd=service, capture_output=True, text=True)
    assert ruff.returncode == 0, ruff.stdout


# Descriptions that the validator accepts.
DESCRIPTIONS = st.text(
    st.characters(
        blacklist_categories=["Cs"],
        blacklist_characters=[
            *map(chr, [*range(0x20), *range(0x7F, 0xA0)]),
            *"\u2028\u2029\ufeff\ufffe\uffff",
        ],
    ),
    max_size=200,
)


@settings(max_examples=2000, deadline=None)
@given(text=DESCRIPTIONS)
def test_any_description_survives_in_toml_and_python(text: str) -> None:
    answers = DEFAULTS | facts() | {"project_name": "orders-api", "description": text}
    project = ENVIRONMENT.get_template("template/pyproject.toml.jinja").render(answers)
    assert tomllib.loads(project)["project"]["description"] == text
    factory = ENVIRONMENT.get_template("template/{{ with_package }}/app/factory.py.jinja").render(answers)
    assert called_with(factory).get("description", "") == text


def test_ruff_keeps_the_quotes_of_any_description(tmp_path: Path) -> None:
    literal = ENVIRONMENT.from_string(
        "{% from 'includes/python_string.jinja' import python_string %}text = {{ python_string(text) }}\n"
    )
    random = Random(0)
    alphabet = "ab'\"\\\\{}$#é日🦄 "
    module = "".join(
        literal.render(text="".join(random.choices(alphabet, k=random.randrange(12)))) for _ in range(3000)
    )
    (tmp_path / "module.py").write_text(module)
    ruff = subprocess.run(
        ["ruff", "format", "--diff", "module.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ruff.returncode == 0, ruff.stdout[:1000]


def test_an_empty_description_leaves_no_trace(render: Render) -> None:
    service = render(description="")
    assert "description" not in (service / "app" / "factory.py").read_text()
    assert (service / "README.md").read_text().startswith("# orders-api\n\n```shell\n")
