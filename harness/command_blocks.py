"""Finds the fenced blocks of pages that hold commands, and what a registry says of each."""

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from harness.matrix import ROOT
from harness.pages import page

SHELLS = {"shell", "sh", "bash", "zsh"}
# A block of these languages is commands if its first line is one. Pages have them for output too.
TEXTS = {"", "text", "console"}
PIPELINES = {"yaml", "yml"}
# No shell block begins with these, because nobody has them run by a test of a page.
MORE_PROGRAMS = {"gh", "make", "npm", "pip", "python", "python3", "ssh", "sudo"}

FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*(\w*)")
HEADING = re.compile(r"(#+) (.*)")
# What stands before the program of a line: a prompt, a time of cron, variables.
BEFORE = re.compile(r"\s*(?:\$ )?(?:(?:[\d*/,-]+ ){5})?(?:\w+=\S* +)*")
RUNS = re.compile(r"^\s*(?:- )?(?:run|script):", re.MULTILINE)


class By(NamedTuple):
    """Names the tests that run a block, each as `FILE::FUNCTION`, or other files that run it."""

    tests: tuple[str, ...]


class NotRun(NamedTuple):
    """Says in a sentence why no test runs a block."""

    reason: str


Entry = By | NotRun
# What is known of a page's blocks. A key is a heading, or a heading, " | " and how the block begins.
# Shell blocks without such a key have the key "*".
Known = Mapping[str, Entry]


def by(*tests: str) -> By:
    """Name the tests that run a block."""
    return By(tests)


class Fenced(NamedTuple):
    """Keeps a fenced block with the headings above it, the nearest one last."""

    headings: tuple[str, ...]
    language: str
    text: str

    def __str__(self) -> str:
        return f"{' > '.join(self.headings)}:\n```{self.language}\n{self.text}```"


def fenced(text: str) -> list[Fenced]:
    """Return the fenced blocks of a page. They may be indented, and may be without a language."""
    found: list[Fenced] = []
    headings: dict[int, str] = {}
    fence, inside = None, ""
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence, inside = mark, ""
        elif fence is not None and mark and mark[2].startswith(fence[2]) and not mark[3]:
            found.append(Fenced(tuple(headings.values()), fence[3], inside))
            fence = None
        elif fence is not None:
            inside += line.removeprefix(fence[1])
        elif heading := HEADING.fullmatch(line.rstrip("\n")):
            level = len(heading[1])
            headings = {above: title for above, title in headings.items() if above < level}
            headings[level] = heading[2]
    assert fence is None, "a fence is not closed"
    return found


def lines_of(block: Fenced) -> list[str]:
    """Return the lines of a block that are neither empty nor comments."""
    return [line for line in block.text.splitlines() if line.strip() and not line.startswith("#")]


def program(line: str) -> str:
    """Return the first word of a command."""
    return re.split(r"\s", BEFORE.sub("", line, count=1), maxsplit=1)[0]


def programs(blocks: Iterable[Fenced]) -> set[str]:
    """Return the programs with which commands begin, which are those of the shell blocks and a few more."""
    words = {program(line) for block in blocks if block.language in SHELLS for line in lines_of(block)}
    return MORE_PROGRAMS | {word for word in words if re.fullmatch(r"[a-z][a-z0-9_./-]*", word)}


def has_commands(block: Fenced, known: set[str]) -> bool:
    """Tell whether a reader would type or run what is in a block."""
    if block.language in TEXTS:
        return any(program(line) in known for line in lines_of(block)[:1])
    return block.language in SHELLS or (block.language in PIPELINES and bool(RUNS.search(block.text)))


def make_targets(block: Fenced) -> list[str]:
    """Return the targets of a block that is a list of them, or nothing."""
    found = [re.match(r"(?:\$ )?make ([a-z-]+)", line) for line in lines_of(block)]
    return [target[1] for target in found if target] if all(found) else []


def key(known: Known, block: Fenced) -> str:
    """Return the key of a block in what is known of its page, or ""."""
    for heading in reversed(block.headings):
        for name in known:
            title, _, beginning = name.partition(" | ")
            if beginning and title == heading and block.text.lstrip().startswith(beginning):
                return name
        if heading in known:
            return heading
    return "*" if "*" in known and block.language in SHELLS else ""


# What a test reads


@cache
def tree(file: str) -> ast.Module:
    """Parse a Python file of this repository."""
    return ast.parse(page(file))


def names_of_tests(file: str) -> set[str]:
    """Return the tests in a file."""
    functions = [n for n in ast.walk(tree(file)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name for function in functions if function.name.startswith("test_")}


@cache
def texts(file: str) -> frozenset[str]:
    """Return the literals of a Python file, and those of the modules of `harness` that it imports."""
    found = {
        node.value
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness."):
            module = f"{node.module.replace('.', '/')}.py"
            if file.startswith("tests/") and (ROOT / module).exists():
                found |= texts(module)
    return frozenset(found)


def reads(file: str, name: str, title: str) -> bool:
    """Tell whether a test's file names the heading and the page, or the ends of the page's path."""
    found = texts(file)
    ends = any(text.endswith(".md") and name.endswith(text) for text in found)
    names = name in found or (ends and str((ROOT / name).parent.relative_to(ROOT)) in found)
    return names and (title == "*" or title in found)
