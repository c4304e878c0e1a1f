"""Release a service under load, behind each proxy, and count the losses: `python -m benchmarks.releases`.

Needs Docker. Each server of the service runs behind each proxy. The last table has a row for each step.
"""

import argparse
import os
import signal
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import copier

from harness.containers import docker
from harness.matrix import ROOT, Answers, values
from harness.production import Done, Production, production


def kill(server: Production) -> Done:
    """Kill the service's first process, after which the engine starts its container again."""
    [app] = server.containers("app")
    os.kill(int(docker("inspect", "--format={{.State.Pid}}", app)), signal.SIGKILL)
    return Done(0, "")


# What is done under load: the step, and whether it is meant to fail.
Step = tuple[str, Callable[[Production], Done], bool]
STEPS: list[Step] = [
    ("a release", lambda server: server.release("2"), False),
    ("a rollback", lambda server: server.release("--rollback"), False),
    ("a release with a migration", lambda server: server.release("migrates"), False),
    ("a rollback over it", lambda server: server.release("--rollback"), False),
    (
        "a release that never gets ready",
        lambda server: server.release("never-ready", READY_TIMEOUT="10"),
        True,
    ),
    ("a release that ends at its start", lambda server: server.release("dies", READY_TIMEOUT="30"), True),
    ("a release whose image is missing", lambda server: server.release("missing"), True),
    ("the container is killed, as root", kill, False),
]
FAILS: Step = ("a release whose migration fails", lambda server: server.release("fails"), True)
# Seconds between two requests of a client, which make about 150 requests a second.
PAUSE = 0.08
HEADER = "| proxy | server | database | step | requests | a second | lost | longest wait | writes | missing |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.releases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--proxy", choices=[name for name in values("proxy") if name != "none"])
    parser.add_argument("--server", choices=values("server"))
    parser.add_argument("--rounds", type=int, default=1, help="how often the first two steps are repeated")
    arguments = parser.parse_args()
    rows = [HEADER, "| --- " * HEADER.count(" |") + "|"]
    databases = cycle(name for name in values("database") if name != "none")
    for proxy in [arguments.proxy] if arguments.proxy else values("proxy")[1:]:
        for server in [arguments.server] if arguments.server else values("server"):
            answers = {"proxy": proxy, "server": server, "database": next(databases)}
            rows += measure(answers, arguments.rounds)
    print("\n".join(rows))


def measure(answers: Answers, rounds: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="releases-") as folder:
        service = Path(folder, "orders-api")
        copier.run_copy(
            str(ROOT), service, data=answers, defaults=True, quiet=True, vcs_ref="HEAD", unsafe=False
        )
        with production(service, answers) as server:
            for tag in ("2", "migrates", "never-ready", "dies", "fails"):
                server.make(tag)
            # Before the other migration, which it would have to follow.
            steps = [FAILS, *STEPS[:2] * rounds, *STEPS[2:]]
            return [row(server, step) for step in steps]


def row(server: Production, step: Step) -> str:
    name, act, fails = step
    with server.traffic(PAUSE) as traffic:
        traffic.more(200)
        done = act(server)
        traffic.more(200)
    if bool(done.code) != fails:
        raise SystemExit(f"{name}, {server.answers}: exit code {done.code}\n{done.output}")
    missing = traffic.missing(lambda path: server.request("GET", path))
    cells = [
        *map(str, server.answers.values()),
        name,
        f"{len(traffic.sent):,}",
        f"{len(traffic.sent) / traffic.seconds:.0f}",
        str(len(traffic.lost)),
        f"{traffic.longest:.2f} s",
        f"{len(traffic.acknowledged):,}",
        str(len(missing)),
    ]
    line = f"| {' | '.join(cells)} |"
    print(line, *(f"    {sent}" for sent in [*traffic.lost, *missing]), sep="\n", flush=True)
    return line


if __name__ == "__main__":
    main()
