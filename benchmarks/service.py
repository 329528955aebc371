"""An atlas as a service: `python -m benchmarks service`.

`imatlas serve` runs in a process of its own over the atlas of 10,000 images of `benchmarks.scale`. Clients in threads
send its JPEG files of 64 x 64 pixels one after the other. With one client nothing can be embedded together.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks._memory import pss_mb, tree
from benchmarks._table import save_table
from benchmarks.scale import SCRATCH, folders, learned

N = 10_000
CLIENTS = (1, 4, 32)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks service")
    parser.add_argument("--requests", type=int, default=600)
    options = parser.parse_args(argv)
    atlas = SCRATCH / "scale" / f"{N}.atlas"
    if not (atlas / "report.html").exists():
        learned(N)
    files = [file.read_bytes() for file in sorted(folders(N)[0].glob("*.jpg"))[: options.requests]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "imatlas", "serve", str(atlas), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        for file in files[:8]:
            _ask(f"{address}/search", file)
        rows = []
        for verb in ("embed", "search", "classify", "outlier"):
            for n_clients in CLIENTS:
                began = time.perf_counter()
                with ThreadPoolExecutor(n_clients) as pool:
                    seconds = list(pool.map(lambda file, verb=verb: _ask(f"{address}/{verb}", file), files))
                rate = len(files) / (time.perf_counter() - began)
                p50, p95 = (round(1000 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.95))
                rows.append([verb, n_clients, round(rate, 1), p50, p95])
                print(rows[-1], flush=True)
        memory = sum(pss_mb(pid) for pid in tree(server.pid))
    finally:
        server.terminate()
        server.wait(20)
    save_table(
        "service",
        "An atlas as a service",
        ("verb", "clients", "images a second", "ms, median", "ms, 95 %"),
        rows,
        [
            f"An atlas of {N:,} images, EfficientNet-Lite0; {len(files)} JPEG files of 64 x 64 pixels.",
            f"Memory of the server after that: {memory:.0f} MB.",
        ],
    )


def _wait(address: str) -> None:
    """Until the server answers."""
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).read()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


def _ask(address: str, content: bytes) -> float:
    """Seconds that an answer takes."""
    began = time.perf_counter()
    request = urllib.request.Request(address, content, {"content-type": "application/octet-stream"})
    urllib.request.urlopen(request, timeout=60).read()
    return time.perf_counter() - began
