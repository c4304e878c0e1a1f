"""Tests the rendered container files on a real Docker Engine: built, started, serving and stopped."""

import asyncio
import io
import itertools
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from _pytest.mark import ParameterSet

from harness.bodies import send_bodies
from harness.containers import HARDENED, Container, DockerError, Project, build, composed, docker, unique
from harness.matrix import Answers, combinations, label, values
from harness.pages import shell
from harness.pods import Pod
from harness.ports import reserved_port
from harness.variants import variants
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.docker

# Routes and a middleware that only the tests need, added as an owner would add them.
PROBES = """
import asyncio
import os
import tempfile
from pathlib import Path

from starlette.responses import PlainTextResponse


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.post("/bodies")
async def bodies(body: dict[str, int]) -> int:
    return len(body)


@app.get("/slow")
async def slow() -> str:
    tempfile.mkstemp(prefix="slow-")
    await asyncio.sleep(4)
    return "done"


class Broken:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and Path("/tmp/broken").exists():
            await PlainTextResponse("broken", 500)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


app.add_middleware(Broken)
"""

Image = tuple[Path, str]


def main_of(service: Path) -> Path:
    return next(path for path in (service / "app" / "main.py", service / "main.py") if path.exists())


@pytest.fixture(scope="session")
def image(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Image]]:
    """Build the image of a service with these answers, with PROBES if they are wanted. Each is built once."""
    images: dict[str, Image] = {}

    def image(probes: bool = False, **answers: object) -> Image:
        key = f"{label(answers)}{'-probes' if probes else ''}"
        if key not in images:
            service = render_to(tmp_path_factory.mktemp("image") / "orders-api", **answers)
            if probes:
                with main_of(service).open("a") as main:
                    main.write(PROBES)
            images[key] = service, unique("image")
            build(*images[key])
        return images[key]

    yield image
    for _, tag in images.values():
        docker("image", "rm", "--force", tag)


@contextmanager
def in_production(service: Path, tag: str) -> Iterator[tuple[Project, int]]:
    """Run an image as compose.prod.yaml does. Yield the project and its port on this machine."""
    docker("tag", tag, f"{tag}:1")
    try:
        with reserved_port() as port:
            assert port
            names = {"IMAGE": tag, "TAG": "1", "HOST_PORT": str(port)}
            with composed(service, "compose.prod.yaml", **names) as project:
                yield project.up(), port
    finally:
        docker("image", "rm", f"{tag}:1")


def in_group(name: str, value: object, case: str) -> ParameterSet:
    """Return a test case that runs in the same process as the others of its group, and shares their image."""
    return pytest.param(value, id=case, marks=pytest.mark.xdist_group(f"docker-{name}"))


SERVERS = [in_group(server, server, server) for server in values("server")]
# Each server, with the package managers and the layouts in turn.
IMAGES = [
    in_group(
        server,
        {"server": server, "package_manager": manager, "layout": layout},
        f"{server}-{manager}-{layout}",
    )
    for server, manager, layout in zip(
        values("server"),
        itertools.cycle(values("package_manager")),
        itertools.cycle([*values("layout"), *reversed(values("layout"))]),
        strict=False,
    )
]
PYTHONS = variants(
    (in_group("pythons", answers, label(answers)) for answers in combinations("python_version")), 2
)


class TestAsProductionStartsIt:
    """Starts images as production does, with each server, package manager and layout."""

    @pytest.mark.parametrize("answers", IMAGES)
    def test_it_is_healthy_and_answers(self, image: Callable[..., Image], answers: Answers) -> None:
        service, tag = image(**answers)
        with in_production(service, tag) as (project, port):
            item = httpx2.get(f"http://127.0.0.1:{port}/items/5", params={"q": "somequery"}, timeout=30)
            assert item.json() == {"item_id": 5, "q": "somequery"}
            host = json.loads(docker("inspect", "--format={{json .HostConfig}}", project.container))
            assert host["ReadonlyRootfs"] is True
            assert host["CapDrop"] == ["ALL"]
            assert host["SecurityOpt"] == ["no-new-privileges:true"]
            assert host["RestartPolicy"]["Name"] == "unless-stopped"
            assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}

    @pytest.mark.parametrize("answers", IMAGES)
    def test_process_1_is_the_server_and_runs_as_a_user_without_privileges(
        self, image: Callable[..., Image], answers: Answers
    ) -> None:
        _, tag = image(**answers)
        with Container(tag, *HARDENED) as container:
            container.wait_until_healthy()
            command = container.python("print(open('/proc/1/cmdline').read().replace(chr(0), ' '))")
            assert str(answers["server"]) in command
            assert container.python("import os; print(os.getuid(), os.getgid())") == "10001 10001"
            status = container.python("print(open('/proc/1/status').read())")
            assert "CapEff:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status

    @pytest.mark.parametrize("answers", IMAGES)
    def test_it_can_write_nowhere_but_to_memory(self, image: Callable[..., Image], answers: Answers) -> None:
        """Start without --read-only, so that only the files' owner and mode forbid to write."""
        _, tag = image(**answers)
        with Container(tag) as container:
            container.wait_until_healthy()
            writable = container.python(
                "import os\n"
                "for folder, _, _ in os.walk('/'):\n"
                "    if not folder.startswith(('/proc', '/sys')) and os.access(folder, os.W_OK):\n"
                "        print(folder)"
            )
        assert set(writable.split()) <= {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"}

    @pytest.mark.parametrize("answers", IMAGES)
    def test_the_image_holds_what_runs_and_nothing_that_builds(
        self, image: Callable[..., Image], answers: Answers
    ) -> None:
        _, tag = image(**answers)
        with Container(tag, *HARDENED) as container:
            environment = container.python("import os; print(*os.listdir('/opt/venv/bin'))").split()
            packages = container.python(
                "from importlib.metadata import distributions\n"
                "print(*(d.name for d in distributions(path=['/opt/venv/lib/python%d.%d/site-packages' "
                "% __import__('sys').version_info[:2]])))"
            ).split()
            code = container.python("import os; print(*os.listdir('/code'))").split()
        assert not {"uv", "pip", "pytest", "mypy", "ruff", "prek"} & {*environment, *packages}
        assert "fastapi" in packages
        assert {"Dockerfile", "tests", "pyproject.toml", "uv.lock", ".env"}.isdisjoint(code)


@pytest.mark.parametrize("answers", PYTHONS)
def test_every_python_builds_and_answers(image: Callable[..., Image], answers: Answers) -> None:
    _, tag = image(**answers)
    with Container(tag, *HARDENED) as container:
        container.wait_until_healthy()
        assert container.get("/items/5?q=somequery").json() == {"item_id": 5, "q": "somequery"}
        version = container.python("import sys; print('%d.%d' % sys.version_info[:2])")
    assert version == answers["python_version"]


class TestStopping:
    @pytest.mark.parametrize("server", SERVERS)
    @pytest.mark.parametrize("workers", [1, 4])
    def test_all_requests_in_flight_are_answered(
        self, image: Callable[..., Image], server: str, workers: int
    ) -> None:
        _, tag = image(probes=True, server=server)
        with Container(tag, *HARDENED, f"--env=WEB_CONCURRENCY={workers}") as container:
            container.wait_until_healthy()
            answers, code = asyncio.run(stop_with_requests_in_flight(container, 50))
        assert answers == [200] * 50
        assert code in {0, 143}

    @pytest.mark.parametrize("server", SERVERS)
    def test_a_killed_worker_is_replaced_while_requests_go_on(
        self, image: Callable[..., Image], server: str
    ) -> None:
        _, tag = image(probes=True, server=server)
        with Container(tag, *HARDENED, "--env=WEB_CONCURRENCY=2") as container:
            container.wait_until_healthy()
            before = until(lambda: pids(container, 2), "both workers")
            victim = min(before)
            container.python(f"import os; os.kill({victim}, 9)")
            replaced = until(lambda: pids(container, 2, without=victim), "a new worker")
            assert len(replaced - before) == 1
            assert container.inspect(".State.Running")


# Prints the most kB that each process has had, without those of health checks and its own.
PEAKS = """
import contextlib, os, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        health_check = b"http.client" in (process / "cmdline").read_bytes()
        if not health_check and int(process.name) != os.getpid():
            print(process.name, lines["VmHWM"].split()[0])
"""


class TestBodies:
    """Sends more than the limit to a container of compose.prod.yaml, with its own limits."""

    # 50 take some minutes on two cores: `BODIES=50` sends them.
    COUNT = int(os.environ.get("BODIES", "8"))

    @pytest.mark.parametrize("server", SERVERS)
    def test_large_bodies_are_refused_in_no_more_memory_while_others_are_served(
        self, image: Callable[..., Image], server: str
    ) -> None:
        service, tag = image(probes=True, server=server)
        with (
            in_production(service, tag) as (project, port),
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):

            def peaks() -> dict[str, int]:
                printed = docker("exec", project.container, "python", "-c", PEAKS)
                return {pid: int(peak) for pid, peak in map(str.split, printed.splitlines())}

            async def upload(chunked: bool, count: int) -> tuple[list[int], list[int]]:
                """Return the statuses of the bodies, and of other requests meanwhile."""
                sent = asyncio.create_task(send_bodies(port, "/bodies", count, 100 * 2**20, chunked))
                others = []
                while not sent.done():
                    response = await asyncio.to_thread(client.get, "/items/5?q=somequery")
                    others.append(response.status_code)
                return await sent, others

            # What a process needs to refuse a body for the first time.
            for chunked in (False, True):
                asyncio.run(upload(chunked, 1))
            before = peaks()
            for chunked in (False, True):
                refused, others = asyncio.run(upload(chunked, self.COUNT))
                # Granian closes the connection of a client that sends on.
                assert set(refused) <= ({413, 0} if server == "granian" else {413})
                assert set(others) == {200}
                after = peaks()
                assert after.keys() == before.keys()
                # Of a body in chunks, as much as the limit allows is read before it is refused.
                held = self.COUNT * 1024 if chunked else 0
                assert sum(after.values()) <= 1.1 * sum(before.values()) + held
            assert docker("inspect", "--format={{.RestartCount}}", project.container).strip() == "0"
            assert client.post("/bodies", json={"a": 1}).json() == 1


async def stop_with_requests_in_flight(container: Container | Pod, count: int) -> tuple[list[int], int]:
    """Stop a container that is serving requests. Return the statuses of their responses and the exit code."""
    limits = httpx2.Limits(max_connections=count)
    url = container.own_url
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as client:
        requests = [asyncio.create_task(client.get("/slow")) for _ in range(count)]
        started = "import glob; print(len(glob.glob('/tmp/slow-*')))"
        await asyncio.to_thread(
            until, lambda: container.python(started) == str(count), "all requests in their handlers", 30
        )
        code = await asyncio.to_thread(container.stop)
        return [response.status_code for response in await asyncio.gather(*requests)], code


def pids(container: Container, count: int, without: int = 0) -> set[int]:
    """Return the process ids of the workers that respond if there are this many, or else nothing.

    Every request must get a response, unless one of the workers was killed.
    """
    found: set[int] = set()
    for _ in range(40):
        try:
            found.add(int(container.get("/pid").text))
        except httpx2.TransportError:
            # Only a request that the killed worker had accepted may fail.
            assert without
    found.discard(without)
    return found if len(found) == count else set()


@pytest.mark.parametrize("server", SERVERS)
def test_as_many_workers_run_as_web_concurrency_says(image: Callable[..., Image], server: str) -> None:
    _, tag = image(probes=True, server=server)
    with Container(tag, *HARDENED, "--env=WEB_CONCURRENCY=3") as container:
        container.wait_until_healthy()
        until(lambda: pids(container, 3), "three workers")


@pytest.mark.parametrize("server", SERVERS)
def test_the_answered_number_of_workers_is_the_default(image: Callable[..., Image], server: str) -> None:
    _, tag = image(probes=True, server=server, workers=2)
    with Container(tag, *HARDENED) as container:
        container.wait_until_healthy()
        until(lambda: pids(container, 2), "two workers")


@pytest.mark.parametrize(
    "answers",
    [{"database": "sqlite", "server": "gunicorn"}, {"layout": "single-file", "server": "granian"}],
    ids=label,
)
def test_a_copy_whose_files_only_its_owner_may_read_is_an_image_that_starts(
    render: Callable[..., Path], answers: Answers
) -> None:
    service = render(**answers)
    # A clone or a copy under umask 077 has these modes.
    for path in service.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o077)
    tag = unique("umask")
    build(service, tag)
    try:
        with Container(tag, *HARDENED, "--tmpfs=/data:uid=10001") as container:
            container.wait_until_healthy()
            if "database" in answers:
                docker("exec", container.name, "alembic", "upgrade", "head")
                assert container.get("/health/ready").status_code == 200
    finally:
        docker("image", "rm", "--force", tag)


def test_the_health_check_follows_the_application(image: Callable[..., Image]) -> None:
    _, tag = image(probes=True, server="uvicorn")
    with Container(tag, *HARDENED, "--health-interval=1s", "--health-retries=2") as container:
        container.wait_until_healthy()
        container.python("open('/tmp/broken', 'w')")
        assert container.get("/health/live").status_code == 500
        until(lambda: container.health == "unhealthy", "an unhealthy container")
        container.python("import os; os.unlink('/tmp/broken')")
        until(lambda: container.health == "healthy", "a healthy container again")


class TestBadInput:
    @pytest.mark.parametrize("server", SERVERS)
    def test_a_wrong_variable_ends_the_start_with_its_name(
        self, image: Callable[..., Image], server: str
    ) -> None:
        _, tag = image(server=server)
        with Container(tag, *HARDENED, "--env=LOG_LEVEL=loud") as container:
            assert container.wait() != 0
            logs = container.logs()
        assert "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'" in logs
        assert "Traceback" not in logs
        assert "loud" not in logs

    def test_a_port_that_is_taken_is_named(self, image: Callable[..., Image]) -> None:
        _, tag = image(server="uvicorn")
        with Container(tag) as container:
            port = container.url.rpartition(":")[2]
            with pytest.raises(DockerError, match=f":{port}"):
                Container(tag, f"--publish=127.0.0.1:{port}:8001")


@pytest.mark.parametrize("server", SERVERS)
class TestBehindAProxy:
    """Puts Caddy in front of the service, in another container that ends TLS, as in production."""

    def test_a_redirect_keeps_https_and_the_log_names_the_client(
        self, image: Callable[..., Image], proxied: "Proxied", server: str
    ) -> None:
        _, tag = image(server=server)
        answer, log = proxied(tag, trusted=True)
        assert answer.headers["location"].startswith("https://")
        assert log["client"] != proxied.address

    def test_what_an_untrusted_address_forwards_is_ignored(
        self, image: Callable[..., Image], proxied: "Proxied", server: str
    ) -> None:
        _, tag = image(server=server)
        answer, log = proxied(tag, trusted=False)
        assert answer.headers["location"].startswith("http://")
        assert log["client"] == proxied.address


class Proxied:
    """Runs a Caddy that forwards requests to the container that is called `app` in its network."""

    def __init__(self, folder: Path) -> None:
        self.network = unique("network")
        self.caddy = unique("caddy")
        (folder / "Caddyfile").write_text("https://localhost {\n tls internal\n reverse_proxy app:8000\n}\n")
        docker("network", "create", self.network)
        docker(
            "run",
            "--detach",
            f"--name={self.caddy}",
            f"--network={self.network}",
            "--publish=127.0.0.1::443",
            f"--volume={folder / 'Caddyfile'}:/etc/caddy/Caddyfile:ro",
            "caddy:2",
        )
        self.address = docker(
            "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.caddy
        ).strip()
        self.port = docker("port", self.caddy, "443/tcp").strip().rpartition(":")[2]

    def __call__(self, tag: str, trusted: bool) -> tuple[httpx2.Response, dict[str, object]]:
        """Request a path with a slash too many through the proxy. Return the response and its log line."""
        allowed = self.address if trusted else "192.0.2.1"
        options = (*HARDENED, f"--network={self.network}", "--network-alias=app")
        with Container(tag, *options, f"--env=FORWARDED_ALLOW_IPS={allowed}") as container:
            container.wait_until_healthy()
            # Through the engine's own proxy, a client of this machine comes from the network's gateway.
            answer: httpx2.Response = until(self.ask, "a response through the proxy")

            def logged() -> dict[str, object] | None:
                lines = [json.loads(line) for line in container.logs().splitlines() if '"access"' in line]
                return next((line for line in lines if line["path"] == "/items/5/"), None)

            return answer, until(logged, "the access line")

    def ask(self) -> httpx2.Response | None:
        try:
            answer = httpx2.get(f"https://localhost:{self.port}/items/5/", verify=False, timeout=10)
        except httpx2.TransportError:
            return None
        return answer if answer.status_code == 307 else None

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.caddy)
        docker("network", "rm", self.network)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    proxy = Proxied(tmp_path_factory.mktemp("caddy"))
    yield proxy
    proxy.remove()


class TestBuilding:
    def test_the_builder_has_no_warning(self, services: list[tuple[Answers, Path]]) -> None:
        checked = set()
        for _, service in services:
            dockerfile = (service / "Dockerfile").read_text()
            if dockerfile not in checked:
                checked.add(dockerfile)
                docker("build", "--check", ".", cwd=service)

    @pytest.mark.parametrize("package_manager", values("package_manager"))
    def test_an_edit_of_the_code_installs_nothing(
        self, render: Callable[..., Path], package_manager: str
    ) -> None:
        service = render(package_manager=package_manager)
        tag = unique("image")
        build(service, tag)
        with (service / "app" / "items.py").open("a") as items:
            items.write("\n\nEDITED = True\n")
        steps = build(service, tag)
        docker("image", "rm", "--force", tag)
        installation = next(
            line for line in steps.splitlines() if "uv sync" in line or "pip --python" in line
        )
        number = installation.split()[0]
        assert f"{number} CACHED" in steps

    def test_nothing_that_lies_in_the_folder_is_sent_or_built_in(self, render: Callable[..., Path]) -> None:
        service = render()
        secret = unique("secret")
        for folder in (".venv", ".git", "node_modules", "data"):
            (service / folder).mkdir()
            with (service / folder / "junk").open("wb") as junk:
                junk.write(secret.encode())
                junk.truncate(75_000_000)
        for name in (".env", "app/.env", "app/__pycache__/junk.pyc", ".env.production"):
            (service / name).parent.mkdir(exist_ok=True)
            (service / name).write_text(secret)
        tag = unique("image")
        steps = build(service, tag)
        saved = subprocess.run(["docker", "save", tag], capture_output=True, check=True).stdout
        docker("image", "rm", "--force", tag)
        sizes = [
            line.split("transferring context: ")[1] for line in steps.splitlines() if "context: " in line
        ]
        assert sizes
        assert all("MB" not in size and "GB" not in size for size in sizes), sizes
        assert list(files_with(saved, secret.encode())) == []


def files_with(saved: bytes, text: bytes) -> Iterator[str]:
    """Yield the files of an image, in any layer, that hold the text or have the name of a file with it."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as image:
        for blob in image.getmembers():
            file = image.extractfile(blob)
            content = file.read() if file else b""
            if not tarfile.is_tarfile(io.BytesIO(content)):
                if text in content:
                    yield blob.name
                continue
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                for member in layer.getmembers():
                    inner = layer.extractfile(member) if member.isfile() else None
                    if member.name.endswith(("/junk", ".env", "junk.pyc")) or (
                        inner and text in inner.read()
                    ):
                        yield member.name


@pytest.mark.parametrize("server", SERVERS)
class TestDevelopment:
    """Runs compose.yaml with each server."""

    def test_an_edit_is_served_and_nothing_is_written_to_the_folder(
        self, render: Callable[..., Path], server: str
    ) -> None:
        service = render(server=server)
        (service / ".venv" / "bin").mkdir(parents=True)
        (service / ".venv" / "bin" / "python").write_text("of another machine")
        before = {path: path.stat().st_mtime_ns for path in service.rglob("*")}
        with reserved_port() as port, composed(service, "compose.yaml", HOST_PORT=str(port)) as project:
            # The page's command would run until Ctrl-C.
            [command] = shell((service / "README.md").read_text())
            project.compose(*command.removeprefix("docker compose").split(), "--detach", "--build")
            url = f"http://127.0.0.1:{port}/"
            until(lambda: answer(url) == {"Hello": "World"}, "the service")
            main = service / "app" / "main.py"
            main.write_text(main.read_text().replace('"World"', '"Edited"'))
            until(lambda: answer(url) == {"Hello": "Edited"}, "the edit")
            tests = project.compose("run", "--rm", "app", "pytest", "-q", "tests/test_health.py")
            assert "2 passed" in tests
        after = {path: path.stat().st_mtime_ns for path in service.rglob("*")}
        del before[main], after[main]
        assert after == before


def answer(url: str) -> object:
    try:
        return httpx2.get(url, timeout=10).json()
    except httpx2.TransportError:
        return None


@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_compose_watch_installs_what_the_lock_gains(
    render: Callable[..., Path], package_manager: str
) -> None:
    service = render(package_manager=package_manager)
    lock = service / ("uv.lock" if package_manager == "uv" else "requirements-dev.txt")
    with reserved_port() as port, composed(service, "compose.yaml", HOST_PORT=str(port)) as project:
        project.compose("up", "--detach", "--build")
        first = project.container
        watch = subprocess.Popen(
            ["docker", *project.arguments("watch", "--no-up")],
            cwd=service,
            env={**os.environ, **project.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output = watch.stdout
            assert output
            until(lambda: "enabled" in output.readline(), "the watch")
            lock.write_text(lock.read_text() + "\n")
            until(lambda: project.container not in {"", first}, "a new container", 120)
        finally:
            watch.terminate()
            watch.wait()
