"""Measures several sides in turn in one run, and writes tables of their ratios."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

Samples = dict[str, list[float]]


@dataclass
class Options:
    """Says how often, how long and which cases to measure."""

    rounds: int
    seconds: float
    only: str = ""

    def wanted(self, case: str) -> bool:
        return self.only in {"", case}


@dataclass
class Row:
    """Compares a figure with another one.

    `reach` is the ratio to reach: at least, if the figure is a rate, and at most for all others.
    """

    name: str
    case: str
    unit: str
    subject: str
    against: str
    ours: list[float]
    theirs: list[float]
    reach: float | None = None

    def ratio(self) -> float:
        return statistics.median(self.ratios())

    def ratios(self) -> list[float]:
        """Return a ratio for each round, because a slow moment of the machine slows both sides of a round."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Measure each side once a round. Every other round runs backwards, so that no side is always first."""
    samples: Samples = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            samples[name].append(sides[name]())
    return samples


def pairs(
    name: str, case: str, unit: str, samples: Samples, *against: str, reach: float | None = None
) -> list[Row]:
    """Compare the first of the samples with some of the others. The first of these has a ratio to reach."""
    subject = next(iter(samples))
    return [
        Row(name, case, unit, subject, other, samples[subject], samples[other], None if number else reach)
        for number, other in enumerate(against)
    ]


def median_and_range(values: list[float], digits: int = 0) -> str:
    """Format the median, with the least and the greatest value."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(rows: Iterable[Row]) -> str:
    lines = [
        "| figure | case | measured | against | ratio | target |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        digits = 0 if min(row.ours + row.theirs) >= 100 else 2
        lines.append(
            f"| {row.name} | {row.case} | {row.subject}: {median_and_range(row.ours, digits)} {row.unit}"
            f" | {row.against}: {median_and_range(row.theirs, digits)} | {median_and_range(row.ratios(), 2)}"
            f" | {row.reach or ''} |"
        )
    return "\n".join(lines) + "\n"


def write(rows: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in {row.name for row in rows}:
        own = [row for row in rows if row.name == name]
        found = [asdict(row) | {"ratio": row.ratio(), "ratios": row.ratios()} for row in own]
        (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
        (folder / f"{name}.md").write_text(table(own))
