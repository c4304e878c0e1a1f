"""Measures a container with the resources of deployment.yaml: its start and its memory.

The share of a core that a pod requests is all it gets while its node is busy, so that is what the start has.
"""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.containers import ITEM, MEMORY, put_under_load
from benchmarks.load import answers, needs_wrk
from benchmarks.services import rendered
from harness.containers import HARDENED, Container, build, docker, unique
from harness.kubernetes import kustomized, one
from harness.matrix import values

LIVE = "/health/live"


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    for server in values("server"):
        if not options.wanted(server):
            continue
        service = rendered(folder / server, project_name="orders-api", server=server, kubernetes="yes")
        tag = unique("bench")
        try:
            build(service, tag)
            rows += measure_server(server, service, tag, options)
        finally:
            docker("image", "rm", "--force", tag)
    return rows


def measure_server(server: str, service: Path, tag: str, options: Options) -> list[Row]:
    manifests = kustomized(service / "deploy/kubernetes/base")
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    cpus = int(container["resources"]["requests"]["cpu"].removesuffix("m")) / 1000
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    loaded: list[float] = []

    def started(*limits: str) -> Callable[[], float]:
        def first_answer() -> float:
            begun = time.perf_counter()
            with Container(tag, *HARDENED, f"--memory={limit}m", *limits) as running:
                url = running.url
                while not answers(url + LIVE):
                    time.sleep(0.01)
                seconds = time.perf_counter() - begun
                if not limits:
                    put_under_load(url + ITEM, options.seconds)
                    loaded.append(float(running.python(MEMORY)) / 2**10)
            return seconds

        return first_answer

    sides = {"with the request": started(f"--cpus={cpus}"), "with whole cores": started()}
    starts = alternate(sides, options.rounds)
    allowed = [float(probe["periodSeconds"] * probe["failureThreshold"])] * options.rounds
    memory: Samples = {"after a load": loaded, "the limit": [float(limit)] * len(loaded)}
    start: Samples = {"with the request": starts["with the request"], "the start-up probe allows": allowed}
    return [
        *pairs("pods", f"{server}, start to the first 200", "s", starts, "with whole cores"),
        *pairs(
            "pods", f"{server}, start to the first 200", "s", start, "the start-up probe allows", reach=0.5
        ),
        *pairs("pods", f"{server}, memory", "MiB", memory, "the limit", reach=0.5),
    ]
