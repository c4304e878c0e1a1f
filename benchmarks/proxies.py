"""Measures what each proxy of compose.prod.yaml and its TLS cost, beside the service alone; needs Docker.

The service is the default one, in its image. Requests come on kept connections, and each on a new one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import copier

from benchmarks.comparing import Options, Row, alternate, pairs
from benchmarks.load import needs_wrk, wrk
from harness.acme import free_subnet
from harness.containers import Project, build, composed, docker, unique
from harness.matrix import ROOT, values
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until

ALONE = "service alone"
CASES = {"kept connections": "", "a connection for each request": "Connection: close"}


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows: list[Row] = []
    with ExitStack() as held:
        started = {name: held.enter_context(serving(folder, name)) for name in values("proxy")}
        for case, header in CASES.items():
            if options.wanted(case):
                rows += measure_case(case, header, started, options)
    return rows


def measure_case(
    case: str, header: str, started: dict[str, tuple[str, Project]], options: Options
) -> list[Row]:
    rates: dict[str, list[float]] = {}

    def side(name: str) -> Callable[[], float]:
        url, project = started[name]
        rates[title(name)] = []

        def once() -> float:
            wrk(url, 1, lambda: cpu_seconds(project), header=header)
            load = wrk(url, options.seconds, lambda: cpu_seconds(project), header=header)
            rates[title(name)].append(load.rate)
            return load.per_cpu_second

        return once

    counts = alternate({title(name): side(name) for name in started}, options.rounds)
    found = []
    for name in list(started)[1:]:
        for unit, samples in (("requests per CPU second", counts), ("requests/s", rates)):
            two = {title(name): samples[title(name)], ALONE: samples[ALONE]}
            found += pairs("proxies", case, unit, two, ALONE)
    return found


def title(proxy: str) -> str:
    return ALONE if proxy == "none" else f"behind {proxy.capitalize()}"


@contextmanager
def serving(folder: Path, proxy: str) -> Iterator[tuple[str, Project]]:
    """Run the default service with this proxy, and yield the URL to request and the project."""
    service = folder / proxy / "orders-api"
    copier.run_copy(
        str(ROOT), service, data={"proxy": proxy}, defaults=True, quiet=True, vcs_ref="HEAD", unsafe=False
    )
    image = unique("image")
    build(service, f"{image}:1")
    with ExitStack() as held:
        held.callback(docker, "image", "rm", "--force", f"{image}:1")
        port, other = (held.enter_context(reserved_port()) for _ in range(2))
        variables = {
            "IMAGE": image,
            "TAG": "1",
            "DOMAIN": "localhost",
            "HOST_PORT": str(port),
            "HTTPS_PORT": str(port),
            "HTTP_PORT": str(other),
            "PROXY_SUBNET": free_subnet(),
        }
        project = held.enter_context(composed(service, "compose.prod.yaml", **variables))
        if proxy == "none":
            project.up()
        else:
            run("deploy/release 1", service, **variables, COMPOSE_PROJECT_NAME=project.name)
        scheme = "http" if proxy == "none" else "https"
        url = f"{scheme}://localhost:{port}/items/5?q=x"
        until(lambda: _answers(url, service), "the service answers")
        yield url, project


def _answers(url: str, folder: Path) -> bool:
    try:
        return "item_id" in run(f"curl --silent --insecure '{url}'", folder)
    except AssertionError:
        return False


def cpu_seconds(project: Project) -> float:
    """Return the CPU seconds that the containers of a project have used."""
    ticks = 0
    for container in project.compose("ps", "--quiet").split():
        for line in docker("top", container, "-eo", "pid").splitlines()[1:]:
            fields = Path("/proc", line.strip(), "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
