"""Reads pages in Markdown: this repository's, and those of a rendered service."""

import re
import tomllib
from pathlib import Path

from harness.matrix import ROOT

# The pages of a rendered service that have commands.
SERVICE_PAGES = ("README.md", "DEVELOPMENT.md", "DEPLOYMENT.md")

# What stands for the address of this repository in the pages.
ADDRESS: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

# A fenced block: its language and its text.
Block = tuple[str, str]


def page(name: str) -> str:
    """Return a page of this repository."""
    return (ROOT / name).read_text()


def codes(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table whose header begins like this."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header}"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return cells


def section(text: str, title: str) -> str:
    """Return what stands below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert found, f"no section {title}"
    below = text[found.end() :]
    # A comment in a block of commands is no heading.
    blocks_and_headings = re.finditer(r"^```.*?^```$|^(#+) ", below, re.MULTILINE | re.DOTALL)
    ends = (each.start() for each in blocks_and_headings if each[1] and len(each[1]) <= len(found[1]))
    return below[: next(ends, None)]


def part(text: str, title: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    return re.split(r"^##+ ", section(text, title), maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell(text: str) -> list[str]:
    """Return the shell blocks of a text."""
    return [block for language, block in blocks(text) if language == "shell"]


def service_section(service: Path, title: str) -> str:
    """Return a section of a rendered service's pages, or "" where none has it."""
    pages = [(service / name).read_text() for name in SERVICE_PAGES]
    return next((section(text, title) for text in pages if f"\n## {title}\n" in text), "")


def commands(service: Path, title: str) -> list[str]:
    """Return the lines of the last shell block of a service's section: what is run without Docker."""
    found = shell(service_section(service, title))
    assert found, f"no page of the service has commands in a section {title}"
    return found[-1].splitlines()
