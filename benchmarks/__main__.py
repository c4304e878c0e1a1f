"""Measure what a default service costs, beside something else: `python -m benchmarks [NAME ...]`.

Only ratios mean anything: both sides of each are measured in turn, in one run. Results go to
benchmarks/results/, as JSON and as a table for each name.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.comparing import Options, table, write

# A module each, and how many rounds it has.
NAMES = {
    "rendering": 9,
    "throughput": 5,
    "database": 5,
    "images": 5,
    "containers": 5,
    "gunicorn_worker": 5,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all without")
    parser.add_argument("--rounds", type=int, help="how often each side is measured")
    parser.add_argument("--seconds", type=float, default=2, help="how long each load is")
    parser.add_argument("--only", default="", help="one case of a comparison, such as a server")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}. There are: {', '.join(NAMES)}")
    rows = []
    for name in arguments.names or NAMES:
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
