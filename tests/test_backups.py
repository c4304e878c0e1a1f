"""Tests the backups of compose.prod.yaml and the restore drill, with every database."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import yaml

from harness.clones import git
from harness.containers import DockerError
from harness.development import in_git
from harness.stacks import DATABASE_SERVERS, DATABASES, Image, Stack, in_group, stacked
from harness.variants import variants
from harness.waiting import until
from tests.conftest import Render, RenderTo

EACH_DATABASE = variants((in_group({"database": database}, database) for database in DATABASES), 2)

# In the service's image with SQLite, else in one of its own.
SCRIPT = "bash $(ls /opt/backup/backup.sh deploy/backup/backup.sh 2>/dev/null)"

# Tables that are dumped one after the other, and that every transaction of the writer adds a row to.
OWNERS = "CREATE TABLE a_owners (id INTEGER PRIMARY KEY, name VARCHAR(20))"
PARTS = (
    "CREATE TABLE b_parts "
    "(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, FOREIGN KEY (owner) REFERENCES a_owners (id))"
)

# Adds an owner and its part in each transaction, without a pause, until a file is there.
WRITER = """
import asyncio, pathlib
from sqlalchemy import text
from app.engine import create_engines
from app.settings import Settings

async def main():
    _, engine = create_engines(Settings())
    async with engine.connect() as connection:
        number = (await connection.execute(text("SELECT count(*) FROM a_owners"))).scalar()
        await connection.rollback()
        while not pathlib.Path("/tmp/ends").exists():
            number += 1
            row = {"id": number, "name": "owner " + str(number)}
            await connection.execute(text("INSERT INTO a_owners (id, name) VALUES (:id, :name)"), row)
            await connection.execute(text("INSERT INTO b_parts (id, owner) VALUES (:id, :id)"), row)
            await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""


class Backups:
    """Makes, looks at and restores the backups of a stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.compose = stack.compose

    def shell(self, command: str) -> str:
        """Run a command in the container of the backups."""
        return self.compose("exec", "--no-TTY", "backup", "sh", "-c", command)

    def names(self) -> list[str]:
        return self.shell("ls /backups").split()

    def now(self) -> str:
        """Make a backup, and return its name."""
        before = {*self.names()}
        self.once("backup", "now")
        [name] = {*self.names()} - before
        return name

    def once(self, service: str, *arguments: str) -> str:
        return self.compose("run", "--rm", "--no-TTY", "--quiet-build", service, *arguments)

    def drill(self, *name: str) -> str:
        return self.once("restore-drill", *name)

    def failure(self, *arguments: str) -> str:
        """Run a service that has to fail, and return what it printed."""
        with pytest.raises(DockerError) as error:
            self.once(*arguments)
        return str(error.value).partition("\n")[2]

    def logged(self, level: str) -> list[str]:
        """Return the messages of this level, where every line has to be a JSON object."""
        lines = self.compose("logs", "--no-color", "--no-log-prefix", "backup").splitlines()
        return [record["message"] for line in lines if (record := json.loads(line))["level"] == level]

    def health(self) -> str:
        return str(self.stack.inspect("backup")["State"]["Health"]["Status"])

    @contextmanager
    def writes(self) -> Iterator[None]:
        """Write to both tables while the block runs."""
        self.compose("exec", "--no-TTY", "app", "rm", "-f", "/tmp/ends")
        write = ("exec", "--no-TTY", "app", "python", "-c", WRITER)
        writer = threading.Thread(target=self.compose, args=write)
        before = self.written()
        writer.start()
        try:
            until(lambda: self.written() > before + 20, "the first writes")
            yield
        finally:
            self.compose("exec", "--no-TTY", "app", "touch", "/tmp/ends")
            writer.join()

    def written(self) -> int:
        [[number]] = self.stack.sql("SELECT count(*) FROM a_owners")
        return int(number)


@pytest.fixture(scope="module")
def images(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Image]]:
    """Build the image of a service with this database, once."""
    built: dict[str, Image] = {}

    def image(database: str) -> Image:
        if database not in built:
            service = render_to(tmp_path_factory.mktemp("service") / "orders-api", database=database)
            # As cloned with a umask of 077.
            for path in (service / "deploy").rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o600)
            answers = {"database": database, "cache": "none"}
            built[database] = held.enter_context(Image(in_git(service), answers))
        return built[database]

    with ExitStack() as held:
        yield image


@pytest.fixture(scope="module", params=EACH_DATABASE)
def backups(request: pytest.FixtureRequest, images: Callable[[str], Image]) -> Iterator[Backups]:
    """Start a service whose interval is never over, and give it the two tables."""
    image = images(request.param)
    environment = image.environment | {"BACKUP_INTERVAL": "1d", "BACKUP_KEEP": "2"}
    with stacked(image.service, "compose.prod.yaml", image.answers, **environment) as stack:
        stack.up()
        for table in (OWNERS, PARTS):
            stack.sql(table)
        yield Backups(stack)


@pytest.mark.docker
class TestOneADay:
    """Has one stack for each database."""

    def test_the_start_makes_a_backup_and_is_healthy(self, backups: Backups) -> None:
        until(lambda: backups.logged("INFO"), "the first backup")
        assert len(backups.names()) == 1
        assert backups.health() == "healthy"

    def test_another_start_makes_none_while_the_newest_is_fresh(self, backups: Backups) -> None:
        before = backups.names()
        backups.compose("up", "--detach", "--wait", "--force-recreate", "--no-deps", "backup")
        until(lambda: "sleep" in backups.compose("top", "backup"), "the wait for the next backup")
        assert backups.names() == before
        assert backups.logged("INFO") == []

    def test_a_backup_while_writes_go_on_has_the_rows_of_one_moment_and_the_constraints(
        self, backups: Backups
    ) -> None:
        with backups.writes():
            before = backups.written()
            name = backups.now()
            after = backups.written()
            drilled = backups.drill(name)
        rows = {
            table: int(count)
            for table, count in re.findall(r"^(?:public\.)?(\w+): (\d+) rows$", drilled, re.M)
        }
        assert before <= rows["a_owners"] == rows["b_parts"] <= after < backups.written()
        assert f"Every row of the backup {name} is in the new database, and the constraints hold." in drilled
        # Restored over the rows that came later.
        backups.compose("stop", "app")
        backups.once("backup", "restore", name)
        backups.stack.up()
        numbers = [[number, number] for number in range(1, rows["a_owners"] + 1)]
        joined = (
            "SELECT b_parts.id, a_owners.id FROM b_parts LEFT JOIN a_owners ON owner = a_owners.id ORDER BY 1"
        )
        assert backups.stack.sql(joined) == numbers
        assert backups.written() == len(numbers)
        with pytest.raises(DockerError, match=r"(?i)foreign key constraint"):
            backups.stack.sql("INSERT INTO b_parts (id, owner) VALUES (1000000, 1000000)")

    def test_the_newest_are_kept(self, backups: Backups) -> None:
        names = [backups.now() for _ in range(3)]
        assert backups.names() == names[1:]

    def test_a_backup_that_fails_deletes_none_and_leaves_nothing(self, backups: Backups) -> None:
        before = backups.names()
        with self.broken(backups):
            assert backups.failure("backup", "now")
        assert backups.shell("ls -A /backups").split() == before

    @contextmanager
    def broken(self, backups: Backups) -> Iterator[None]:
        """Take away what a backup reads."""
        if backups.stack.answers["database"] in DATABASE_SERVERS:
            secrets = backups.stack.project.service / "secrets"
            password = (
                secrets
                / f"database_{'root_' if backups.stack.answers['database'] == 'mysql' else ''}password"
            )
            right = password.read_text()
            password.write_text("wrong\n")
            try:
                yield
            finally:
                password.write_text(right)
        else:
            backups.shell("mv /data/app.db /data/away.db")
            try:
                yield
            finally:
                backups.shell("mv /data/away.db /data/app.db")

    @pytest.mark.parametrize("damage", ["truncate -s -9 $dump", "rm $dump"])
    def test_a_damaged_backup_is_refused_by_the_drill_and_by_a_restore(
        self, backups: Backups, damage: str
    ) -> None:
        name = backups.now()
        written = backups.written()
        backups.shell(f"dump=$(ls /backups/{name}/app.*) && {damage}")
        for service in (("restore-drill", name), ("backup", "restore", name)):
            assert f"The backup {name} is damaged." in backups.failure(*service)
        assert backups.written() == written
        backups.shell(f"rm -r /backups/{name}")

    def test_a_drill_of_a_backup_with_another_row_fails_and_names_the_table(self, backups: Backups) -> None:
        if backups.stack.answers["database"] == "mysql":
            pytest.skip("MySQL's rows are counted in the dump itself")
        name = backups.now()
        backups.shell(
            f"cd /backups/{name} && sed -i 's/a_owners\\t/&1/' tables && sha256sum app.* tables >SHA256SUMS"
        )
        assert re.search(
            r"Not as they were in the backup: (public\.)?a_owners\n", backups.failure("restore-drill", name)
        )
        backups.shell(f"rm -r /backups/{name}")

    def test_a_backup_that_is_not_there_is_named(self, backups: Backups) -> None:
        assert "There is no backup yesterday." in backups.failure("restore-drill", "yesterday")

    def test_no_password_is_in_a_log_or_a_list_of_processes_or_what_the_engine_knows(
        self, backups: Backups
    ) -> None:
        passwords = {
            text
            for path in backups.stack.project.service.glob("secrets/*password")
            if (text := path.read_text().strip())
        }
        assert bool(passwords) == (backups.stack.answers["database"] in DATABASE_SERVERS)
        seen: list[str] = []
        ends = threading.Event()

        def look() -> None:
            while not ends.is_set():
                seen.append(
                    backups.shell(
                        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '; true"
                    )
                )

        looking = threading.Thread(target=look)
        looking.start()
        try:
            printed = backups.shell(f"{SCRIPT} now 2>&1")
        finally:
            ends.set()
            looking.join()
        seen += [printed, backups.compose("logs", "backup"), json.dumps(backups.stack.inspect("backup"))]
        assert not [text for text in seen for password in passwords if password in text]

    def test_git_and_docker_ignore_a_copy_of_the_backups(self, backups: Backups) -> None:
        service = backups.stack.project.service
        backups.compose("cp", "backup:/backups", ".")
        try:
            assert sorted(path.name for path in (service / "backups").iterdir()) == backups.names()
            assert "backups" not in git(service, "status", "--porcelain")
            sent = [
                line for line in (service / ".dockerignore").read_text().splitlines() if line.startswith("!")
            ]
            assert "!backups" not in sent
        finally:
            shutil.rmtree(service / "backups", ignore_errors=True)

    def test_a_drill_leaves_no_volume(self, backups: Backups) -> None:
        volumes = backups.compose("volumes", "--quiet").split()
        assert sorted(name.removeprefix(f"{backups.stack.project.name}_") for name in volumes) == sorted(
            ["backups", "data" if backups.stack.answers["database"] == "sqlite" else "database"]
        )


@pytest.mark.docker
@pytest.mark.parametrize("database", EACH_DATABASE)
def test_a_backup_that_fails_is_logged_and_tried_again_and_turns_the_container_unhealthy(
    database: str, images: Callable[[str], Image]
) -> None:
    image = images(database)
    environment = image.environment | {"BACKUP_INTERVAL": "4s", "BACKUP_KEEP": "3"}
    with stacked(image.service, "compose.prod.yaml", image.answers, **environment) as stack:
        # It starts the database too.
        stack.compose("run", "--rm", "migrate")
        stack.compose("up", "--detach", "--wait", "--no-deps", "backup")
        backups = Backups(stack)
        until(lambda: len(backups.logged("INFO")) >= 2, "two backups")
        if database in DATABASE_SERVERS:
            stack.take("stop", "database")
        else:
            backups.shell("mv /data/app.db /data/away.db")
        until(lambda: len(backups.logged("ERROR")) >= 2, "two failures")
        kept = backups.names()
        assert len(kept) >= 2
        with pytest.raises(DockerError, match=r"The newest backup is \d+ s old\."):
            until(
                lambda: backups.shell(f"{SCRIPT} healthy"),
                "a failure",
                10,
            )
        assert backups.names() == kept
        assert all(
            "The backup failed. The next try is in 4 s. " in message for message in backups.logged("ERROR")
        )
        if database in DATABASE_SERVERS:
            stack.compose("start", "database")
        else:
            backups.shell("mv /data/away.db /data/app.db")
        until(lambda: backups.names()[-1] > kept[-1], "a backup after the failures")


@pytest.mark.docker
@pytest.mark.parametrize(("variable", "value"), [("BACKUP_INTERVAL", "daily"), ("BACKUP_KEEP", "0")])
def test_a_wrong_variable_ends_in_one_sentence(
    images: Callable[[str], Image], variable: str, value: str
) -> None:
    image = images("sqlite")
    with stacked(
        image.service, "compose.prod.yaml", image.answers, **image.environment | {variable: value}
    ) as stack:
        printed = Backups(stack).failure("backup", "now")
    assert f"{variable}: must be a whole number" in printed


@pytest.mark.parametrize("database", DATABASE_SERVERS)
def test_the_tools_of_a_backup_are_of_the_version_of_the_database(render: Render, database: str) -> None:
    services: dict[str, Any] = yaml.safe_load((render(database=database) / "compose.prod.yaml").read_text())[
        "services"
    ]
    for name in ("backup", "restore-drill"):
        assert services[name]["build"]["dockerfile_inline"].startswith(
            f"FROM {services['database']['image']}\n"
        )


@pytest.mark.parametrize("database", DATABASES)
def test_a_drill_reaches_neither_the_network_nor_the_database(render: Render, database: str) -> None:
    services: dict[str, Any] = yaml.safe_load((render(database=database) / "compose.prod.yaml").read_text())[
        "services"
    ]
    drill = services["restore-drill"]
    assert drill["network_mode"] == "none"
    assert drill.get("secrets", []) == []
    named = [volume for volume in drill["volumes"] if not volume.startswith("/")]
    assert named == ["backups:/backups:ro"]
