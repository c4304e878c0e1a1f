"""Run uv with the index as it was at one moment, and without a developer's own settings."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from lock import LockError

# Of uv's variables, those for the way to the index and for the cache. Others could change what is locked.
_KEPT = re.compile(r"(?!UV_).*|UV_(CACHE_DIR|CONCURRENT_.*|HTTP_.*|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS)")

# Packages with their versions.
Pins = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Uv:
    """Lock as of this moment (ISO 8601), with an interpreter that is no older than what is locked for."""

    moment: str
    interpreter: str
    runs: list[str] = field(default_factory=list)

    def lock(self, pyproject: str, present: str, *, offline: bool = True) -> str:
        """Return the uv.lock that uv writes where this one is present: it prefers its versions and forks."""
        lock = self.run(["lock"], pyproject, "uv.lock", present, offline)
        # The moment only serves to lock again alike. Without it a lock is not up to date: uv resolves again.
        lock = re.sub(r'^exclude-newer = ".*"\n', "", lock, flags=re.MULTILINE)
        return lock.replace("[options]\n\n", "", 1)

    def compile(self, pyproject: str, python: str, options: str, pins: Pins = ()) -> str:
        """Return the requirements that uv writes where these versions are pinned, without a head."""
        present = "".join(f"{name}=={version}\n" for name, version in pins)
        command = (
            f"pip compile pyproject.toml {options} --no-header --python-version {python} -o requirements.txt"
        )
        # Without --python, uv looks for the version that it compiles for, which takes ten times as long.
        interpreter = ["--python", self.interpreter]
        return self.run(command.split() + interpreter, pyproject, "requirements.txt", present)

    def run(
        self, command: list[str], pyproject: str, file: str, present: str, offline: bool = True, **more: str
    ) -> str:
        """Return the file that uv writes where it is present with this text."""
        settings = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
        settings |= {"UV_EXCLUDE_NEWER": self.moment, "UV_NO_CONFIG": "1", "UV_PYTHON": self.interpreter}
        settings |= more
        with tempfile.TemporaryDirectory(prefix="lock-") as folder:
            Path(folder, "pyproject.toml").write_text(pyproject, encoding="utf-8")
            Path(folder, file).write_text(present, encoding="utf-8")
            # First from the cache: to ask the index whether each page is fresh takes most of the time.
            for cached in ("1", "0") if offline else ("0",):
                self.runs.append(command[0])
                done = _uv(*command, cwd=folder, env=settings | {"UV_OFFLINE": cached})
                if not done.returncode:
                    return Path(folder, file).read_text(encoding="utf-8")
        raise LockError(f"uv {' '.join(command)} failed:\n{done.stderr.strip()}")


def find_python(version: str) -> str:
    """Return the path of an interpreter: to look for a version takes uv longer than to lock."""
    found = _uv("python", "find", version)
    if found.returncode:
        raise LockError(f"There is no Python {version} to lock with:\n{found.stderr.strip()}")
    return found.stdout.strip()


def uv_version() -> str:
    """Return uv's name and version."""
    return _uv("--version").stdout.split(" (")[0].strip()


def pins_of(lock: str) -> list[tuple[str, str]]:
    """Return the packages of a uv.lock, or of the template that renders it."""
    found = re.findall(r'^\[\[package\]\]\nname = "([a-z].*)"\nversion = "(.+)"$', lock, re.MULTILINE)
    return list(dict.fromkeys(found))


def lock_of(pins: Pins) -> str:
    """Return the least that uv takes for a lock with these versions."""
    source = {"registry": "https://pypi.org/simple"}
    package = [{"name": name, "version": version, "source": source} for name, version in pins]
    return tomli_w.dumps({"version": 1, "requires-python": ">=3", "package": package})


def _uv(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["uv", *command], **options, capture_output=True, text=True, check=False)
