"""Runs a command in a terminal of its own, and types into it."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.clones import ENVIRONMENT

# Sequences that move the cursor, set colours and clear. Without them, only text remains.
CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78])|[\r\x08]")


class Terminal:
    """Runs a command in a terminal of this size, which shows only as much as fits its lines."""

    def __init__(
        self,
        command: str,
        folder: Path,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self.shown = ""
        # What was read last, with the sequences that `shown` is without.
        self.received = b""
        self.status: int | None = None
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "-c", f"exec {command}"], {**environment, "TERM": "xterm"})
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status is None:
            os.kill(self.process, 9)
            os.waitpid(self.process, 0)
        os.close(self.file)

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def read(self) -> bool:
        """Read the text that is shown next. Return False once the command has ended.

        Raise an AssertionError if nothing is shown for a minute: the command waits for other input.
        """
        assert select.select([self.file], [], [], 60)[0], f"nothing more is shown:\n{self.shown}"
        try:
            self.received = os.read(self.file, 65536)
        except OSError:
            self.received = b""
        self.shown += CONTROL.sub("", self.received.decode(errors="replace"))
        return bool(self.received)

    def wait_for(self, text: str) -> str:
        """Wait until this text is shown, then return and forget all that was shown until then.

        Raise an AssertionError if the command ends before.
        """
        while text not in self.shown:
            assert self.read(), f"{text!r} was never shown:\n{self.shown}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def end(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        while self.read():
            pass
        _, status = os.waitpid(self.process, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status
