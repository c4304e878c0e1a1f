"""Types the commands of pages about one server. Its name is localhost, and its ports are free ones."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.acme import free_subnet
from harness.containers import docker
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until


class Reader:
    """Types the commands of a page in the folder of a service, whose name takes the place of orders-api."""

    def __init__(self, service: Path, ports: list[int]) -> None:
        self.service = service
        self.name = service.name
        self.ports = ports
        self.url = f"https://localhost:{ports[1]}"
        # The lines that `.env` needs beside those of the page.
        self.settings = f"HTTP_PORT={ports[0]}\nHTTPS_PORT={ports[1]}\nHOST_PORT={ports[2]}\n"
        self.settings += f"PROXY_SUBNET={free_subnet()}\n"

    def type(self, block: str) -> str:
        script = block.replace("orders-api", self.name).replace("DOMAIN=api.example.com", "DOMAIN=localhost")
        script = script.replace("https://api.example.com", self.url)
        return self.run(script.replace("curl", "curl --silent --show-error --insecure"))

    def run(self, script: str) -> str:
        """Run lines as they are."""
        return run(script, self.service)

    def repeat(self, block: str) -> str:
        """Type a block until its commands succeed, and return what it then prints."""
        try:
            until(lambda: self.succeeds(block), block)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error
        return self.type(block)

    def succeeds(self, block: str) -> bool:
        """Type a block, and tell whether its commands succeed."""
        try:
            self.type(block)
        except AssertionError:
            return False
        return True

    def logs(self) -> str:
        """Return the end of all logs, which say why there is no response."""
        return docker("compose", "--file=compose.prod.yaml", "logs", "--tail=40", cwd=self.service)

    def serving(self) -> list[str]:
        """Return the tags of the containers that run the service."""
        labels = {"project": f"{self.name}-production", "service": "app"}
        filters = [f"--filter=label=com.docker.compose.{label}={value}" for label, value in labels.items()]
        names = docker("ps", "--format={{.Image}}", *filters)
        return [image.partition(":")[2] for image in names.split() if image.startswith(f"{self.name}:")]

    def remove(self) -> None:
        """Remove all that was started in production, with its volumes and images."""
        down = ("--profile=*", "down", "--volumes", "--timeout=5", "--rmi=local")
        needed = {"TAG": "1", "DOMAIN": "x"}
        docker("compose", "--file=compose.prod.yaml", *down, cwd=self.service, environment=needed)
        for image in {*docker("image", "ls", "--quiet", f"--filter=reference={self.name}").split()}:
            docker("rmi", "--force", image)


@contextmanager
def free_ports(number: int) -> Iterator[list[int]]:
    """Yield ports that no other test run gets until the block ends."""
    with ExitStack() as held:
        ports = [held.enter_context(reserved_port()) for _ in range(number)]
        assert all(ports)
        yield [port for port in ports if port]


@contextmanager
def reading(service: Path) -> Iterator[Reader]:
    """Yield a reader with free ports. All that was started is removed at the end."""
    with free_ports(3) as ports:
        reader = Reader(service, ports)
        (service / ".env").write_text(reader.settings)
        try:
            yield reader
        finally:
            reader.remove()
