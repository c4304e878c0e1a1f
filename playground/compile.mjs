// Compiles modules and templates with the Python of Pyodide, so that no browser has to.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, packages, unused] = process.argv.slice(2);
const library = `${folder}/pyodide/python_stdlib.zip`;
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide/pyodide.mjs`));
const pyodide = await loadPyodide({ indexURL: `${folder}/pyodide` });
pyodide.unpackArchive(new Uint8Array(readFileSync(packages)), "xztar", { extractDir: "/packages" });
pyodide.unpackArchive(new Uint8Array(readFileSync(`${folder}/template.tar.xz`)), "xztar", { extractDir: "/template" });
pyodide.unpackArchive(new Uint8Array(readFileSync(library)), "zip", { extractDir: "/library" });
const compile = pyodide.runPython(`
import compileall, io, pathlib, py_compile, re, shutil, sys, tarfile, zipfile

packages, library = pathlib.Path("/packages"), pathlib.Path("/library")
sys.path.insert(0, str(packages))
import playground.absent_modules
from playground.compiled_once import compiled
from playground.engine import Playground

# In the place of their sources, because Python then asks for no date of these.
def compile_modules(root):
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    assert compileall.compile_dir(root, quiet=2, legacy=True, optimize=2, stripdir="/", invalidation_mode=unchecked)
    for path in root.rglob("*.py"):
        path.unlink()

def compile_packages():
    # Packages for a terminal, which Copier imports and a page never calls.
    imported = {module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)}
    for package in ("dunamai", "plumbum", "prompt_toolkit", "questionary", "wcwidth"):
        for path in (packages / package).rglob("*.py"):
            if str(path) not in imported:
                path.unlink()
    page = Playground("/template", "", "")
    page.answer({})
    page.compile_all()
    (packages / "playground" / "compiled.bin").write_bytes(compiled())
    compile_modules(packages)
    with tarfile.open("/compiled", "w:xz", preset=9) as archive:
        archive.add(packages, arcname=".")
    return pathlib.Path("/compiled").read_bytes()

def compile_library(unused):
    for name in unused.split():
        shutil.rmtree(library / name, ignore_errors=True)
        (library / f"{name}.py").unlink(missing_ok=True)
    for path in (library / "encodings").glob("*.py"):
        if re.match("big5|cp(?!437)|euc_|gb|hp_|hz|iso|johab|koi8|kz|mac_|palmos|ptcp|shift_|tis_", path.stem):
            path.unlink()
    compile_modules(library)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in library.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(library))
    return stream.getvalue()

compile_packages, compile_library
`);
const [compilePackages, compileLibrary] = compile;
writeFileSync(`${folder}/packages.tar.xz`, compilePackages().toJs());
writeFileSync(library, compileLibrary(unused).toJs());
