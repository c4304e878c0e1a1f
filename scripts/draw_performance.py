"""Draw the picture of docs/performance.md from its table: `.venv/bin/python scripts/draw_performance.py`."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness.pages import rows  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "performance.svg"

S3RIUS = "s3rius/FastAPI-template"


class Bar(NamedTuple):
    """A row of the table, by its first two cells, and the names that the picture has for both."""

    what: str
    against: str
    name: str
    other: str


MORE = [
    Bar(
        "`GET /items/5?q=x`, access log on, Uvicorn", "bare FastAPI without a log", "requests", "bare FastAPI"
    ),
    Bar("`GET /items/5?q=x`, access log on, Uvicorn", f"{S3RIUS}, its `/api/health`", "requests", "s3rius"),
    Bar("under Granian", "bare FastAPI there", "on Granian", "bare FastAPI"),
    Bar("a row read by its key, PostgreSQL", "FastAPI on a bare asyncpg pool", "rows read", "bare asyncpg"),
    Bar("a row read by its key, PostgreSQL", S3RIUS, "rows read", "s3rius"),
]
LESS = [
    Bar("its p99", "bare FastAPI without a log", "request p99", "bare FastAPI"),
    Bar("its p99", S3RIUS, "request p99", "s3rius"),
    Bar(
        "memory when idle, and after a load", "bare FastAPI in the same image", "idle memory", "bare FastAPI"
    ),
    Bar("memory when idle, and after a load", S3RIUS, "idle memory", "s3rius"),
    Bar("image less its base", S3RIUS, "image", "s3rius"),
    Bar("rebuild after an edit", S3RIUS, "rebuild", "s3rius"),
]

# The picture is this wide, and the site shrinks it on a phone.
WIDTH = 400
# Where the names of the others begin, and where the bars do.
OTHER = 116
LEFT = 206
# From one bar to the next.
STEP = 22
# What a figure at the right of a bar needs.
BESIDE = 48

STYLE = """
    text { font: 12.5px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 15px; font-weight: 600 }
    .head { font-weight: 600 }
    .soft { fill: #57606a }
    .value { font-weight: 600 }
    .panel { fill: #ffffff; stroke: #d0d7de }
    .bar { fill: #2f81f7 }
    .missed { fill: #bc4c00 }
    .one { stroke: #1f2328; stroke-dasharray: 3 2 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .soft { fill: #a5b0bb }
      .panel { fill: #1b1f27; stroke: #444c56 }
      .bar { fill: #4493f8 }
      .missed { fill: #f0883e }
      .one { stroke: #e6edf3 }
    }
"""


class Figure(NamedTuple):
    """The ratio of a row, and the target that it misses, if it does."""

    ratio: float
    printed: str
    missed: str


def figures(text: str) -> dict[tuple[str, str], Figure]:
    """Return the figures of the page by the first two cells of their rows."""
    found: dict[tuple[str, str], Figure] = {}
    what = ""
    for first, against, ratio, *rest in rows(text, "what"):
        # An empty cell goes on with what the row above measures.
        what = first or what
        if number := re.match(r"\d+(\.\d+)?", ratio):
            missed = missed_target(float(number[0]), rest[0].strip(" |"))
            found.setdefault((what, against), Figure(float(number[0]), number[0], missed))
    return found


def missed_target(ratio: float, target: str) -> str:
    """Return the number of a target such as `at least 0.95` if the ratio misses it, or else ""."""
    bound, _, number = target.rpartition(" ")
    missed = {"at least": ratio.__lt__, "at most": ratio.__gt__}.get(bound)
    return number if missed and missed(float(number)) else ""


def drawn(text: str) -> str:
    """Return the picture for this text of the page."""
    found = figures(text)
    longest = max(found[bar.what, bar.against].ratio for bar in (*MORE, *LESS))
    # From 0 to 1.0.
    unit = int((WIDTH - LEFT - BESIDE) / longest)
    one = LEFT + unit
    lines = [
        '<text class="title" x="16" y="28">The service against others</text>',
        '<text class="soft" x="16" y="48">The service, divided by the other. At 1.0 they are alike.</text>',
    ]
    y = 78
    for title, bars in (("More per CPU second is better →", MORE), ("Less is better ←", LESS)):
        lines.append(f'<text class="head" x="16" y="{y}">{title}</text>')
        y += STEP - 6
        lines.append(f'<text class="soft" x="{one}" y="{y}" text-anchor="middle">1.0</text>')
        top, before = y + 5, ""
        for bar in bars:
            y += STEP
            lines += row(bar, found[bar.what, bar.against], y, unit, names=bar.name != before)
            before = bar.name
        lines.append(f'<path class="one" d="M{one} {top}V{y + 8}"/>')
        y += 36
    lines += [
        f'<rect class="missed" x="16" y="{y - 11}" width="12" height="12" rx="2"/>',
        f'<text x="34" y="{y}">misses the target that this project has set</text>',
        f'<text class="soft" x="16" y="{y + 20}">s3rius: its FastAPI-template. Image: without base.</text>',
        f'<text class="soft" x="16" y="{y + 38}">Rows: read by their key from PostgreSQL.</text>',
    ]
    height = y + 54
    shapes = "\n".join(f"  {line}" for line in lines)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" \
width="560" height="{height * 560 // WIDTH}" role="img" aria-labelledby="title desc">
  <!-- Drawn by scripts/draw_performance.py from the table in docs/performance.md. -->
  <title id="title">The service against bare FastAPI and {S3RIUS}</title>
  <desc id="desc">Ratios. More is better: {told(MORE, found)}. Less is better: {told(LESS, found)}.</desc>
  <style>{STYLE}  </style>
  <rect class="panel" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>
{shapes}
</svg>
"""


def row(bar: Bar, figure: Figure, y: int, unit: int, names: bool) -> list[str]:
    """Return the lines of a bar. Its figure is to its right, and to the right of 1.0."""
    length = round(figure.ratio * unit)
    style = "missed" if figure.missed else "bar"
    target = f" misses {figure.missed}" if figure.missed else ""
    return [
        *([f'<text x="16" y="{y}">{bar.name}</text>'] if names else []),
        f'<text class="soft" x="{OTHER}" y="{y}">{bar.other}</text>',
        f'<rect class="{style}" x="{LEFT}" y="{y - 12}" width="{length}" height="15" rx="2"/>',
        f'<text x="{LEFT + max(length, unit) + 6}" y="{y}">'
        f'<tspan class="value">{figure.printed}</tspan>{target}</text>',
    ]


def told(bars: list[Bar], found: dict[tuple[str, str], Figure]) -> str:
    """Return the figures of the bars in words."""
    return ", ".join(f"{bar.name} against {bar.other} {found[bar.what, bar.against].printed}" for bar in bars)


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
