"""Tests that docs/getting-started-postgresql.md can be followed, from an empty folder to a rollback."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness.clones import clone, git
from harness.containers import docker, unique
from harness.development import with_ports
from harness.one_server import Reader, free_ports
from harness.pages import ADDRESS, Block, blocks, codes, commands, page, section, service_section, shell
from harness.running import Process, run, variables
from harness.steps import variables_of_a_reader
from harness.waiting import until
from tests.conftest import RenderTo

PAGE = page("docs/getting-started-postgresql.md")
COPY, DEVELOP, RELEASE, CHANGE, GO_BACK, REMOVE = SECTIONS = (
    "1. Copy",
    "2. Develop",
    "3. Release on one server",
    "4. Add a column and release again",
    "5. Go back",
    "6. Remove it from your laptop",
)
LAMP = '{"id":1,"name":"lamp","description":null}'


def test_every_block_of_the_page_is_in_a_section_that_a_test_follows() -> None:
    assert blocks(PAGE) == [block for title in SECTIONS for block in blocks(section(PAGE, title))]


def test_the_page_and_the_pages_of_the_service_have_the_same_commands(
    render_to: RenderTo, tmp_path: Path
) -> None:
    service = render_to(tmp_path / "orders-api", database="postgresql", proxy="caddy")
    start, _, tests = shell(section(PAGE, DEVELOP))
    assert start.splitlines() == commands(service, "Run")
    assert tests.splitlines() == commands(service, "Test")
    once, release, *_ = shell(section(PAGE, RELEASE))
    assert once == "".join(shell(service_section(service, "Once on the server")))
    own_release, own_rollback, *_ = shell(service_section(service, "Deploy"))
    migrate, second_release, _ = shell(section(PAGE, CHANGE))
    assert release == second_release == own_release
    assert shell(section(PAGE, GO_BACK))[0].startswith(own_rollback)
    migrate = migrate.replace("Items have a stock", "What changes")
    assert migrate.splitlines()[:2] == commands(service, "Migrate")


class Newcomer(Reader):
    """Types the page's blocks in order, in a folder that begins empty."""

    def __init__(self, folder: Path, address: str, ports: list[int], log: Path) -> None:
        super().__init__(folder / unique("orders"), ports)
        self.address = address
        self.development_port, self.database_port = ports[2:]
        self.log = log
        self.development: Process | None = None

    def run(self, script: str) -> str:
        folder = self.service if self.service.exists() else self.service.parent
        script = script.replace(ADDRESS, self.address)
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{self.development_port}")
        return run(script, folder, **variables_of_a_reader())

    def follow(self, title: str) -> list[str]:
        """Type all blocks of a section, and return what they print."""
        return [self.take(block) for block in blocks(section(PAGE, title))]

    def take(self, block: Block) -> str:
        language, text = block
        if language == "diff":
            return self.run(f"git apply <<'END OF THE DIFF'\n{text}END OF THE DIFF")
        assert language == "shell", f"nothing types a block of {language}"
        if text.endswith("--reload\n"):
            return self.develop(text)
        # The page says that this one is repeated.
        return self.repeat(text) if "/health/ready" in text else self.type(text)

    def develop(self, block: str) -> str:
        """Type the block that ends with a server. The server and the database get free ports."""
        settings, *lines, server = block.splitlines()
        printed = self.type(settings)
        env = self.service / ".env"
        with_ports(env, {"DATABASE_HOST_PORT": str(self.database_port)})
        env.write_text(env.read_text() + self.settings)
        printed += self.type("\n".join(lines))
        environment = variables(self.service) | {"UVICORN_PORT": str(self.development_port)}
        command = ["bash", "-ec", f"exec {server}"]
        self.development = Process(command, self.service, self.log, self.development_port, environment)
        until(self.development.answers, server)
        return printed

    def restarted(self) -> bool:
        """Tell whether the server has started more than once."""
        return self.log.read_text().count("Application startup complete") > 1

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of a response of production."""
        response = httpx2.get(self.url + path, verify=False, trust_env=False, timeout=30)
        return response.status_code, response.text

    def head(self) -> str:
        return git(self.service, "rev-parse", "HEAD").strip()

    def left(self) -> list[str]:
        """Return the containers, networks and volumes of the service."""
        listings = ("container ls --all", "network ls", "volume ls")
        found = [docker(*listing.split(), "--quiet", f"--filter=name={self.name}") for listing in listings]
        return "".join(found).split()

    def remove(self) -> None:
        """Remove all that was started, in development too."""
        if self.development:
            self.development.kill()
        if self.service.exists():
            docker("compose", "down", "--volumes", "--timeout=5", "--rmi=local", cwd=self.service)
            super().remove()


@pytest.fixture
def newcomer(newest_python: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    address = str(clone(tmp_path_factory.mktemp("clone")))
    log = tmp_path_factory.mktemp("log") / "development.log"
    with free_ports(4) as ports:
        newcomer = Newcomer(tmp_path_factory.mktemp("empty"), address, ports, log)
        try:
            yield newcomer
        finally:
            newcomer.remove()


@pytest.mark.project
@pytest.mark.docker
def test_the_page_leads_from_an_empty_folder_to_https_to_a_second_release_and_back(
    newcomer: Newcomer,
) -> None:
    newcomer.follow(COPY)
    _, created_and_read, _ = newcomer.follow(DEVELOP)
    assert created_and_read == 2 * LAMP
    assert LAMP in codes(section(PAGE, DEVELOP))

    *_, ready, created_and_read = newcomer.follow(RELEASE)
    first = newcomer.head()
    assert newcomer.serving() == [first]
    assert ready == '{"status":"ok"}'
    assert newcomer.get("/health/ready") == (200, ready)
    assert created_and_read == 2 * LAMP

    *_, rows = newcomer.follow(CHANGE)
    until(newcomer.restarted, "the development server restarts after the edit")
    second = newcomer.head()
    assert newcomer.serving() == [second]
    names, _, row, *_ = [[cell.strip() for cell in line.split("|")] for line in rows.splitlines()]
    assert names == ["id", "name", "description", "stock"]
    assert row == ["1", "lamp", "", "0"]
    assert newcomer.get("/items/1") == (200, LAMP)

    [printed] = newcomer.follow(GO_BACK)
    assert newcomer.serving() == [first]
    assert printed.endswith(f"{first} serves\n{LAMP}")
    assert newcomer.get("/items/1") == (200, LAMP)
    # The first release knows no stock, and can still insert items.
    cable = httpx2.post(f"{newcomer.url}/items", json={"name": "cable"}, verify=False, trust_env=False)
    assert cable.status_code == 201
    # Git sees neither the settings nor the passwords.
    assert git(newcomer.service, "status", "--porcelain") == ""

    newcomer.follow(REMOVE)
    assert newcomer.left() == []
