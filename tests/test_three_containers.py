"""Tests three containers of a release behind a proxy: one is killed, one replaced, and all released over."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.containers import docker
from harness.matrix import Answers
from harness.pages import page, section, shell
from harness.production import Production, production
from harness.running import run
from harness.traffic import CLIENTS, Traffic
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("three-containers")]

STACK: Answers = {"proxy": "caddy", "server": "uvicorn", "database": "postgresql"}


@pytest.fixture(scope="module")
def server(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """A server on which each release has three containers, as the page says."""
    service = render_to(tmp_path_factory.mktemp("server") / "orders-api", **STACK)
    with production(service, STACK) as started:
        for block in shell(section(page("docs/deploy-on-one-server.md"), "More than one container")):
            run(block, service, **started.environment)
        yield started


def requests(server: Production) -> Counter[str]:
    """Count the requests for items in the log of each container of the service."""
    return Counter(
        {
            container: sum("/items" in line for line in docker("logs", container).splitlines())
            for container in server.containers("app")
        }
    )


def busiest(server: Production, traffic: Traffic) -> str:
    """Return the container that answers most of the requests now."""
    before = requests(server)
    traffic.more()
    [(container, _)] = (requests(server) - before).most_common(1)
    return container


def no_write_is_missing(server: Production, traffic: Traffic) -> None:
    """Read all that was acknowledged. Print the figures, which `pytest -s` shows."""
    missing = traffic.missing(lambda path: server.request("GET", path))
    print(
        f"\n{len(traffic.sent)} requests, {len(traffic.sent) / traffic.seconds:.0f} a second; "
        f"{len(traffic.lost)} lost: {[(sent.request, sent.status) for sent in traffic.lost]}; "
        f"the longest took {traffic.longest:.2f} s; "
        f"{len(traffic.acknowledged)} writes acknowledged, {len(missing)} missing"
    )
    assert len(traffic.acknowledged) > 20
    assert missing == []


def only_writes_are_lost(traffic: Traffic) -> None:
    """Check that the proxy has sent again what may be sent twice. A client has one request at a time."""
    assert [sent for sent in traffic.lost if sent.request.startswith("GET")] == []
    assert len(traffic.lost) <= CLIENTS


def test_each_of_three_containers_gets_requests(server: Production) -> None:
    def all_are_reached() -> bool:
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda _: server.request("GET", "/items"), range(64)))
        return min(requests(server).values()) > 0

    until(all_are_reached, "a request for each container")
    assert len(requests(server)) == 3


def test_two_migrations_at_once_succeed_and_one_of_them_finds_nothing_to_do(server: Production) -> None:
    environment = server.environment | {"TAG": server.make("migrates")}
    migrate = ("compose", "--file=compose.prod.yaml", "run", "--rm", "--no-deps", "--no-TTY", "migrate")

    def migrated() -> str:
        """Fail if the exit code is not 0."""
        return docker(*migrate, cwd=server.service, environment=environment)

    with server.traffic() as traffic, ThreadPoolExecutor(2) as pool:
        traffic.more()
        begun = [pool.submit(migrated) for _ in range(2)]
        outputs = [each.result() for each in begun]
        traffic.more()
    assert sorted("Running upgrade 0001 -> 0002" in output for output in outputs) == [False, True]
    assert traffic.lost == []
    no_write_is_missing(server, traffic)


def test_a_container_that_is_killed_takes_no_more_than_its_writes_with_it(server: Production) -> None:
    before = server.containers("app")
    with server.traffic() as traffic:
        docker("kill", "--signal=KILL", busiest(server, traffic))
        traffic.more(300)
        server.compose("up", "--detach", "--wait")
        traffic.more()
    assert server.compose("ps", "--status=running", "--quiet", "app").split() == before
    only_writes_are_lost(traffic)
    no_write_is_missing(server, traffic)


def test_a_container_is_replaced_while_the_others_serve(server: Production) -> None:
    before = server.containers("app")
    with server.traffic() as traffic:
        replaced = busiest(server, traffic)
        docker("stop", replaced)
        docker("rm", replaced)
        traffic.more()
        server.compose("up", "--detach", "--wait")
        traffic.more()
    after = server.containers("app")
    assert len(after) == 3
    assert {*before} - {*after} == {replaced}
    only_writes_are_lost(traffic)
    no_write_is_missing(server, traffic)


def test_a_release_replaces_all_three_and_loses_nothing(server: Production) -> None:
    before = server.containers("app")
    with server.traffic() as traffic:
        traffic.more()
        done = server.release(server.make("migrates"))
        traffic.more()
    assert (done.code, server.serving()) == (0, "migrates"), done.output
    after = server.containers("app")
    assert len(after) == 3
    assert not {*before} & {*after}
    assert traffic.lost == []
    no_write_is_missing(server, traffic)


def test_a_release_that_does_not_get_ready_leaves_the_three(server: Production) -> None:
    before = server.containers()
    failed = server.release(server.make("never-ready"), READY_TIMEOUT="3")
    assert failed.code == 1
    assert server.containers() == before
