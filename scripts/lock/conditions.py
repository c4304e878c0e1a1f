"""Find which requirements bring each piece of a lock, and say so as conditions of a template."""

from collections.abc import Callable, Iterable

from lock import LockError
from lock.pieces import Key, Pieces
from lock.table import Table

# The condition under which a service has a text, or "" where every service has it, and the text.
Conditional = tuple[str, str]


def conditions(
    pieces_with: Callable[[frozenset[str]], Pieces], table: Table, always: frozenset[str]
) -> dict[Key, list[Conditional]]:
    """Return the texts of each piece with their conditions, from what uv locks with each requirement alone.

    A text depends on the marker under which requirements reach the package. Uvicorn needs h11 everywhere and
    httpx2 only where there are sockets: with both, it is needed everywhere. So the text of all requirements
    together comes first, and another is for services without those that bring the first. Every service has
    those of `always`. Raises LockError where requirements bring a text together that none brings alone.
    """
    alone = {name: pieces_with(frozenset({name})) for name in table.requirements}
    found: dict[Key, list[Conditional]] = {}
    for key, text in pieces_with(frozenset(alone)).items():
        left = {name: pieces[key] for name, pieces in alone.items() if key in pieces}
        found[key] = []
        before: list[str] = []
        while True:
            names = [name for name, other in left.items() if other == text]
            if not names:
                raise LockError(
                    f"The template can't say which service has which text of {key[0]}: with all of "
                    f"{', '.join(left)} it has a text that it has with none of them alone."
                )
            brought = [] if always.intersection(names) else [wanted(_enough(names, table))]
            unless = [f"not {wanted(_enough(before, table))}"] if before else []
            found[key].append((" and ".join(brought + unless), text))
            before += names
            left = {name: other for name, other in left.items() if other != text}
            if not brought or not left:
                break
            text = pieces_with(frozenset(left))[key]
    return found


def wanted(names: Iterable[str], *among: str) -> str:
    """Return the condition that a service asks for one of these requirements (includes/wanted.jinja)."""
    return f"wanted({', '.join([repr(list(names)), *among])})"


def _enough(names: Iterable[str], table: Table) -> list[str]:
    """Leave out the development requirements beside one that every service has."""
    always = next((name for name in names if name in table.always_in_development), None)
    return [name for name in names if always in (None, name) or name in table.dependencies]
