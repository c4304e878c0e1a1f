"""Render a service with the default answers, test it and serve it until Ctrl-C: `make demo`.

The commands are those of Copier's message for these answers, in that order. The service and everything
that is installed for it are in a temporary folder, which is removed afterwards.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Render and serve a service, after checking that the port is free and a Python is there."""
    port = chosen_port()
    version = newest_python()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="copier-fastapi-") as folder:
            serve(render(Path(folder, "orders-api"), version), port)
    except KeyboardInterrupt:
        print("\nStopped.")


def stop(number: int, frame: FrameType | None) -> None:
    """Do the same as Ctrl-C, which stops the service and removes the folder."""
    raise KeyboardInterrupt


def chosen_port() -> int:
    """Return the port that PORT names, or exit if it can't be used."""
    text = os.environ.get("PORT", "8000")
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        sys.exit(f"PORT={text} is no port. Choose a number from 1 to 65535, for example PORT=8001 make demo.")
    with socket.socket() as probe:
        # As the server does, so that connections that have just ended don't occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            why = f"Port {text} can't be used ({error.strerror})."
            sys.exit(f"{why} Choose another one, for example PORT=8001 make demo.")
    return int(text)


def newest_python() -> str:
    """Return the newest Python that the template offers and this machine has, or exit if there is none."""
    choices = yaml.safe_load((ROOT / "copier.yml").read_text())["python_version"]["choices"].values()
    # A choice with a validator is a mapping.
    versions = [choice["value"] if isinstance(choice, dict) else choice for choice in choices]
    offered = sorted(versions, key=lambda version: tuple(map(int, version.split("."))), reverse=True)
    for version in offered:
        find = ["uv", "python", "find", "--system", "--no-project", "--no-python-downloads", version]
        if subprocess.run(find, capture_output=True).returncode == 0:
            return str(version)
    sys.exit(f"This machine has no Python that a service can run on. Install one of {', '.join(offered)}.")


def render(service: Path, version: str) -> list[str]:
    """Copy the working tree's template as a user would, and return the commands of Copier's message."""
    # HEAD rather than the newest release, and without --trust.
    copy = ["copier", "copy", "--defaults", "--vcs-ref", "HEAD", "--data", f"python_version={version}"]
    print(f"$ {shlex.join([*copy, '.', str(service)])}", flush=True)
    copied = subprocess.run([*copy, ROOT, service], stderr=subprocess.PIPE, text=True)
    if copied.returncode:
        sys.exit(f"{copied.stderr}\nCopier could not render the service.")
    return commands(copied.stderr)


def commands(output: str) -> list[str]:
    """Return the indented lines at the end of Copier's output."""
    _, _, message = output.partition(" is ready. Next:\n")
    return [line.strip() for line in message.splitlines() if line.startswith("  ")]


def serve(printed: list[str], port: int) -> None:
    """Run the commands, the last of which serves, and print the service's address."""
    *preparations, start = printed
    said = [f"printf '\\n$ %s\\n' {shlex.quote(command)}" for command in printed]
    lines = [line for pair in zip(said, [*preparations, f"exec {start}"], strict=True) for line in pair]
    # git needs an author for the commit, and a server reads its port from one of the last two variables.
    person = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "make demo"), ("EMAIL", "demo@localhost"))
    }
    environment = person | os.environ | {"PORT": str(port), "UVICORN_PORT": str(port)}
    # Ctrl-C does not reach a shell in a session of its own, so only `end` stops it and all that it started.
    shell = subprocess.Popen(["sh", "-ec", "\n".join(lines)], env=environment, start_new_session=True)
    try:
        wait_for(shell, port)
        print(
            f"\nThe service runs at http://127.0.0.1:{port}/ and its documentation is at "
            f"http://127.0.0.1:{port}/docs. Ctrl-C stops it.",
            flush=True,
        )
        shell.wait()
        sys.exit("The service stopped by itself.")
    finally:
        end(shell)


def wait_for(shell: subprocess.Popen[bytes], port: int) -> None:
    while shell.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("One of the commands above failed.")


def end(shell: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
            shell.wait(timeout=30)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    main()
