"""Tests the manifests for Kubernetes by schemas, checkov and the Pod Security Standard."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import npm
from harness.kubernetes import (
    OVERLAYS,
    Manifest,
    findings,
    invalid,
    invalid_route,
    kustomized,
    one,
    pods,
    unrestricted,
)
from harness.matrix import ROOT, Answers, combinations, values
from harness.pages import codes, page, rows
from tests.conftest import RenderTo

# The answers that the manifests depend on, as test_the_other_answers_change_no_manifest shows.
SHAPING = ("database", "cache", "layout", "observability")
# What a cluster has: each overlay, and the base alone.
FOLDERS = ("base", *(f"overlays/{name}" for name in OVERLAYS))

Set = tuple[str, list[Manifest]]


def all_answers() -> list[Answers]:
    return list(combinations(*SHAPING, kubernetes="yes"))


@pytest.fixture(scope="module")
def services(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A service for each combination of the answers that shape the manifests."""
    folder = tmp_path_factory.mktemp("kubernetes")
    return [
        render_to(folder / f"{number}", project_name="orders-api", **answers)
        for number, answers in enumerate(all_answers())
    ]


@pytest.fixture(scope="module")
def sets(services: list[Path]) -> list[Set]:
    """What kubectl makes of each service's base and overlays, with the name of the folder."""
    return [
        (name, kustomized(service / "deploy/kubernetes" / name)) for service in services for name in FOLDERS
    ]


def manifests(service: Path) -> dict[str, str]:
    folder = service / "deploy/kubernetes"
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_the_other_answers_change_no_manifest(render_to: RenderTo, tmp_path: Path) -> None:
    plain = manifests(render_to(tmp_path / "plain", project_name="orders-api", kubernetes="yes"))
    for name in ("python_version", "package_manager", "server", "workers", "proxy", "ci"):
        other = {name: values(name)[-1]}
        service = render_to(tmp_path / name, project_name="orders-api", kubernetes="yes", **other)
        assert manifests(service) == plain, other


def test_kubernetes_takes_each_manifest(sets: list[Set]) -> None:
    assert [problem for _, manifests in sets for problem in invalid(manifests)] == []


@pytest.mark.project
@pytest.mark.skipif(bool(npm.why_no_npm()), reason=npm.why_no_npm())
def test_the_gateway_api_takes_each_route(sets: list[Set]) -> None:
    routes = {str(one(manifests, "HTTPRoute")): one(manifests, "HTTPRoute") for _, manifests in sets}
    assert len(routes) == len(FOLDERS)
    assert [problem for route in routes.values() if (problem := invalid_route(route))] == []


def test_the_ingress_can_take_the_place_of_the_route(services: list[Path], tmp_path: Path) -> None:
    service = shutil.copytree(services[0], tmp_path / "service")
    base = service / "deploy/kubernetes/base"
    kustomization = base / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("- http-route.yaml", "- ingress.yaml"))
    ingress = one(kustomized(base), "Ingress")
    assert invalid([ingress]) == []
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    service_port = one(kustomized(base), "Service")
    assert path["backend"]["service"]["name"] == service_port["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] == service_port["spec"]["ports"][0]["name"]


@pytest.fixture(scope="module")
def found(sets: list[Set], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """What checkov finds in each set, and in latest.yaml, which has the tag `latest`."""
    folder = tmp_path_factory.mktemp("checkov")
    for number, (name, manifests) in enumerate(sets):
        if name != "base":
            (folder / f"{number}.yaml").write_text(yaml.safe_dump_all(manifests))
    latest = edited(sets[-1][1], "Deployment", lambda each: container(each).update(image="orders-api:latest"))
    (folder / "latest.yaml").write_text(yaml.safe_dump_all(latest))
    return findings(folder)


@pytest.mark.project
def test_checkov_finds_only_what_the_page_accepts(found: dict[str, set[tuple[str, str]]]) -> None:
    accepted = {code for check, *_ in rows(page("docs/kubernetes.md"), "finding") for code in codes(check)}
    for name, checks in found.items():
        if name != "latest.yaml":
            assert {check for check, _ in checks} == accepted, name


@pytest.mark.project
def test_checkov_finds_the_tag_latest(found: dict[str, set[tuple[str, str]]]) -> None:
    kinds = {kind for check, kind in found["latest.yaml"] if check == "CKV_K8S_14"}
    assert kinds == {"Deployment"}


def test_each_pod_meets_the_restricted_standard(sets: list[Set]) -> None:
    for name, manifests in sets:
        made = pods(manifests)
        assert made.keys() <= {"Deployment", "Job"}
        assert {kind: unrestricted(pod) for kind, pod in made.items() if unrestricted(pod)} == {}, name


def test_the_migration_has_the_name_of_its_release(services: list[Path], tmp_path: Path) -> None:
    service = shutil.copytree(services[-1], tmp_path / "service")
    overlay = service / "deploy/kubernetes/overlays/production"
    file = overlay / "kustomization.yaml"
    plain = file.read_text()
    for text, name in {
        "newTag: 1f2e3d": "migrate-1f2e3d",
        "newTag: v1.2.3-rc.1": "migrate-v1.2.3-rc.1",
        "newTag: 1f2e3d\n    digest: sha256:0f": "migrate-1f2e3d",
    }.items():
        file.write_text(plain.replace("newTag: not-released", text))
        job = one(kustomized(overlay), "Job")
        assert job["metadata"]["name"] == name
        assert invalid([job]) == []
    # With a port in the registry's name, as the comment says.
    port = plain.replace("registry.example.com/", "localhost:5001/").replace("not-released", "1f2e3d")
    file.write_text(port.replace("index: 1", "index: 2", 1))
    assert one(kustomized(overlay), "Job")["metadata"]["name"] == "migrate-1f2e3d"


# What an owner may do wrong, and what says so


def edited(manifests: list[Manifest], kind: str, edit: Callable[[Any], object]) -> list[Manifest]:
    """Return the manifests with a change of one of them."""
    changed = copy.deepcopy(manifests)
    edit(one(changed, kind))
    return changed


@pytest.fixture
def whole(sets: list[Set]) -> list[Manifest]:
    """The manifests of a service with everything."""
    return sets[-1][1]


def container(manifest: Manifest) -> Any:
    return manifest["spec"]["template"]["spec"]["containers"][0]


def test_a_misspelt_field_is_named(whole: list[Manifest]) -> None:
    def misspell(deployment: Manifest) -> None:
        context = container(deployment)["securityContext"]
        context["readOnlyRootFileSystem"] = context.pop("readOnlyRootFilesystem")

    problems = invalid(edited(whole, "Deployment", misspell))
    assert len(problems) == 2
    assert all("readOnlyRootFileSystem" in problem for problem in problems)


def test_an_unknown_kind_is_named(whole: list[Manifest]) -> None:
    problems = invalid(edited(whole, "Service", lambda service: service.update(kind="Servise")))
    assert [problem.partition(" ")[0] for problem in problems] == ["Servise"] * 2


@pytest.mark.project
@pytest.mark.skipif(bool(npm.why_no_npm()), reason=npm.why_no_npm())
@pytest.mark.parametrize(("field", "value"), [("port", 70000), ("portt", 80)])
def test_a_route_with_a_wrong_field_is_refused(whole: list[Manifest], field: str, value: object) -> None:
    route = copy.deepcopy(one(whole, "HTTPRoute"))
    route["spec"]["rules"][0]["backendRefs"][0][field] = value
    assert field in invalid_route(route)


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("Deployment", {"runAsNonRoot": False}, "orders-api may run as root"),
        ("Job", {"runAsUser": 0}, "migrate may run as root"),
        ("Deployment", {"seccompProfile": {}}, "orders-api has no seccomp profile"),
    ],
)
def test_a_pod_that_is_less_restricted_is_refused(
    whole: list[Manifest], kind: str, change: Manifest, problem: str
) -> None:
    changed = edited(
        whole, kind, lambda each: each["spec"]["template"]["spec"]["securityContext"].update(change)
    )
    assert unrestricted(pods(changed)[kind]) == [problem]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"allowPrivilegeEscalation": True}, "orders-api may gain privileges"),
        ({"capabilities": {}}, "orders-api keeps capabilities"),
        ({"privileged": True}, "orders-api is privileged"),
    ],
)
def test_a_container_that_is_less_restricted_is_refused(
    whole: list[Manifest], change: Manifest, problem: str
) -> None:
    changed = edited(whole, "Deployment", lambda each: container(each)["securityContext"].update(change))
    assert unrestricted(pods(changed)["Deployment"]) == [problem]


def test_no_file_has_a_secret(services: list[Path]) -> None:
    for service in services:
        for name, text in manifests(service).items():
            assert "kind: Secret\n" not in text, name
            assert "secretGenerator" not in text, name


def test_the_manifests_are_the_only_files_of_the_answer() -> None:
    folders = [
        ROOT / "template" / f"{{{{ {fact} }}}}" for fact in ("with_kubernetes", "with_kubernetes_migration")
    ]
    files = [file.relative_to(folder) for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert {file.parts[:2] for file in files} == {("deploy", "kubernetes"), ("_parts", "on-kubernetes.md")}
