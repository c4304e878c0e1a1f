"""Runs an ACME authority that gives certificates for any name, on a Docker Engine."""

import json
import random
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from harness.containers import DockerError, docker, unique
from harness.waiting import until

IMAGE = "ghcr.io/letsencrypt/pebble:2"
# Pebble's own directory and its interface for tests, inside its container.
PORT, MANAGEMENT = 14000, 15000


def free_subnet() -> str:
    """Return a network of 256 addresses that is not likely to be another test run's."""
    return f"10.{random.randint(100, 200)}.{random.randint(0, 255)}.0/24"


def within(subnet: str, number: int) -> str:
    """Return an address of a subnet that `free_subnet` chose."""
    return subnet.replace(".0/24", f".{number}")


@dataclass
class Authority:
    """Knows where the authority is, and where it expects the server that asks for a certificate."""

    network: str
    directory: str
    # The address that every name has, and the certificate of the authority's own HTTPS.
    server: str
    certificate: str
    management: str

    def client_context(self) -> ssl.SSLContext:
        """Return the settings of a client that trusts what the authority has signed, and nothing else."""
        root = httpx2.get(f"{self.management}/roots/0", verify=False, trust_env=False).text
        return ssl.create_default_context(cadata=root)


@contextmanager
def authority(folder: Path) -> Iterator[Authority]:
    """Yield a running authority in a network of its own. `folder` gets its configuration."""
    folder.mkdir()
    folder.chmod(0o755)
    name = unique("acme")
    network, subnet = new_network(name)
    address = within(subnet, 10)
    server = within(subnet, 20)
    try:
        docker(
            *(
                "run",
                "--rm",
                f"--volume={folder}:/acme",
                IMAGE,
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
            ),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=acme",
                "-addext",
                f"subjectAltName=IP:{address},IP:127.0.0.1",
            ),
            *("-keyout", "/acme/key.pem", "-out", "/acme/certificate.pem"),
        )
        settings = {
            "listenAddress": f"0.0.0.0:{PORT}",
            "managementListenAddress": f"0.0.0.0:{MANAGEMENT}",
            "certificate": "/acme/certificate.pem",
            "privateKey": "/acme/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        names = f"pebble-challtestsrv -defaultIPv4 {server} -defaultIPv6 '' -dnsserver :8053"
        names += " -http01 '' -https01 '' -tlsalpn01 '' -doh ''"
        docker(
            *("run", "--detach", f"--name={name}", f"--network={network}", f"--ip={address}"),
            *(f"--volume={folder}:/acme:ro", f"--publish=127.0.0.1::{MANAGEMENT}"),
            *("--env=PEBBLE_VA_NOSLEEP=1", "--env=PEBBLE_WFE_NONCEREJECT=0"),
            *(
                IMAGE,
                "sh",
                "-c",
                f"{names} & exec pebble -config /acme/pebble.json -dnsserver 127.0.0.1:8053",
            ),
        )
        published = docker("port", name, str(MANAGEMENT)).split()[0]
        found = Authority(
            network,
            f"https://{address}:{PORT}/dir",
            server,
            (folder / "certificate.pem").read_text(),
            f"https://{published}",
        )
        until(lambda: _answers(found), "the ACME authority answers")
        yield found
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("network", "rm", "--force", network)


def new_network(name: str) -> tuple[str, str]:
    """Create a network in a subnet that is free, and return its name and the subnet."""
    for _ in range(20):
        subnet = free_subnet()
        try:
            docker("network", "create", f"--subnet={subnet}", name)
        except DockerError as error:
            if "overlap" not in str(error):
                raise
        else:
            return name, subnet
    raise AssertionError("no subnet is free")


def _answers(found: Authority) -> bool:
    try:
        return httpx2.get(f"{found.management}/roots/0", verify=False, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False
