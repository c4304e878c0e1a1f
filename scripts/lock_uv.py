"""What uv writes for each combination of answers, with versions that all of them share."""

import concurrent.futures
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from lock_matrix import PROJECT_NAME, Combination, python_versions
from packaging.version import Version

# What an owner runs after a change of pyproject.toml; uv writes it into the heads of the files.
_COMPILE = (
    "uv pip compile pyproject.toml{group} --universal --python-version {python} --generate-hashes "
    "--no-annotate -o {file}"
)

_INDEX = "https://pypi.org/simple"

# Of a developer's own settings, those that would change what is locked.
_UV_SETTINGS = {
    "UV_CONFIG_FILE",
    "UV_CONSTRAINT",
    "UV_CUSTOM_COMPILE_COMMAND",
    "UV_DEFAULT_INDEX",
    "UV_EXCLUDE_NEWER",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_FORK_STRATEGY",
    "UV_FROZEN",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_LOCKED",
    "UV_NO_BINARY",
    "UV_NO_BUILD",
    "UV_NO_SOURCES",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_PYTHON",
    "UV_RESOLUTION",
    "UV_TORCH_BACKEND",
}


class LockError(Exception):
    """A sentence that says why nothing was locked, and what to do."""


@dataclass(frozen=True)
class Locked:
    """What uv wrote for one combination."""

    uv_lock: str
    requirements: str
    development: str


def lock_all(
    found: Sequence[Combination], moment: str, pins: Mapping[str, Sequence[str]]
) -> tuple[list[Locked], str]:
    """What uv writes for each combination, and for all of them at once."""
    # uv takes no interpreter that is older than what it locks for.
    uv = _Uv(moment, _output("python", "find", python_versions(found)[-1]))
    with tempfile.TemporaryDirectory(prefix="lock-") as temporary:
        directory = Path(temporary, "superset")
        directory.mkdir()
        (directory / "pyproject.toml").write_text(_superset(found), encoding="utf-8")
        if pins:
            (directory / "uv.lock").write_text(_lock_of(pins), encoding="utf-8")
        uv.run("lock", directory=directory)
        superset = (directory / "uv.lock").read_text(encoding="utf-8")
        preferred = "".join(
            f"{name}=={version}\n" for name, version in packages(superset) if name != PROJECT_NAME
        )

        def lock(number: int, combination: Combination) -> Locked:
            service = Path(temporary, str(number))
            service.mkdir()
            (service / "pyproject.toml").write_text(combination.pyproject, encoding="utf-8")
            (service / "uv.lock").write_text(superset, encoding="utf-8")
            uv.run_offline("lock", directory=service)
            for development in (False, True):
                arguments = compile_command(
                    str(combination.answers["python_version"]), development=development
                ).split()
                (service / arguments[-1]).write_text(preferred, encoding="utf-8")
                uv.run_offline(*arguments[1:], directory=service)
            texts = [
                (service / name).read_text(encoding="utf-8")
                for name in ("uv.lock", "requirements.txt", "requirements-dev.txt")
            ]
            return Locked(_without_moment(texts[0]), texts[1], texts[2])

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
            return list(executor.map(lock, itertools.count(), found)), _without_moment(superset)


def compile_command(python_version: str, *, development: bool) -> str:
    """The command that writes requirements.txt, or requirements-dev.txt, from pyproject.toml."""
    return _COMPILE.format(
        group=" --group dev" if development else "",
        python=python_version,
        file="requirements-dev.txt" if development else "requirements.txt",
    )


def _superset(found: Iterable[Combination]) -> str:
    """A pyproject.toml with the dependencies of every combination."""
    dependencies: set[str] = set()
    extras: dict[str, set[str]] = {}
    groups: dict[str, set[str]] = {}
    uv: dict[str, Any] = {}
    oldest = min(found, key=lambda combination: Version(str(combination.answers["python_version"])))
    for combination in found:
        document = tomllib.loads(combination.pyproject)
        dependencies.update(document["project"].get("dependencies", ()))
        for merged, declared in (
            (extras, document["project"].get("optional-dependencies", {})),
            (groups, document.get("dependency-groups", {})),
        ):
            for name, requirements in declared.items():
                merged.setdefault(name, set()).update(requirements)
        uv |= document.get("tool", {}).get("uv", {})
    return tomli_w.dumps(
        {
            "project": {
                "name": PROJECT_NAME,
                "version": "0",
                "requires-python": tomllib.loads(oldest.pyproject)["project"]["requires-python"],
                "dependencies": sorted(dependencies),
                "optional-dependencies": {
                    name: sorted(requirements) for name, requirements in extras.items()
                },
            },
            "dependency-groups": {name: sorted(requirements) for name, requirements in groups.items()},
            "tool": {"uv": uv},
        }
    )


def _lock_of(pins: Mapping[str, Sequence[str]]) -> str:
    """The least that uv takes for a lock: it resolves again, and prefers these versions."""
    package = [
        {"name": name, "version": version, "source": {"registry": _INDEX}}
        for name, versions in pins.items()
        for version in versions
    ]
    return tomli_w.dumps({"version": 1, "requires-python": ">=3", "package": package})


def _without_moment(lock: str) -> str:
    """A lock without the record of the moment, which only serves to lock again alike."""
    return re.sub(r'^exclude-newer = ".*"\n', "", lock, flags=re.MULTILINE).replace("[options]\n\n", "", 1)


@dataclass(frozen=True)
class _Uv:
    """uv with the index as it was at `moment`, and nothing of a developer's own settings."""

    moment: str
    interpreter: str

    def run(self, *arguments: str, directory: Path, offline: bool = False) -> None:
        """Raises LockError with uv's own words where it fails."""
        # By variables: uv would copy options into the head of the requirements.
        settings = {name: value for name, value in os.environ.items() if name not in _UV_SETTINGS} | {
            "UV_EXCLUDE_NEWER": self.moment,
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": str(int(offline)),
            # A path: to look for a version costs ten times what there is to lock.
            "UV_PYTHON": self.interpreter,
        }
        result = subprocess.run(
            [_uv_path(), *arguments], cwd=directory, env=settings, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise LockError(f"uv {' '.join(arguments)} failed:\n{result.stderr.strip()}")

    def run_offline(self, *arguments: str, directory: Path) -> None:
        """Run on what is cached: to ask the index whether each page is still fresh takes most of the time."""
        try:
            self.run(*arguments, directory=directory, offline=True)
        except LockError:
            self.run(*arguments, directory=directory)


def _uv_path() -> str:
    """The uv of this repository's environment, or else the one on the path."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not found:
        raise LockError("There is no uv: run this with uv run scripts/lock.py.")
    return found


def uv_version() -> str:
    return _output("--version").split(" (")[0]


def _output(*arguments: str) -> str:
    result = subprocess.run([_uv_path(), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise LockError(f"uv {' '.join(arguments)} failed:\n{result.stderr.strip()}")
    return result.stdout.strip()


def packages(lock: str) -> list[tuple[str, str]]:
    return re.findall(r'^\[\[package\]\]\nname = "(.+)"\nversion = "(.+)"$', lock, re.MULTILINE)
