"""Write the generated templates from what uv locks for each Python."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.matrix import environment
from lock import LockError
from lock.conditions import Conditional, wanted
from lock.locking import Locked
from lock.pieces import Key
from lock.table import PROJECT_NAME, Table

_GENERATED = "{# Written by make lock from the table in includes/parts.jinja: don't edit. #}\n"
_IMPORT = "{% from 'includes/wanted.jinja' import wanted with context %}\n"


def uv_lock(repository: Path, locked: Iterable[Locked], moment: str) -> str:
    """Return the parts of uv.lock's template: its head, the service's own entry, and the packages."""
    wheels: Any = environment(repository).get_template("includes/wheels.jinja").module
    known: defaultdict[Key, list[str]] = defaultdict(list)
    pythons: list[str] = []
    heads, roots, packages = {}, {}, {}

    def shared(key: Key, text: str) -> str:
        """Return the text of an older Python where it has no more than the wheels that are taken out here."""
        if wheels.without_wheels_of(pythons, text) != text:
            raise LockError(f"includes/wheels.jinja takes out a wheel of {key[0]} that uv keeps.")
        texts = (other for other in known[key] if wheels.without_wheels_of(pythons, other) == text)
        known[key].append(next(texts, text))
        return known[key][-1]

    for each in locked:
        python = each.table.python
        heads[python] = {"": [("", each.head.replace(f'">={python}"', '">={{ python_version }}"'))]}
        roots[python] = {"": [("", _root(each.root, each.table))]}
        packages[python] = {
            key: [(condition, shared(key, text)) for condition, text in texts]
            for key, texts in each.packages.items()
        }
        pythons.append(python)
    return (
        f"{_GENERATED}{{# The versions and files are those of the index as of {moment}. #}}\n"
        f"{_IMPORT}{{% set pythons = {pythons} %}}\n"
        f"{{% set head %}}\n{merged(heads)}{{% endset %}}\n"
        f"{{% set root %}}\n{merged(roots)}{{% endset %}}\n"
        f"{{% set packages %}}\n{merged(packages)}{{% endset %}}\n"
    )


def requirements(locked: Iterable[Locked]) -> str:
    """Return the template of requirements.txt and requirements-dev.txt without their heads."""
    return f"{_GENERATED}{_IMPORT}{merged({each.table.python: each.requirements for each in locked})}"


def reserved_names(names: Iterable[str]) -> str:
    """Return the names that a service can't have: it would depend on itself."""
    listed = "".join(f"    {name!r},\n" for name in names)
    return f"{_GENERATED}{{% set reserved_names = [\n{listed}] %}}\n"


def merged(by_python: Mapping[str, Mapping[Any, list[Conditional]]]) -> str:
    """Return a template with the pieces in order, each once for adjacent Pythons that have it alike."""
    parts: list[Conditional] = []
    for key in sorted(set().union(*by_python.values())):
        for piece, run in itertools.groupby(by_python, key=lambda python: by_python[python].get(key, [])):
            pythons = list(run)
            among = "" if pythons == list(by_python) else f"python_version in {pythons}"
            parts += [(" and ".join(filter(None, (among, condition))), text) for condition, text in piece]
    return _template(parts)


def _template(parts: Iterable[Conditional]) -> str:
    template = ""
    for condition, group in itertools.groupby(parts, key=lambda part: part[0]):
        text = "".join(text for _, text in group)
        template += f"{{% if {condition} %}}\n{text}{{% endif %}}\n" if condition else text
    return template


def _root(root: str, table: Table) -> str:
    """Return the template of the service's own entry, in which each requirement has lines of its own."""
    parts: list[Conditional] = []
    among = "dependencies"
    lists = {
        "dependencies": (table.dependencies, table.always),
        "development": (table.development, table.always_in_development),
    }
    for line in root.replace(f'"{PROJECT_NAME}"', '"{{ project_name }}"').splitlines(keepends=True):
        if line.startswith("[package."):
            among = "development" if "dev" in line else "dependencies"
        condition = ""
        if package := re.match(r'    \{ name = "(.+?)"', line):
            names, always = lists[among]
            # A package stands once in each list. uv leaves out an extra that adds nothing.
            name = next((name for name in names if name.split("[")[0] == package[1]), None)
            if name is None:
                raise LockError(f"includes/parts.jinja asks for {package[1]} by another name.")
            condition = "" if name in always else wanted([name], among)
        parts.append((condition, line))
    return _template(parts)
