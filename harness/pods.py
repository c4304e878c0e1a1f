"""Runs the rendered manifests where there is no cluster, with `podman kube play` in a container."""

import copy
import functools
import itertools
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import yaml

from harness.acme import new_network, within
from harness.containers import DockerError, build, docker, unique, why_no_engine
from harness.kubernetes import Manifest, kustomized, one, tool
from harness.matrix import Answers
from harness.pages import service_section, shell
from harness.waiting import until

PODMAN = "quay.io/podman/stable:v5"
# Where the node finds the files that it is given.
EXCHANGE = "/exchange"
# The network of the pods, whose addresses are those of the Docker network.
PODS = "pods"
PASSWORD = "app"


@functools.cache
def why_no_pods() -> str:
    """Return why no pod can be run here, or "" if one can."""
    if reason := why_no_engine():
        return reason
    try:
        docker("image", "inspect", PODMAN)
    except DockerError:
        try:
            docker("pull", "--quiet", PODMAN)
        except DockerError:
            return f"the engine has no image {PODMAN}, and can't pull it"
    return ""


@dataclass
class Node:
    """Runs pods as a node of a cluster does. Each has an address that all in the Docker network reach."""

    name: str
    network: str
    subnet: str
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def podman(self, *arguments: str) -> str:
        return docker("exec", self.name, "podman", *arguments)

    def give(self, text: str) -> str:
        """Give the node a file, and return where it finds it."""
        name = f"{next(self.numbers)}.yaml"
        (self.folder / name).write_text(text)
        return f"{EXCHANGE}/{name}"

    def play(self, *manifests: Manifest, **options: str) -> str:
        chosen = [f"--{name}={value}" for name, value in options.items()]
        return self.podman("kube", "play", *chosen, self.give("\n---\n".join(map(json.dumps, manifests))))

    def load(self, image: str) -> None:
        """Give the node an image of the engine."""
        file = self.folder / "image.tar"
        docker("save", f"--output={file}", image)
        self.podman("load", "--quiet", f"--input={EXCHANGE}/{file.name}")
        file.unlink()

    def build(self, folder: Path, image: str) -> None:
        """Build an image of what the node has."""
        name = f"{next(self.numbers)}"
        shutil.copytree(folder, self.folder / name)
        self.podman("build", "--quiet", "--network=none", f"--tag={image}", f"{EXCHANGE}/{name}")

    @property
    def host(self) -> str:
        """Return the address under which pods reach this machine."""
        return within(self.subnet, 1)


@contextmanager
def node() -> Iterator[Node]:
    """Yield a node in a network of its own. All that it runs is removed with it."""
    network, subnet = new_network(unique("network"))
    name = unique("node")
    with tempfile.TemporaryDirectory() as folder:
        try:
            # Its own cgroups are below those of the container, and end with it.
            docker(
                *("run", "--detach", f"--name={name}", f"--network={network}", "--privileged"),
                *("--cgroupns=private", f"--volume={folder}:{EXCHANGE}:ro", PODMAN, "sleep", "infinity"),
            )
            started = Node(name, network, subnet, Path(folder))
            started.podman(
                *("network", "create", "--driver=macvlan", "--opt=parent=eth0", f"--subnet={subnet}"),
                # Docker gives the addresses before them.
                *(f"--ip-range={within(subnet, 128)}/25", PODS),
            )
            yield started
        finally:
            docker("rm", "--force", "--volumes", name)
            docker("network", "rm", "--force", network)


def playable(manifest: Manifest, name: str, secret: str) -> Manifest:
    """Return a copy of a Deployment or a Job that podman runs, changed only where podman is no cluster."""
    played = copy.deepcopy(manifest)
    spec = played["spec"]["template"]["spec"]
    [container] = spec["containers"]
    # Podman knows no namespaces, and one pod of each Deployment. What is apart there has another name here.
    played["metadata"]["name"] = name
    renamed = {}
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            volume["secret"]["secretName"] = secret
        else:
            # It keeps an emptyDir under its name, and pods that use the same name would share it.
            renamed[volume["name"]] = volume["name"] = f"{name}-{volume['name']}"
    for mount in container.get("volumeMounts", []):
        mount["name"] = renamed.get(mount["name"], mount["name"])
    # It asks by running curl in the container, which has none. The tests ask from outside.
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container.pop(probe, None)
    # It knows no preStop. `Pod.stop` is what comes after it.
    container.pop("lifecycle", None)
    return played


class Pod:
    """Controls the pod of a Deployment or of a Job, which has one container, and removes it at the end."""

    def __init__(self, node: Node, manifest: Manifest, secret: str, configuration: Manifest) -> None:
        self.node = node
        self.spec: Manifest = manifest["spec"]["template"]["spec"]
        [self.manifest] = self.spec["containers"]
        name = unique("p")
        self.name = f"{name}-pod"
        self.container = f"{self.name}-{self.manifest['name']}"
        try:
            node.play(configuration, playable(manifest, name, secret), network=PODS)
        except DockerError:
            self.remove()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        self.node.podman("pod", "rm", "--force", "--ignore", "--time=0", self.name)

    def inspect(self, path: str) -> Any:
        """Return a part of what `podman inspect` prints, by its path in the format language."""
        return json.loads(self.node.podman("inspect", f"--format={{{{json {path}}}}}", self.container))

    @functools.cached_property
    def address(self) -> str:
        return str(self.inspect(f".NetworkSettings.Networks.{PODS}.IPAddress"))

    @property
    def own_url(self) -> str:
        return f"http://{self.address}:8000"

    @functools.cached_property
    def client(self) -> httpx2.Client:
        # No connection is kept, so that each request may reach any process.
        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.Client(base_url=self.own_url, limits=limits, timeout=30, trust_env=False, verify=False)

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.client.request(method, path, **options)

    def status(self, path: str) -> int:
        """Return the status of the response to a GET, or 0 if there is none."""
        try:
            return self.ask("GET", path).status_code
        except httpx2.TransportError:
            return 0

    def probe(self, kind: str) -> int:
        """Return the status that a probe of the manifest gets, or 0 if there is none."""
        return self.status(self.manifest[f"{kind}Probe"]["httpGet"]["path"])

    def wait_until(self, kind: str) -> Self:
        """Wait until a probe of the manifest succeeds."""

        def succeeds() -> bool:
            assert self.inspect(".State.Running"), f"the pod has ended:\n{self.logs()}"
            return self.probe(kind) == 200

        until(succeeds, f"the {kind} probe succeeds")
        return self

    def run(self, *command: str) -> str:
        """Run a command in the container, as its user, and return what it prints."""
        return self.node.podman("exec", self.container, *command).strip()

    def python(self, code: str) -> str:
        return self.run("python", "-c", code)

    def logs(self) -> str:
        return self.node.podman("logs", self.container)

    def wait(self) -> int:
        """Wait until the container ends by itself, and return its exit code."""
        # Polled, because `podman wait` notices it only after some seconds.
        until(lambda: self.inspect(".State.Status") == "exited", "the end of the container")
        return int(self.inspect(".State.ExitCode"))

    @property
    def pre_stop(self) -> int:
        return int(self.manifest["lifecycle"]["preStop"]["sleep"]["seconds"])

    def stop(self) -> int:
        """End the pod as a node does after preStop: SIGKILL when the rest of the grace period is over.

        Return the exit code.
        """
        rest = self.spec["terminationGracePeriodSeconds"] - self.pre_stop
        self.node.podman("pod", "stop", f"--time={rest}", self.name)
        return int(self.inspect(".State.ExitCode"))


class Server:
    """Runs a server that pods connect to in the network of a node, and removes it at the end."""

    def __init__(self, network: str, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        self.name = unique("server")
        docker("run", "--detach", f"--name={self.name}", f"--network={network}", *options, image, *command)
        path = f"(index .NetworkSettings.Networks {json.dumps(network)}).IPAddress"
        self.address = docker("inspect", f"--format={{{{{path}}}}}", self.name).strip()

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name)

    def run(self, *command: str) -> str:
        return docker("exec", self.name, *command)

    def answers(self, *command: str) -> bool:
        """Tell whether a command in the container succeeds."""
        try:
            self.run(*command)
        except DockerError:
            return False
        return True


class Cache(Server):
    """Runs a cache server."""

    def __init__(self, network: str) -> None:
        super().__init__(network, "valkey/valkey:9", command=("valkey-server", "--requirepass", PASSWORD))
        self.url = f"redis://:{PASSWORD}@{self.address}"


class Database(Server):
    """Runs a database server, with as many databases as there are namespaces."""

    def __init__(self, network: str, kind: str) -> None:
        self.kind = kind
        self.user, image, folder, variables, self.client = {
            "postgresql": (
                "postgres",
                "postgres:18",
                "/var/lib/postgresql",
                ("POSTGRES_PASSWORD", "PGPASSWORD"),
                ("psql", "--host=127.0.0.1", "--username=postgres", "--command"),
            ),
            "mysql": (
                "root",
                "mysql:9",
                "/var/lib/mysql",
                ("MYSQL_ROOT_PASSWORD", "MYSQL_PWD"),
                ("mysql", "--host=127.0.0.1", "--user=root", "--execute"),
            ),
        }[kind]
        passwords = [f"--env={name}={PASSWORD}" for name in variables]
        super().__init__(network, image, f"--tmpfs={folder}", *passwords)
        self.numbers = itertools.count()

    def new(self) -> str:
        """Create a database, and return its URL."""
        # Over TCP, which a server has when it is set up.
        until(lambda: self.answers(*self.client, "SELECT 1"), f"{self.kind} answers")
        name = f"app{next(self.numbers)}"
        self.run(*self.client, f"CREATE DATABASE {name}")
        return f"{self.kind}://{self.user}:{PASSWORD}@{self.address}/{name}"


class Service:
    """Knows a rendered service, whose first release the node has."""

    def __init__(self, node: Node, folder: Path, answers: Answers) -> None:
        self.node = node
        self.folder = folder
        self.answers = answers
        self.tag = unique("1")
        self.image = self.server(self.tag)["spec"]["template"]["spec"]["containers"][0]["image"]
        build(folder, self.image)
        try:
            node.load(self.image)
        finally:
            docker("image", "rm", "--force", self.image)

    def manifests(self, tag: str) -> list[Manifest]:
        """Return what is applied for a release, as the owner writes its tag into the overlay."""
        overlay = self.folder / "deploy/kubernetes/overlays/production"
        file = overlay / "kustomization.yaml"
        text = file.read_text()
        try:
            file.write_text(text.replace("newTag: not-released", f"newTag: {tag}"))
            return kustomized(overlay)
        finally:
            file.write_text(text)

    def server(self, tag: str) -> Manifest:
        return one(self.manifests(tag), "Deployment")

    def release(self, lines: str, *files: Path) -> str:
        """Make a release that differs from the first by these lines of a Dockerfile, and return its tag."""
        tag = unique("2")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(f"FROM {self.image}\n{lines}\n")
            for file in files:
                shutil.copy(file, folder)
            self.node.build(Path(folder), self.image.replace(self.tag, tag))
        return tag

    def secret(self, name: str, **texts: str) -> Manifest:
        """Return the Secret that the page's command makes of these files."""
        (self.folder / "secrets").mkdir(exist_ok=True)
        for file, text in texts.items():
            (self.folder / "secrets" / file).write_text(f"{text}\n")
        lines = "\n".join(shell(service_section(self.folder, "On Kubernetes"))).replace("\\\n", "")
        [command] = [line for line in lines.splitlines() if line.startswith("kubectl create secret ")]
        _, *arguments = shlex.split(command)
        done = subprocess.run(
            [tool("kubectl"), *arguments, "--dry-run=client", "--output=yaml"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        made: Manifest = yaml.safe_load(done.stdout)
        made["metadata"]["name"] = name
        return made


class Namespace:
    """Stands for a namespace in which a service is deployed: it has the Secret with these addresses."""

    def __init__(self, service: Service, **addresses: str) -> None:
        self.service = service
        self.node = service.node
        self.secret = unique("s")
        self.addresses = addresses
        if addresses:
            self.node.play(service.secret(self.secret, **addresses))

    def start(self, kind: str, tag: str = "", command: list[str] | None = None) -> Pod:
        """Start the pod of a release's Deployment or Job, or run another command as that does."""
        manifests = self.service.manifests(tag or self.service.tag)
        manifest = one(manifests, kind)
        if command:
            manifest["spec"]["template"]["spec"]["containers"][0]["command"] = command
        return Pod(self.node, manifest, self.secret, one(manifests, "ConfigMap"))

    def serve(self, tag: str = "") -> Pod:
        """Start a pod of the Deployment, and wait until it is live."""
        return self.start("Deployment", tag).wait_until("liveness")

    def migrate(self, tag: str = "") -> tuple[int, str]:
        """Run the Job of a release. Return its exit code, and its log."""
        with self.start("Job", tag) as pod:
            return pod.wait(), pod.logs()
