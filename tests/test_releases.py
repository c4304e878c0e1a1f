"""Tests that releases and rollbacks behind each proxy lose no request and no acknowledged write."""

import fcntl
import os
import re
import signal
from collections.abc import Callable, Iterator

import pytest
from _pytest.mark import ParameterSet

from harness.containers import docker, unique
from harness.matrix import Answers, label
from harness.pages import service_section, shell
from harness.production import Done, Production, production
from harness.running import run
from harness.traffic import Traffic
from harness.variants import variants
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.docker

STACKS: list[Answers] = [
    {"proxy": "caddy", "server": "uvicorn", "database": "postgresql"},
    {"proxy": "traefik", "server": "gunicorn", "database": "sqlite"},
]


def on(stack: Answers) -> ParameterSet:
    """Return a stack whose tests run in one process."""
    mark = pytest.mark.xdist_group(f"release-{label(stack)}")
    return pytest.param(stack, id=label(stack), marks=mark)


@pytest.fixture(scope="module", params=variants(map(on, STACKS)))
def server(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    """A server with two releases, one of which serves."""
    service = render_to(tmp_path_factory.mktemp("server") / "orders-api", **request.param)
    with production(service, request.param) as started:
        started.make("2")
        assert started.release("2").code == 0
        yield started


def nothing_is_lost(server: Production, traffic: Traffic) -> None:
    assert traffic.lost == []
    assert len(traffic.acknowledged) > 20
    assert traffic.missing(lambda path: server.request("GET", path)) == []


@pytest.mark.parametrize("going_back", [False, True], ids=["release", "rollback"])
def test_traffic_moves_to_another_release_and_loses_nothing(server: Production, going_back: bool) -> None:
    old, new = server.remembered("TAG"), server.remembered("PREVIOUS_TAG")
    with server.traffic() as traffic:
        traffic.more()
        done = server.release("--rollback" if going_back else new)
        traffic.more()
    assert (done.code, server.serving()) == (0, new), done.output
    assert (server.remembered("TAG"), server.remembered("PREVIOUS_TAG")) == (new, old)
    nothing_is_lost(server, traffic)


FAILURES = {
    "fails": "the migrations failed",
    "never-ready": "never-ready did not get ready",
    "has-no-command": "has-no-command did not start",
    "dies": "dies did not get ready",
    "missing": "there is no image with the tag missing",
}


# Each failure is shown on one stack, which is as many as both show of what both have.
FAILURES_ON = {
    "caddy": ["fails", "has-no-command", "missing"],
    "traefik": ["never-ready", "dies", "missing"],
}


def test_each_failure_is_shown_on_a_stack() -> None:
    assert {tag for tags in FAILURES_ON.values() for tag in tags} == FAILURES.keys()


@pytest.mark.parametrize("number", range(3))
def test_a_release_that_fails_says_so_and_the_one_before_serves_on(server: Production, number: int) -> None:
    tag = FAILURES_ON[server.answers["proxy"]][number]
    if tag != "missing":
        server.make(tag)
    containers = server.containers()
    tags = (server.remembered("TAG"), server.remembered("PREVIOUS_TAG"))
    with server.traffic() as traffic:
        traffic.more()
        done = server.release(tag, READY_TIMEOUT="3" if tag == "never-ready" else "30")
        traffic.more()
    assert done.code == 1
    assert done.output.splitlines()[-1] == f"deploy/release: {FAILURES[tag]}; {tags[0]} serves as before"
    assert server.containers() == containers
    assert (server.remembered("TAG"), server.remembered("PREVIOUS_TAG")) == tags
    nothing_is_lost(server, traffic)


def interrupted(server: Production, send: Callable[[int, int], None], sent: signal.Signals) -> Done:
    """Begin a release that takes some seconds to get ready, and send it a signal meanwhile."""
    count = len(server.containers("app"))
    begun = server.begin(server.make("slow"))
    until(lambda: len(server.containers("app")) > count, "the new container")
    send(begun.pid, sent)
    return server.end(begun)


# A terminal sends Ctrl+C to the commands of the script too, and `kill` to the script alone.
SIGNALS = {"caddy": (os.killpg, signal.SIGINT), "traefik": (os.kill, signal.SIGTERM)}


def test_a_release_that_is_interrupted_leaves_all_as_it_was(server: Production) -> None:
    containers = server.containers()
    tags = (server.remembered("TAG"), server.remembered("PREVIOUS_TAG"))
    with server.traffic() as traffic:
        traffic.more()
        done = interrupted(server, *SIGNALS[server.answers["proxy"]])
        traffic.more()
    assert done.code == 1, done.output
    assert server.containers() == containers
    assert (server.remembered("TAG"), server.remembered("PREVIOUS_TAG")) == tags
    nothing_is_lost(server, traffic)


# One stack shows it, because both have the same script.
@pytest.mark.parametrize("server", [on(STACKS[0])], indirect=True)
def test_a_release_that_is_killed_gets_no_request_and_the_next_one_removes_it(server: Production) -> None:
    tags = (server.remembered("TAG"), server.remembered("PREVIOUS_TAG"))
    with server.traffic() as traffic:
        traffic.more()
        killed = interrupted(server, os.kill, signal.SIGKILL)
        traffic.more()
        assert (server.remembered("TAG"), server.remembered("PREVIOUS_TAG")) == tags
        again = server.release("slow")
        traffic.more()
    assert killed.code == -signal.SIGKILL
    assert (again.code, server.serving()) == (0, "slow"), again.output
    nothing_is_lost(server, traffic)


def test_after_a_restart_of_the_engine_all_is_there_with_nothing_set(server: Production) -> None:
    with server.traffic() as traffic:
        traffic.more()
    tag = server.serving()
    docker("kill", *server.containers())
    # As the engine does: all at once, whatever depends on what.
    docker("start", *reversed(server.containers()))
    until(server.is_ready, "the service is ready")
    nothing_is_lost(server, traffic)
    assert server.serving() == tag
    assert "proxy" in server.compose("ps", "--services").split()


def test_after_down_up_brings_the_same_release_back(server: Production) -> None:
    with server.traffic() as traffic:
        traffic.more()
    tag = server.serving()
    server.compose("down", "--timeout=5")
    server.compose("up", "--detach", "--wait")
    until(server.is_ready, "the service is ready")
    nothing_is_lost(server, traffic)
    assert server.serving() == tag


def test_up_leaves_a_release_alone(server: Production) -> None:
    before = server.containers()
    server.compose("up", "--detach", "--wait")
    assert server.containers() == before


def test_a_variable_that_is_not_set_is_named_before_anything_happens(server: Production) -> None:
    before = server.containers()
    file = server.service / ".env"
    text = file.read_text()
    file.write_text(re.sub("^DOMAIN=.*\n", "", text, flags=re.MULTILINE))
    try:
        refused = server.release("1")
    finally:
        file.write_text(text)
    assert refused.code == 1
    assert "DOMAIN" in refused.output
    assert "must be set in .env to the name of the service" in refused.output
    assert server.containers() == before


@pytest.mark.parametrize("replicas", ["0", '"3"', "two"])
def test_a_wrong_number_of_containers_is_refused_before_anything_happens(
    server: Production, replicas: str
) -> None:
    before = server.containers()
    file = server.service / ".env"
    text = file.read_text()
    file.write_text(f"{text}REPLICAS={replicas}\n")
    try:
        refused = server.release(server.remembered("TAG"))
    finally:
        file.write_text(text)
    assert refused.code == 1
    assert "REPLICAS" in refused.output or "replicas" in refused.output
    assert server.containers() == before


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--roll-back"]], ids=" ".join)
def test_other_arguments_are_answered_with_the_usage(server: Production, arguments: list[str]) -> None:
    refused = server.release(*arguments)
    assert (refused.code, refused.output) == (2, "usage: deploy/release TAG, or deploy/release --rollback\n")


def test_a_second_release_at_the_same_time_is_refused(server: Production) -> None:
    before = server.containers()
    with (server.service / "compose.prod.yaml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = server.release("1")
    assert (refused.code, refused.output) == (1, "deploy/release: another release is under way\n")
    assert server.containers() == before


# Backups


def created(server: Production) -> str:
    """Create an item, and return its path."""
    response = server.request("POST", "/items", json={"name": unique("item")})
    assert response.status_code == 201
    return response.headers["location"]


def test_the_page_restores_the_newest_backup_and_brings_the_release_back(server: Production) -> None:
    drill, _, now, restore = shell(service_section(server.service, "Back up"))
    kept = created(server)
    run(now, server.service, **server.environment)
    lost = created(server)
    assert "items: " in run(drill, server.service, **server.environment)
    tag = server.remembered("TAG")
    run(restore, server.service, **server.environment)
    until(server.is_ready, "the service is ready")
    assert [server.request("GET", path).status_code for path in (kept, lost)] == [200, 404]
    assert (server.remembered("TAG"), server.serving()) == (tag, tag)


def test_backups_that_do_not_start_hold_no_release_up(server: Production) -> None:
    file = server.service / ".env"
    text = file.read_text()
    file.write_text(f"{text}BACKUP_INTERVAL=daily\n")
    try:
        done = server.release(server.remembered("TAG"))
        logs = server.compose("logs", "--no-log-prefix", "backup")
    finally:
        file.write_text(text)
    assert done.code == 0, done.output
    assert "BACKUP_INTERVAL: must be a whole number of s, m, h or d" in logs
    # The next release with a right value makes backups again.
    assert server.release(server.remembered("TAG")).code == 0
    server.compose("up", "--detach", "--wait", "backup")
    [backup] = server.containers("backup")
    if server.answers["database"] == "sqlite":
        image = docker("inspect", "--format={{.Config.Image}}", backup)
        assert image.strip().endswith(f":{server.remembered('TAG')}")


# The last, because the releases without the migration can only be reached by a rollback then.
def test_a_rollback_over_a_migration_serves_with_the_newer_schema(server: Production) -> None:
    tag = server.remembered("TAG")
    server.make("migrates")
    with server.traffic() as traffic:
        traffic.more()
        done = server.release("migrates")
        traffic.more()
        back = server.release("--rollback")
        traffic.more()
    assert "Running upgrade 0001 -> 0002" in done.output
    assert "Running upgrade" not in back.output
    assert (done.code, back.code, server.serving()) == (0, 0, tag)
    nothing_is_lost(server, traffic)
    without = server.release("1")
    assert without.code == 1
    assert "Can't locate revision identified by '0002'" in without.output
