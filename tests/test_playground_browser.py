"""Tests the page in Chromium: by keyboard, by a link, without a network, and where Copier can not run."""

import gzip
import json
import random
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zipfile import ZipFile

import copier
import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from harness import npm, pages
from harness.browser import PATIENCE, PREFIX, Host, Site, browser, chromium, has_rendered, is_kept, is_ready
from harness.clones import ENVIRONMENT, run
from harness.matrix import ASKED, ROOT, choices, label, ordered, rendered
from harness.pages import ADDRESS, blocks
from harness.ports import reserved_port
from harness.running import started
from harness.variants import variants
from harness.waiting import until
from playground.engine import unpack
from tests.test_playground import files, without_source

pytestmark = [
    pytest.mark.project,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not chromium(), reason="this machine has no Chromium"),
]

# Random sets of answers that are rendered in the browser and on the disk.
RANDOM = 40
# Bytes that a browser may load until Copier renders, compressed.
TRANSFERRED = 10_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `make playground` builds it."""
    if reason := npm.why_no_npm():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("page") / "build/playground"
    done = run("make", "--old-file=.venv/installed", "playground", f"ARGS={folder}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        yield site


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def context(chrome: Browser) -> Iterator[BrowserContext]:
    """One visitor, who has loaded the page before."""
    context = chrome.new_context(permissions=["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    """The page with the default answers, in which Copier renders. Raises what its scripts raise."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(site.url)
    yield is_ready(page)
    page.close()
    assert errors == []


@pytest.fixture
def visitor(chrome: Browser) -> Iterator[Page]:
    """A page of a new visitor, of which nothing is kept."""
    context = chrome.new_context(service_workers="block")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    yield page
    context.close()


class Held:
    """Holds back a file of the page, until it is let go."""

    def __init__(self, page: Page, name: str) -> None:
        self.routes: list[Route] | None = []
        page.route(f"**/{name}", self.hold)

    def hold(self, route: Route) -> None:
        if self.routes is None:
            route.continue_()
        else:
            self.routes.append(route)

    def let_go(self) -> None:
        held, self.routes = self.routes or [], None
        for route in held:
            route.continue_()


def answer(page: Page, **answers: Any) -> Page:
    """Open the link to these answers, as another visitor would."""
    link = urlencode({name: str(value) for name, value in answers.items()})
    page.goto(f"{page.url.partition('#')[0]}#{link}")
    return has_rendered(page, f"#{link}")


def download(page: Page, folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return the files of the archive."""
    with page.expect_download() as downloading:
        page.click("#archive")
    unpack(Path(downloading.value.path()).read_bytes(), str(folder))
    [service] = folder.iterdir()
    return files(service)


# Answers


def test_every_question_is_answered_by_keyboard(page: Page) -> None:
    """Type into each text, and move to another choice of each other question, in the order of the page."""
    typed = {"project_name": "orders-api", "description": "Takes orders", "workers": "2"}
    # Without a database, so that the code can be laid out in one file.
    left_alone = {"database", "cache"}
    page.focus("#project_name")
    for name in ASKED:
        if name in typed:
            page.keyboard.press("Control+A")
            page.keyboard.type(typed[name])
        elif name not in left_alone:
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "reset"
    chosen = {name: [*choices(name)][1] for name in ASKED if name not in typed.keys() | left_alone}
    answered = {name: (typed | chosen)[name] for name in ASKED if name not in left_alone}
    has_rendered(page, "#" + urlencode(answered))
    for name, value in typed.items():
        assert page.input_value(f"#{name}") == value
    for name, value in chosen.items():
        assert page.input_value(f'input[name="{name}"]:checked') == value
    assert page.inner_text('#tree .added button[data-path="main.py"] i') == "added"
    assert "orders-api" in page.input_value("#command")


def test_a_wrong_answer_is_refused_beside_its_question_and_the_files_stay(page: Page) -> None:
    before = page.inner_text("#tree")
    page.fill("#workers", "99")
    problem = page.wait_for_selector("#workers-problem:not([hidden])")
    assert problem
    assert problem.inner_text() == "a whole number from 1 to 64"
    assert page.get_attribute("#workers", "aria-invalid") == "true"
    assert page.is_disabled("#copy")
    assert page.is_disabled("#archive")
    assert page.inner_text("#tree") == before
    page.fill("#workers", "3")
    page.wait_for_selector("#workers-problem", state="hidden")
    assert page.is_enabled("#copy")
    assert "--data workers=3" in page.input_value("#command")


def test_a_choice_that_does_not_go_with_the_others_says_why(page: Page) -> None:
    answer(page, database="sqlite")
    why = page.inner_text('[data-question="kubernetes"] .refusal')
    assert why.startswith("SQLite is a file on one server")
    answer(page, database="mysql")
    assert page.locator('[data-question="kubernetes"] .refusal').count() == 0


def test_what_an_answer_changes_is_marked_by_file_and_by_line(page: Page) -> None:
    page.check('input[name="server"][value="gunicorn"]')
    has_rendered(page, "#server=gunicorn")
    assert page.inner_text("#changes").startswith("By the last answer: ")
    assert page.inner_text('#tree .added button[data-path="gunicorn.conf.py"] i') == "added"
    assert page.inner_text('#tree .changed button[data-path="pyproject.toml"] i').startswith("+")
    assert page.locator('#tree .changed button[data-path="app/main.py"]').count() == 0
    page.click('#tree button[data-path="pyproject.toml"]')
    page.wait_for_selector('#path:text-is("pyproject.toml")')
    assert '    "gunicorn' in "".join(page.locator("#code tr.added").all_inner_texts())
    page.click('#tree button[data-path="app/main.py"]')
    page.wait_for_selector('#path:text-is("app/main.py")')
    assert page.locator("#code tr.added, #code tr.removed").count() == 0
    assert page.locator("#code tr").count() > 5


def test_a_link_opens_with_its_answers(page: Page, context: BrowserContext) -> None:
    page.check('input[name="database"][value="postgresql"]')
    has_rendered(page, "#database=postgresql")
    page.fill("#description", "100 % “orders” & more")
    page.wait_for_selector('body[data-rendered*="description"]')
    shared = page.get_attribute("#link", "href")
    assert shared
    other = context.new_page()
    other.goto(shared)
    is_ready(other)
    assert other.is_checked('input[name="database"][value="postgresql"]')
    assert other.input_value("#description") == "100 % “orders” & more"
    assert other.input_value("#command") == page.input_value("#command")
    assert other.locator('#tree button[data-path="app/models.py"]').count() == 1
    other.close()


def test_reset_takes_the_default_answers_and_an_empty_link(page: Page) -> None:
    answer(page, cache="redis")
    page.click("button[type=reset]")
    has_rendered(page, "")
    assert page.is_checked('input[name="cache"][value="none"]')
    assert "#" not in page.url


def test_no_answer_is_lost_that_is_given_before_the_questions_are_there(visitor: Page, site: Site) -> None:
    held = Held(visitor, "default.json")
    visitor.goto(site.url)
    choice = 'input[name="database"][value="mysql"]'
    assert visitor.is_disabled(choice)
    assert visitor.is_disabled("#description")
    held.let_go()
    visitor.check(choice)
    is_ready(visitor)
    assert visitor.is_checked(choice)
    assert "--data database=mysql" in visitor.input_value("#command")


def test_the_link_is_that_of_the_answers_in_the_address(page: Page) -> None:
    answer(page, cache="redis")
    assert page.get_attribute("#link", "href") == page.url
    page.focus("#project_name")
    answer(page, project_name="orders-api")
    assert page.get_attribute("#link", "href") == page.url
    assert page.input_value("#project_name") == "orders-api"
    page.go_back()
    has_rendered(page, "#cache=redis")
    assert page.get_attribute("#link", "href") == page.url
    assert page.input_value("#project_name") == "my-service"


def test_what_a_link_answers_that_is_not_asked_is_left_out_and_named(page: Page) -> None:
    answer(page, database="mysql", queue="kafka", with_database=".")
    assert page.inner_text("#status").endswith(
        " files. The link has answers to questions that this page does not ask: queue, with_database."
    )
    assert page.input_value("#command").count("--data") == 1
    assert page.is_enabled("#copy")
    assert "queue" not in (page.get_attribute("#link", "href") or "")
    page.check('input[name="database"][value="none"]')
    has_rendered(page, "")
    assert page.inner_text("#status").endswith(" files.")


def test_an_error_of_copier_is_told_in_one_line_and_nothing_can_be_taken(visitor: Page, site: Site) -> None:
    def fails(route: Route) -> None:
        script = route.fetch().text()
        raised = 'if "kafka" in given: raise ValueError("the template is wrong")'
        route.fulfill(
            body=script.replace("        result = getattr", f"        {raised}\n        result = getattr"),
            content_type="text/javascript",
        )

    visitor.route("**/worker.js", fails)
    visitor.goto(site.url)
    is_ready(visitor)
    answer(visitor, description="kafka")
    assert visitor.inner_text("#status") == "Copier stopped: ValueError: the template is wrong"
    assert visitor.is_disabled("#copy")
    assert visitor.is_disabled("#archive")
    answer(visitor, description="RabbitMQ")
    assert visitor.is_enabled("#copy")
    assert visitor.is_enabled("#archive")


# What is taken away

# Whether the command can be copied, and the archive downloaded.
TAKEN = '["copy", "archive"].map((name) => !document.getElementById(name).disabled)'
# Chooses a database, and tells what can be taken before anything else happens.
CHOOSE = f"""value => {{
    document.querySelector(`input[name="database"][value="${{value}}"]`).click();
    return {TAKEN};
}}"""


def test_nothing_is_taken_from_an_answer_until_its_files_are_shown(page: Page) -> None:
    assert page.evaluate(TAKEN) == [True, True]
    assert page.evaluate(CHOOSE, "mysql") == [False, False]
    has_rendered(page, "#database=mysql")
    assert page.evaluate(TAKEN) == [True, True]
    assert "--data database=mysql" in page.input_value("#command")


def test_nothing_is_taken_while_copier_renders_an_answer_that_was_taken_back(page: Page) -> None:
    page.evaluate(CHOOSE, "mysql")
    page.wait_for_selector('#status:text-is("Copier renders…")')
    assert page.evaluate(CHOOSE, "none") == [False, False]
    has_rendered(page, "")
    page.wait_for_selector("#copy:enabled")
    assert page.input_value("#command") == f"uvx copier copy --defaults {ADDRESS} my-service"


def test_the_command_of_a_link_waits_for_its_files(visitor: Page, site: Site) -> None:
    held = Held(visitor, "packages.tar.xz")
    visitor.goto(f"{site.url}#database=mysql")
    visitor.wait_for_selector("#questions > :enabled")
    assert visitor.is_checked('input[name="database"][value="mysql"]')
    assert visitor.evaluate(TAKEN) == [False, False]
    held.let_go()
    is_ready(visitor)
    assert visitor.evaluate(TAKEN) == [True, True]
    assert "--data database=mysql" in visitor.input_value("#command")


def test_the_default_command_is_there_before_copier_is(visitor: Page, site: Site) -> None:
    Held(visitor, "packages.tar.xz")
    visitor.goto(site.url)
    visitor.wait_for_selector("#copy:enabled")
    assert visitor.evaluate(TAKEN) == [True, False]
    assert visitor.input_value("#command") == f"uvx copier copy --defaults {ADDRESS} my-service"


def test_a_command_that_the_clipboard_refuses_is_selected(folder: Path, visitor: Page) -> None:
    class Refusing(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Permissions-Policy", "clipboard-write=()")
            super().end_headers()

    with Site(folder, Refusing) as site:
        visitor.goto(site.url)
        is_ready(visitor)
        visitor.click("#copy")
        visitor.wait_for_selector('#status:text-is("Copy it with Ctrl+C: it is selected.")')
        assert visitor.evaluate("getSelection().toString()") == visitor.input_value("#command")
        assert visitor.evaluate("document.activeElement.id") == "command"


def test_the_copied_command_writes_what_the_archive_has(page: Page, template: Path, tmp_path: Path) -> None:
    answer(page, project_name="orders-api", database="postgresql", proxy="caddy", description='It\'s "one"')
    page.click("#copy")
    page.wait_for_selector('#status:text-is("The command is copied.")')
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == page.input_value("#command")
    line = command.replace("uvx copier", f"{sys.executable} -m copier", 1).replace(ADDRESS, str(template))
    run("bash", "-e", "-c", line, cwd=tmp_path)
    written = without_source(files(tmp_path / "orders-api"))
    assert without_source(download(page, tmp_path / "archive")) == written


def test_random_answers_render_in_the_browser_as_on_the_disk(
    page: Page, template: Path, tmp_path: Path
) -> None:
    chosen = random.Random(2026).sample(rendered(), RANDOM)
    for answers in ordered(chosen):
        given = {name: str(value) for name, value in answers.items()}
        answer(page, **given)
        place = tmp_path / label(answers)
        copier.run_copy(str(template), place / "disk" / "my-service", data=given, defaults=True, quiet=True)
        found = without_source(download(page, place / "browser"))
        assert found == without_source(files(place / "disk" / "my-service")), answers


# Everyone, everywhere


def test_a_keyboard_skips_to_the_file_and_the_answers_stay(page: Page) -> None:
    answer(page, cache="redis")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "file"
    assert page.url.endswith("#cache=redis")


@pytest.mark.parametrize("place", ['button[data-path="app/main.py"]', 'details[data-path="app"] > summary'])
def test_a_keyboard_keeps_its_place_in_the_tree_when_the_files_change(page: Page, place: str) -> None:
    page.focus(f"#tree {place}")
    page.evaluate("location.hash = 'database=sqlite'")
    has_rendered(page, "#database=sqlite")
    assert page.evaluate(f"document.activeElement.matches('#tree {place}')")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chrome: Browser, site: Site, width: int, scheme: Any) -> None:
    page = chrome.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page.goto(site.url)
    is_ready(page)
    page.check('input[name="database"][value="sqlite"]')
    has_rendered(page, "#database=sqlite")
    page.fill("#workers", "99")
    page.wait_for_selector("#workers-problem:not([hidden])")
    page.add_script_tag(path=npm.folder("axe-core") / "node_modules/axe-core/axe.min.js")
    found = page.evaluate("axe.run()")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
    page.close()


@pytest.mark.parametrize("width", [1280, 375])
def test_nothing_is_wider_than_the_window(chrome: Browser, site: Site, width: int) -> None:
    page = chrome.new_page(viewport={"width": width, "height": 800})
    page.goto(site.url)
    page.wait_for_selector("#tree button")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_nobody_else_is_asked_and_little_is_loaded(chrome: Browser, site: Site, folder: Path) -> None:
    context = chrome.new_context()
    page = context.new_page()
    asked: set[str] = set()
    context.on("request", lambda request: asked.add(request.url.partition("#")[0]))
    page.goto(site.url)
    is_ready(page)
    answer(page, database="postgresql")
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith((site.url, "data:", "blob:"))] == []
    everything = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in everything) < TRANSFERRED


# What is kept


@contextmanager
def visiting(chrome: Browser, site: Site, path: str = "") -> Iterator[Page]:
    """Open the page as a new visitor, and wait until it is kept."""
    context = chrome.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(site.url + path)
    yield is_kept(is_ready(page))
    context.close()


def again(page: Page, path: str = "") -> Page:
    """Close the page and open it again. A service worker that waited for that begins its work."""
    address, context = page.url.partition("#")[0].removesuffix("index.html"), page.context
    page.close()
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.goto(address + path)
    return opened


def files_of(folder: Path) -> Path:
    """Return the folder with the files of the version."""
    [files] = [path for path in folder.iterdir() if path.is_dir()]
    return files


def release(folder: Path, place: Path, name: str) -> Path:
    """Write the page of another release, of which each part that a visitor sees has the name."""
    files = files_of(shutil.copytree(folder, place))
    for file in (place / "index.html", files / "shell.html", place / "service_worker.js"):
        text = file.read_text().replace(files.name, name)
        file.write_text(re.sub('data-commit="[^"]*"', f'data-commit="{name}"', text))
    script = files / "page.js"
    script.write_text(f'{script.read_text()}document.body.dataset.script = "{name}";')
    built = json.loads((files / "default.json").read_text())
    built["state"]["questions"][0]["default"] = name
    (files / "default.json").write_text(json.dumps(built))
    rename_commit(files / "default.zip", name)
    files.rename(place / name)
    return place


def rename_commit(archive: Path, name: str) -> None:
    with ZipFile(archive) as before:
        contents = {member: before.read(member) for member in before.infolist()}
    with ZipFile(archive, "w") as now:
        for member, content in contents.items():
            now.writestr(member, re.sub(rb"(?m)^_commit: .*$", f"_commit: {name}".encode(), content))


def releases(page: Page, folder: Path) -> set[str]:
    """Return the names of the releases that the parts of the page, once it is ready, are of."""
    given = page.input_value("#project_name")
    answers = download(is_ready(page), folder)[".copier-answers.yml"][0].decode()
    [recorded] = re.findall(r"^_commit: (.*)$", answers, re.MULTILINE)
    names = page.evaluate("[document.body.dataset.commit, document.body.dataset.script]")
    return {given, recorded, *names}


def caches(page: Page) -> list[str]:
    """Return the versions that are kept."""
    return [name.split()[-1] for name in page.evaluate("caches.keys()")]


REGISTRATION = "navigator.serviceWorker.getRegistration()"
# Has the browser look for a newer release.
UPDATE = f"{REGISTRATION}.then((found) => found.update())"


class ForAMinute(Host):
    """Lets browsers take files that are a minute old, as hosts of static files do."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=60")
        super().end_headers()


class Silent(Host):
    """Says nothing about how old files are."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword not in {"ETag", "Last-Modified"}:
            super().send_header(keyword, value)


@pytest.mark.parametrize("path", ["", "index.html"])
def test_it_works_without_a_network_once_it_is_kept(chrome: Browser, site: Site, path: str) -> None:
    with visiting(chrome, site) as page:
        page.context.set_offline(True)
        page = is_ready(again(page, path))
        answer(page, database="mysql", cache="redis")
        assert page.locator('#tree button[data-path="app/cache.py"]').count() == 1


@pytest.mark.parametrize("host", variants([ForAMinute, Silent]))
def test_keeping_it_loads_no_file_again(chrome: Browser, folder: Path, host: type[Host]) -> None:
    with Site(folder, host) as site:
        context = chrome.new_context()
        page = context.new_page()
        page.goto(site.url)
        is_ready(page)
        loaded = site.sent
        assert loaded < TRANSFERRED
        is_kept(page)
        # The page itself, once more, and the service worker.
        small = (folder / "index.html", folder / "service_worker.js")
        assert site.sent - loaded < sum(file.stat().st_size for file in small)
        context.set_offline(True)
        is_ready(again(page))
        context.close()


@pytest.mark.parametrize("host", [ForAMinute, Silent])
def test_a_visitor_who_returns_has_the_newest_release_and_nothing_else(
    chrome: Browser, folder: Path, tmp_path: Path, host: type[Host]
) -> None:
    first, second = release(folder, tmp_path / "1", "first"), release(folder, tmp_path / "2", "second")
    with Site(first, host) as site, visiting(chrome, site) as page:
        assert releases(page, tmp_path / "before") == {"first"}
        site.folder = second
        page = is_ready(again(page))
        assert releases(page, tmp_path / "after") == {"second"}
        page = again(page)
        until(lambda: caches(page) == ["second"], "the first release is removed")
        page.context.set_offline(True)
        assert releases(again(page), tmp_path / "offline") == {"second"}


def test_a_release_that_lacks_a_file_leaves_the_one_before(
    chrome: Browser, folder: Path, tmp_path: Path
) -> None:
    first, second = release(folder, tmp_path / "1", "first"), release(folder, tmp_path / "2", "second")
    (second / "second" / "worker.js").rename(tmp_path / "worker.js")
    with Site(first, ForAMinute) as site, visiting(chrome, site) as page:
        site.folder = second
        page.evaluate(UPDATE)
        until(lambda: page.evaluate(f"{REGISTRATION}.then(found => !found.installing)"), "it is refused")
        assert caches(page) == ["first"]
        page.context.set_offline(True)
        page = again(page)
        assert releases(page, tmp_path / "offline") == {"first"}
        (tmp_path / "worker.js").rename(second / "second" / "worker.js")
        page.context.set_offline(False)
        page.evaluate(UPDATE)
        until(lambda: page.evaluate(f"{REGISTRATION}.then(found => Boolean(found.waiting))"), "it is kept")
        assert set(caches(page)) == {"first", "second"}
        page.context.set_offline(True)
        page = again(page)
        assert releases(page, tmp_path / "complete") == {"second"}


def test_a_network_that_does_not_respond_has_the_page_that_is_kept(chrome: Browser, folder: Path) -> None:
    responds = threading.Event()
    responds.set()

    class Slow(Host):
        def do_GET(self) -> None:
            responds.wait(PATIENCE / 1000)
            super().do_GET()

    with Site(folder, Slow) as site, visiting(chrome, site) as page:
        responds.clear()
        is_ready(again(page))
        responds.set()


def test_a_browser_without_room_loads_the_page_each_time(chrome: Browser, site: Site) -> None:
    context = chrome.new_context()
    page = context.new_page()
    # For some of the files.
    limit = {"origin": site.url.removesuffix(PREFIX), "quotaSize": 2_000_000}
    context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", limit)
    for _ in range(2):
        page.goto(site.url)
        is_ready(page)
        answer(page, database="mysql")
        assert page.locator('#tree button[data-path="app/models.py"]').count() == 1
        page.goto("about:blank")
    page.goto(site.url)
    until(lambda: caches(page) == [], "nothing is kept")
    context.close()


def test_a_browser_that_cannot_run_copier_is_told_so_and_has_the_default_files(
    chrome: Browser, site: Site
) -> None:
    page = chrome.new_page()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(f"{site.url}#database=mysql")
    page.wait_for_selector("#status.notice")
    assert page.inner_text("#status").startswith("This browser can't run Copier")
    assert page.is_checked('input[name="database"][value="none"]')
    assert page.is_disabled('input[name="database"][value="mysql"]')
    assert page.get_attribute("#link", "href") == site.url
    assert page.is_enabled("#copy")
    assert page.input_value("#command") == f"uvx copier copy --defaults {ADDRESS} my-service"
    page.click('#tree button[data-path="app/main.py"]')
    page.wait_for_selector('#path:text-is("app/main.py")')
    assert "from app" in page.inner_text("#code")
    page.close()


def test_without_javascript_the_default_files_and_the_command_are_there(chrome: Browser, site: Site) -> None:
    page = chrome.new_page(java_script_enabled=False)
    page.goto(site.url)
    assert "app/main.py" in page.inner_text("#tree")
    assert page.input_value("#command") == f"uvx copier copy --defaults {ADDRESS} my-service"
    assert "Without JavaScript" in page.inner_text("noscript")
    page.close()


def test_the_page_is_built_with_a_version_and_answers_that_are_taken(folder: Path) -> None:
    worker = (folder / "service_worker.js").read_text()
    assert "{{" not in worker
    assert json.loads((files_of(folder) / "default.json").read_text())["state"]["problem"] == ""


def test_the_commands_of_the_page_build_and_serve_it(folder: Path) -> None:
    [(_, block)] = blocks(pages.page("docs/playground.md"))
    # The fixture runs the first.
    build, serve = block.splitlines()
    assert build == "make playground"
    with reserved_port() as port:
        assert port
        with started([*shlex.split(serve), str(port)], folder.parents[1], port, {**ENVIRONMENT}) as server:

            def is_served() -> bool:
                try:
                    return server.get("/").text == (folder / "index.html").read_text()
                except httpx2.TransportError:
                    return False

            until(is_served, "the page")
