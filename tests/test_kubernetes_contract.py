"""Tests that the manifests agree with the built image, the settings, compose.prod.yaml and the page."""

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from harness.containers import HARDENED, DockerError, build, docker, unique
from harness.kubernetes import Manifest, kustomized, one, pods
from harness.pages import service_section, shell
from tests.conftest import Render, RenderTo

pytestmark = [pytest.mark.project, pytest.mark.docker, pytest.mark.xdist_group("kubernetes-contract")]

# Variables that are set in another way: by the image, from a secret, or by Compose for deploy/release.
ELSEWHERE = {"ENVIRONMENT", "WEB_CONCURRENCY", "DATABASE_URL", "CACHE_URL"}
# Connections that a new server allows, without the three that PostgreSQL keeps for its administrator.
CONNECTIONS = {"postgresql": 97, "mysql": 151}

# Prints the settings, and whether they must be set.
SETTINGS = """
import json
from app.settings import Settings
print(json.dumps({name: field.is_required() for name, field in Settings.model_fields.items()}))
"""
# Reads the settings as the service does at its start, with what has a password from files.
READ = """
import os
from app.settings import Settings
print(Settings.read().model_dump_json())
"""
# Prints the paths that the service doesn't have, without a connection to anything.
MISSING = """
import json, sys
from starlette.routing import Match
from app.main import app
def found(path):
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] == Match.FULL for route in app.routes)
print(json.dumps([path for path in sys.argv[1:] if not found(path)]))
"""


class Built(NamedTuple):
    """Keeps a service with its image."""

    service: Path
    tag: str
    database: str

    @property
    def config(self) -> Any:
        return json.loads(docker("image", "inspect", "--format", "{{json .Config}}", self.tag))

    @property
    def compose(self) -> Any:
        return yaml.safe_load((self.service / "compose.prod.yaml").read_text())

    def python(self, code: str, *arguments: str, **variables: str) -> Any:
        """Run Python in the image, and return the JSON that it prints."""
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        command = ["python", "-c", code, *arguments]
        return json.loads(docker("run", "--rm", *HARDENED, *settings, self.tag, *command))

    @property
    def settings(self) -> dict[str, bool]:
        """Return the settings, and whether each must be set."""
        printed: dict[str, bool] = self.python(SETTINGS)
        return printed


@pytest.fixture(
    scope="module",
    params=[
        {"database": "postgresql", "cache": "redis", "observability": "opentelemetry", "workers": 4},
        {"database": "mysql"},
        {"database": "none"},
    ],
    ids=lambda answers: answers["database"],
)
def built(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("contract") / "orders-api"
    service = render_to(folder, kubernetes="yes", **request.param)
    tag = unique("image")
    build(service, tag)
    try:
        yield Built(service, tag, request.param["database"])
    finally:
        docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def manifests(built: Built) -> list[Manifest]:
    return kustomized(built.service / "deploy/kubernetes/overlays/production")


@pytest.fixture(scope="module")
def pod(manifests: list[Manifest]) -> Any:
    return pods(manifests)["Deployment"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    [container] = pod["containers"]
    return container


def default(text: str) -> str:
    """Return the default of a variable in a compose file, such as `256M` of `${MEMORY_LIMIT:-256M}`."""
    found = re.fullmatch(r"\$\{\w+:-(.*)\}", text)
    return found[1] if found else text


def test_the_port_of_each_object_is_that_of_the_image(
    built: Built, manifests: list[Manifest], container: Any
) -> None:
    [port] = container["ports"]
    assert list(built.config["ExposedPorts"]) == [f"{port['containerPort']}/tcp"]
    [of_service] = one(manifests, "Service")["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]
    assert {
        container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")
    } == {port["name"]}
    [rule] = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": port["containerPort"]}]
    [route] = one(manifests, "HTTPRoute")["spec"]["rules"]
    service = one(manifests, "Service")["metadata"]["name"]
    assert route["backendRefs"] == [{"name": service, "port": of_service["port"]}]


def wrong_probes(built: Built, container: Any) -> set[str]:
    """Return the paths of probes that the service doesn't have."""
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    return set(built.python(MISSING, *sorted(paths), **addresses(built)))


def addresses(built: Built) -> dict[str, str]:
    """Return addresses for all that the service connects to. Nothing is connected to them."""
    url = {"postgresql": "postgresql://a:b@c/d", "mysql": "mysql://a:b@c/d"}.get(built.database, "")
    return {"DATABASE_URL": url, "CACHE_URL": "redis://cache"} if url else {}


def test_the_probes_ask_paths_that_the_service_has(built: Built, container: Any) -> None:
    assert wrong_probes(built, container) == set()
    live = container["livenessProbe"]["httpGet"]["path"]
    assert live in built.config["Healthcheck"]["Test"][-1]
    assert container["startupProbe"]["httpGet"]["path"] == live
    assert container["readinessProbe"]["httpGet"]["path"] != live


def test_a_wrong_path_of_a_probe_is_found(built: Built, container: Any) -> None:
    wrong = copy.deepcopy(container)
    wrong["readinessProbe"]["httpGet"]["path"] = "/healthz"
    assert wrong_probes(built, wrong) == {"/healthz"}


def test_the_probes_are_as_patient_as_the_health_check_of_the_image(built: Built, container: Any) -> None:
    check, probe = built.config["Healthcheck"], container["livenessProbe"]
    assert probe["periodSeconds"] == check["Interval"] / 1e9
    assert probe["timeoutSeconds"] == check["Timeout"] / 1e9
    assert probe["failureThreshold"] == check["Retries"]
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == check["StartPeriod"] / 1e9


def test_pods_run_as_the_user_of_the_image(built: Built, manifests: list[Manifest]) -> None:
    for made in pods(manifests).values():
        context = made["spec"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == built.config["User"]


def test_an_image_of_root_is_not_started(built: Built, manifests: list[Manifest]) -> None:
    """With `runAsNonRoot` and a number in the image, Kubernetes can tell."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", built.config["User"])
    for made in pods(manifests).values():
        assert made["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_commands_are_those_of_the_image_and_of_compose(built: Built, manifests: list[Manifest]) -> None:
    made = pods(manifests)
    [server] = made["Deployment"]["spec"]["containers"]
    assert "command" not in server
    assert "args" not in server
    if "Job" in made:
        [migration] = made["Job"]["spec"]["containers"]
        of_compose = built.compose["services"]["migrate"]["command"]
        assert [word for word in migration["command"] if word not in {"-x", "newer=keep"}] == of_compose


def test_the_variables_are_those_of_compose(built: Built, manifests: list[Manifest]) -> None:
    of_compose = built.compose["services"]["app"]["environment"]
    data = one(manifests, "ConfigMap")["data"]
    telemetry = {name for name in data if name.startswith("OTEL_")}
    assert data.keys() - telemetry == of_compose.keys() - ELSEWHERE
    assert bool(telemetry) == (built.database == "postgresql")
    for name in data.keys() - telemetry - {"FORWARDED_ALLOW_IPS", "DATABASE_POOL_SIZE"}:
        assert data[name] == default(of_compose[name]), name


def test_the_service_takes_the_variables(built: Built, manifests: list[Manifest], container: Any) -> None:
    data = one(manifests, "ConfigMap")["data"]
    name = one(manifests, "ConfigMap")["metadata"]["name"]
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    settings = built.settings
    others = {name for name in data if name.startswith("OTEL_")} | {"FORWARDED_ALLOW_IPS"}
    assert {name.lower() for name in data.keys() - others} <= settings.keys()
    read = built.python(READ, **addresses(built), **data)
    assert read["log_level"] == data["LOG_LEVEL"]
    assert str(read.get("database_pool_size", "")) == data.get("DATABASE_POOL_SIZE", "")


def test_a_pod_has_one_process_whatever_the_answer(built: Built, container: Any) -> None:
    assert container["env"] == [{"name": "WEB_CONCURRENCY", "value": "1"}]


def test_the_secret_is_where_the_settings_look_for_it(
    built: Built, manifests: list[Manifest], pod: Any
) -> None:
    """The page makes a Secret of this name with a key for each setting that must be set."""
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    for made in pods(manifests).values():
        [mount] = [m for m in made["spec"]["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
        assert mount["mountPath"] == "/var/run/secrets"
        assert mount["readOnly"] is True
    # A token that a cluster adds below has to have this path: kubernetes/kubernetes#65835.
    assert (
        docker("run", "--rm", built.tag, "readlink", "--canonicalize", mount["mountPath"]) == "/run/secrets\n"
    )
    required = {name for name, is_required in built.settings.items() if is_required}
    assert volume["secret"].get("optional", False) == (not required)
    assert set(built.compose["services"]["app"].get("secrets", [])) == required
    page = shell(service_section(built.service, "On Kubernetes"))[0]
    making = [shlex.split(line) for line in page.splitlines() if "create secret" in line]
    assert bool(making) == bool(required)
    for line in making:
        assert line[4] == volume["secret"]["secretName"]
        assert {Path(name).name for name in line if name.startswith("secrets/")} == required


def test_a_missing_secret_ends_the_start_with_its_name(built: Built) -> None:
    if built.database == "none":
        assert "DATABASE_URL" not in built.python(READ)
        return
    with pytest.raises(DockerError, match="DATABASE_URL"):
        docker("run", "--rm", *HARDENED, "--env=WEB_CONCURRENCY=1", built.tag)


def test_the_memory_is_that_of_compose_with_one_process(
    built: Built, manifests: list[Manifest], pod: Any, container: Any, render: Render
) -> None:
    one_process = {"database": built.database, "workers": 1}
    if built.database == "postgresql":
        one_process |= {"cache": "redis", "observability": "opentelemetry"}
    compose = yaml.safe_load((render("one", **one_process) / "compose.prod.yaml").read_text())
    limits = compose["services"]["app"]["deploy"]["resources"]["limits"]
    resources = container["resources"]
    assert resources["limits"] == {"memory": f"{default(limits['memory']).removesuffix('M')}Mi"}
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]
    assert built.compose["services"]["app"]["tmpfs"] == ["/tmp:size=64m"]
    if "Job" in pods(manifests):
        of_job = pods(manifests)["Job"]["spec"]["containers"][0]["resources"]["limits"]
        of_compose = built.compose["services"]["migrate"]["deploy"]["resources"]["limits"]
        assert of_job == {"memory": f"{of_compose['memory'].removesuffix('M')}Mi"}


def test_the_time_to_stop_is_that_of_compose_after_pre_stop(built: Built, pod: Any, container: Any) -> None:
    seconds = int(built.compose["services"]["app"]["stop_grace_period"].removesuffix("s"))
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] == pause + seconds


def test_all_pods_together_fit_into_the_connections_of_a_new_database(
    built: Built, manifests: list[Manifest]
) -> None:
    if built.database == "none":
        assert "DATABASE_POOL_SIZE" not in one(manifests, "ConfigMap")["data"]
        return
    pool = int(one(manifests, "ConfigMap")["data"]["DATABASE_POOL_SIZE"])
    surge = one(manifests, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    most = one(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] + surge
    pools = 2 if built.database == "mysql" else 1
    assert pools * pool * most + 1 <= CONNECTIONS[built.database]


def selects(selector: dict[str, str], made: Manifest) -> bool:
    return all(made["metadata"]["labels"].get(name) == value for name, value in selector.items())


def test_requests_go_to_pods_of_the_server_alone(manifests: list[Manifest]) -> None:
    """A migration's pod is no place for a request. The policy for the network is for both."""
    made = pods(manifests)
    selectors: dict[str, Callable[[], dict[str, str]]] = {
        "Service": lambda: one(manifests, "Service")["spec"]["selector"],
        "Deployment": lambda: one(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": lambda: one(manifests, "PodDisruptionBudget")["spec"]["selector"][
            "matchLabels"
        ],
    }
    for kind, selector in selectors.items():
        assert selects(selector(), made["Deployment"]), kind
        if "Job" in made:
            assert not selects(selector(), made["Job"]), kind
    for constraint in made["Deployment"]["spec"]["topologySpreadConstraints"]:
        assert selects(constraint["labelSelector"]["matchLabels"], made["Deployment"])
    of_policy = one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert all(selects(of_policy, each) for each in made.values())
    target = one(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == one(manifests, "Deployment")["metadata"]["name"]
    assert "replicas" not in one(manifests, "Deployment")["spec"]


def test_pods_reach_the_ports_of_what_the_service_connects_to(
    built: Built, manifests: list[Manifest]
) -> None:
    reached = {
        port["port"] for rule in one(manifests, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]
    }
    ports = {"postgresql": {5432, 6379, 4318}, "mysql": {3306}, "none": set()}
    assert reached == {53} | ports[built.database]
