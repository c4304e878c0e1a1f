"""Follows the commands for Kubernetes that need no cluster, and checks the options of the others."""

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clones import git
from harness.kubernetes import VERSIONS, one, tool
from harness.matrix import Answers
from harness.pages import page, rows, section, service_section, shell
from harness.steps import Step, take
from tests.conftest import Render

PAGE = page("docs/kubernetes.md")
# Services whose pages have each command that differs.
ANSWERS: list[Answers] = [
    {"database": "none"},
    {"database": "postgresql", "cache": "redis"},
    {"layout": "single-file"},
]
# What kubectl says of a command that is right, where no cluster answers.
NO_CLUSTER = re.compile(r"connect: connection refused|was refused|no objects passed to apply")


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A configuration of kubectl for a cluster that is not there."""
    file = tmp_path / "kubeconfig"
    context = {"context": {"cluster": "none", "user": "none"}, "name": "none"}
    cluster = {"cluster": {"server": "http://127.0.0.1:9"}, "name": "none"}
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "current-context": "none",
                "users": [{"name": "none", "user": {}}],
            }
        )
    )
    return file


def kubectl_commands(text: str) -> list[list[str]]:
    """Return the words of each command of kubectl in the shell blocks of a text, and between backticks."""
    lines = [line for block in shell(text) for line in block.splitlines()]
    lines += re.findall(r"`(kubectl [^`\n]+ [^`\n]+)`", text)
    found = []
    for line in lines:
        for command in re.split(r" \| | \|\| ", line):
            words = shlex.split(command)
            if words and words[0] == "kubectl":
                found.append(words[1:])
    return found


def complaint(words: list[str], folder: Path, kubeconfig: Path) -> str:
    """Return what kubectl has against a command itself, or "" where it only lacks a cluster."""
    done = subprocess.run(
        [tool("kubectl"), *words],
        cwd=folder,
        env={"KUBECONFIG": str(kubeconfig), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    right = done.returncode == 0 or NO_CLUSTER.search(done.stdout)
    return "" if right else f"kubectl {shlex.join(words)}: {done.stdout}"


def with_secrets(service: Path) -> Path:
    (service / "secrets").mkdir(exist_ok=True)
    for name in ("database_url", "cache_url"):
        (service / "secrets" / name).write_text(f"{name}://user:password@host/name\n")
    return service


def test_kubectl_takes_each_command_of_the_page(render: Render, kubeconfig: Path) -> None:
    service = with_secrets(render(kubernetes="yes", database="postgresql"))
    commands = kubectl_commands(PAGE)
    assert len(commands) > 20
    # A file at an address is read before the cluster is asked.
    commands = [words for words in commands if not any(word.startswith("https://") for word in words)]
    assert [found for words in commands if (found := complaint(words, service, kubeconfig))] == []


@pytest.mark.parametrize("answers", ANSWERS, ids=str)
def test_kubectl_takes_each_command_of_a_service(render: Render, kubeconfig: Path, answers: Answers) -> None:
    service = with_secrets(render(kubernetes="yes", **answers))
    commands = kubectl_commands(service_section(service, "On Kubernetes"))
    assert len(commands) >= 5
    assert [found for words in commands if (found := complaint(words, service, kubeconfig))] == []


@pytest.mark.parametrize("wrong", ["rollout undoo deployment/orders-api", "rollout undo --bad orders-api"])
def test_a_command_that_kubectl_does_not_know_is_found(tmp_path: Path, kubeconfig: Path, wrong: str) -> None:
    assert "unknown" in complaint(wrong.split(), tmp_path, kubeconfig)


def released(service: Path) -> list[Any]:
    """Take the release of a service's page, up to what the cluster would get. Return the manifests."""
    [block] = [block for block in shell(service_section(service, "On Kubernetes")) if "newTag" in block]
    made = block.replace("kubectl apply --kustomize", f"{tool('kubectl')} kustomize")
    made = "\n".join(line for line in made.splitlines() if "rollout" not in line)
    assert made.count("\n") == block.count("\n") - 2
    return list(yaml.safe_load_all(take(Step("Run", "", made), service)))


def test_each_release_has_its_own_image_and_migration(render: Render) -> None:
    service = render(kubernetes="yes", database="postgresql")
    git(service, "init", "--quiet")
    names = []
    for number in range(2):
        (service / "README.md").write_text(f"Release {number}")
        git(service, "add", "--all")
        git(service, "commit", "--quiet", "--message", f"Release {number}")
        commit = git(service, "rev-parse", "HEAD").strip()
        manifests = released(service)
        for kind in ("Deployment", "Job"):
            [container] = one(manifests, kind)["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"registry.example.com/orders-api:{commit}"
        names.append(one(manifests, "Job")["metadata"]["name"])
        assert names[-1] == f"migrate-{commit}"
    assert len(set(names)) == 2


def test_a_changed_variable_starts_new_pods_and_changes_no_migration(render: Render) -> None:
    """A Job of the same name can't be changed: `kubectl apply` would fail."""
    service = render(kubernetes="yes", database="postgresql")
    git(service, "init", "--quiet")
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "First")
    names, jobs = [], []
    base = service / "deploy/kubernetes/base/kustomization.yaml"
    for level in ("INFO", "DEBUG"):
        base.write_text(base.read_text().replace("LOG_LEVEL=INFO", f"LOG_LEVEL={level}"))
        manifests = released(service)
        [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        [source] = container["envFrom"]
        assert source["configMapRef"]["name"] == one(manifests, "ConfigMap")["metadata"]["name"]
        names.append(source["configMapRef"]["name"])
        jobs.append(one(manifests, "Job"))
    assert len(set(names)) == 2
    assert jobs[0] == jobs[1]


def test_the_page_makes_the_secret_that_the_pods_read(render: Render) -> None:
    service = with_secrets(render(kubernetes="yes", database="postgresql"))
    [line] = shell(section(PAGE, "A secret that changes"))[0].splitlines()[:1]
    making = line.partition(" | ")[0].replace("kubectl", tool("kubectl"), 1)
    secret = yaml.safe_load(take(Step("Run", "", making), service))
    assert {name: base64.b64decode(value) for name, value in secret["data"].items()} == {
        "database_url": (service / "secrets/database_url").read_bytes()
    }
    manifest = (service / "deploy/kubernetes/base/deployment.yaml").read_text()
    assert f"secretName: {secret['metadata']['name']}\n" in manifest


def test_the_page_makes_a_secret_for_a_private_registry(render: Render) -> None:
    [block] = shell(section(PAGE, "Your cluster"))
    line = block.splitlines()[0].replace("kubectl", tool("kubectl"), 1) + " --dry-run=client --output json"
    secret = json.loads(take(Step("Run", "", line), render(), TOKEN="token"))
    [[host, login]] = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"].items()
    assert (host, login["password"]) == ("ghcr.io", "token")
    assert json.dumps([{"name": secret["metadata"]["name"]}]) in block.splitlines()[1]


def test_the_page_has_each_file_of_the_base(render: Render) -> None:
    base = render(kubernetes="yes", database="postgresql") / "deploy/kubernetes/base"
    folder = "`deploy/kubernetes/base/"
    named = {cells[0].removeprefix(folder)[:-1]: cells[1] for cells in rows(PAGE, "file | object")}
    assert named.keys() == {file.name for file in base.iterdir()}
    for name, kind in named.items():
        text = (base / name).read_text()
        assert ("configMapGenerator" if kind == "ConfigMap" else f"\nkind: {kind}\n") in f"\n{text}"


def test_the_page_has_the_numbers_of_the_manifests(render: Render) -> None:
    base = render(kubernetes="yes") / "deploy/kubernetes/base"
    deployment = yaml.safe_load((base / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    [container] = deployment["containers"]
    text = " ".join(PAGE.split())
    assert f"for {container['lifecycle']['preStop']['sleep']['seconds']} seconds (`preStop`)" in text
    assert f"After {deployment['terminationGracePeriodSeconds']} seconds in all" in text
    scaler = yaml.safe_load((base / "horizontal-pod-autoscaler.yaml").read_text())["spec"]
    assert f"{scaler['minReplicas']} to {scaler['maxReplicas']} pods" in text
    assert len(VERSIONS) == 2
