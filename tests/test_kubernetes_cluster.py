"""Follows the page on Kubernetes in a cluster of kind, as .github/workflows/kubernetes.yml does."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clones import git
from harness.pages import page, part, section, shell
from harness.steps import follow
from tests.conftest import RenderTo

pytestmark = [
    pytest.mark.project,
    pytest.mark.docker,
    pytest.mark.skipif(
        not (shutil.which("kind") and shutil.which("kubectl")),
        reason="kind, which starts a cluster, is not installed",
    ),
]

PAGE = page("docs/kubernetes.md")
CLUSTER = section(PAGE, "A cluster on your machine")


def to_the_end(text: str) -> str:
    """Return the commands that remove the cluster."""
    return shell(text)[-1]


@pytest.fixture
def service(render_to: RenderTo, tmp_path: Path) -> Iterator[Path]:
    """A service with its first commit. What the page starts is removed, wherever it ends."""
    service = render_to(tmp_path / "orders-api", kubernetes="yes", database="postgresql")
    git(service, "init", "--quiet")
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "First")
    try:
        yield service
    finally:
        subprocess.run(["bash", "-c", to_the_end(CLUSTER)], check=False)


def test_the_page_leads_from_a_cluster_to_more_pods(service: Path, tmp_path: Path) -> None:
    known = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    # The commands that remove the cluster are the fixture's.
    more_pods = section(PAGE, "More pods").rpartition("At the end:")[0]

    follow(part(PAGE, "A cluster on your machine"), service, **known)
    assert follow(section(PAGE, "A request"), service, **known).splitlines()[-1] == "200"

    main = service / "app/main.py"
    main.write_text(
        main.read_text() + '\n\n@app.get("/second")\nasync def second() -> str:\n    return "2"\n'
    )
    git(service, "commit", "--quiet", "--all", "--message", "Second")
    released = follow(section(PAGE, "A release"), service, **known)
    commit = git(service, "rev-parse", "HEAD").strip()
    assert re.search(rf"migrate-{commit} +Complete +1/1", released)

    follow(section(PAGE, "A rollback"), service, **known)
    follow(section(PAGE, "A secret that changes"), service, **known)
    assert follow(more_pods, service, **known).endswith("2")
