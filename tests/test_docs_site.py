"""Tests the site that `make docs` builds: complete, with a search, and without other hosts."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from harness import npm
from harness.browser import Site, browser, chromium
from harness.clones import ENVIRONMENT, clone, run, tracked
from harness.pages import blocks, page, section
from harness.ports import reserved_port
from harness.running import started
from harness.waiting import until

# What WCAG asks for. The rest of axe's rules are advice, to which the theme's landmarks don't keep.
AXE = """axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    .then(result => result.violations.map(violation => [violation.id, violation.nodes[0].html]))"""

needs_chromium = pytest.mark.skipif(not chromium(), reason="this machine has no Chromium")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("repository"))


def build(repository: Path) -> tuple[int, str]:
    """Return the exit code of the build, and what it printed about what is wrong."""
    arguments = ("docs", "ARGS=--without-playground")
    done = run("make", "--silent", "--old-file=.venv/installed", *arguments, cwd=repository)
    return min(done.returncode, 1), re.sub(r"^make: .*\n", "", done.stderr, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, without the playground. Builds that fail don't change it."""
    assert build(repository) == (0, "")
    return shutil.copytree(repository / "build" / "docs", tmp_path_factory.mktemp("site") / "docs")


def test_the_commands_of_the_page_build_and_serve_it(repository: Path, folder: Path) -> None:
    build, serve = shell_of("The site").splitlines()
    # The fixture runs the first.
    assert build == "make docs"
    with reserved_port() as port:
        assert port
        with started([*shlex.split(serve), str(port)], repository, port, {**ENVIRONMENT}) as server:

            def is_served() -> bool:
                try:
                    return server.get("/").text == (folder / "index.html").read_text()
                except httpx2.TransportError:
                    return False

            until(is_served, "the site")


def shell_of(title: str) -> str:
    """Return the commands below a heading of the page on the site."""
    text = page("docs/site.md")
    [(_, block), *_] = blocks(text if text.startswith(f"# {title}\n") else section(text, title))
    return block


def test_every_page_is_on_the_site(folder: Path) -> None:
    pages = {name for name in tracked("docs", ":!docs/examples") if name.endswith(".md")}
    for name in pages:
        html = folder / Path(name).relative_to("docs").with_suffix(".html")
        assert html.exists() or html.with_name("index.html").exists(), name
    assert "After you update" in (folder / "changelog.html").read_text()


@pytest.mark.parametrize("name", ["index.html", "playground.html"])
def test_the_playground_is_one_click_away(folder: Path, name: str) -> None:
    assert re.search(r"href=\"?playground/index\.html", (folder / name).read_text())


def test_a_page_asks_no_other_host(folder: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe|link(?![^>]*canonical))\b[^>]*(?:src|href)=\"?(https?:[^\s\">]+)"
    )
    for html in folder.rglob("*.html"):
        assert loads.findall(html.read_text()) == [], html


def test_the_search_finds_each_page(folder: Path) -> None:
    index = json.loads((folder / "search.json").read_text())
    found = {item["location"].partition("#")[0] for item in index["items"]}
    pages = {html.relative_to(folder).as_posix() for html in folder.rglob("*.html")} - {"404.html"}
    assert {page.removesuffix("index.html") for page in pages} == {
        page.removesuffix("index.html") for page in found
    }


@pytest.fixture
def edited(repository: Path, folder: Path) -> Iterator[Path]:
    """The repository, whose pages a test edits."""
    limits = repository / "docs" / "limits.md"
    before = limits.read_text()
    yield limits
    limits.write_text(before)


@pytest.mark.parametrize("link", ["nowhere.md", "servers.md#nowhere"])
def test_a_link_that_leads_nowhere_ends_the_build(repository: Path, edited: Path, link: str) -> None:
    edited.write_text(f"{edited.read_text()}\n[Read on]({link}).\n")
    status, problem = build(repository)
    assert status == 1
    assert "limits.md" in problem
    assert "Traceback" not in problem


def test_a_page_that_the_menu_leaves_out_ends_the_build(repository: Path, folder: Path) -> None:
    (repository / "docs" / "alone.md").write_text("# Alone\n")
    try:
        assert build(repository) == (1, "not in `nav` of zensical.toml: alone.md\n")
    finally:
        (repository / "docs" / "alone.md").unlink()


def test_a_picture_that_is_missing_ends_the_build(repository: Path, edited: Path) -> None:
    edited.write_text(f"{edited.read_text()}\n![A picture](pictures/nowhere.svg)\n")
    assert build(repository)[0] == 1


# In a browser


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        yield site


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as started:
        yield started


@needs_chromium
@pytest.mark.xdist_group("browser")
def test_a_reader_searches_and_opens_a_page_below_a_path(site: Site, chrome: Browser) -> None:
    tab = chrome.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(site.url)
    tab.get_by_role("button", name="Search").click()
    tab.keyboard.type("rollback")
    tab.get_by_text("Go back").first.click()
    expect(tab).to_have_url(re.compile(r"deploy-on-one-server\.html.*#go-back"))
    tab.close()
    assert all(address.startswith(site.url) or address.startswith(("data:", "blob:")) for address in asked)


@needs_chromium
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Site, chrome: Browser, scheme: str) -> None:
    if reason := npm.why_no_npm():
        pytest.skip(reason)
    axe = npm.folder("axe-core") / "node_modules" / "axe-core" / "axe.min.js"
    tab = chrome.new_page(color_scheme="dark" if scheme == "dark" else "light")
    for name in ("index.html", "deploy-on-one-server.html", "performance.html"):
        tab.goto(site.url + name)
        tab.add_script_tag(path=str(axe))
        found = tab.evaluate(AXE)
        assert found == [], name
    tab.close()
