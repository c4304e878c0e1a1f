"""Follows a page step by step, as a reader does in the folder of a service.

A fenced block is a file below a line that ends with "Create `FILE`:" or "Replace `FILE`:". It is lines to add
to a file below "Add to `FILE`:", where a class that is there already gets the lines of a class. It is a diff
below "Change `FILE`:". A block of shell without such a line is run. Blocks of text and console are not typed.
"""

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from harness import clones
from harness.running import run

# What is printed by commands, or quoted from a file that exists. A reader types none of it.
SHOWN = {"text", "console"}

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
DIRECTION = re.compile(r"\b(Create|Replace|Add to|Change) `([^`\n]+)`:\n\n\Z")


class Step(NamedTuple):
    """Keeps what a reader does next: to a file, or with the shell."""

    action: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.action} {self.file}\n{self.text}"


def steps(page: str) -> list[Step]:
    """Return the steps of a page, or of sections of it. Raise if a fenced block is no step."""
    found = []
    blocks = [*FENCED.finditer(page)]
    inside = sum(len(FENCE.findall(block[2])) for block in blocks)
    outside = len(FENCE.findall(page)) - inside
    assert outside == 2 * len(blocks), "a fence is indented, not closed, or has no language"
    for block in blocks:
        language, text = block.groups()
        direction = DIRECTION.search(page[: block.start()])
        if direction:
            action, file = direction.groups()
            assert (action == "Change") == (language == "diff"), f"{action} {file} with {language}"
            found.append(Step(action, file, text))
        elif language == "shell":
            found.append(Step("Run", "", text))
        else:
            assert language in SHOWN, f"the page doesn't say what to do with a block of {language}:\n{text}"
    return found


def follow(page: str, service: Path, **environment: str) -> str:
    """Take all steps of a page, or of sections of it. Return what its commands print.

    Commands have the variables of `variables_of_a_reader` and these. Nothing is installed before: `uv run`
    does so, or the caller. With pip, pass the page through `harness.running.without_uv_run` first.
    """
    return "".join([take(step, service, **environment) for step in steps(page)])


def take(step: Step, service: Path, **environment: str) -> str:
    """Take one step, and return what its commands print, if any."""
    file = service / step.file
    match step.action:
        case "Run":
            return run(step.text, service, **variables_of_a_reader(), **environment)
        case "Create":
            assert not file.exists(), f"{step.file} exists"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step.text)
            in_order(service, step.file)
        case "Replace":
            assert file.exists(), f"{step.file} does not exist"
            file.write_text(step.text)
            in_order(service, step.file)
        case "Add to":
            assert file.exists(), f"{step.file} does not exist"
            add = with_python if file.suffix == ".py" else with_lines
            file.write_text(add(file.read_text(), step.text))
            in_order(service, step.file)
        case "Change":
            apply(step, service)
    return ""


def variables_of_a_reader() -> dict[str, str]:
    """Return the variables with which a reader's commits have an author, on any machine."""
    return {name: value for name, value in clones.ENVIRONMENT.items() if name.startswith("GIT_")}


def with_lines(text: str, added: str) -> str:
    """Return a text with these lines at its end."""
    ending = "" if not text or text.endswith("\n") else "\n"
    return text + ending + added


def with_python(source: str, added: str) -> str:
    """Return a module with these imports below its docstring, and with the rest at its end."""
    source, added = with_classes(source, added)
    lines = added.splitlines(keepends=True)
    imports: list[str] = []
    for node in reversed(ast.parse(added).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports[:0] = lines[node.lineno - 1 : node.end_lineno]
            del lines[node.lineno - 1 : node.end_lineno]
    rest = "".join(lines)
    top = source.splitlines(keepends=True)
    body = ast.parse(source).body
    number = (body[0].end_lineno or 0) if body and ast.get_docstring(ast.parse(source)) is not None else 0
    module = "".join([*top[:number], *imports, *top[number:]])
    return f"{module}\n\n{rest}" if rest.strip() else module


def with_classes(source: str, added: str) -> tuple[str, str]:
    """Add lines to the ends of classes that a module has. Return the module, and the lines that are left."""
    lines = added.splitlines(keepends=True)
    module = source.splitlines(keepends=True)
    there = {node.name: node.end_lineno for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    for node in reversed(ast.parse(added).body):
        if isinstance(node, ast.ClassDef) and (end := there.get(node.name)):
            module[end - 1] += "\n" + "".join(lines[node.lineno : node.end_lineno])
            del lines[node.lineno - 1 : node.end_lineno]
    return "".join(module), "".join(lines)


def in_order(service: Path, name: str) -> None:
    """Have Ruff sort the imports of a Python file and format it. A later step may define what is missing."""
    if not name.endswith(".py"):
        return
    path = os.pathsep.join([str(service / ".venv" / "bin"), clones.ENVIRONMENT["PATH"]])
    environment: Mapping[str, str] = clones.ENVIRONMENT | {"PATH": path}
    clones.run("ruff", "check", "--fix", "--quiet", name, cwd=service, env=environment)
    done = clones.run("ruff", "format", "--quiet", name, cwd=service, env=environment)
    assert done.returncode == 0, done.stderr


def apply(step: Step, service: Path) -> None:
    """Apply the diff of a step, which changes only the file that the page names.

    The lines around a change may have moved, and the outer ones may differ.
    """
    named = re.findall(r"^(?:---|\+\+\+) [ab]/(.*)$", step.text, re.MULTILINE)
    assert named == [step.file] * 2, f"the diff of {step.file} changes {named}"
    options = "--strip=1 --forward --batch --no-backup-if-mismatch --reject-file=-"
    run(f"patch {options} <<'END OF THE DIFF'\n{step.text}END OF THE DIFF", service)
