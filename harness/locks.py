"""Render the locks of services, for every combination of answers that has requirements of its own."""

import functools
import tomllib
from dataclasses import dataclass
from typing import Any

from jinja2 import meta

from harness.matrix import ASKED, DEFAULTS, ENVIRONMENT, FACTS, Answers, combinations, facts

# Stands for the name of a service.
NAME = "name-of-the-project"

PYPROJECT = "template/pyproject.toml.jinja"
LOCKS = {
    "uv.lock": "template/{{ with_uv }}/uv.lock.jinja",
    "requirements.txt": "template/{{ with_pip }}/requirements.txt.jinja",
    "requirements-dev.txt": "template/{{ with_pip }}/requirements-dev.txt.jinja",
}


@dataclass(frozen=True)
class Service:
    """Hold the pyproject.toml of a service, and its locks for uv and for pip."""

    answers: Answers
    pyproject: str
    locks: dict[str, str]

    @functools.cached_property
    def packages(self) -> dict[str, dict[str, Any]]:
        """Return the packages of uv.lock by name, the service's own entry included."""
        packages = tomllib.loads(self.locks["uv.lock"])["package"]
        named = {package["name"]: package for package in packages}
        assert len(named) == len(packages), "a package is locked twice, which the tests don't expect"
        return named


def requirements(known: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the dependencies and the development requirements that the table has for these facts."""
    table: Any = ENVIRONMENT.get_template("includes/parts.jinja").make_module(known)
    return [line for line in table.dependencies if not line.startswith("#")], table.development


def questions() -> list[str]:
    """Return the questions whose answers change the requirements, found by changing one fact at a time."""
    source, *_ = ENVIRONMENT.loader.get_source(ENVIRONMENT, "includes/parts.jinja")  # type: ignore[union-attr]
    names = meta.find_undeclared_variables(ENVIRONMENT.parse(source))
    every, none = dict.fromkeys(names, "."), dict.fromkeys(names, "")
    deciding = {"python_version"} | (names - FACTS.keys())
    for name in names & FACTS.keys():
        without, alone = every | {name: ""}, none | {name: "."}
        if requirements(without) != requirements(every) or requirements(alone) != requirements(none):
            deciding |= meta.find_undeclared_variables(ENVIRONMENT.parse(FACTS[name]["default"]))
    return [name for name in ASKED if name in deciding]


def render(template: str, name: str = NAME, **answers: Any) -> str:
    """Return a file of the service with these answers beside the defaults."""
    known = DEFAULTS | {"project_name": name, "description": ""} | answers
    return ENVIRONMENT.get_template(template).render(known | facts(**known))


@functools.cache
def services() -> list[Service]:
    """Return a service for each combination of answers to these questions."""
    return [service(**answers) for answers in combinations(*questions())]


def service(**answers: Any) -> Service:
    """Return the service with these answers."""
    locks = {name: render(template, **answers) for name, template in LOCKS.items()}
    # With the settings for uv's commands for pip, which no other command reads.
    return Service(answers, render(PYPROJECT, **answers | {"package_manager": "pip"}), locks)
