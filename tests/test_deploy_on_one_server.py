"""Tests that docs/deploy-on-one-server.md can be followed, with a service of each proxy."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness import owners
from harness.clones import commit, git
from harness.containers import unique
from harness.development import in_git
from harness.matrix import values
from harness.one_server import Reader, reading
from harness.pages import page, section, service_section, shell
from harness.waiting import until
from tests.conftest import RenderTo

PAGE = page("docs/deploy-on-one-server.md")
SECTIONS = ("Before the first release", "Release", "Go back", "Every day")
# tests/test_three_containers.py follows it.
ELSEWHERE = "More than one container"


def test_every_command_of_the_page_is_in_a_section_that_a_test_follows() -> None:
    followed = (*SECTIONS, ELSEWHERE)
    assert shell(PAGE) == [block for title in followed for block in shell(section(PAGE, title))]


def test_the_page_and_the_service_have_the_same_commands(
    render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = render_to(tmp_path_factory.mktemp("same") / "orders-api", proxy="caddy")
    [release, rollback, _, _] = shell(service_section(service, "Deploy"))
    assert release == shell(section(PAGE, "Release"))[0]
    assert [rollback] == shell(section(PAGE, "Go back"))
    assert shell(section(PAGE, "Before the first release")) == shell(
        service_section(service, "Once on the server")
    )


def type_all(reader: Reader, title: str) -> list[str]:
    """Type all commands of a section, and return what each block prints."""
    return [reader.type(block) for block in shell(section(PAGE, title))]


@pytest.fixture(params=[value for value in values("proxy") if value != "none"])
def reader(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    # The longest that is allowed: the names of its containers are longer than DNS allows.
    name = unique("orders").ljust(50, "s")
    service = render_to(tmp_path_factory.mktemp("server") / name, proxy=request.param, database="sqlite")
    with reading(in_git(service)) as reader:
        yield reader


@pytest.mark.docker
def test_a_first_release_that_fails_says_that_nothing_serves(reader: Reader) -> None:
    type_all(reader, "Before the first release")
    with pytest.raises(AssertionError, match="missing; there is no earlier release, so nothing serves\n"):
        reader.type("deploy/release missing")


@pytest.mark.docker
def test_a_server_gets_its_first_release_the_next_and_the_one_before(reader: Reader) -> None:
    type_all(reader, "Before the first release")
    release, answers = shell(section(PAGE, "Release"))
    first = git(reader.service, "rev-parse", "HEAD").strip()
    assert reader.type(release).endswith(f"{first} serves\n")
    reader.repeat(answers)
    (reader.service / "README.md").write_text("# Orders\n")
    commit(reader.service, "Say what it is")
    second = git(reader.service, "rev-parse", "HEAD").strip()
    reader.type(release)
    assert reader.serving() == [second]
    type_all(reader, "Go back")
    assert reader.serving() == [first]
    assert reader.type(answers) == '{"status":"ok"}'
    [printed] = type_all(reader, "Every day")
    assert f"{reader.name}:{first}" in printed
    assert '"level":"INFO"' in printed
    assert "Recreate" not in printed
    assert reader.serving() == [first]
    # Neither git nor a build sees what deploy/release writes.
    assert git(reader.service, "status", "--porcelain") == ""


@pytest.mark.docker
def test_a_service_with_data_moves_to_a_proxy_and_keeps_its_rows(repository: Path, tmp_path: Path) -> None:
    service = owners.own(owners.copy(repository, tmp_path / unique("orders"), database="postgresql"))
    with reading(service) as reader:
        for title in ("Once on the server", "Deploy"):
            reader.type(shell(service_section(service, title))[0])
        url = f"http://127.0.0.1:{reader.ports[2]}"
        created = httpx2.post(f"{url}/items", json={"name": "lamp"}, trust_env=False)
        assert created.status_code == 201
        owners.update(service, proxy="caddy")
        assert owners.conflicts(service) == set()
        commit(service, "Have a proxy")
        [moved] = [reader.type(block) for block in shell(section(page("docs/proxy.md"), "Move to a proxy"))]
        assert moved.endswith(" serves\n")

        def read() -> httpx2.Response | None:
            """Return the row, as soon as the proxy has a certificate."""
            try:
                return httpx2.get(reader.url + created.headers["location"], verify=False, trust_env=False)
            except httpx2.TransportError:
                return None

        found = until(read, "a response over HTTPS")
    assert (found.status_code, found.json()) == (200, created.json())
