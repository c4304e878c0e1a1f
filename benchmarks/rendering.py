"""How long `copier copy` of the default answers takes, against that of an empty template."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparing import Options, Row, alternate, pairs
from harness.matrix import ROOT


def measure(folder: Path, options: Options) -> list[Row]:
    # A folder rather than a clone, so that git's time is in neither side.
    template = folder / "template"
    template.mkdir()
    shutil.copy(ROOT / "copier.yml", template)
    for name in ("includes", "template"):
        shutil.copytree(ROOT / name, template / name, ignore=shutil.ignore_patterns("__pycache__"))
    empty = folder / "empty"
    empty.mkdir()
    (empty / "copier.yml").write_text("_templates_suffix: .jinja\n")

    def side(source: Path) -> Callable[[], float]:
        def copied() -> float:
            destination = folder / "copy" / "orders-api"
            copy = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults"]
            begun = time.perf_counter()
            subprocess.run([*copy, str(source), str(destination)], check=True)
            seconds = time.perf_counter() - begun
            shutil.rmtree(destination.parent, ignore_errors=True)
            return seconds

        return copied

    samples = alternate({"default answers": side(template), "an empty template": side(empty)}, options.rounds)
    return pairs("rendering", "copier copy", "s", samples, "an empty template", reach=1.6)
