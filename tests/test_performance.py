"""Checks what the default service loads, holds and does, without timing anything: benchmarks/ times it."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from harness.containers import HARDENED, Container, build, docker, unique
from harness.matrix import DEFAULTS, values
from harness.running import install, missing_python, run, serving
from harness.waiting import until
from tests.conftest import Render, RenderTo

# The packages that importing the application loads, without Python's own. Each costs memory and start time.
IMPORTED = {
    "annotated_doc",
    "annotated_types",
    "anyio",
    "app",
    "dotenv",
    "fastapi",
    "idna",
    "opentelemetry",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "starlette",
    "typing_extensions",
    "typing_inspection",
}

# Prints the packages that importing the application loads, and then the modules of OpenTelemetry. Packages of
# the standard library, and those that are loaded before, are left out.
NAMES = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
import app.main
after = {name for name in sys.modules if not name.startswith("_")}
packages = {name.partition(".")[0] for name in after} - before - set(sys.stdlib_module_names)
print(*sorted(packages))
print(*sorted(name for name in after if name.startswith("opentelemetry")))
"""

# Sends several requests at once to each path, and prints how many writes and how many lines their log has.
REQUESTS = """
import asyncio, sys
written = []
class Out:
    def write(self, data): written.append(data)
    def flush(self): pass
out = Out()
out.buffer = Out()
printed, sys.stdout = sys.stdout, out
from app.main import app
async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
async def send(message): pass
async def ask(path):
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [], "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000), "scheme": "http",
             "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}}
    await app(scope, receive, send)
async def ask_together(path):
    await asyncio.gather(*[ask(path) for _ in range(20)])
for path in ("/items/5", "/health/live", "/items/x"):
    written.clear()
    asyncio.run(ask_together(path))
    print(path, len(written), b"".join(written).count(b"\\n"), file=printed)
"""


@pytest.fixture(scope="module")
def service(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default service, installed."""
    if missing := missing_python(DEFAULTS["python_version"]):
        pytest.skip(missing)
    service = render_to(tmp_path_factory.mktemp("service") / "orders-api")
    install(service, DEFAULTS, tmp_path_factory.mktemp("shared"))
    return service


@pytest.mark.project
@pytest.mark.xdist_group("performance")
class TestInstalled:
    def test_importing_the_application_loads_no_package_but_these(self, service: Path) -> None:
        (service / "names.py").write_text(NAMES)
        packages, _ = run("python names.py", service).splitlines()
        assert set(packages.split()) <= IMPORTED

    def test_no_opentelemetry_sdk_is_loaded(self, service: Path) -> None:
        (service / "names.py").write_text(NAMES)
        _, opentelemetry = run("python names.py", service).splitlines()
        assert [name for name in opentelemetry.split() if "sdk" in name or "exporter" in name] == []

    def test_requests_that_are_answered_together_share_writes_and_probes_are_none(
        self, service: Path
    ) -> None:
        (service / "requests_made.py").write_text(REQUESTS)
        printed = run("python requests_made.py", service, ENVIRONMENT="production")
        # Two writes, because a pipe that other workers write to takes 4096 bytes in one piece.
        assert printed.splitlines() == ["/items/5 2 20", "/health/live 0 0", "/items/x 2 20"]


@pytest.mark.docker
def test_a_row_is_read_by_one_statement_and_written_in_one_transaction(
    render: Render, tmp_path: Path
) -> None:
    answers = DEFAULTS | {"database": "postgresql"}
    if missing := missing_python(answers["python_version"]):
        pytest.skip(missing)
    service = render(database="postgresql")
    install(service, answers, tmp_path)
    options = ("--env=POSTGRES_USER=app", "--env=POSTGRES_PASSWORD=app", "--publish=127.0.0.1::5432")
    with Container("postgres:18", *options, command=("postgres", "-c", "log_statement=all")) as database:
        ready = "ready to accept connections"
        # Before PostgreSQL listens on IPv4, the line is meant for the image's own script.
        until(lambda: ready in database.logs().partition("listening on IPv4")[2], "PostgreSQL is ready")
        address = docker("port", database.name, "5432/tcp").strip()
        url = f"postgresql://app:app@{address}/app"

        def statements() -> list[str]:
            return re.findall(r"LOG:  (?:statement|execute \w+): (\w+)", database.logs())

        run("alembic upgrade head", service, DATABASE_URL=url)
        with serving(service, DATABASE_URL=url) as process:
            process.client.post("/items", json={"name": "lamp"})
            process.get("/items/1")
            before = len(statements())
            assert process.get("/items/1").status_code == 200
            assert process.client.post("/items", json={"name": "sofa"}).status_code == 201
            until(lambda: "COMMIT" in statements()[before:], "the commit is in the log")
            assert statements()[before:] == ["SELECT", "BEGIN", "INSERT", "COMMIT"]


# The runtime's own layers, above those of the base image. Nothing is copied twice.
LAYERS = ["WORKDIR /code", "COPY /opt/venv /opt/venv", "COPY --chmod=go+rX app app"]


@pytest.mark.docker
@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_the_image_is_its_base_and_the_locked_packages_and_the_code(
    render: Render, package_manager: str
) -> None:
    service = render(package_manager=package_manager)
    tag = unique("image")
    build(service, tag)
    try:
        history = docker("history", "--no-trunc", "--format={{json .}}", tag).splitlines()
        steps = [str(json.loads(step)["CreatedBy"]) for step in history]
        own = steps[: next(number for number, step in enumerate(steps) if step.startswith("ENV PATH=/opt"))]
        layers = [step for step in reversed(own) if step.startswith(("WORKDIR", "COPY", "RUN", "ADD"))]
        assert [step.removesuffix(" # buildkit") for step in layers] == LAYERS
        with Container(tag, *HARDENED) as container:
            found = container.python(
                "import sys\n"
                "from importlib.metadata import distributions\n"
                "for d in distributions(path=[p for p in sys.path if p.startswith('/opt')]):\n"
                "    print(f'{d.name}=={d.version}'.lower().replace('_', '-'))"
            )
        assert set(found.split()) == locked(service)
    finally:
        docker("image", "rm", "--force", tag)


def locked(service: Path) -> set[str]:
    """Return the packages and versions that the lock installs on Linux, without the tools for development."""
    if (service / "requirements.txt").exists():
        text = (service / "requirements.txt").read_text()
        pinned = re.findall(r"^([\w.-]+)==([\w.]+)(.*)$", text, re.MULTILINE)
        return {f"{name}=={version}" for name, version, rest in pinned if "win32'" not in on_windows(rest)}
    lock = tomllib.loads((service / "uv.lock").read_text())
    packages = {package["name"]: package for package in lock["package"]}
    found: set[str] = set()
    missing = ["orders-api"]
    while missing:
        name = missing.pop()
        for dependency in packages[name].get("dependencies", []):
            wanted = on_windows(dependency.get("marker", "")) == "" and dependency["name"] not in found
            if wanted:
                found.add(dependency["name"])
                missing.append(dependency["name"])
    return {f"{name}=={packages[name]['version']}" for name in found}


def on_windows(marker: str) -> str:
    """Return the marker if it leaves Linux out, or else ""."""
    return marker if re.search(r"(sys_platform|platform_system) == '(win32|Windows)'", marker) else ""
