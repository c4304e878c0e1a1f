// Compiles Python's modules in an archive with the Python of Pyodide, so that no browser has to.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodideFolder, source, destination] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodideFolder}/pyodide.mjs`));
const pyodide = await loadPyodide({ indexURL: pyodideFolder });
pyodide.unpackArchive(new Uint8Array(readFileSync(source)), "xztar", { extractDir: "/packages" });
const compiled = pyodide.runPython(`
import compileall, pathlib, py_compile, sys, tarfile

root = pathlib.Path("/packages")
sys.path.insert(0, str(root))
import playground.absent_modules
import playground.engine

# Packages for a terminal, which Copier imports and a page never calls.
imported = {module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)}
for package in ("dunamai", "plumbum", "prompt_toolkit", "questionary", "wcwidth"):
    for path in (root / package).rglob("*.py"):
        if str(path) not in imported:
            path.unlink()

# In the place of their sources, because Python then asks for no date of these.
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
assert compileall.compile_dir(root, quiet=2, legacy=True, optimize=2, stripdir="/", invalidation_mode=unchecked)
for path in root.rglob("*.py"):
    path.unlink()
with tarfile.open("/compiled", "w:xz", preset=9) as archive:
    archive.add(root, arcname=".")
pathlib.Path("/compiled").read_bytes()
`);
writeFileSync(destination, compiled.toJs());
