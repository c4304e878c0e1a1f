"""Compares the time of `copier copy` for the default answers with that for an empty template."""

import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Row, alternate, pairs
from harness.matrix import ROOT


def measure(folder: Path, options: Options) -> list[Row]:
    # A folder rather than a clone, so that git adds to neither time.
    template = folder / "template"
    template.mkdir()
    shutil.copy(ROOT / "copier.yml", template)
    for name in ("includes", "template"):
        shutil.copytree(ROOT / name, template / name, ignore=shutil.ignore_patterns("__pycache__"))
    empty = folder / "empty"
    empty.mkdir()
    (empty / "copier.yml").write_text("_templates_suffix: .jinja\n")

    def measure_copy(source: Path) -> float:
        destination = folder / "copy" / "orders-api"
        copy = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults"]
        begun = time.perf_counter()
        subprocess.run([*copy, str(source), str(destination)], check=True)
        seconds = time.perf_counter() - begun
        shutil.rmtree(destination.parent, ignore_errors=True)
        return seconds

    sides = {"default answers": template, "an empty template": empty}
    samples = alternate(
        {name: partial(measure_copy, source) for name, source in sides.items()}, options.rounds
    )
    return pairs("rendering", "copier copy", "s", samples, "an empty template", reach=1.6)
