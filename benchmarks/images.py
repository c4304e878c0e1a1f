"""Compares the image with those of guides and of a peer: its size, its builds, and the context sent for them.

`--only rebuild` leaves out the builds without a cached layer, which take minutes.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparing import Options, Row, alternate, pairs
from benchmarks.services import PEER, peer, rendered
from harness.containers import build, docker, unique
from harness.matrix import DEFAULTS

BASE = f"python:{DEFAULTS['python_version']}-slim-trixie"
MAIN = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    return {"item_id": item_id, "q": q}
"""
# Dockerfiles as guides have them, in other words. Each installs the same packages as the service.
RECIPES = {
    "COPY . . and pip install": """
FROM {base}
WORKDIR /code
COPY . .
RUN pip install --no-cache-dir --break-system-packages -r requirements.txt
CMD ["uvicorn", "main:app", "--host", "0.0.0.0"]
""",
    "one stage, packages first": """
FROM {base}
WORKDIR /code
COPY requirements.txt .
RUN pip install --no-cache-dir --break-system-packages -r requirements.txt
COPY . .
CMD ["uvicorn", "main:app", "--host", "0.0.0.0"]
""",
    "two stages with uv": """
FROM {base} AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /bin/
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /code
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/uv uv venv .venv && uv pip install -r requirements.txt
COPY . .
FROM {base}
COPY --from=build /code /code
WORKDIR /code
ENV PATH=/code/.venv/bin:$PATH
CMD ["uvicorn", "main:app", "--host", "0.0.0.0"]
""",
}


# Folders next to the code of a service that somebody works on, in megabytes.
JUNK = {".venv": 60, ".git": 20, "data": 20}


@dataclass
class Case:
    """Names a folder with a Dockerfile, the file in it that an owner edits, and how to build the image."""

    folder: Path
    edited: Path
    tag: str
    base: str = BASE
    options: tuple[str, ...] = ()


def cases(folder: Path) -> dict[str, Case]:
    service = rendered(folder / "service", project_name="orders-api")
    found = {"service": Case(service, service / "app" / "items.py", unique("bench"))}
    pip = rendered(folder / "pip", project_name="orders-api", package_manager="pip")
    for number, (name, dockerfile) in enumerate(RECIPES.items()):
        recipe = folder / f"recipe{number}"
        recipe.mkdir()
        (recipe / "Dockerfile").write_text(dockerfile.format(base=BASE).lstrip())
        shutil.copy(pip / "requirements.txt", recipe)
        (recipe / "main.py").write_text(MAIN)
        found[name] = Case(recipe, recipe / "main.py", unique("bench"))
    found[PEER] = peer_case(folder)
    return found


def peer_case(folder: Path) -> Case:
    service = peer(folder / "peer")
    # The peer's Dockerfile copies only uv from this image, so a folder with uv can take its place.
    [image] = re.findall(
        r"^FROM (ghcr.io/astral-sh/uv:\S+) AS uv$", (service / "Dockerfile").read_text(), re.M
    )
    uv = folder / "uv" / "usr" / "local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).with_name("uv"), uv)
    return Case(
        service,
        service / "peer" / "web" / "application.py",
        unique("bench"),
        "python:3.13-slim-trixie",
        ("--target=prod", f"--build-context={image}={folder / 'uv'}"),
    )


def timed(case: Case, *options: str) -> float:
    begun = time.perf_counter()
    build(case.folder, case.tag, *case.options, *options)
    return time.perf_counter() - begun


def after_an_edit(case: Case) -> float:
    with case.edited.open("a") as file:
        file.write(f"\nEDITED = {time.monotonic_ns()}\n")
    return timed(case)


def context(case: Case, copy: Path) -> float:
    """Return the megabytes that a build sends from a folder that holds more than the service."""
    shutil.copytree(case.folder, copy, symlinks=True, ignore=shutil.ignore_patterns(*JUNK))
    for name, megabytes in JUNK.items():
        (copy / name).mkdir()
        (copy / name / "junk").write_bytes(os.urandom(megabytes * 1_000_000))
    printed = build(copy, case.tag, *case.options)
    sizes = re.findall(r"transferring context: ([\d.]+)([kMG]?)B", printed)
    return max(float(number) * {"": 1e-6, "k": 1e-3, "M": 1, "G": 1e3}[unit] for number, unit in sizes)


def size(tag: str) -> float:
    return float(docker("image", "inspect", "--format={{.Size}}", tag)) / 1e6


def packages(tag: str) -> float:
    """Return the megabytes of the locked packages with their bytecode, as files in the image's /opt/venv."""
    script = "du -sb --apparent-size /opt/venv | cut -f1"
    run = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint=sh", tag, "-c", script],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(run.stdout) / 1e6


def measure(folder: Path, options: Options) -> list[Row]:
    found = cases(folder)
    rows = []
    try:
        for case in found.values():
            build(case.folder, case.tag, *case.options)
        others = [name for name in found if name != "service"]
        sizes = {name: [size(case.tag) - size(case.base)] for name, case in found.items()}
        sizes["its locked packages"] = [packages(found["service"].tag)]
        rows += pairs(
            "images", "over the base image", "MB", sizes, "its locked packages", *others, reach=1.05
        )
        sent = {
            name: [context(case, folder / f"{number}")] for number, (name, case) in enumerate(found.items())
        }
        rows += pairs("images", "sent to build, beside 100 MB", "MB", sent, *others)
        service = found["service"]
        edits: dict[str, Callable[[], float]] = {
            "service, a line edited": lambda: after_an_edit(service),
            "no edit": lambda: timed(service),
        }
        for name in others:
            edits[name] = lambda case=found[name]: after_an_edit(case)  # type: ignore[misc]
        rebuilt = alternate(edits, options.rounds)
        rows += pairs("images", "rebuild", "s", rebuilt, "no edit", *others, reach=1.5)
        if not options.wanted("cold"):
            return rows
        cold: dict[str, Callable[[], float]] = {
            name: (lambda case=case: timed(case, "--no-cache"))  # type: ignore[misc]
            for name, case in found.items()
        }
        built = alternate(cold, min(2, options.rounds))
        rows += pairs("images", "build without a cached layer", "s", built, *others)
    finally:
        for case in found.values():
            docker("image", "rm", "--force", case.tag)
    return rows
