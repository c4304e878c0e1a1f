"""Plays the owner of a service: copies it from a commit of the template, edits it and updates it."""

import functools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import copier
import plumbum

from harness.clones import commit, git, run, tracked
from harness.matrix import ROOT

Files = dict[str, bytes]

# The files that a service is rendered from.
TEMPLATE = ("copier.yml", "includes", "template")
ANSWERS_FILE = ".copier-answers.yml"


@contextmanager
def light_git(empty: Path) -> Iterator[None]:
    """Have git ignore the user's settings, and copy no sample hooks into Copier's many repositories."""
    empty.mkdir(exist_ok=True)
    settings = {"GIT_TEMPLATE_DIR": str(empty), "GIT_CONFIG_GLOBAL": os.devnull}
    with plumbum.local.env(**settings):
        yield


# Repositories of the template


def packed(repository: Path) -> Path:
    """Pack a repository into few files, because each update clones it five times."""
    git(repository, "repack", "-adq")
    git(repository, "prune-packed", "--quiet")
    return repository


def template_alone(folder: Path) -> Path:
    """Create a repository with one commit, which has only the files that a service is rendered from."""
    folder.mkdir(parents=True)
    for name in tracked(*TEMPLATE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "The working tree")
    return packed(folder)


def template_with_history(folder: Path) -> Path:
    """Clone this repository and commit the working tree as its newest commit."""
    git(folder.parent, "clone", "--quiet", "--no-tags", "--no-hardlinks", str(ROOT), folder.name)
    for name in TEMPLATE:
        git(folder, "rm", "-r", "--quiet", "--", name)
    for name in tracked(*TEMPLATE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "The working tree")
    return packed(folder)


@functools.cache
def why_no_history() -> str:
    """Return why older commits can't be read here, or "" if they can."""
    if not (ROOT / ".git").exists():
        return "this is not a git repository, so there are no older commits"
    if git(ROOT, "rev-parse", "--is-shallow-repository").strip() == "true":
        return "this is a shallow clone, so older commits are missing: git fetch --unshallow"
    return ""


def commits_that_render_anew() -> list[str]:
    """Return the commits that changed what is rendered, the oldest first."""
    return git(ROOT, "log", "--reverse", "--format=%h", "--", *TEMPLATE).split()


def evenly_spaced(items: Sequence[str], number: int) -> list[str]:
    """Return the first item, the last one, and others at even distances between them."""
    if len(items) <= number:
        return list(items)
    return [items[round(place * (len(items) - 1) / (number - 1))] for place in range(number)]


# The life of a service


def copy(template: Path, service: Path, ref: str | None = None, **answers: Any) -> Path:
    """Do what `copier copy --defaults` does, without trust."""
    copier.run_copy(
        str(template), service, data=answers, vcs_ref=ref, defaults=True, quiet=True, unsafe=False
    )
    return service


def update(service: Path, skip: Sequence[str] = (), **answers: Any) -> None:
    """Do what `copier update --defaults --skip FILE --data name=value` does, without trust."""
    copier.run_update(
        service,
        data=answers,
        skip_if_exists=skip,
        defaults=True,
        quiet=True,
        overwrite=True,
        unsafe=False,
    )


def without_question(text: str, question: str, default: str) -> str:
    """Return copier.yml as it was before a question: nothing is asked, and nothing recorded."""
    fact = f"{question}:\n  when: false\n  default: {default}\n"
    text, count = re.subn(rf"^{question}:\n(?:  .*\n)+", fact, text, flags=re.MULTILINE)
    assert count == 1
    text, count = re.subn(rf", {question}(?=[,\]])", "", text)
    assert count == 1
    return text


def own(service: Path) -> Path:
    """Put a service into git, as its owner does first."""
    git(service, "init", "--quiet", "--template=", "--initial-branch", "main")
    commit(service, "Start from copier-fastapi")
    return service


def files(service: Path) -> Files:
    """Return every file of a service, except git's own, with its contents."""
    return {
        path.relative_to(service).as_posix(): path.read_bytes()
        for path in service.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(service).parts
    }


def deleted(service: Path) -> list[str]:
    """Return the files that an update deleted, with the command that Copier prints before it."""
    return git(service, "diff", "--diff-filter=D", "--name-only").splitlines()


def conflicts(service: Path) -> set[str]:
    """Return the files that git calls unmerged. `git status` shows them, and `git commit` refuses them."""
    return set(git(service, "diff", "--name-only", "--diff-filter=U").split())


MARKER = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)


def with_markers(service: Path) -> set[str]:
    return {name for name, text in files(service).items() if MARKER.search(text)}


def added_lines(before: Files, after: Files) -> dict[str, list[bytes]]:
    """Return the lines that an owner wrote, by file, without empty ones."""
    written = {}
    for name, text in after.items():
        new = Counter(filter(None, text.splitlines()))
        if added := new - Counter(before.get(name, b"").splitlines()):
            written[name] = list(added.elements())
    return written


def lost_lines(written: dict[str, list[bytes]], after: Files) -> dict[str, list[bytes]]:
    """Return the owner's lines that are no longer there, by file. A deleted file has lost all of them."""
    lost = {}
    for name, lines in written.items():
        if name not in after:
            lost[name] = lines
        elif missing := Counter(lines) - Counter(after[name].splitlines()):
            lost[name] = list(missing.elements())
    return lost


# Edits of owners

Edit = Callable[[Path], None]


def replace(file: Path, pattern: str, replacement: str) -> None:
    """Replace the first match. Fail if there is none, because the edit would then test nothing."""
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.MULTILINE)
    assert count, f"nothing in {file.name} matches {pattern}"
    file.write_text(text)


def remove(file: Path, pattern: str) -> None:
    """Remove every match, if there are any."""
    file.write_text(re.sub(pattern, "", file.read_text(), flags=re.MULTILINE))


ORDERS = '''"""Reads orders."""

from fastapi import APIRouter

router = APIRouter(prefix="/orders", tags=["orders"])


@router.get("/{number}")
async def read_order(number: int) -> dict[str, int]:
    return {"number": number}
'''

ORDERS_IN_MAIN = """

@app.get("/orders/{number}")
async def read_order(number: int) -> dict[str, int]:
    return {"number": number}
"""

TEST_ORDERS = """from httpx2 import AsyncClient


async def test_an_order_is_read(client: AsyncClient) -> None:
    response = await client.get("/orders/5")
    assert response.json() == {"number": 5}
"""


def add_a_route(service: Path) -> None:
    (service / "tests/test_orders.py").write_text(TEST_ORDERS)
    if (service / "app/main.py").exists():
        (service / "app/orders.py").write_text(ORDERS)
        include_the_route(service / "app/main.py")
    else:
        main = service / "main.py"
        main.write_text(main.read_text() + ORDERS_IN_MAIN)


def include_the_route(main: Path) -> None:
    replace(main, r"^(from app import .*)$", r"\1, orders")
    replace(main, r"^(app\.include_router\(items\.router\))$", r"\1\napp.include_router(orders.router)")


def delete_the_example(service: Path) -> None:
    (service / "tests/test_items.py").unlink()
    if (service / "app/items.py").exists():
        (service / "app/items.py").unlink()
        exclude_the_example(service / "app/main.py")
    else:
        replace(service / "main.py", r"^class Item\(BaseModel\):\n(    .*\n)+\n\n", "")
        replace(service / "main.py", r"^from pydantic import BaseModel\n", "")
        replace(service / "main.py", r'^\n\n@app\.get\("/items/\{item_id\}"\)\n.*\n    .*\n', "")


def exclude_the_example(main: Path) -> None:
    remove(main, r"^from app import items\n|\bitems, ")
    replace(main, r"^app\.include_router\(items\.router\)\n", "")


def add_a_dependency(service: Path) -> None:
    replace(service / "pyproject.toml", r"^dependencies = \[\n", 'dependencies = [\n    "anyio>=4",\n')


def change_a_pin(service: Path) -> None:
    replace(service / "pyproject.toml", r'^(    "pytest[^"]+)",$', r'\1,<99",')


def add_to_the_dockerfile(service: Path) -> None:
    if (service / "Dockerfile").exists():
        replace(service / "Dockerfile", r"^(STOPSIGNAL .*)$", r"ENV ORDERS_LIMIT=10\n\1")


def add_to_the_compose_file(service: Path) -> None:
    if (service / "compose.yaml").exists():
        replace(service / "compose.yaml", r"^    ports:\n", "    hostname: orders\n    ports:\n")


def rewrite_the_readme(service: Path) -> None:
    (service / "README.md").write_text("# Orders\n\nOurs alone. Ask Kim before you deploy.\n")


def leave_notes_everywhere(service: Path) -> None:
    folders = {path.parent for path in service.rglob("*") if ".git" not in path.relative_to(service).parts}
    for folder in folders | {service / "docs"}:
        folder.mkdir(exist_ok=True)
        (folder / "notes.txt").write_text(f"{folder.name} is ours.\n" if folder != service else "Ours.\n")


# Edits that can be made in a service of any commit.
EDITS: tuple[Edit, ...] = (
    add_a_route,
    delete_the_example,
    add_a_dependency,
    change_a_pin,
    add_to_the_dockerfile,
    add_to_the_compose_file,
    rewrite_the_readme,
    leave_notes_everywhere,
)

# Edits of a typical owner in a service of the newest commit, in the places that the service's pages name


PARTNER = '''"""A client of the partner's API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import State


class Partner:
    def __init__(self, page_size: int) -> None:
        self.page_size = page_size


@asynccontextmanager
async def open_partner(state: State) -> AsyncIterator[Partner]:
    yield Partner(state.settings.page_size)
'''

OWN_MAIN = '''"""The application, served as `app.main:app`: add routers, middleware and what it opens here."""

from fastapi.middleware.gzip import GZipMiddleware

from app import customers, items, orders
from app.factory import create_app
from app.partner import open_partner

app = create_app(resources={"partner": open_partner})
app.add_middleware(GZipMiddleware, minimum_size=1000)
app.include_router(items.router)
app.include_router(orders.router)
app.include_router(customers.router)


@app.get("/")
async def read_root() -> dict[str, str]:
    return {"Hello": "World"}
'''

OWN_SETTINGS = """    page_size: int = 50
    greeting: str = "Hello"
"""

OVERRIDE = """services:
  app:
    environment:
      PAGE_SIZE: "20"

  mail:
    image: axllent/mailpit:v1
"""


def add_routers_middleware_and_a_resource(service: Path) -> None:
    if not (service / "app/main.py").exists():
        add_a_route(service)
        replace(
            service / "main.py",
            r"^(app = \w+\(\n(?:    .*\n)+\))$",
            r"\1\napp.add_middleware(GZipMiddleware, minimum_size=1000)",
        )
        replace(
            service / "main.py",
            r"^(from fastapi import FastAPI)$",
            r"\1\nfrom fastapi.middleware.gzip import GZipMiddleware",
        )
        return
    (service / "tests/test_orders.py").write_text(TEST_ORDERS)
    (service / "app/orders.py").write_text(ORDERS)
    (service / "app/customers.py").write_text(ORDERS.replace("order", "customer"))
    (service / "app/partner.py").write_text(PARTNER)
    (service / "app/main.py").write_text(OWN_MAIN)


def add_settings(service: Path) -> None:
    if (service / "app/main.py").exists():
        settings = service / "app/settings.py"
        settings.write_text(settings.read_text() + "\n" + OWN_SETTINGS)
    else:
        replace(service / "main.py", r"^(    log_level: .*)$", rf"\1\n{OWN_SETTINGS.rstrip()}")


def add_own_dependencies(service: Path) -> None:
    """Add packages to both lists where `uv add` would."""
    text = (service / "pyproject.toml").read_text()
    runtime, development, rest = text.split("    # The service's own:\n")
    own = "    # The service's own:\n"
    (service / "pyproject.toml").write_text(
        f'{runtime}{own}    "tenacity>=9",\n{development}{own}    "freezegun>=1.5",\n{rest}'
    )


def add_a_container_and_a_variable(service: Path) -> None:
    (service / "compose.override.yaml").write_text(OVERRIDE)


TYPICAL: tuple[Edit, ...] = (
    add_own_dependencies,
    add_settings,
    add_routers_middleware_and_a_resource,
    add_a_container_and_a_variable,
    rewrite_the_readme,
)


def live_in(service: Path, edits: Sequence[Edit] = EDITS) -> dict[str, list[bytes]]:
    """Edit and commit as an owner does, and return the lines that the owner wrote, by file."""
    before = files(service)
    for edit in edits:
        edit(service)
    commit(service, "Ours")
    return added_lines(before, files(service))


REFUSAL = re.compile(r"this would delete (.*), with your edits\. First: (.*), and commit$")


def update_as_told(service: Path, **answers: Any) -> list[str]:
    """Update a service. If an answer is refused, first do what the refusal says.

    Return the files that the refusals named: those that the update would have deleted.
    """
    moved: list[str] = []
    while True:
        try:
            update(service, **answers)
        except ValueError as refusal:
            found = REFUSAL.search(str(refusal))
            if not found:
                raise
            assert git(service, "status", "--porcelain") == "", "a refused update changed files"
            done = run("bash", "-ec", found[2], cwd=service)
            assert done.returncode == 0, done.stderr
            commit(service, "Before the new answer")
            moved += found[1].split(", ")
        else:
            return moved
