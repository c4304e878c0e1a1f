"""Compare the cost of a default service with that of others: `python -m benchmarks [NAME ...]`.

Only ratios mean anything. Both sides of a ratio are measured in turn, in one run. Results go to
benchmarks/results/, as JSON and as a table for each name.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.comparing import Options, table, write

# The modules that measure, each with its number of rounds.
NAMES = {
    "rendering": 9,
    "playground": 5,
    "throughput": 5,
    "database": 5,
    "cache": 5,
    "images": 5,
    "containers": 5,
    "gunicorn_worker": 5,
    "proxies": 5,
    "telemetry": 5,
    "pods": 5,
    "cpu_time": 5,
}
# Run by name alone: it needs root.
BY_NAME = {"cpu_time"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(NAMES)}; by default all but those that need root",
    )
    parser.add_argument("--rounds", type=int, help="how often each side is measured")
    parser.add_argument("--seconds", type=float, default=2, help="how long each load is")
    parser.add_argument("--only", default="", help="one case of a comparison, such as a server")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}. Choose from {', '.join(NAMES)}.")
    rows = []
    for name in arguments.names or [name for name in NAMES if name not in BY_NAME]:
        print(f"{name} …", file=sys.stderr, flush=True)
        options = Options(arguments.rounds or NAMES[name], arguments.seconds, arguments.only)
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            found = importlib.import_module(f"benchmarks.{name}").measure(Path(folder), options)
        write(found, Path(__file__).with_name("results"))
        print(table(found), flush=True)
        rows += found
    if len(rows) > 1:
        (Path(__file__).with_name("results") / "all.md").write_text(table(rows))


if __name__ == "__main__":
    main()
