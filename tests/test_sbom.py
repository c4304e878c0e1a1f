"""Tests that the list of what is in an image has every package that is locked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.containers import build, docker, unique
from harness.running import run
from tests.conftest import Render

pytestmark = [pytest.mark.project, pytest.mark.docker]


def locked(service: Path) -> set[tuple[str, str]]:
    """Return the name and the version of each package that the lock has for this kind of machine."""
    if (service / "uv.lock").exists():
        text = run("uv export --quiet --locked --no-dev --no-hashes --no-emit-project", service)
    else:
        text = (service / "requirements.txt").read_text()
    requirements = [Requirement(line) for line in re.findall(r"^(\w[^\\#\n]*)", text, re.MULTILINE)]
    machine = {"sys_platform": "linux", "python_version": (service / ".python-version").read_text().strip()}
    return {
        (canonicalize_name(each.name), str(each.specifier).removeprefix("=="))
        for each in requirements
        if not each.marker or each.marker.evaluate(machine)
    }


@pytest.mark.parametrize("package_manager", ["uv", "pip"])
def test_syft_lists_each_locked_package_of_an_image(render: Render, package_manager: str) -> None:
    service = render(package_manager=package_manager, database="postgresql", cache="redis")
    image = unique("sbom")
    build(service, image)
    try:
        syft = [
            str(Path(sys.executable).with_name("syft")),
            "scan",
            f"docker:{image}",
            "--output=json",
            "--quiet",
        ]
        done = subprocess.run(syft, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    finally:
        docker("rmi", "--force", image)
    listed = {
        (canonicalize_name(each["name"]), each["version"])
        for each in json.loads(done.stdout)["artifacts"]
        if each["type"] == "python"
    }
    expected = locked(service)
    assert len(expected) > 20
    assert expected - listed == set()
