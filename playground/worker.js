// Runs Copier in Pyodide. A message names a method of engine.Playground, and the response has its result.
import { loadPyodide } from "./pyodide/pyodide.mjs";

async function load(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} can't be loaded: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function start({ url, commit, ref }) {
  const indexURL = new URL("./pyodide/", import.meta.url).href;
  const [pyodide, packages, template, rendered] = await Promise.all([
    loadPyodide({ indexURL }),
    load("packages.tar.xz"),
    load("template.tar.xz"),
    load("default.zip"),
  ]);
  pyodide.unpackArchive(packages, "xztar", { extractDir: "/packages" });
  pyodide.unpackArchive(template, "xztar", { extractDir: "/template" });
  const python = pyodide.runPython(`
import json, sys
sys.path.insert(0, "/packages")
import playground.absent_modules
from playground.compiled_once import take_compiled
from playground.engine import Playground

with open("/packages/playground/compiled.bin", "rb") as file:
    take_compiled(file.read())

def start(url, commit, ref, rendered):
    playground = Playground("/template", url, commit, ref)
    playground.restore(rendered.to_bytes())

    def call(method, given):
        result = getattr(playground, method)(*json.loads(given))
        return result if isinstance(result, bytes) else json.dumps(result)

    return call

start
`);
  return python(url, commit, ref, rendered);
}

let playground;

self.onmessage = async ({ data: { id, method, given } }) => {
  try {
    if (method === "start") {
      playground = start(given);
      await playground;
      self.postMessage({ id });
      return;
    }
    const result = (await playground)(method, JSON.stringify(given));
    self.postMessage({ id, result: typeof result === "string" ? JSON.parse(result) : result.toJs() });
  } catch (error) {
    self.postMessage({ id, error: String(error.message ?? error) });
  }
};
