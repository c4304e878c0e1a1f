"""Tests that Renovate itself finds every dependency of a service, and none twice."""

import json
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from harness.clones import ENVIRONMENT
from harness.development import in_git
from harness.matrix import Answers, label
from harness.npm import command, why_no_npm
from tests.conftest import Render

pytestmark = [
    pytest.mark.project,
    pytest.mark.skipif(bool(why_no_npm()), reason=why_no_npm()),
]

SERVICES: list[Answers] = [
    {"ci": "github", "database": "postgresql", "cache": "redis", "proxy": "caddy"},
    {"ci": "github", "database": "mysql", "package_manager": "pip", "proxy": "traefik"},
    {"ci": "gitlab", "database": "postgresql", "cache": "redis", "observability": "opentelemetry"},
    {"ci": "github", "database": "postgresql", "kubernetes": "yes"},
    {"ci": "gitlab", "package_manager": "pip", "layout": "single-file"},
]
# What a service says to Renovate beside its dependencies: of a runner, and that an action sets up Python.
BESIDE = {"github-runner", "uses-with"}

Found = Counter[tuple[str, str]]


def found_by_renovate(service: Path) -> Found:
    """Return the file and the name of each dependency that Renovate finds and moves."""
    done = subprocess.run(
        [*command("renovate"), "--platform=local", "--dry-run=extract"],
        cwd=service,
        env=ENVIRONMENT | {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, filter(None, done.stdout.splitlines()))
    [extracted] = [line["packageFiles"] for line in lines if "packageFiles" in line]
    return Counter(
        (file["packageFile"], dependency["depName"])
        for files in extracted.values()
        for file in files
        for dependency in file["deps"]
        if "depName" in dependency and dependency.get("depType") not in BESIDE | {"indirect"}
    )


def named_in(service: Path) -> Found:
    """Return the file and the name of each image, action and package that a service's files name."""
    named: Found = Counter({(".python-version", "python"): 1, ("pyproject.toml", "python"): 1})
    for line in (service / "Dockerfile").read_text().splitlines():
        if image := re.match(r"(?:FROM|COPY --from=)\s?([^\s:]+):", line):
            named["Dockerfile", image[1]] += 1
    for name in ("compose.yaml", "compose.prod.yaml"):
        for container in yaml.safe_load((service / name).read_text())["services"].values():
            if "$" not in (image := container.get("image", "$")):
                named[name, image.partition(":")[0]] += 1
    for file in service.glob(".github/workflows/*.yml"):
        for action in re.findall(r"uses: ([\w/-]+)@", file.read_text()):
            named[file.relative_to(service).as_posix(), action] += 1
    if (pipeline := service / ".gitlab-ci.yml").exists():
        jobs = yaml.safe_load(pipeline.read_text()).values()
        for job in [each for each in jobs if isinstance(each, dict)]:
            images = [job[key] for key in ("image",) if key in job] + job.get("services", [])
            for image in images:
                name = image["name"] if isinstance(image, dict) else image
                named[pipeline.name, name.partition(":")[0]] += 1
    project = tomllib.loads((service / "pyproject.toml").read_text())
    for line in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        requirement = Requirement(line)
        # One without a version, such as an extra for development, has nothing to move.
        if requirement.specifier:
            named["pyproject.toml", requirement.name] += 1
    return named


@pytest.mark.parametrize("answers", SERVICES, ids=label)
def test_renovate_finds_every_dependency_once(render: Render, answers: Answers) -> None:
    service = in_git(render(**answers))
    assert found_by_renovate(service) == named_in(service)
