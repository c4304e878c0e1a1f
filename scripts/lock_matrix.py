"""Which answers decide what a rendered service depends on, and every combination of them.

Nothing is listed here: copier.yml says which answers there are and which go together, and Copier itself
renders each pyproject.toml, so that a new choice changes the matrix by itself.
"""

import contextlib
import itertools
import json
import shutil
import tempfile
import tomllib
import unittest.mock
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import jinja2
import yaml
from jinja2 import meta
from jinja2_ansible_filters import AnsibleCoreFiltersExtension
from packaging.version import Version

Answer = str | int | bool
Answers = Mapping[str, Answer]

# A name that stands for the user's own in everything that is locked; no package of the index is called so.
PROJECT_NAME = "name-of-the-project"

_PYPROJECT = "template/pyproject.toml.jinja"


@dataclass(frozen=True)
class Combination:
    """One set of dependency-relevant answers, and the pyproject.toml that they render."""

    answers: Answers
    pyproject: str


def combinations(repository: Path) -> list[Combination]:
    """Every combination of answers that differs in what uv locks, in the order of copier.yml.

    A combination that a validator refuses is left out, and so is an answer to a question that is not asked.
    """
    questions = _questions(repository)
    finite = {
        name: _choices(name, questions[name])
        for name in questions
        if name in _influences(repository, questions) and _is_finite(questions[name])
    }
    rendered = _render_each(repository, finite)
    locked = {answers: _what_uv_locks(pyproject) for answers, pyproject in rendered.items()}
    relevant = _relevant(list(finite), locked)
    found: dict[tuple[Answer, ...], Combination] = {}
    for answers, pyproject in rendered.items():
        chosen = {name: answer for name, answer in zip(finite, answers, strict=True) if name in relevant}
        found.setdefault(tuple(chosen.values()), Combination(chosen, pyproject))
    return list(found.values())


def python_versions(found: Iterable[Combination]) -> list[str]:
    """The Pythons that are offered, oldest first."""
    return sorted({str(combination.answers["python_version"]) for combination in found}, key=Version)


def environment(repository: Path) -> jinja2.Environment:
    """Jinja as Copier sets it up for this template."""
    settings = dict(_configuration(repository).get("_envops", {}))
    settings.pop("undefined", None)
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(repository),
        extensions=[AnsibleCoreFiltersExtension],
        undefined=jinja2.StrictUndefined,
        **{"keep_trailing_newline": True, **settings},
    )


def _configuration(repository: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load((repository / "copier.yml").read_text(encoding="utf-8"))
    return configuration


def _questions(repository: Path) -> dict[str, dict[str, Any]]:
    return {
        name: question if isinstance(question, dict) else {"default": question}
        for name, question in _configuration(repository).items()
        if not name.startswith("_")
    }


def _is_finite(question: Mapping[str, Any]) -> bool:
    """Whether somebody is asked, and answers with one of a few things."""
    return question.get("when") is not False and ("choices" in question or question.get("type") == "bool")


def _choices(name: str, question: Mapping[str, Any]) -> list[Answer]:
    if question.get("type") == "bool":
        return [False, True]
    choices = question["choices"]
    if isinstance(choices, str) or question.get("multiselect"):
        raise NotImplementedError(
            f"The choices of {name} can't be enumerated: list them one by one in copier.yml."
        )
    values = choices.values() if isinstance(choices, dict) else choices
    values = [value[1] if isinstance(value, list) else value for value in values]
    return [value["value"] if isinstance(value, dict) else value for value in values]


def _influences(repository: Path, questions: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The names that pyproject.toml mentions, and those that decide about them in turn."""
    jinja = environment(repository)
    seen: set[str] = set()
    waiting = [(repository / _PYPROJECT).read_text(encoding="utf-8")]
    while waiting:
        template = jinja.parse(waiting.pop())
        for name in meta.find_referenced_templates(template):
            if name is not None and name not in seen:
                seen.add(name)
                waiting.append((repository / name).read_text(encoding="utf-8"))
        for name in meta.find_undeclared_variables(template):
            if name in questions and name not in seen:
                seen.add(name)
                waiting.extend(_texts(questions[name]))
    return seen


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _render_each(repository: Path, finite: Mapping[str, list[Answer]]) -> dict[tuple[Answer, ...], str]:
    """The pyproject.toml of every combination that Copier accepts, by the answers to `finite` in order."""
    rendered: dict[tuple[Answer, ...], str] = {}
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary, _quick_copies():
        # Only what decides is copied.
        source, destination = Path(temporary, "template"), Path(temporary, "service")
        (source / "template").mkdir(parents=True)
        shutil.copy(repository / "copier.yml", source)
        shutil.copy(repository / _PYPROJECT, source / _PYPROJECT)
        if (repository / "includes").is_dir():
            shutil.copytree(repository / "includes", source / "includes")
        values = ", ".join(f"'{name}': {name}" for name in finite)
        (source / "template" / "answers.json.jinja").write_text(
            f"{{{{ [_copier_answers, {{ {values} }}] | to_json }}}}", encoding="utf-8"
        )
        tried: set[tuple[tuple[str, Answer], ...]] = set()
        # A question that isn't asked after these answers to those before it.
        unasked: set[tuple[str, tuple[Answer, ...]]] = set()
        for answers in itertools.product(*finite.values()):
            while True:
                given = {
                    name: answer
                    for position, (name, answer) in enumerate(zip(finite, answers, strict=True))
                    if (name, answers[:position]) not in unasked
                }
                if tuple(given.items()) in tried:
                    break
                tried.add(tuple(given.items()))
                try:
                    recorded, used = _render(source, destination, given)
                except ValueError as refusal:
                    if not str(refusal).startswith(("Invalid choice", "Validation error")):
                        raise
                    break
                # Copier takes an answer to a question that isn't asked all the same, but does not record it.
                ignored = next((name for name in given if name not in recorded), None)
                if ignored is None:
                    key = tuple(used[name] for name in finite)
                    rendered[key] = (destination / "pyproject.toml").read_text(encoding="utf-8")
                    break
                unasked.add((ignored, answers[: list(finite).index(ignored)]))
    return rendered


def _render(source: Path, destination: Path, given: Mapping[str, Answer]) -> tuple[Answers, Answers]:
    """The answers that Copier records, and those that the templates see."""
    copier.run_copy(
        str(source),
        destination,
        data={"project_name": PROJECT_NAME, **given},
        defaults=True,
        overwrite=True,
        quiet=True,
        unsafe=False,
    )
    recorded, used = json.loads((destination / "answers.json").read_text(encoding="utf-8"))
    return recorded, used


@contextlib.contextmanager
def _quick_copies() -> Iterator[None]:
    """Leave out most of what a copy costs: compiling copier.yml, and asking git about a folder not in git."""
    compile_ = jinja2.Environment.compile
    known: dict[tuple[Any, ...], Any] = {}

    def compile_once(self: jinja2.Environment, source: Any, *rest: Any) -> Any:
        key = (type(self), source, *rest)
        if key not in known:
            known[key] = compile_(self, source, *rest)
        return known[key]

    with (
        unittest.mock.patch.object(jinja2.Environment, "compile", compile_once),
        unittest.mock.patch("copier._main.is_git_available", return_value=False),
        unittest.mock.patch("copier._template.is_git_available", return_value=False),
    ):
        yield


def _what_uv_locks(pyproject: str) -> str:
    document = tomllib.loads(pyproject)
    project = {
        key: value
        for key, value in document["project"].items()
        if key in {"name", "version", "requires-python", "dependencies", "optional-dependencies", "dynamic"}
    }
    groups = document.get("dependency-groups")
    settings = document.get("tool", {}).get("uv")
    return json.dumps([project, groups, settings, document.get("build-system")], sort_keys=True)


def _relevant(names: list[str], locked: Mapping[tuple[Answer, ...], str]) -> list[str]:
    """The fewest of `names` whose answers still decide what is locked."""
    relevant = names
    for name in reversed(names):
        fewer = [other for other in relevant if other != name]
        outcomes: dict[tuple[Answer, ...], str] = {}
        if all(
            outcomes.setdefault(tuple(answers[names.index(other)] for other in fewer), outcome) == outcome
            for answers, outcome in locked.items()
        ):
            relevant = fewer
    return relevant
