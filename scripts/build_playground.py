"""Build the page that shows what the answers render to: `make playground`.

The page is a folder of static files, for any host and any path of it. Copier and its packages come from this
environment, and their version for Pyodide from the package index, by the hash in uv.lock.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jinja2
from copier._vcs import get_latest_tag
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness import npm  # noqa: E402
from playground.engine import Playground  # noqa: E402

SOURCE = ROOT / "playground"
# The address of this repository.
URL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
# The files of Pyodide that a browser loads, and the platform for which they load packages.
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
PLATFORM, PYTHON = "pyemscripten_2026_0_wasm32", "3.14"
# The one package that has no version in Python.
COMPILED = "pydantic-core"
# Commands beside the modules, and parts of packages that Copier doesn't import.
UNUSED = ("..", "pydantic/v1/", "prompt_toolkit/contrib/", "pygments/styles/", "pygments/formatters/")
# The modules of Pygments that know the languages of rendered files, and those on which these rest.
LANGUAGES = {"__init__", "_mapping", "configs", "data", "html", "javascript", "markup", "python", "shell"}
LANGUAGES |= {"css", "special"}
LEXERS = "pygments/lexers/_mapping.py"
# Modules of Python for its developers, for other systems, for servers and for mail.
UNUSED_OF_PYTHON = """
    __hello__ __phello__ _pyio _pyrepl antigravity asyncio/proactor_events asyncio/tools
    asyncio/windows_events bdb code compileall concurrent/futures/process cProfile ctypes/util doctest
    ensurepip fileinput ftplib http/cookiejar http/server idlelib imaplib lib2to3 logging/config
    logging/handlers mailbox modulefinder multiprocessing nturl2path optparse pdb pickletools plistlib
    poplib profile pstats pty py_compile pyclbr pydoc pydoc_data rlcompleter shelve smtplib socketserver
    sqlite3 statistics symtable tabnanny this tkinter trace tty turtle turtledemo unittest venv wave
    webbrowser wsgiref xmlrpc zipapp
"""
# The file that is shown first.
FIRST = "README.md"


def main() -> None:
    """Build the page into the folder that is given, or into build/playground."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "playground"
    build(folder)
    print(f"{folder} has the page. To see it: python -m http.server --directory {folder}")


def build(folder: Path, documentation: str = "") -> None:
    """Write the page into a folder, which is emptied first. Link it to this address of the documentation."""
    shutil.rmtree(folder, ignore_errors=True)
    # Gets the name of the version when it is known.
    files = folder / "files"
    (files / "pyodide").mkdir(parents=True)
    installed = npm.folder("pyodide") / "node_modules" / "pyodide"
    for name in PYODIDE:
        shutil.copy(installed / name, files / "pyodide")
    write_archive(files / "template.tar.xz", template())
    with tempfile.TemporaryDirectory() as sources:
        write_archive(Path(sources, "packages.tar.xz"), packages() | own_modules())
        compile_modules(files, Path(sources, "packages.tar.xz"))
    for name in ("page.css", "page.js", "worker.js"):
        shutil.copy(SOURCE / name, files)
    commit, ref = described(ROOT), asked_for(ROOT)
    playground = Playground(str(ROOT), URL, commit, ref)
    state = playground.answer({})
    (files / "default.zip").write_bytes(playground.archive())
    lines = {file["path"]: playground.show(file["path"]) for file in state["files"]}
    (files / "default.json").write_text(json.dumps({"state": state, "lines": lines}, separators=(",", ":")))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCE), autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    page = environment.get_template("index.html.jinja")
    shown = {
        "url": URL,
        "documentation": documentation,
        "commit": commit,
        "ref": ref,
        "state": state,
        "first": FIRST,
        "text": playground.tree[FIRST].content.decode(),
    }
    # What a service worker keeps of the page itself. It counts for the version, which it names.
    (files / "shell.html").write_text(page.render(shown, version=""))
    version = digest(files)
    files = files.rename(folder / version)
    (files / "shell.html").write_text(page.render(shown, version=version))
    shutil.copy(files / "shell.html", folder / "index.html")
    names = [file.relative_to(folder).as_posix() for file in files_of(files)]
    worker = environment.get_template("service_worker.js").render(version=version, files=names)
    (folder / "service_worker.js").write_text(worker)


def compile_modules(folder: Path, packages: Path) -> None:
    """Write what Pyodide has compiled, which takes it longer than all the rest: modules and templates."""
    script, unused = SOURCE / "compile.mjs", " ".join(UNUSED_OF_PYTHON.split())
    subprocess.run([npm.node(), script, folder.resolve(), packages, unused], check=True)


def described(repository: Path) -> str:
    """Return the commit as Copier writes it into a service."""
    return git(repository, "describe", "--tags", "--always")


def asked_for(repository: Path) -> str:
    """Return the commit that a command has to ask for, or "" where Copier takes it unasked."""
    commit, unasked = git(repository, "rev-parse", "HEAD"), get_latest_tag(str(repository))
    return "" if git(repository, "rev-parse", f"{unasked}^{{commit}}") == commit else commit


def git(repository: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digest(folder: Path) -> str:
    """Return a text that differs where a file of the folder does."""
    found = hashlib.sha256()
    for file in files_of(folder):
        content = file.read_bytes()
        found.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def write_archive(archive: Path, files: dict[str, bytes]) -> None:
    """Write files into an archive that is smaller than what a host makes of it. Equal files, equal bytes."""
    with tarfile.open(archive, "w:xz", preset=9) as written:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755 if os.access(ROOT / name, os.X_OK) else 0o644
            written.addfile(member, io.BytesIO(content))


def template() -> dict[str, bytes]:
    """Return the files of the template that are in git, by path."""
    listed = git(ROOT, "ls-files", "-z", "copier.yml", "includes", "template")
    return {name: (ROOT / name).read_bytes() for name in listed.split("\0") if name}


def own_modules() -> dict[str, bytes]:
    """Return the modules of this repository that run in Pyodide, by path."""
    return {f"{SOURCE.name}/{file.name}": file.read_bytes() for file in sorted(SOURCE.glob("*.py"))}


# Packages


def packages() -> dict[str, bytes]:
    """Return the modules of Copier and of what it needs, by path."""
    found: dict[str, bytes] = {}
    for name in sorted(needed("copier")):
        if name == COMPILED:
            found |= compiled(name)
            continue
        for file in importlib.metadata.files(name) or ():
            path = Path(str(file.locate()))
            if file.suffix in {".py", ".lark"} or file.name == "METADATA":
                found[file.as_posix()] = path.read_bytes()
    found[LEXERS] = without_absent_languages(found[LEXERS])
    return {name: content for name, content in found.items() if is_needed(name)}


def without_absent_languages(mapping: bytes) -> bytes:
    """Leave out of Pygments' list the languages that the page lacks: it compares a file's name with each."""
    lines = mapping.decode().splitlines(keepends=True)
    absent = re.compile(r"    '\w+': \('pygments\.lexers\.(?!(?:" + "|".join(sorted(LANGUAGES)) + r")')")
    return "".join(line for line in lines if not absent.match(line)).encode()


def is_needed(file: str) -> bool:
    """Tell whether a file of a package can be needed. Of Pygments' languages, those of the template are."""
    if file.startswith(UNUSED):
        return False
    return not file.startswith("pygments/lexers/") or Path(file).stem in LANGUAGES


def needed(package: str) -> set[str]:
    """Return the names of a package and of all that it needs, on the platform of Pyodide."""
    found: set[str] = set()
    new = {package}
    while new:
        found |= new
        new = {
            requirement.name.lower().replace("_", "-")
            for name in new
            for requirement in required(name)
            if not requirement.marker or requirement.marker.evaluate(MARKERS)
        } - found
    return found


MARKERS = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "emscripten",
    "extra": "",
}


def required(name: str) -> Iterator[Requirement]:
    yield from map(Requirement, importlib.metadata.requires(name) or ())


def compiled(name: str) -> dict[str, bytes]:
    """Return the files of a package's wheel for Pyodide, in the version and with the hash of uv.lock."""
    locked = next(
        package
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
        if package["name"] == name
    )
    wheel = next(
        wheel
        for wheel in locked["wheels"]
        if wheel["url"].endswith(f"{PLATFORM}.whl") and "-cp314-" in wheel["url"]
    )
    with tempfile.TemporaryDirectory() as folder:
        platform = [f"--platform={PLATFORM}", f"--python-version={PYTHON}", "--only-binary=:all:"]
        download = [
            "download",
            "--quiet",
            "--no-deps",
            f"--dest={folder}",
            *platform,
            f"{name}=={locked['version']}",
        ]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        [file] = Path(folder).glob("*.whl")
        digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        if digest != wheel["hash"]:
            sys.exit(f"{file.name} has not the hash that uv.lock has for it.")
        with zipfile.ZipFile(file) as archive:
            return {
                member: archive.read(member)
                for member in archive.namelist()
                if member.endswith((".py", ".so", "METADATA"))
            }


if __name__ == "__main__":
    main()
