"""Compare the ASGI workers a rendered service could run under Gunicorn with plain Uvicorn.

Needs Linux, `uv`, `wrk` (apt-get install wrk), `taskset` and two idle cores:

    python benchmarks/gunicorn_worker.py                 # 5 rounds of 5 s for each candidate
    python benchmarks/gunicorn_worker.py --rounds 9 --h1c

Every candidate serves the same FastAPI route with one worker pinned to one core; wrk is pinned
to the other. Rounds alternate between the candidates so that drift hits all of them alike.
`--h1c` adds Gunicorn's C parser (gunicorn_h1c), which is built from source on Linux.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PACKAGES = ["fastapi==0.165.*", "gunicorn==27.0.*", "uvicorn==0.54.*", "uvicorn-worker==0.4.*"]
PACKAGES += ["uvloop", "httptools"]
GUNICORN = ["gunicorn", "app:app", "--workers=1", "--no-control-socket", "--log-level=warning"]
NATIVE = [*GUNICORN, "--worker-class=asgi", "--asgi-loop=uvloop"]
CANDIDATES = {
    "uvicorn": ["uvicorn", "app:app", "--no-access-log", "--log-level=warning"],
    "uvicorn-worker": [*GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker"],
    "gunicorn asgi": [*NATIVE, "--http-parser=python"],
}
H1C = {"gunicorn asgi + h1c": [*NATIVE, "--http-parser=fast"]}
APP = """\
from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    return {"item_id": item_id, "q": q}
"""
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def measure(command: list[str], folder: Path, port: int, args: argparse.Namespace) -> tuple[float, float]:
    """Start the server, load it once and return requests/s and the p99 in milliseconds."""
    bind = ["--port", str(port)] if command[0] == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}/items/5?q=x"
    program = [str(folder / "venv" / "bin" / command[0]), *command[1:], *bind]
    server = subprocess.Popen(["taskset", "-c", args.server_core, *program], cwd=folder)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url, timeout=20).close()  # Gunicorn listens before the app
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.1)
        wrk = ["taskset", "-c", args.wrk_core, "wrk", "-t1", f"-c{args.connections}", "--latency"]
        subprocess.run([*wrk, "-d1", url], check=True, capture_output=True)  # warm up
        load = [*wrk, f"-d{args.seconds}", url]
        text = subprocess.run(load, check=True, capture_output=True, text=True).stdout
    finally:
        server.terminate()
        server.wait(timeout=40)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if not rate or not p99 or "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"unusable run:\n{text}")
    return float(rate[1]), float(p99[1]) * UNITS[p99[2]]


def main() -> None:
    """Measure all candidates in turn and print their medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one load run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--python", default="3.13", help="interpreter for `uv venv`")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--wrk-core", default="1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--h1c", action="store_true", help="also run Gunicorn's C parser")
    args = parser.parse_args()
    candidates = CANDIDATES | (H1C if args.h1c else {})
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        venv = folder / "venv"
        subprocess.run(["uv", "venv", "--quiet", "--python", args.python, venv], check=True)
        packages = PACKAGES + (["gunicorn_h1c"] if args.h1c else [])
        install = ["uv", "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
        subprocess.run([*install, *packages], check=True)
        for number in range(args.rounds):
            for candidate, command in candidates.items():
                rate, p99 = measure(command, folder, args.port, args)
                results[candidate].append((rate, p99))
                print(f"round {number + 1} {candidate}: {rate:.0f}/s, p99 {p99:.2f} ms", flush=True)
    base = statistics.median(rate for rate, _ in results["uvicorn"])
    print("\n| candidate | requests/s (median, min-max) | p99 ms (median, max) | to uvicorn |")
    print("| --- | --- | --- | --- |")
    for candidate, runs in results.items():
        rates, tails = zip(*runs, strict=True)
        middle = statistics.median(rates)
        spread = f"{middle:.0f} ({min(rates):.0f}-{max(rates):.0f})"
        tail = f"{statistics.median(tails):.2f} ({max(tails):.2f})"
        print(f"| {candidate} | {spread} | {tail} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
