"""Runs the jobs of a service's GitLab pipeline here, with gitlab-ci-local and its shell executor."""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.clones import git
from harness.npm import command, why_no_npm
from harness.running import PATIENCE, variables


@functools.cache
def why_no_gitlab() -> str:
    """Return why no job can be run here, or "" if jobs can."""
    if reason := why_no_npm():
        return reason
    return "" if shutil.which("rsync") else "gitlab-ci-local needs rsync, which is not on this machine"


class JobError(AssertionError):
    """Keeps what a job printed until it failed."""


@dataclass
class GitLab:
    """Runs jobs, each in a new clone of a repository and with an environment of Python as in an image.

    The name of a job's compose project begins with `project`.
    """

    origin: Path
    folder: Path
    project: str
    environment: dict[str, str] = field(default_factory=dict)
    # Folders with commands that an image has.
    preinstalled: list[Path] = field(default_factory=list)

    def clone(self, job: str) -> None:
        """Clone the repository anew, as each job does."""
        place = self.folder / job
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.checkout = place / "checkout"
        # As many commits as GitLab fetches.
        git(place, "clone", "--quiet", "--depth=20", f"file://{self.origin}", "checkout")
        # GitLab's own runner puts nothing into the checkout.
        (self.checkout / ".git/info/exclude").write_text(".gitlab-ci-local/\n")
        git(self.checkout, "config", "user.name", "Somebody")
        git(self.checkout, "config", "user.email", "somebody@localhost")

        # Beside the checkout, and without the services, whose containers the tests start.
        pipeline = yaml.safe_load((self.checkout / ".gitlab-ci.yml").read_text())
        for each in pipeline.values():
            if isinstance(each, dict):
                each.pop("services", None)
        (place / "pipeline.yml").write_text(yaml.safe_dump(pipeline, sort_keys=False))

    def job(self, name: str) -> dict[str, Any]:
        """Return a job of the newest commit as GitLab sees it, with what it extends."""
        self.clone(name)
        return dict(yaml.safe_load(self._local("--preview"))[name])

    def jobs(self, **given: str) -> list[str]:
        """Return the jobs of a pipeline with these variables."""
        self.clone("list")
        options = [f"--variable={name}={value}" for name, value in given.items()]
        lines = self._local("--file=../pipeline.yml", "--list-csv", *options).splitlines()
        head = next(number for number, line in enumerate(lines) if line.startswith("name;stage;when"))
        return [line.partition(";")[0] for line in lines[head + 1 :]]

    def run(self, job: str, *, api: str = "", **given: str) -> str:
        """Run a job with these variables of the project, and return what it printed."""
        self.clone(job)
        version = (self.checkout / ".python-version").read_text().strip()
        python = self.checkout.parent / "python"
        done = subprocess.run(
            ["uv", "venv", "--quiet", "--seed", "--python", version, str(python)],
            env=variables(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        project = {"CI_PROJECT_DIR": str(self.checkout), "CI_API_V4_URL": f"{api}/api/v4", **given}
        # The address of the repository with a token leads to the folder that it was cloned from.
        settings = self.checkout.parent / "gitconfig"
        token = given.get("UPDATE_TOKEN", "")
        address = f"https://update:{token}@gitlab.com:443/fallback.group/fallback.project.git"
        settings.write_text(f'[url "{self.origin}"]\n\tinsteadOf = "{address}"\n')
        machine = variables(self.checkout) | {
            "COMPOSE_PROJECT_NAME": f"{self.project}-{job}",
            "GIT_CONFIG_GLOBAL": str(settings),
            **self.environment,
        }
        machine["PATH"] = os.pathsep.join(map(str, [*self.preinstalled, python / "bin", machine["PATH"]]))
        options = [f"--variable={name}={value}" for name, value in project.items()]
        file = "--file=../pipeline.yml"
        return self._local("--force-shell-executor", file, *options, job, machine=machine)

    def _local(self, *arguments: str, machine: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*command("gitlab-ci-local"), "--no-color", *arguments],
            cwd=self.checkout,
            env=machine or variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise JobError(done.stdout[-4000:] + done.stderr[-2000:])
        return done.stdout
