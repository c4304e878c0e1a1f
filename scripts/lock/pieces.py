"""Take locks apart into pieces that a service has or lacks as a whole."""

import re

from packaging.version import Version

from lock import LockError
from lock.table import PROJECT_NAME

# A package, its version, and a part of its entry: an extra, " " for the heading of extras, "" for the rest.
# Pieces stand in the order of their keys.
Key = tuple[str, Version, str]
Pieces = dict[Key, str]

_ENTRY = "\n[[package]]\n"
_EXTRAS = "\n[package.optional-dependencies]\n"


def lock_pieces(lock: str) -> tuple[str, str, Pieces]:
    """Return the head of a uv.lock, the service's own entry, and the pieces of the other packages."""
    head, *entries = lock.split(_ENTRY)
    root = ""
    pieces: Pieces = {}
    for entry in entries:
        name, version = re.findall(r'\Aname = "(.+)"\nversion = "(.+)"\n', entry)[0]
        if name == PROJECT_NAME:
            root = _ENTRY + entry
            continue
        package, *extras = entry.split(_EXTRAS)
        pieces[name, Version(version), ""] = _ENTRY + package
        if extras:
            pieces[name, Version(version), " "] = _EXTRAS
            for extra in re.split(r"^(?=\S+ = )", extras[0], flags=re.MULTILINE)[1:]:
                pieces[name, Version(version), extra.split(" ")[0]] = extra
    _require(pieces, lock.replace(root, "").removeprefix(head))
    return head, root, pieces


def requirement_pieces(requirements: str) -> Pieces:
    """Return the requirements of a requirements.txt without a head, each with its hashes."""
    pieces: Pieces = {}
    for text in re.split(r"^(?=\S)", requirements, flags=re.MULTILINE)[1:]:
        name, version = text.split(" ")[0].split("==")
        pieces[name, Version(version), ""] = text
    _require(pieces, requirements)
    return pieces


def _require(pieces: Pieces, text: str) -> None:
    if "".join(pieces[key] for key in sorted(pieces)) != text or re.search("{[{%#]", text):
        raise LockError("uv writes its locks in a way that scripts/lock/pieces.py doesn't know.")
