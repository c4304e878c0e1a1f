"""Updates services as their owners do: on the command line, and as the pages on updates say."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from harness import owners, running
from harness.clones import commit, git, run
from harness.pages import ADDRESS, Block, blocks, page, part, shell

PAGES = "".join(map(page, ("docs/updating.md", "docs/change-an-answer.md", "docs/troubleshoot-updates.md")))

# The files that an update leaves to the owner, who locks again afterwards.
LOCKS = ("uv.lock", "requirements.txt", "requirements-dev.txt")


def start(template: Path, service: Path, ref: str | None = None, **answers: Any) -> Path:
    """Copy a service and put it into git, as its owner begins."""
    return owners.own(owners.copy(template, service, ref, project_name="orders-api", **answers))


def move_on(template: Path, text: str = "# new in the template") -> None:
    """Commit a change of the template that every service gets."""
    file = template / "template/.editorconfig"
    file.write_text(f"{file.read_text()}{text}\n")
    commit(template, text)


def is_new(service: Path, text: str = "# new in the template") -> bool:
    """Tell whether a service has got the template's change."""
    return text in (service / ".editorconfig").read_text()


def copier_update(service: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `copier update --defaults` with more options."""
    return run("copier", "update", "--defaults", *options, cwd=service)


def page_blocks(title: str) -> list[Block]:
    """Return the blocks below a heading of the pages on updates."""
    return blocks(part(PAGES, title))


def page_shell(title: str) -> list[str]:
    """Return the shell blocks below a heading of the pages on updates."""
    return shell(part(PAGES, title))


def page_text(title: str) -> str:
    """Return the one block below a heading that shows output."""
    [text] = [block for language, block in page_blocks(title) if language == "text"]
    return text.strip()


def follow(block: str, service: Path, template: Path) -> subprocess.CompletedProcess[str]:
    """Run a block of the pages. <COMMIT> is the template's first commit, which the services are copies of."""
    script = block.replace(ADDRESS, str(template))
    if "<COMMIT>" in script:
        script = script.replace("<COMMIT>", git(template, "rev-list", "--max-parents=0", "HEAD").strip())
    return run("bash", "-ec", script, cwd=service)


def lock_again(service: Path) -> None:
    """Lock as the page says after an update: with uv, or with the commands at the top of pip's two files."""
    if (service / "uv.lock").exists():
        running.run("uv lock", service)
        return
    for command in compile_commands(service):
        running.run(command, service)


def compile_commands(service: Path) -> list[str]:
    """Return the commands at the top of pip's two files."""
    commands = []
    for name in ("requirements.txt", "requirements-dev.txt"):
        command = re.search(r"^# +(uv pip compile .*)$", (service / name).read_text(), re.MULTILINE)
        assert command, f"{name} does not say how it was made"
        commands.append(command[1])
    return commands


def make_environment(service: Path) -> None:
    """Install a service from its lock. With uv, fail if the lock does not match pyproject.toml."""
    if (service / "uv.lock").exists():
        running.run("uv lock --check\nuv sync --locked --quiet", service)
        return
    version = (service / ".python-version").read_text().strip()
    running.run(
        f"uv venv --quiet --python {version} .venv\n"
        "uv pip install --quiet --require-hashes -r requirements-dev.txt",
        service,
    )


def hook(service: Path) -> subprocess.CompletedProcess[str]:
    """Run the hook on conflict markers as a hook runner does."""
    configuration = yaml.safe_load((service / ".pre-commit-config.yaml").read_text())
    [found] = [
        each for repo in configuration["repos"] for each in repo["hooks"] if each["id"] == "conflict-markers"
    ]
    assert (found["language"], found["pass_filenames"]) == ("system", False)
    return run(*shlex.split(found["entry"]), cwd=service)
