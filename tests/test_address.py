"""Tests the command that writes the addresses of the repository and of its site."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from harness.clones import clone, commit, git, run
from harness.matrix import ROOT
from harness.owners import replace
from harness.pages import blocks, page, section

REPOSITORY, SITE = "https://example.com/copier-fastapi", "https://example.com/docs"
STANDS_FOR_IT = "<URL>"
LINK = re.compile(rf"\]\({SITE}/([\w/-]+)\.html\)")
# All that has a page of its own.
EVERY_PART = {
    "database": "postgresql",
    "cache": "redis",
    "observability": "opentelemetry",
    "kubernetes": "yes",
    "proxy": "caddy",
}
PAGES = ("DEVELOPMENT.md", "DEPLOYMENT.md")


def write(repository: Path, *addresses: str) -> str:
    done = run(sys.executable, "scripts/set_address.py", *addresses, cwd=repository)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_address(repository: Path) -> None:
    """Run the command of the page."""
    [(_, block)] = blocks(section(page("docs/site.md"), "Once the repository has an address"))
    make, *arguments = shlex.split(block)
    assert arguments == ["address", f"REPOSITORY={REPOSITORY}", f"SITE={SITE}"]
    done = run(make, "--old-file=.venv/installed", *arguments, cwd=repository)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, once it has an address."""
    repository = clone(tmp_path_factory.mktemp("published") / "copier-fastapi")
    make_address(repository)
    commit(repository, "The address")
    return repository


@pytest.fixture(scope="module")
def service(published: Path) -> Path:
    return copied(published, "orders-api", EVERY_PART)


def copied(repository: Path, name: str, answers: dict[str, str]) -> Path:
    folder = repository.parent / name
    data = [f"--data={question}={value}" for question, value in answers.items()]
    copier = (sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", "--vcs-ref=HEAD")
    done = run(*copier, *data, str(repository), str(folder), cwd=repository.parent)
    assert done.returncode == 0, done.stderr
    return folder


def links(service: Path) -> set[str]:
    return {link for name in PAGES for link in LINK.findall((service / name).read_text())}


def test_one_command_replaces_what_stands_for_the_address(published: Path) -> None:
    found = run(
        "git", "grep", "--name-only", STANDS_FOR_IT, "--", "README.md", "docs", "*.toml", cwd=published
    )
    assert found.stdout == ""
    readme = (published / "README.md").read_text()
    assert f"uvx copier copy {REPOSITORY} orders-api" in readme
    assert "no public address" not in readme
    assert f"]({SITE}/playground/index.html)" in readme
    for name in ("README.md", "docs/getting-started.md", "docs/getting-started-postgresql.md"):
        text = (published / name).read_text()
        assert "absolute path of a clone" not in text
        assert "<!--" not in text
    assert REPOSITORY in (published / "docs/pictures/questions.svg").read_text()


def test_the_readme_has_the_address_in_one_place(published: Path) -> None:
    assert (published / "README.md").read_text().count(REPOSITORY) == 1


def test_the_command_can_be_run_again_with_another_address(published: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(published), "again")
    assert write(tmp_path / "again", REPOSITORY, SITE) == ""
    write(tmp_path / "again", "https://example.org/theirs", "https://example.org/site")
    assert REPOSITORY not in (tmp_path / "again/README.md").read_text()
    readme = (tmp_path / "again/README.md").read_text()
    assert "copy https://example.org/theirs orders-api" in readme
    assert "](https://example.org/site/playground/index.html)" in readme


@pytest.mark.parametrize("wrong", ["", "copier-fastapi", "https://example.com/two words"])
def test_what_is_no_address_is_refused_in_a_sentence(tmp_path: Path, wrong: str) -> None:
    done = run(sys.executable, "scripts/set_address.py", wrong, SITE, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("is no address: it begins with https://")


def test_the_pages_of_a_service_link_to_pages_that_exist(service: Path) -> None:
    for link in links(service):
        place = ROOT / "docs" / f"{link}.md"
        assert place.exists() or place.with_name("README.md").exists(), link


def test_a_service_links_to_the_pages_of_its_parts_alone(published: Path, service: Path) -> None:
    of_parts = {
        "databases",
        "operate-databases",
        "back-up-and-restore",
        "first-resource",
        "cache",
        "observability",
    }
    of_parts |= {"kubernetes", "proxy"}
    assert of_parts <= links(service)
    default = links(copied(published, "default", {}))
    assert default.isdisjoint(of_parts)
    assert {"updating", "servers", "deploy-on-one-server"} <= default


def test_a_service_that_exists_gets_the_links_with_its_next_update(published: Path, tmp_path: Path) -> None:
    before, after = git(published, "rev-parse", "HEAD~1", "HEAD").split()
    service = tmp_path / "orders-api"
    copier = (sys.executable, "-m", "copier")
    options = ("--defaults", "--quiet")
    run(*copier, "copy", *options, f"--vcs-ref={before}", str(published), str(service), cwd=tmp_path)
    assert links(service) == set()
    git(service, "init", "--quiet")
    commit(service, "Start from copier-fastapi")
    done = run(*copier, "update", *options, f"--vcs-ref={after}", cwd=service)
    assert done.returncode == 0, done.stderr
    assert "updating" in links(service)
    assert set(git(service, "diff", "--name-only").split()) == {".copier-answers.yml", *PAGES}


def test_a_service_links_nowhere_while_there_is_no_address(published: Path, tmp_path: Path) -> None:
    repository = tmp_path / "copier-fastapi"
    git(tmp_path, "clone", "--quiet", str(published), str(repository))
    replace(repository / "copier.yml", f'^  default: "{SITE}"$', '  default: ""')
    commit(repository, "Without a site")
    service = copied(repository, "orders-api", EVERY_PART)
    for name in PAGES:
        assert "Read on" not in (service / name).read_text()
        assert SITE not in (service / name).read_text()
