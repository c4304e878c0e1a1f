"""Many texts that differ in some lines, merged into one Jinja template with few and short conditions.

A text is a list of blocks (the packages of a lock), in the order of their keys. A block gets a condition
where some texts lack it, and a run of its lines where some of the texts that have the block lack them. A
condition is the shortest that a greedy search finds: it need only be right for the combinations of answers
that can occur where it stands.
"""

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lock_matrix import Answer, Answers

# A set of combinations: bit i stands for the i-th.
Bits = int
Box = dict[str, frozenset[Answer]]


@dataclass(frozen=True)
class Condition:
    """A Jinja expression, and the combinations for which it is true."""

    text: str
    true: Bits


class Matrix:
    """The combinations of answers that can occur, and conditions on them."""

    def __init__(self, combinations: Sequence[Answers]) -> None:
        self.combinations = combinations
        self.all: Bits = (1 << len(combinations)) - 1
        self._domains: dict[str, list[Answer]] = {}
        for answers in combinations:
            for name, answer in answers.items():
                values = self._domains.setdefault(name, [])
                if answer not in values:
                    values.append(answer)
        for name, values in self._domains.items():
            if _are_versions(values):
                self._domains[name] = sorted(values, key=str)
        self._holders = {
            (name, value): self.where({name: [value]})
            for name, values in self._domains.items()
            for value in values
        }
        self.condition = functools.cache(self._condition)

    def where(self, chosen: Mapping[str, Iterable[Answer]]) -> Bits:
        """The combinations whose answers are among the chosen."""
        return sum(
            1 << index
            for index, answers in enumerate(self.combinations)
            if all(answers[name] in values for name, values in chosen.items())
        )

    def _condition(self, wanted: Bits, among: Bits) -> Condition | None:
        """The shortest condition that, among these combinations, is true for the wanted ones only.

        None means that no condition is needed. What it says about other combinations is left open.
        """
        if wanted == among:
            return None
        found = [self._cover(wanted, wanted | ~among & self.all, order) for order in self._orders()]
        texts = [(len(boxes), self._either(boxes), self._covered(boxes)) for boxes in found]
        unwanted = among & ~wanted
        for order in self._orders():
            boxes = self._cover(unwanted, unwanted | ~among & self.all, order)
            # "not" costs a reader a moment: only where it saves an "or".
            texts.append((len(boxes) + 1, f"not ({self._either(boxes)})", self.all & ~self._covered(boxes)))
        _, text, true = min(texts, key=lambda candidate: (candidate[0], len(candidate[1]), candidate[1]))
        return Condition(text, true)

    def _orders(self) -> Iterable[tuple[str, ...]]:
        """Orders in which to try to do without a question: all of them, up to five questions."""
        return itertools.islice(itertools.permutations(self._domains), 120)

    def _cover(self, wanted: Bits, allowed: Bits, order: Sequence[str]) -> list[Box]:
        """Boxes that together hold all that is wanted, and nothing that is not allowed."""
        boxes: list[Box] = []
        left = wanted
        while left:
            whole = self._hull(left)
            first = self._hull(left & -left)
            box = self._grow(whole if not self._members(whole) & ~allowed else first, allowed, order)
            boxes.append(box)
            left &= ~self._members(box)
        for box in list(boxes):
            others = [other for other in boxes if other is not box]
            if not wanted & ~self._covered(others):
                boxes = others
        return boxes

    def _grow(self, box: Box, allowed: Bits, order: Sequence[str]) -> Box:
        """Leave out each question that makes no difference, then admit each answer that makes none."""
        for name in order:
            smaller = {other: values for other, values in box.items() if other != name}
            if not self._members(smaller) & ~allowed:
                box = smaller
        for name in list(box):
            for value in self._domains[name]:
                larger = {**box, name: box[name] | {value}}
                if not self._members(larger) & ~allowed:
                    box = larger
        return box

    def _hull(self, bits: Bits) -> Box:
        return {
            name: frozenset(value for value in values if self._holders[name, value] & bits)
            for name, values in self._domains.items()
        }

    def _members(self, box: Box) -> Bits:
        members = self.all
        for name, values in box.items():
            members &= functools.reduce(int.__or__, (self._holders[name, value] for value in values), 0)
        return members

    def _covered(self, boxes: Iterable[Box]) -> Bits:
        return functools.reduce(int.__or__, map(self._members, boxes), 0)

    def _either(self, boxes: Sequence[Box]) -> str:
        texts = [
            " and ".join(self._among(name, box[name]) for name in self._domains if name in box) or "true"
            for box in boxes
        ]
        return (
            " or ".join(f"({text})" if " and " in text and len(texts) > 1 else text for text in texts)
            or "false"
        )

    def _among(self, name: str, chosen: frozenset[Answer]) -> str:
        domain = self._domains[name]
        values = [value for value in domain if value in chosen]
        others = [value for value in domain if value not in chosen]
        if set(domain) <= {False, True}:
            return name if values == [True] else f"not {name}"
        if len(values) == 1:
            return f"{name} == {values[0]!r}"
        if _are_versions(domain):
            first, last = domain.index(values[0]), domain.index(values[-1])
            if last - first + 1 == len(values):
                if last == len(domain) - 1:
                    return f"{name} >= {values[0]!r}"
                if first == 0:
                    return f"{name} <= {values[-1]!r}"
                return f"{values[0]!r} <= {name} <= {values[-1]!r}"
        if len(others) == 1:
            return f"{name} != {others[0]!r}"
        return f"{name} not in {others!r}" if len(others) < len(values) else f"{name} in {values!r}"


def _are_versions(values: Sequence[Answer]) -> bool:
    """Whether these are versions that can be compared as the texts that they are in a template."""
    texts = [value for value in values if isinstance(value, str) and value.replace(".", "").isdigit()]
    return len(texts) == len(values) and sorted(texts) == sorted(
        texts, key=lambda text: [*map(int, text.split("."))]
    )


@dataclass(frozen=True)
class Block:
    """Lines that belong together; texts that have a block of the same key are merged line by line.

    Blocks stand in the order of their keys.
    """

    key: tuple[Any, ...]
    lines: tuple[str, ...]


def merge(
    texts: Sequence[Sequence[Block]],
    matrix: Matrix,
    shown: Callable[[str], Bits] | None = None,
) -> str:
    """One Jinja template that renders the i-th text for the i-th combination of the matrix.

    `shown` says for which combinations something other than a condition lets a line through: for the rest,
    a condition may say what it likes. Raises ValueError where blocks are out of order or a line would be read
    as Jinja.
    """
    by_key: dict[tuple[Any, ...], dict[tuple[str, ...], Bits]] = {}
    for index, text in enumerate(texts):
        keys = [block.key for block in text]
        if keys != sorted(set(keys)):
            raise ValueError("The blocks of a text to merge are not in the order of their keys.")
        for block in text:
            variants = by_key.setdefault(block.key, {})
            variants[block.lines] = variants.get(block.lines, 0) | 1 << index
    parts: list[str] = []
    blocks = sorted(by_key.items(), key=lambda entry: entry[0])
    for present, group in itertools.groupby(
        blocks, key=lambda entry: functools.reduce(int.__or__, entry[1].values())
    ):
        inner = "".join(_merge_lines(variants, present, matrix, shown) for _, variants in group)
        parts.append(_conditional(inner, matrix.condition(present, matrix.all)))
    return "".join(parts)


def _conditional(text: str, condition: Condition | None) -> str:
    return text if condition is None else f"{{% if {condition.text} %}}\n{text}{{% endif %}}\n"


def _interleave(variants: Mapping[tuple[str, ...], Bits]) -> list[tuple[str, Bits]]:
    """One sequence of lines, each with the combinations whose variant has it there.

    The longest goes first: the others are then mostly parts of it.
    """
    merged: list[tuple[str, Bits]] = []
    for variant, bits in sorted(variants.items(), key=lambda entry: -len(entry[0])):
        so_far, merged = merged, []
        matcher = difflib.SequenceMatcher(None, [line for line, _ in so_far], variant, autojunk=False)
        for what, start, stop, other_start, other_stop in matcher.get_opcodes():
            common = bits if what == "equal" else 0
            merged += [(line, owners | common) for line, owners in so_far[start:stop]]
            if not common:
                merged += [(line, bits) for line in variant[other_start:other_stop]]
    return merged


@dataclass
class _Run:
    """Adjacent lines under one condition."""

    lines: list[str]
    wanted: Bits
    among: Bits


def _merge_lines(
    variants: Mapping[tuple[str, ...], Bits],
    present: Bits,
    matrix: Matrix,
    shown: Callable[[str], Bits] | None,
) -> str:
    runs: list[_Run] = []
    for line, wanted in _interleave(variants):
        if any(mark in line for mark in ("{{", "{%", "{#")):
            raise ValueError(f"Jinja would read this line as its own: {line}")
        among = present & shown(line) if shown else present
        if wanted & ~among:
            raise ValueError(f"A line is wanted where it is not shown: {line}")
        if runs:
            last = runs[-1]
            both = last.wanted | wanted
            if both & last.among == last.wanted and both & among == wanted:
                runs[-1] = _Run([*last.lines, line], both, last.among | among)
                continue
        runs.append(_Run([line], wanted, among))
    parts: list[str] = []
    before: Condition | None = None
    for run in runs:
        text = "".join(f"{line}\n" for line in run.lines)
        condition = matrix.condition(run.wanted, run.among)
        if before and condition and run.among & ~before.true == run.wanted:
            parts[-1] = parts[-1].removesuffix("{% endif %}\n") + f"{{% else %}}\n{text}{{% endif %}}\n"
            before = None
        else:
            parts.append(_conditional(text, condition))
            before = condition
    return "".join(parts)
