"""Read from includes/parts.jinja which requirements a service can have."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import yaml
from packaging.version import Version

from harness.matrix import environment
from lock import LockError

# Stands for a service's name in everything that is locked. No package of the index has this name.
PROJECT_NAME = "name-of-the-project"


@dataclass(frozen=True)
class Table:
    """Hold the requirements of all services with one Python by name, such as `redis[hiredis]`."""

    python: str
    dependencies: dict[str, str]
    development: dict[str, str]
    # The pyproject.toml of the service with the fewest, and the names of these, which every service has.
    fewest: dict[str, Any]
    always: frozenset[str]
    always_in_development: frozenset[str]

    @property
    def requirements(self) -> dict[str, str]:
        """Return the requirements of both lists."""
        return self.dependencies | self.development

    def pyproject(self, dependencies: Iterable[str], development: Iterable[str] = ()) -> str:
        """Return the pyproject.toml of a service with these requirements."""
        project = self.fewest["project"] | {"dependencies": list(dependencies)}
        groups = {"dev": list(development)}
        return tomli_w.dumps(self.fewest | {"project": project, "dependency-groups": groups})


def read_tables(repository: Path) -> list[Table]:
    """Return the table of each Python that is offered, the oldest first."""
    questions = yaml.safe_load((repository / "copier.yml").read_text(encoding="utf-8"))
    choices = questions["python_version"]["choices"].values()
    pythons = [choice["value"] if isinstance(choice, dict) else choice for choice in choices]
    return [_read_table(repository, questions, python) for python in sorted(pythons, key=Version)]


def _read_table(repository: Path, questions: Iterable[str], python: str) -> Table:
    jinja = environment(repository)
    answers = {"python_version": python, "project_name": PROJECT_NAME}
    # A fact that is true is ".", and one that is false is empty.
    true, false = (dict.fromkeys(questions, fact) | answers for fact in (".", ""))
    parts: Any = jinja.get_template("includes/parts.jinja").make_module(true)
    fewest = tomllib.loads(jinja.get_template("template/pyproject.toml.jinja").render(false))
    dependencies, development = _by_name(parts.dependencies), _by_name(parts.development)
    for name in dependencies.keys() & development.keys():
        _require_same(dependencies[name], development[name])
    always = frozenset(_by_name(fewest["project"]["dependencies"]))
    always_in_development = frozenset(_by_name(fewest["dependency-groups"]["dev"]))
    return Table(python, dependencies, development, fewest, always, always_in_development)


def _by_name(requirements: Iterable[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    packages: dict[str, str] = {}
    for requirement in requirements:
        if not requirement.startswith("#"):
            # includes/wanted.jinja cuts off versions and markers with this expression too.
            name = re.split("[ <>=!~;@]", requirement)[0]
            _require_same(packages.setdefault(name.split("[")[0], requirement), requirement)
            named[name] = requirement
    return named


def _require_same(one: str, other: str) -> None:
    if one != other:
        raise LockError(f"includes/parts.jinja asks for one package in two ways: {one!r} and {other!r}.")
