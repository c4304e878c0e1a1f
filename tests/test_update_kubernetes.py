"""The question `kubernetes` takes no manifest from an owner who has some, whatever is answered and when."""

from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, git
from harness.owners import conflicts, files
from harness.updates import copier_update, follow, page_shell, start

pytestmark = pytest.mark.update

# What owners have whose service was in a cluster before the template had manifests.
OWN = {
    "deploy/kubernetes/base/deployment.yaml": "kind: Deployment\n",
    "deploy/kubernetes/base/database.yaml": "kind: StatefulSet\n",
    "deploy/kubernetes/overlays/production/kustomization.yaml": "resources: [../../base]\n",
    "deploy/kubernetes/README.md": "Ours\n",
}
# Those that have the names of the template's.
SAME_NAMES = {name for name in OWN if name.endswith(("/deployment.yaml", "/kustomization.yaml"))}


def write_own(service: Path, *names: str) -> None:
    for name in names or OWN:
        (service / name).parent.mkdir(parents=True, exist_ok=True)
        (service / name).write_text(OWN[name])
    commit(service, "Ours")


def untouched(service: Path, *names: str) -> set[str]:
    """Return the owner's files, or those of these, that an update left as they were."""
    return {name for name in names or OWN if (service / name).read_text() == OWN[name]}


@pytest.fixture
def older(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service with manifests of its owner, made before the question was there. The template has it now."""
    configuration = copier_fastapi / "copier.yml"
    text = configuration.read_text()
    configuration.write_text(owners.without_question(text, "kubernetes", '"no"'))
    commit(copier_fastapi, "Before the question")
    service = start(copier_fastapi, tmp_path / "orders-api")
    assert "\nkubernetes:" not in (service / owners.ANSWERS_FILE).read_text()
    write_own(service)
    configuration.write_text(text)
    commit(copier_fastapi, "The question")
    return service


@pytest.mark.parametrize("options", [(), ("--data", "kubernetes=no")], ids=["defaults", "no"])
def test_an_update_that_brings_the_question_leaves_an_owners_manifests_alone(
    older: Path, options: tuple[str, ...]
) -> None:
    before = files(older)
    assert copier_update(older, *options).returncode == 0
    after = files(older)
    assert "\nkubernetes: 'no'\n" in after[owners.ANSWERS_FILE].decode()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        owners.ANSWERS_FILE
    }


def test_an_answer_that_brings_manifests_keeps_the_owners_lines_in_a_conflict(older: Path) -> None:
    assert copier_update(older, "--data", "kubernetes=yes").returncode == 0
    assert conflicts(older) == SAME_NAMES
    assert untouched(older) == OWN.keys() - SAME_NAMES
    for name in SAME_NAMES:
        assert (older / name).read_text().startswith(f"<<<<<<< before updating\n{OWN[name]}=======\n")


def test_the_command_of_the_page_adds_manifests(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", database="postgresql")
    before = files(service)
    [add] = page_shell("Add manifests for Kubernetes")
    done = follow(add, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    after = files(service)
    assert before.keys() <= after.keys()
    assert all(name.startswith("deploy/kubernetes/") for name in after.keys() - before.keys())
    assert {name for name in before if before[name] != after[name]} == {
        owners.ANSWERS_FILE,
        "DEPLOYMENT.md",
        "migrations/env.py",
        "renovate.json",
    }


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.fixture
def deployed(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service with the template's manifests."""
    return start(copier_fastapi, tmp_path / "orders-api", kubernetes="yes")


def test_manifests_are_deleted_only_after_their_owner_has_deleted_them(deployed: Path) -> None:
    before = files(deployed)
    refused = copier_update(deployed, "--data", "kubernetes=no")
    assert refused.returncode == 1
    sentence = last_line(refused.stderr)
    assert sentence.startswith("ValueError: Invalid choice for 'kubernetes': this would delete ")
    manifests = sorted(name for name in before if name.startswith("deploy/kubernetes/"))
    assert sentence.endswith(
        f"{', '.join(manifests)}, with your edits. First: git rm {' '.join(manifests)}, and commit"
    )
    assert files(deployed) == before
    git(deployed, "rm", "-r", "--quiet", "deploy/kubernetes")
    commit(deployed, "No cluster")
    assert copier_update(deployed, "--data", "kubernetes=no").returncode == 0
    assert not (deployed / "deploy/kubernetes").exists()
    assert "\nkubernetes: 'no'\n" in (deployed / owners.ANSWERS_FILE).read_text()


def test_an_owner_without_some_of_the_manifests_keeps_the_others(deployed: Path) -> None:
    git(deployed, "rm", "--quiet", "deploy/kubernetes/base/pod-disruption-budget.yaml")
    commit(deployed, "One pod")
    before = files(deployed)
    refused = copier_update(deployed, "--data", "kubernetes=no")
    assert refused.returncode == 1
    assert "this would delete deploy/kubernetes/base/deployment.yaml, " in last_line(refused.stderr)
    assert files(deployed) == before


def test_manifests_that_the_owner_has_beside_the_templates_stay(deployed: Path) -> None:
    beside = OWN.keys() - SAME_NAMES
    write_own(deployed, *beside)
    assert beside.isdisjoint(owners.update_as_told(deployed, kubernetes="no"))
    assert untouched(deployed, *beside) == beside
    assert {name for name in files(deployed) if name.startswith("deploy/kubernetes/")} == beside


# SQLite, which pods can't share


def test_a_service_with_manifests_gets_no_sqlite(deployed: Path) -> None:
    before = files(deployed)
    refused = copier_update(deployed, "--data", "database=sqlite")
    assert refused.returncode == 1
    assert last_line(refused.stderr) == (
        "ValueError: Invalid choice for 'database': pods can't share files: answer kubernetes=no too"
    )
    assert files(deployed) == before


def test_a_service_without_its_manifests_gets_sqlite(deployed: Path) -> None:
    git(deployed, "rm", "-r", "--quiet", "deploy/kubernetes")
    commit(deployed, "No cluster")
    assert copier_update(deployed, "--data", "database=sqlite").returncode == 1
    done = copier_update(deployed, "--data", "database=sqlite", "--data", "kubernetes=no")
    assert done.returncode == 0, done.stderr
    assert (deployed / "app/database.py").exists()


def test_a_service_with_sqlite_gets_no_manifests(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", database="sqlite")
    refused = copier_update(service, "--data", "kubernetes=yes")
    assert refused.returncode == 1
    assert last_line(refused.stderr).endswith("answer database=postgresql or database=mysql too")
    done = copier_update(service, "--data", "kubernetes=yes", "--data", "database=postgresql")
    assert done.returncode == 0, done.stderr
    assert (service / "deploy/kubernetes/base/migration.yaml").exists()
