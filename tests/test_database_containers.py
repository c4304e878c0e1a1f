"""Runs the compose files with every database and every cache on a real Docker Engine."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import DockerError, composed, docker, unique
from harness.stacks import (
    CACHES,
    DATA,
    DATA_ONCE,
    DATABASE_SERVERS,
    DATABASES,
    Image,
    Stack,
    in_group,
    stacked,
    with_rotating_answers,
)
from harness.variants import variants
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.docker

# A user that no image knows.
DEVELOPER = 12345

# Every database and cache together, in development or in production.
DEVELOPED, DEPLOYED = with_rotating_answers(
    [answers for answers in DATA if answers not in DATA_ONCE], DATA_ONCE
)

# The capabilities that a database's image may need to give its volume to the user that it switches to.
TO_GIVE_FILES_AWAY = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}


def has_database(stack: Stack) -> bool:
    return stack.answers["database"] in DATABASES


@pytest.fixture(scope="class", params=variants(map(in_group, DEVELOPED[::-1])))
def developed(
    request: pytest.FixtureRequest,
    render_to: RenderTo,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    service = render_to(tmp_path_factory.mktemp("service") / "orders-api", **request.param)
    give_away(service)
    with stacked(service, "compose.yaml", request.param) as stack:
        stack.up()
        yield stack


def give_away(service: Path) -> None:
    """Have the checkout belong to a developer, where the tests run as root."""
    if os.geteuid() == 0:
        for path in [service, *service.rglob("*")]:
            os.chown(path, DEVELOPER, DEVELOPER)


# Prints the status of the response to a GET, or 0 if there is none.
STATUS = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000)
try:
    connection.request("GET", sys.argv[1])
    print(connection.getresponse().status)
except OSError:
    print(0)
"""


class TestDevelopment:
    """Runs compose.yaml."""

    def test_what_is_created_is_still_there_after_a_restart_and_after_down_and_up(
        self, developed: Stack
    ) -> None:
        check = developed.store()
        # This also runs the migrations again, perhaps before the database accepts connections.
        developed.compose("restart", "--timeout=10")
        until(lambda: developed.status("/health/ready") == 200, "the service is ready again")
        check()
        developed.compose("down", "--timeout=10")
        developed.up()
        check()

    def test_its_own_tests_pass_in_its_container(self, developed: Stack) -> None:
        check = developed.store()
        printed = developed.compose("run", "--rm", "-T", "app", "pytest", "-q")
        assert " passed" in printed
        assert "skipped" not in printed
        check()

    def test_its_container_is_healthy(self, developed: Stack) -> None:
        developed.wait_until_healthy("app")

    def test_a_migration_that_is_written_in_its_container_belongs_to_the_developer(
        self, developed: Stack
    ) -> None:
        if not has_database(developed):
            pytest.skip("this service has no database")
        service = developed.project.service
        versions = service / "migrations" / "versions"
        before = {*versions.glob("*.py")}
        write = ("alembic", "revision", "--autogenerate", "--message", "Nothing new")
        developed.compose("run", "--rm", "-T", "app", *write)
        [written] = {*versions.glob("*.py")} - before
        assert written.stat().st_uid == service.stat().st_uid
        written.unlink()

    def test_only_this_machine_reaches_it(self, developed: Stack) -> None:
        for service in developed.services():
            for bindings in developed.inspect(service)["HostConfig"]["PortBindings"].values():
                assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]


@pytest.fixture(scope="class", params=variants(map(in_group, DEPLOYED[::-1]), 2))
def image(
    request: pytest.FixtureRequest,
    render_to: RenderTo,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Image]:
    service = render_to(tmp_path_factory.mktemp("service") / "orders-api", **request.param)
    with Image(service, request.param) as image:
        yield image


@pytest.fixture(scope="class")
def deployed(image: Image) -> Iterator[Stack]:
    # Libraries log most at DEBUG.
    image.environment["LOG_LEVEL"] = "DEBUG"
    with stacked(image.service, "compose.prod.yaml", image.answers, **image.environment) as stack:
        stack.up()
        yield stack


class TestProduction:
    """Runs compose.prod.yaml."""

    def test_what_is_created_is_still_there_after_down_and_up(self, deployed: Stack) -> None:
        check = deployed.store()
        deployed.compose("down")
        deployed.up()
        check()

    def test_no_container_can_do_more_than_it_needs(self, deployed: Stack) -> None:
        for service in deployed.services():
            container = deployed.inspect(service)
            host = container["HostConfig"]
            assert host["ReadonlyRootfs"] is True, service
            assert host["CapDrop"] == ["ALL"], service
            assert host["SecurityOpt"] == ["no-new-privileges:true"], service
            assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}, service
            assert host["Memory"] > 0, service
            assert host["PidsLimit"] > 0, service
            added = {name.removeprefix("CAP_") for name in host["CapAdd"] or []}
            assert added <= (TO_GIVE_FILES_AWAY if service == "database" else set()), service
            if service != "database":
                assert container["Config"]["User"] == "10001:10001", service
            if service == "migrate":
                assert host["RestartPolicy"]["Name"] == "no"
                continue
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
            status = dict(
                line.split(":\t", 1)
                for line in deployed.compose("exec", "-T", service, "cat", "/proc/1/status").splitlines()
            )
            assert "0" not in status["Uid"].split(), service
            assert status["CapEff"] == "0" * 16, service
            assert status["NoNewPrivs"] == "1", service

    def test_no_container_has_a_volume_that_nobody_would_remove(self, deployed: Stack) -> None:
        for service in deployed.services():
            mounts = deployed.inspect(service)["Mounts"]
            volumes = [mount["Name"] for mount in mounts if mount["Type"] == "volume"]
            assert all(name.startswith(f"{deployed.project.name}_") for name in volumes), service

    def test_only_the_service_itself_has_a_port_on_this_machine(self, deployed: Stack) -> None:
        for service in deployed.services():
            published = [
                binding["HostIp"]
                for bindings in deployed.inspect(service)["NetworkSettings"]["Ports"].values()
                for binding in bindings or []
            ]
            assert published == (["127.0.0.1"] if service == "app" else []), service

    def test_no_secret_is_in_the_image_or_what_the_engine_knows_or_a_log_or_an_error(
        self, image: Image, deployed: Stack
    ) -> None:
        deployed.store()
        said = [
            docker("history", "--no-trunc", image.tag),
            docker("image", "inspect", image.tag),
        ]
        said += self.errors(deployed)
        said += [json.dumps(deployed.inspect(service)) for service in deployed.services()]
        said += [deployed.compose("logs", "--no-color"), deployed.compose("ps", "--all", "--no-trunc")]
        assert [secret for secret in image.secret_texts for text in said if secret in text] == []

    def errors(self, deployed: Stack) -> Iterator[str]:
        """Take the table, the database and the cache away in turn, and yield the error responses."""
        if has_database(deployed):
            deployed.sql("ALTER TABLE items RENAME TO others")
            answer = deployed.ask("GET", "/items")
            deployed.sql("ALTER TABLE others RENAME TO items")
            assert answer.status_code == 500
            yield str(answer.headers) + answer.text
        if deployed.answers["database"] in DATABASE_SERVERS:
            deployed.compose("stop", "database")
            answer = deployed.ask("GET", "/items")
            deployed.up()
            assert answer.status_code == 503
            yield str(answer.headers) + answer.text
        if "cache" in deployed.services():
            deployed.compose("stop", "cache")
            deployed.store()
            deployed.up()

    def test_a_wrong_password_is_in_no_message(self, deployed: Stack) -> None:
        if "database" not in deployed.services():
            return
        wrong = unique("password")
        database = deployed.answers["database"]
        for url in (f"{database}://app:{wrong}@database/app", f"{database}//app:{wrong}@database:port/app"):
            with pytest.raises(DockerError) as error:
                deployed.compose("run", "--rm", "-T", f"--env=DATABASE_URL={url}", "migrate")
            printed = str(error.value).partition("\n")[2]
            assert wrong not in printed
            assert "Traceback" not in printed

    def test_a_password_that_the_database_refuses_is_a_503_and_one_line_that_says_so(
        self, deployed: Stack
    ) -> None:
        database = deployed.answers["database"]
        if database not in DATABASE_SERVERS:
            pytest.skip("the address of this database has no password")
        wrong = unique("password")
        name = unique("refused")
        url = f"--env=DATABASE_URL={database}://app:{wrong}@database/app"
        deployed.compose(
            "run", "--detach", "--no-deps", f"--name={name}", "--env=WEB_CONCURRENCY=1", url, "app"
        )

        def status(path: str) -> str:
            return docker("exec", name, "python", "-c", STATUS, path).strip()

        try:
            until(lambda: status("/health/live") == "200", "the service has started")
            assert [status(path) for path in ("/items", "/health/ready", "/items")] == ["503"] * 3
            lines = docker("logs", name).splitlines()
        finally:
            docker("rm", "--force", name)
        warnings = [line for line in lines if '"level":"WARNING"' in line and '"access"' not in line]
        assert warnings
        for warning in warnings:
            assert re.search("password|Access denied", json.loads(warning)["message"])
        assert not [line for line in lines if wrong in line or "Traceback" in line or '"ERROR"' in line]

    def test_an_address_that_the_migration_cannot_use_is_one_sentence_without_its_password(
        self, deployed: Stack
    ) -> None:
        if deployed.answers["database"] not in DATABASE_SERVERS:
            pytest.skip("the address of this database has no password")
        wrong = "DATABASE_URL=postgres+driver://app:hunter2@database/app"
        with pytest.raises(DockerError) as error:
            deployed.compose("run", "--rm", "--no-deps", "--no-TTY", f"--env={wrong}", "migrate")
        # The first line is the command itself.
        printed = str(error.value).splitlines()[1:]
        assert any("The environment is not valid. DATABASE_URL: " in line for line in printed), printed
        assert not any("hunter2" in line or "Traceback" in line for line in printed), printed

    @pytest.mark.parametrize("unusable", ["empty", "unreadable"])
    def test_a_cache_does_not_run_without_its_password(
        self, image: Image, tmp_path: Path, unusable: str
    ) -> None:
        if image.answers["cache"] not in CACHES:
            pytest.skip("this service has no cache")
        service = tmp_path / "orders-api"
        shutil.copytree(image.service, service)
        password = service / "secrets" / "cache_password"
        if unusable == "empty":
            password.write_text("")
        else:
            # As after `umask 077`: only the user who made it can read it.
            password.chmod(0o600)
        with composed(service, "compose.prod.yaml", HOST_PORT="0", **image.environment) as project:
            with pytest.raises(DockerError, match=r"cache-1 (is unhealthy|exited)"):
                project.compose("up", "--detach", "--wait", "cache")
            printed = project.compose("logs", "--no-color", "cache")
        assert "Ready to accept connections" not in printed
        assert "cache_password" in printed

    def test_without_one_of_its_secrets_it_does_not_start_and_names_the_file(
        self, image: Image, tmp_path: Path
    ) -> None:
        service = tmp_path / "orders-api"
        shutil.copytree(image.service, service)
        for secret in image.secrets:
            missing = service / "secrets" / secret.name
            missing.rename(tmp_path / secret.name)
            with composed(service, "compose.prod.yaml", HOST_PORT="0", **image.environment) as project:
                with pytest.raises(DockerError) as error:
                    project.up()
                assert f"bind source path does not exist: {missing}" in str(error.value).splitlines()[-1]
                assert project.compose("ps", "--quiet", "app") == ""
            (tmp_path / secret.name).rename(missing)
