"""Runs the jobs of a service's GitHub workflows on this machine, step by step, as a runner of GitHub does.

Lines of shell are run as they are. In place of an action, a function here does what the action does, and a
step with an action that has none fails. Expressions have the values that the test gives.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.clones import git
from harness.containers import docker
from harness.running import PATIENCE, variables

# What an expression may name although nothing has set it.
UNSET = ("inputs.", "needs.", "secrets.", "steps.", "vars.")
OUTPUT = re.compile(r"^(\w+)(?:=([^\n]*)|<<(\w+)\n(.*?)\n\3)$", re.MULTILINE | re.DOTALL)


@functools.cache
def why_no_gh() -> str:
    """Return why no job can be run that uses GitHub's command line, or "" if jobs can."""
    return "" if shutil.which("gh") else "gh, GitHub's command line, is not on this machine"


class StepError(AssertionError):
    """Names the step of a job that failed, with what it printed."""

    def __init__(self, step: str, output: str) -> None:
        super().__init__(f"{step}\n{output[-4000:]}")
        self.step = step


@dataclass
class Runner:
    """Runs jobs, each in a new clone of a repository and with a compose project of its own.

    `values` are those of the expressions. The name of a job's compose project begins with `project`.
    """

    origin: Path
    folder: Path
    project: str
    values: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    # Commands that GitHub's machines have beside the system's own.
    preinstalled: list[Path] = field(default_factory=lambda: [Path(sys.executable).parent / "pipx"])
    checkout: Path = field(init=False)
    temp: Path = field(init=False)
    path: list[str] = field(init=False)

    def workflow(self, name: str) -> dict[str, Any]:
        """Return a workflow of the repository as it is at its newest commit."""
        text = git(self.origin, "show", f"HEAD:.github/workflows/{name}")
        return dict(yaml.safe_load(text))

    def run(self, workflow: str, job: str) -> dict[str, str]:
        """Run a job and return its outputs. Raise a StepError at the first step that fails."""
        whole = self.workflow(workflow)
        chosen = whole["jobs"][job]
        place = self.folder / job
        shutil.rmtree(place, ignore_errors=True)
        self.temp, self.checkout = place / "temp", place / "checkout"
        self.temp.mkdir(parents=True)
        self.checkout.mkdir()
        self.path = [str(self._preinstalled())]
        self.environment["COMPOSE_PROJECT_NAME"] = f"{self.project}-{job}"
        assert whole["permissions"] == {}, "a job has more than its own permissions"
        steps: dict[str, str] = {}
        for step in chosen["steps"]:
            values = self.values | steps
            if "if" in step and not evaluate(step["if"], values):
                continue
            environment = {**whole.get("env", {}), **chosen.get("env", {}), **step.get("env", {})}
            known = {name: filled(str(value), values) for name, value in environment.items()}
            outputs = self._take(step, known, values)
            for name, value in outputs.items():
                steps[f"steps.{step.get('id')}.outputs.{name}"] = value
        return {name: filled(value, self.values | steps) for name, value in chosen.get("outputs", {}).items()}

    def _preinstalled(self) -> Path:
        folder = self.temp / "bin"
        folder.mkdir()
        for command in self.preinstalled:
            (folder / command.name).symlink_to(command)
        return folder

    def _take(
        self, step: dict[str, Any], environment: dict[str, str], values: Mapping[str, str]
    ) -> dict[str, str]:
        if "run" not in step:
            name = step["uses"].partition("@")[0]
            given = {key: filled(str(value), values) for key, value in step.get("with", {}).items()}
            ACTIONS[name](self, given)
            return {}
        output = self.temp / "output"
        output.write_text("")
        known = self.known() | {"GITHUB_OUTPUT": str(output)} | environment
        assert "${{" not in step["run"], "a step lets a value become part of its script"
        done = self.shell(step["run"], known, step.get("shell", ""))
        if done.returncode:
            raise StepError(step.get("name", step["run"]), done.stdout)
        return {found[1]: found[2] or found[4] or "" for found in OUTPUT.finditer(output.read_text())}

    def known(self) -> dict[str, str]:
        """Return the variables that every step has."""
        machine = variables(self.checkout)
        return machine | {
            "CI": "true",
            "GIT_CONFIG_GLOBAL": str(self.temp / "gitconfig"),
            "GITHUB_REPOSITORY": self.values["github.repository"],
            "GITHUB_REPOSITORY_OWNER": self.values["github.repository"].partition("/")[0],
            "PATH": os.pathsep.join([*self.path, machine["PATH"]]),
            "RUNNER_TEMP": str(self.temp),
            **self.environment,
        }

    def shell(
        self, script: str, environment: Mapping[str, str], shell: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with the options that GitHub gives the shell of a step, which may name none."""
        options = {"": ["-e"], "bash": ["--noprofile", "--norc", "-eo", "pipefail"]}[shell]
        return subprocess.run(
            ["bash", *options, "-c", script],
            cwd=self.checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )


# Expressions


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its expressions."""

    def value(found: re.Match[str]) -> str:
        result = evaluate(found[1], values)
        return str(result).lower() if isinstance(result, bool) else result

    return re.sub(r"\$\{\{ (.+?) \}\}", value, text)


def evaluate(expression: str, values: Mapping[str, str]) -> str | bool:
    """Return the value of an expression of GitHub, as far as a service's workflows use them."""
    result: str | bool = ""
    if " || " in expression:
        for part in expression.split(" || "):
            result = evaluate(part, values)
            if result:
                break
        return result
    if " && " in expression:
        for part in expression.split(" && "):
            result = evaluate(part, values)
            if not result:
                break
        return result
    if compared := re.fullmatch(r"(\S+) ([!=])= (\S+)", expression):
        same = evaluate(compared[1], values) == evaluate(compared[3], values)
        return same == (compared[2] == "=")
    if expression.startswith("'"):
        return expression.strip("'")
    if expression.startswith("!"):
        return not evaluate(expression[1:], values)
    # A step that fails ends the job here.
    if expression in {"cancelled()", "failure()"}:
        return False
    assert expression in values or expression.startswith(UNSET), f"no value for {expression}"
    return values.get(expression, "")


# Actions


def check_out(runner: Runner, given: dict[str, str]) -> None:
    assert given.pop("persist-credentials") == "False", "a token stays in the checkout"
    branch = given.pop("ref", "")
    options = ["--branch", branch] if branch else []
    assert given == {}
    # The newest commit alone.
    address = f"file://{runner.origin}"
    git(runner.folder, "clone", "--quiet", "--depth=1", *options, address, str(runner.checkout))


def set_up_python(runner: Runner, given: dict[str, str]) -> None:
    version = (runner.checkout / given["python-version-file"]).read_text().strip()
    place = runner.temp / "python"
    done = runner.shell(f"uv venv --quiet --seed --python {version} {place}", runner.known())
    assert done.returncode == 0, done.stdout
    runner.path.insert(0, str(place / "bin"))


def build_image(runner: Runner, given: dict[str, str]) -> None:
    assert given["load"] == "True", given
    assert given["context"] == "."
    # GitHub's cache is only for its own machines.
    assert given.keys() == {"build-args", "cache-from", "cache-to", "context", "load", "tags"}
    docker(
        "build",
        *(f"--build-arg={line}" for line in given["build-args"].splitlines()),
        *(f"--tag={line}" for line in given["tags"].splitlines()),
        ".",
        cwd=runner.checkout,
    )


def is_there(runner: Runner, given: dict[str, str]) -> None:
    """Do nothing: this machine has what the action sets up."""


ACTIONS: dict[str, Callable[[Runner, dict[str, str]], None]] = {
    "actions/checkout": check_out,
    "actions/setup-python": set_up_python,
    "astral-sh/setup-uv": is_there,
    "docker/build-push-action": build_image,
    "docker/setup-buildx-action": is_there,
}
