"""Makes clones of this repository as it is on disk now, and runs git and other tools in them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.matrix import ROOT

# Variables of this shell that a command in a new shell doesn't have. `make` sets the last ones.
OF_THIS_SHELL = {"VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "PORT"}
OF_THIS_SHELL |= {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}

# Variables with an author for commits, without the user's git settings, and with the tools of this Python
# environment first on the PATH.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OF_THIS_SHELL} | {
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
    """Run a command that gets no input. The result has its exit code and what it printed."""
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
    """Return the repository's files, including new ones that git does not ignore."""
    names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders)
    return sorted(name for name in names.split("\0") if name and (ROOT / name).exists())


def clone(folder: Path) -> Path:
    """Create a repository with one commit, which has the files of the working tree."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "The working tree")
    return folder
