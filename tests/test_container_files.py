"""Checks the container files of every combination, as far as possible without a Docker Engine."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.matrix import ROOT, Answers, combinations, label
from tests.conftest import Render, RenderTo, Services

NAMES = ("Dockerfile", ".dockerignore", "compose.yaml", "compose.prod.yaml")
SNAPSHOTS = ROOT / "tests" / "snapshots"

# Each server, database and proxy, and OpenTelemetry, have a snapshot. Each layout, each package manager, one
# worker and several are there at least once.
SNAPSHOT_ANSWERS: list[Answers] = [
    {"server": "uvicorn"},
    {"server": "fastapi", "layout": "single-file", "package_manager": "pip"},
    {"server": "gunicorn", "python_version": "3.12", "package_manager": "pip", "workers": 4},
    {"server": "granian", "python_version": "3.15", "layout": "single-file", "workers": 2},
    {"database": "sqlite", "package_manager": "pip"},
    {"database": "postgresql", "cache": "redis"},
    {"database": "mysql", "server": "gunicorn", "workers": 2},
    {"observability": "opentelemetry"},
    {"proxy": "caddy"},
    {"proxy": "traefik", "database": "postgresql", "cache": "redis"},
]

needs_compose = pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="there is no docker compose command",
)


Distinct = dict[str, dict[str, Path]]


@pytest.fixture(scope="module")
def distinct(services: Services) -> Distinct:
    """The different texts that each container file has in all combinations, with a path to each."""
    texts: Distinct = {name: {} for name in NAMES}
    for _, service in services:
        for name in NAMES:
            texts[name].setdefault((service / name).read_text(), service / name)
    return texts


# A proxy decides nothing in the other files.
SNAPSHOT_FILES = [
    pytest.param(answers, name, id=f"{name}-{label(answers)}")
    for answers in SNAPSHOT_ANSWERS
    for name in NAMES
    if "proxy" not in answers or name == "compose.prod.yaml"
]


@pytest.mark.parametrize(("answers", "name"), SNAPSHOT_FILES)
def test_a_container_file_is_as_reviewed(
    render: Render, request: pytest.FixtureRequest, answers: Answers, name: str
) -> None:
    """Compare with a snapshot. `pytest --update-snapshots` accepts the file as it is rendered now."""
    text = (render(**answers) / name).read_text()
    snapshot = SNAPSHOTS / label(answers) / name
    if request.config.getoption("--update-snapshots"):
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        snapshot.write_text(text)
    assert text == snapshot.read_text()


def test_hadolint_has_no_complaint(distinct: Distinct) -> None:
    command = ["hadolint", "--no-color", *map(str, distinct["Dockerfile"].values())]
    hadolint = subprocess.run(command, capture_output=True, text=True, check=False)
    assert hadolint.returncode == 0, hadolint.stdout


@needs_compose
def test_compose_accepts_each_file(distinct: Distinct) -> None:
    for name in ("compose.yaml", "compose.prod.yaml"):
        for path in distinct[name].values():
            compose = subprocess.run(
                ["docker", "compose", f"--file={path}", "config", "--quiet"],
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TAG": "1", "DOMAIN": "api.example.com"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (compose.returncode, compose.stderr) == (0, ""), path


@needs_compose
def test_production_names_the_variable_that_is_not_set(render: Render) -> None:
    compose = subprocess.run(
        ["docker", "compose", "--file=compose.prod.yaml", "config"],
        cwd=render(),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert compose.returncode != 0
    assert "TAG" in compose.stderr
    assert "must be set" in compose.stderr


def test_no_image_is_named_without_a_version(distinct: Distinct) -> None:
    for dockerfile in distinct["Dockerfile"]:
        for line in dockerfile.splitlines():
            image = line.partition("FROM ")[2] or line.partition("COPY --from=ghcr.io/")[2]
            name = image.split(" ")[0]
            assert not name or ":" in name or name in {"build"}, line
            assert "latest" not in line


def test_only_the_command_knows_the_server(render_to: RenderTo, tmp_path: Path) -> None:
    """Check that a server decides only CMD and, if it has a file of its own, the line that copies it."""
    dockerfiles = {
        str(answers["server"]): (render_to(tmp_path / str(answers["server"]), **answers) / "Dockerfile")
        .read_text()
        .replace(str(answers["server"]), "SERVER")
        .splitlines()
        for answers in combinations("server", project_name="orders-api")
    }
    own = {server: set(lines) for server, lines in dockerfiles.items()}
    common = set.intersection(*own.values())
    for server, lines in own.items():
        for line in lines - common:
            assert line.startswith(("CMD ", "COPY --chmod=go+rX SERVER")), f"{server}: {line}"


def test_everything_that_the_dockerfile_copies_is_sent(distinct: Distinct) -> None:
    for path in distinct[".dockerignore"].values():
        sent = {line[1:] for line in path.read_text().splitlines() if line.startswith("!")}
        needed = set()
        for line in path.with_name("Dockerfile").read_text().splitlines():
            if line.startswith("COPY ") and "--from=" not in line:
                needed |= set(line.split()[2:-1])
            if "type=bind" in line:
                needed.add(line.partition("source=")[2].partition(",")[0])
        assert sent == needed, path


TEXTS = ['He said "hi"', "back\\slash \\n", "$HOME ${HOME} $$ `id`", "# not: a - comment", "emoji 🦄 日本語"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_description_can_not_break_the_dockerfile(render: Render, text: str) -> None:
    dockerfile = (render(description=text) / "Dockerfile").read_text()
    [line] = [line for line in dockerfile.splitlines() if "image.description=" in line]
    literal = line.partition("image.description=")[2].removesuffix(" \\")
    assert json.loads(literal.replace("\\$", "$")) == text


@pytest.mark.parametrize("workers", [1, 4, 64])
def test_the_limits_grow_with_the_workers(render: Render, workers: int) -> None:
    service = yaml.safe_load((render(workers=workers) / "compose.prod.yaml").read_text())["services"]["app"]
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"] == f"${{MEMORY_LIMIT:-{128 + 128 * workers}M}}"
    assert limits["pids"] >= 4 * workers


@needs_compose
@pytest.mark.parametrize(("variable", "cores"), [({}, 0), ({"CPU_LIMIT": "1.5"}, 1.5)])
def test_cores_are_limited_only_where_somebody_says_so(
    render: Render, variable: dict[str, str], cores: float
) -> None:
    """Docker refuses more cores than a machine has, so that a default would refuse small machines."""
    compose = subprocess.run(
        ["docker", "compose", "--file=compose.prod.yaml", "config", "--format=json"],
        cwd=render(workers=64),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TAG": "1", **variable},
        capture_output=True,
        check=True,
    )
    limits = json.loads(compose.stdout)["services"]["app"]["deploy"]["resources"]["limits"]
    assert limits.get("cpus", 0) == cores


def test_production_is_hardened(render: Render) -> None:
    service = yaml.safe_load((render() / "compose.prod.yaml").read_text())["services"]["app"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
