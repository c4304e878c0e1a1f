"""Reads the manifests for Kubernetes, and checks them as far as that goes without a cluster."""

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from harness import npm

Manifest = dict[str, Any]

# The two newest versions that kubernetes-validate has schemas of.
VERSIONS = ("1.36", "1.37")
OVERLAYS = ("staging", "production")
# Installed for each run by uv: its dependencies are pinned, and fit nothing else.
CHECKOV = ("uv", "tool", "run", "--quiet", "--python=3.13", "checkov==3.3.30")
# The Gateway API is not part of Kubernetes, so its schema comes from elsewhere.
GATEWAY_API = "gateway.networking.k8s.io/v1"


def tool(name: str) -> str:
    """Return the path of a program in this environment."""
    return str(Path(sys.executable).with_name(name))


def kustomized(folder: Path) -> list[Manifest]:
    """Return what `kubectl kustomize` makes of a folder. Raise if it fails."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(manifests: Iterable[Manifest], kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    [found] = [each for each in manifests if each["kind"] == kind]
    return found


def pods(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Return every template of a pod by the kind that makes it, with its metadata."""
    return {
        each["kind"]: each["spec"]["template"] for each in manifests if "template" in each.get("spec", {})
    }


def invalid(manifests: Iterable[Manifest]) -> list[str]:
    """Return why the API of a version would refuse manifests, unknown kinds among them.

    An HTTPRoute is left out: `invalid_route` is for it.
    """
    texts = {json.dumps(each) for each in manifests if each["apiVersion"] != GATEWAY_API}
    return [problem for text in sorted(texts) for problem in _invalid(text)]


@functools.cache
def _invalid(text: str) -> list[str]:
    manifest = json.loads(text)
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{manifest['kind']} in {version}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{manifest['kind']} in {version}: there is no such kind")
    return found


def invalid_route(route: Manifest) -> str:
    """Return why the Gateway API would refuse an HTTPRoute, or "".

    Values are checked by the API's schema. It takes any field, so the type checks the names of fields.
    """
    models = npm.folder("@kubernetes-models/gateway-api")
    with tempfile.TemporaryDirectory(dir=models) as folder:
        program = Path(folder) / "route.mts"
        program.write_text(
            "import { HTTPRoute, type IHTTPRoute } from "
            f'"@kubernetes-models/gateway-api/{GATEWAY_API}/HTTPRoute";\n'
            f"const route: IHTTPRoute = {json.dumps(route)};\n"
            "new HTTPRoute(route).validate();\n"
        )
        options = ["--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
        for command in (
            [*npm.command("typescript"), *options, str(program)],
            [str(npm.node()), str(program.with_suffix(".mjs"))],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                return done.stdout + done.stderr
    return ""


def unrestricted(pod: Manifest) -> list[str]:
    """Return what the restricted Pod Security Standard refuses in a pod.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    spec = pod["spec"]
    found = [f"the pod has {name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= volumes | {"projected", "secret"}:
            found.append(f"the volume {volume['name']} is of a kind that is not allowed")
    of_pod = spec.get("securityContext", {})
    if of_pod.get("sysctls"):
        found.append("the pod sets sysctls")
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = of_pod | container.get("securityContext", {})
        name = container["name"]
        if own.get("privileged"):
            found.append(f"{name} is privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name} may gain privileges")
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append(f"{name} may run as root")
        if own.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append(f"{name} has no seccomp profile")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            found.append(f"{name} keeps capabilities")
        if not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
            found.append(f"{name} adds capabilities")
        if "procMount" in own or any("hostPort" in port for port in container.get("ports", [])):
            found.append(f"{name} has a proc mount or a port of the host")
    return found


def findings(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """Return checkov's findings in each file of a folder: the id of a check, and the kind that fails it."""
    options = ["--framework=kubernetes", "--quiet", "--skip-download", "--output=json"]
    done = subprocess.run(
        [*CHECKOV, *options, f"--directory={folder}"], capture_output=True, text=True, timeout=600
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    found: dict[str, set[tuple[str, str]]] = {}
    for each in report["results"]["failed_checks"]:
        check = each["check_id"], each["resource"].partition(".")[0]
        found.setdefault(Path(each["file_path"]).name, set()).add(check)
    return found
