"""Clones of this repository as it is on disk now, and the tools that people use on them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.matrix import ROOT

# Nobody in particular, without the settings of whoever runs the tests, and with this environment's tools.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "PORT"}
} | {
    "GIT_AUTHOR_EMAIL": "somebody@localhost",
    "GIT_AUTHOR_NAME": "Somebody",
    "GIT_COMMITTER_EMAIL": "somebody@localhost",
    "GIT_COMMITTER_NAME": "Somebody",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def run(
    *command: str | Path, cwd: Path, env: Mapping[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Run to the end, with nothing to type; what it printed is in the result."""
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def git(folder: Path, *arguments: str) -> str:
    done = run("git", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def tracked(*folders: str) -> list[str]:
    """The repository's files, those that are yet to be added included."""
    names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders)
    return sorted(name for name in names.split("\0") if name and (ROOT / name).exists())


def clone(folder: Path) -> Path:
    """What a clone of this repository would be, were the working tree committed."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "The working tree")
    return folder
