"""Stand in for modules of Unix that Pyodide lacks.

Packages of Copier import names from them, and a render uses none.
"""

import sys
import types


class Absent(types.ModuleType):
    """Has every name, as nothing."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


for name in ("fcntl", "grp", "pwd", "termios"):
    sys.modules.setdefault(name, Absent(name))
