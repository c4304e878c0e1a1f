"""Measures the playground in Chromium: its first files, the start of Copier, a change, and the bytes sent.

The targets are seconds and bytes, so each has a row of its own, with the load of the machine. The ratios
compare with what the same machine did in the same round: an empty page, Pyodide alone, and Copier outside of
a browser.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page

from benchmarks.comparing import Options, Row, Samples, pairs
from harness import npm
from harness.browser import PATIENCE, Host, Site, browser, is_kept, is_ready
from harness.matrix import ROOT
from playground.engine import Playground

# Seconds, and bytes, that the issue of the playground allows.
TREE, COLD, WARM, CHANGE, TRANSFERRED = 1.0, 8.0, 5.0, 1.0, 10e6
# The answers that are clicked one after the other. Both change many files.
CLICKED = {"the first change": ("database", "postgresql"), "a further change": ("server", "gunicorn")}

EMPTY = '<!doctype html><title>Empty</title><ul id="tree"><li><button>README.md</button></ul>'
ALONE = """<!doctype html><title>Pyodide</title><script type="module">
import { loadPyodide } from "./pyodide.mjs";
await loadPyodide({ indexURL: new URL("./", location.href).href });
document.body.dataset.ready = "true";
</script>"""

# Keeps the milliseconds from the navigation to the first painted file, and to Copier's start.
MARKS = """
globalThis.marks = {};
const painted = (name) =>
  requestAnimationFrame(() => setTimeout(() => { marks[name] ??= performance.now(); }));
new MutationObserver(() => {
  if (document.querySelector("#tree button")) painted("tree");
  if (document.body?.dataset.ready) marks.ready ??= performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-ready"] });
"""
# Clicks on an answer, and returns the milliseconds until the files are painted with their marks.
CLICK = """
([name, value]) => new Promise((resolve) => {
  const begun = performance.now();
  const before = document.body.dataset.rendered;
  new MutationObserver((_, observer) => {
    if (document.body.dataset.rendered === before || !document.querySelector("#tree li.changed")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begun)));
  }).observe(document.body, { attributes: true });
  document.querySelector(`input[name="${name}"][value="${value}"]`).click();
})
"""


def measure(folder: Path, options: Options) -> list[Row]:
    page, empty, alone = folder / "page", folder / "empty", folder / "alone"
    subprocess.run([sys.executable, ROOT / "scripts/build_playground.py", page], check=True)
    empty.mkdir()
    (empty / "index.html").write_text(EMPTY)
    shutil.copytree(npm.folder("pyodide") / "node_modules" / "pyodide", alone)
    (alone / "index.html").write_text(ALONE)
    template = plain_template(folder / "template")
    found: Samples = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with browser() as chrome:
        for _ in range(options.rounds):
            add("load", os.getloadavg()[0])
            add("an empty page", opened(chrome, empty, "tree"))
            add("Pyodide alone", opened(chrome, alone, "ready"))
            for name, value in visited(chrome, page).items():
                add(name, value)
            for name, value in rendered(template).items():
                add(f"{name}, CPython", value)
    return rows(found)


def rows(found: Samples) -> list[Row]:
    """Compare each figure with its target, and with its yardstick of the same round."""
    rounds = len(found["load"])

    def both(case: str, name: str, most: float, *against: str) -> list[Row]:
        limits: Samples = {name: found[name], "the target": [most] * rounds}
        others: Samples = {name: found[name]} | {other: found[other] for other in against}
        return [
            *pairs("playground", case, "s", limits, "the target", reach=1),
            *pairs("playground", case, "s", others, *against),
        ]

    transferred: Samples = {"sent": found["sent"], "the target": [TRANSFERRED / 1e6] * rounds}
    load: Samples = {"load": found["load"], "cores": [float(os.cpu_count() or 1)] * rounds}
    measured = [
        *both("the first files are painted", "tree", TREE, "an empty page"),
        *both("Copier is ready, first visit", "cold", COLD, "Pyodide alone"),
        *both("Copier is ready, next visit", "warm", WARM, "Pyodide alone"),
    ]
    for name in CLICKED:
        measured += both("from a click to the marked files", name, CHANGE, f"{name}, CPython")
    return [
        *measured,
        *pairs("playground", "transferred, compressed", "MB", transferred, "the target", reach=1),
        *pairs("playground", "load of the machine", "processes", load, "cores"),
    ]


def marks(page: Page, name: str) -> dict[str, float]:
    """Return the seconds from the navigation, once there are those of a name."""
    page.wait_for_function(f"marks.{name} !== undefined", timeout=PATIENCE)
    found: dict[str, float] = page.evaluate("marks")
    return {mark: milliseconds / 1000 for mark, milliseconds in found.items()}


def opened(chrome: Browser, folder: Path, name: str) -> float:
    """Open the page of a folder as a new visitor, and return the seconds to its mark of a name."""
    context = chrome.new_context()
    context.add_init_script(MARKS)
    with Site(folder, Host) as site:
        page = context.new_page()
        page.goto(site.url)
        found = marks(page, name)[name]
    context.close()
    return found


def visited(chrome: Browser, folder: Path) -> dict[str, float]:
    """Visit the playground, change answers, visit it again, and return the seconds and the megabytes."""
    context = chrome.new_context()
    context.add_init_script(MARKS)
    with Site(folder, Host) as site:
        page = context.new_page()
        page.goto(site.url)
        first = marks(is_ready(page), "ready")
        found = {"tree": first["tree"], "cold": first["ready"], "sent": site.sent / 1e6}
        for name, answer in CLICKED.items():
            found[name] = page.evaluate(CLICK, [*answer]) / 1000
        is_kept(page).close()
        page = context.new_page()
        page.goto(site.url)
        found["warm"] = marks(is_ready(page), "ready")["ready"]
    context.close()
    return found


def plain_template(folder: Path) -> Path:
    """Copy the template into a folder that is no clone, as in the browser, so that no time is git's."""
    folder.mkdir()
    shutil.copy(ROOT / "copier.yml", folder)
    for name in ("includes", "template"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def rendered(template: Path) -> dict[str, float]:
    """Render the same answers outside of a browser, and return the seconds of each."""
    playground = Playground(str(template), "<URL>", "")
    playground.answer({})
    answers: dict[str, str] = {}
    found = {}
    for case, (name, value) in CLICKED.items():
        answers[name] = value
        begun = time.perf_counter()
        playground.answer(answers)
        found[case] = time.perf_counter() - begun
    return found
