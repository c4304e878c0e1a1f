"""Record the questions for README.md, from a real run of Copier in a terminal: `make recording`.

docs/pictures/questions.svg is animated by CSS alone. Equal questions make an equal file: the pauses are made
up, and Copier's list of new files is sorted, which otherwise has the order of the disk.
"""

import itertools
import re
import select
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pyte
import pyte.modes
from pyte.screens import Char

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness.clones import ENVIRONMENT, git  # noqa: E402
from harness.matrix import ASKED, QUESTIONS, choices, default  # noqa: E402
from harness.owners import template_alone  # noqa: E402
from harness.pages import ADDRESS  # noqa: E402
from harness.terminal import Terminal  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "questions.svg"
TITLE = "Copier asks the questions in a terminal, and prints the next commands"
DESCRIPTION = "Each question is shown with its choices, and is answered with Enter or with the arrow keys"
# The command that is shown. The one that runs has a path of this machine instead of the address.
SHOWN = f"uvx copier copy {ADDRESS} orders-api"
COLUMNS, ROWS = 84, 28
# The questions that are not answered with Enter alone, and the choices that the arrow keys lead to.
CHOSEN = {"database": "postgresql", "proxy": "caddy"}
# Beside a database, the layout is not asked.
QUESTIONS_SHOWN = [name for name in ASKED if name != "layout"]
DOWN, ENTER = "\x1b[B", "\r"

# Seconds that a frame is seen.
LETTER, KEY, QUESTION, CHOICE, END = 0.06, 0.3, 0.9, 1.2, 5.0
# Seconds without output after which Copier waits for a key.
QUIET = 0.2
# A line that names a file which Copier has written.
WRITTEN = re.compile(r"\x1b\S* +[a-z]+\x1b\S*  .+")

# Pixels: of a cell and its text, around the cells, and above them.
CELL, LINE, SIZE, BASELINE, MARGIN, BAR = 8.4, 19, 14, 14, 16, 36
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
# The names that pyte has for colours, and those of the rest.
COLOURS = {
    "screen": "#0d1117",
    "edge": "#3d444d",
    "text": "#e6edf3",
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#58a6ff",
    "magenta": "#bc8cff",
    "cyan": "#39c5cf",
    "white": "#b1bac4",
}


class Run(NamedTuple):
    """Text of one look in a row."""

    column: int
    cells: int
    text: str
    colour: str
    background: str
    bold: bool


Row = tuple[Run, ...]


class Frame(NamedTuple):
    """What the terminal shows for some seconds, with its cursor's column and row, or none."""

    rows: tuple[Row, ...]
    cursor: tuple[int, int] | None
    seconds: float


def main() -> None:
    """Write the recording into the file that is given, or into docs/pictures."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(record()))
    print(f"{file} has the recording, {file.stat().st_size // 1000} kB.")


# From the terminal


class Screen(pyte.Screen):
    """Interprets what is written to a terminal, and tells where its cursor is when it is asked."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, ROWS)
        self.terminal: Terminal | None = None

    def write_process_input(self, data: str) -> None:
        if self.terminal:
            self.terminal.type(data)

    def frame(self, seconds: float) -> Frame:
        """Return what is shown now."""
        cursor = None if self.cursor.hidden else (self.cursor.x, self.cursor.y)
        return Frame(tuple(map(self.row, range(ROWS))), cursor, seconds)

    def row(self, number: int) -> Row:
        """Return the text of a row, without the blanks around it."""
        cells = ((column, self.buffer[number][column]) for column in range(COLUMNS))
        # The second cell of a wide character is empty.
        filled = [(column, cell) for column, cell in cells if cell.data]
        runs = []
        for _, group in itertools.groupby(filled, lambda cell: look(cell[1])):
            together = list(group)
            column, text = together[0][0], "".join(cell.data for _, cell in together)
            colour, background, bold, _ = look(together[0][1])
            if not background:
                column += len(text) - len(text.lstrip())
                text = text.strip()
            if text:
                width = sum(2 if is_wide(letter) else 1 for letter in text)
                runs.append(Run(column, width, text, colour, background, bold))
        return tuple(runs)


def look(cell: Char) -> tuple[str, str, bool, bool]:
    """Return the colours of a cell, whether it is bold, and whether it takes the place of two."""
    colour, background = colour_of(cell.fg, "text"), colour_of(cell.bg, "")
    if cell.reverse:
        colour, background = background or "screen", colour
    return colour, background, cell.bold, is_wide(cell.data)


def is_wide(text: str) -> bool:
    return bool(text) and unicodedata.east_asian_width(text[0]) in "WF"


def colour_of(name: str, default: str) -> str:
    """Return one of `COLOURS`, or a colour such as #d78700."""
    if name == "default":
        return default
    return name if name in COLOURS else f"#{name}"


def record() -> list[Frame]:
    """Answer the questions in a terminal, and return what it shows."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        template = template_alone(folder / "copier-fastapi")
        # Without a release, Copier says that it takes the newest commit.
        git(template, "tag", "v1.0.0")
        # Nobody's settings of Copier and of git, and no variables that change the colours.
        environment = {"PATH": ENVIRONMENT["PATH"], "HOME": temporary, "LANG": "C.UTF-8"}
        return list(frames(f"copier copy {template} orders-api", folder, environment))


def frames(command: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Frame]:
    """Yield what the terminal shows after each key."""
    screen = Screen()
    stream = pyte.ByteStream(screen)
    stream.feed(b"$ ")
    yield screen.frame(QUESTION)
    for letter in SHOWN:
        stream.feed(letter.encode())
        yield screen.frame(LETTER)
    stream.feed(b"\r\n")
    yield screen.frame(KEY)
    with Terminal(command, folder, COLUMNS, ROWS, environment) as terminal:
        screen.terminal = terminal
        for name in QUESTIONS_SHOWN:
            for key, line, seconds in steps(name):
                if key:
                    terminal.type(key)
                wait_for(terminal, stream, screen, line)
                yield screen.frame(seconds)
            terminal.type(ENTER)
        end = b""
        while terminal.read():
            end += terminal.received
        assert terminal.end() == 0, terminal.shown
    stream.feed(with_sorted_files(end.decode()).encode())
    stream.feed(b"$ ")
    yield screen.frame(END)


def steps(name: str) -> Iterator[tuple[str, str, float]]:
    """Yield each key that is typed before Enter, the text that is shown then, and for how many seconds."""
    if "choices" not in QUESTIONS[name]:
        yield "", QUESTIONS[name]["help"].splitlines()[-1], QUESTION
        return
    labels, offered = [*QUESTIONS[name]["choices"]], [*choices(name)]
    first = offered.index(default(name))
    last = offered.index(CHOSEN.get(name, default(name)))
    yield "", f"» {labels[first]}", QUESTION
    for label in labels[first + 1 : last + 1]:
        yield DOWN, f"» {label}", CHOICE if label == labels[last] else KEY


def wait_for(terminal: Terminal, stream: pyte.ByteStream, screen: Screen, text: str) -> None:
    """Read until this text is shown and Copier waits for a key."""
    while (
        not any(text in line for line in screen.display)
        # Lines are not wrapped while a question is drawn.
        or pyte.modes.DECAWM not in screen.mode
        or select.select([terminal.file], [], [], QUIET)[0]
    ):
        assert terminal.read(), f"{text!r} was never shown:\n{terminal.shown}"
        stream.feed(terminal.received)


def with_sorted_files(text: str) -> str:
    """Sort the lines that name the files which Copier has written."""
    parts = itertools.groupby(text.split("\r\n"), lambda line: bool(WRITTEN.fullmatch(line)))
    return "\r\n".join(
        line for written, lines in parts for line in (sorted(lines, key=file_of) if written else lines)
    )


def file_of(line: str) -> str:
    return line.rpartition("  ")[2]


# Into a picture


def picture(frames: Sequence[Frame]) -> bytes:
    """Draw frames as an SVG, which shows the last one where nothing may move."""
    width, height = COLUMNS * CELL + 2 * MARGIN, BAR + ROWS * LINE + MARGIN
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    # Blanks count in <text>.
    svg = Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "xml:space": "preserve"} | size
    )
    SubElement(svg, "title").text = TITLE
    SubElement(svg, "desc").text = DESCRIPTION
    SubElement(svg, "style").text = style(frames)
    names = {row: f"r{number}" for number, row in enumerate(distinct_rows(frames))}
    definitions = SubElement(svg, "defs")
    SubElement(definitions, "rect", id="cursor", width=f"{CELL:g}", height=f"{LINE}", fill=COLOURS["white"])
    for row, name in names.items():
        draw_row(SubElement(definitions, "g", id=name), row)
    edge = {"width": f"{width - 1:g}", "height": f"{height - 1:g}", "x": "0.5", "y": "0.5", "rx": "9.5"}
    SubElement(svg, "rect", edge | {"fill": COLOURS["screen"], "stroke": COLOURS["edge"]})
    for button in range(3):
        SubElement(svg, "circle", cx=f"{20 + 20 * button}", cy=f"{BAR / 2:g}", r="6", fill=COLOURS["edge"])
    screens = SubElement(svg, "g", transform=f"translate({MARGIN} {BAR})")
    for number, frame in enumerate(frames):
        drawn = SubElement(screens, "g", {"id": f"f{number}", "class": "frame"})
        if frame.cursor:
            column, line = frame.cursor
            SubElement(drawn, "use", href="#cursor", x=f"{column * CELL:g}", y=f"{line * LINE}")
        for line, row in enumerate(frame.rows):
            if row:
                SubElement(drawn, "use", href=f"#{names[row]}", y=f"{line * LINE}")
    ElementTree.indent(svg, "")
    return f"{ElementTree.tostring(svg, encoding='unicode')}\n".encode()


def distinct_rows(frames: Sequence[Frame]) -> list[Row]:
    return list(dict.fromkeys(row for frame in frames for row in frame.rows if row))


def draw_row(group: Element, row: Row) -> None:
    for run in row:
        place, colour = f"{run.column * CELL:g}", COLOURS.get(run.colour, run.colour)
        width = f"{run.cells * CELL:g}"
        if run.background:
            behind = COLOURS.get(run.background, run.background)
            SubElement(group, "rect", x=place, width=width, height=f"{LINE}", fill=behind)
        text = SubElement(group, "text", x=place, y=f"{BASELINE}", fill=colour)
        text.text = run.text
        if run.bold:
            text.set("font-weight", "bold")
        # An emoji's font has a width of its own.
        if not is_wide(run.text):
            text.set("textLength", width)


def style(frames: Sequence[Frame]) -> str:
    """Return the CSS that shows each frame in its time."""
    whole = sum(frame.seconds for frame in frames)
    starts = [0.0, *itertools.accumulate(frame.seconds for frame in frames)]
    marks = [f"{100 * start / whole:.3f}%" for start in starts]
    rules = [
        f"text{{font-family:{FONT};font-size:{SIZE}px}}",
        f".frame:not(#f{len(frames) - 1}){{visibility:hidden}}",
        "@media (prefers-reduced-motion:no-preference){",
        f".frame{{visibility:hidden;animation:{whole:g}s step-end infinite}}",
    ]
    for number, (start, end) in enumerate(itertools.pairwise(marks)):
        shown = f"{start}{{visibility:visible}}{end}{{visibility:hidden}}"
        rules.append(f"#f{number}{{animation-name:f{number}}}@keyframes f{number}{{{shown}}}")
    return "\n".join([*rules, "}"])


if __name__ == "__main__":
    main()
