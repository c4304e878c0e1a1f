"""Installs tools from the npm registry, once for all processes, for the Node.js in this environment."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock

VERSIONS = {
    "@kubernetes-models/gateway-api": "2.0.0",
    "axe-core": "4.14.1",
    "gitlab-ci-local": "4.75.1",
    "pyodide": "314.0.7",
    "renovate": "44.121.2",
    "typescript": "5.9.3",
}
# Seconds that an installation may take.
PATIENCE = 300.0


def node() -> Path:
    """Return the Node.js of this environment."""
    return Path(sys.executable).parent / "node"


@functools.cache
def why_no_npm() -> str:
    """Return why nothing can be installed here, or "" if it can."""
    npm = [str(node().with_name("npm")), "ping", "--silent"]
    try:
        done = subprocess.run(npm, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "npm does not respond"
    return "" if done.returncode == 0 else f"the npm registry can't be reached: {done.stderr.strip()[:200]}"


@functools.cache
def command(tool: str) -> list[str]:
    """Return the command that runs a tool, which is installed first if this machine doesn't have it."""
    program = "tsc" if tool == "typescript" else tool
    return [str(node()), str((folder(tool) / "node_modules/.bin" / program).resolve())]


@functools.cache
def folder(package: str) -> Path:
    """Return the folder with a package and its dependencies, which are installed first if need be."""
    version = VERSIONS[package]
    folder = Path(tempfile.gettempdir()) / "copier-fastapi-npm" / f"{package.replace('/', '-')}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock", timeout=PATIENCE):
        if not (folder / "installed").exists():
            install = [
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                f"--prefix={folder}",
                f"{package}@{version}",
            ]
            path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                [str(node().with_name("npm")), *install],
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder
