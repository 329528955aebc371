"""Measured runs of self-organizing map libraries, each in a process and an environment of its own, cached.

The cache under benchmarks/.data/som/runs is keyed by peer, version, data and settings: an interrupted sweep resumes,
and one peer is repeated by deleting its files.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from benchmarks._data import SCRATCH, fashion_mnist
from benchmarks._memory import run_measured
from benchmarks._peers import PEERS, env_command, last_json, python_of
from imatlas.metrics.topology import quantization_error, topographic_error

FOLDER = SCRATCH / "som"


def sets() -> tuple[str, ...]:
    """Names of the data sets; `NAME-train.npy` and `NAME-test.npy` under `FOLDER` are written on the first call."""
    names = ("pixels784", "pca64")
    if not all((FOLDER / f"{name}-{part}.npy").exists() for name in names for part in ("train", "test")):
        FOLDER.mkdir(parents=True, exist_ok=True)
        train, test = (fashion_mnist(part)[0].reshape(-1, 784) / np.float32(255) for part in ("train", "t10k"))
        pca = PCA(64, random_state=0).fit(train)
        for part, pixels in (("train", train), ("test", test)):
            np.save(FOLDER / f"pixels784-{part}.npy", pixels)
            np.save(FOLDER / f"pca64-{part}.npy", np.ascontiguousarray(pca.transform(pixels), dtype=np.float32))
    return names


def rows_of(name: str, part: str) -> np.ndarray:
    """The rows of a data set."""
    return np.load(FOLDER / f"{name}-{part}.npy")


def noisy(dim: int, n_samples: int = 1_000_000) -> str:
    """Name of a large synthetic set: repeated training rows of `dim` columns, each with Gaussian noise of a tenth of
    the standard deviation of the column; its test rows are those of the original."""
    source, name = f"pixels{dim}" if dim == 784 else f"pca{dim}", f"noisy{dim}-{n_samples}"
    if not (FOLDER / f"{name}-test.npy").exists():
        sets()
        rows, rng = rows_of(source, "train"), np.random.default_rng(0)
        shape = (n_samples, rows.shape[1])
        made = np.lib.format.open_memmap(FOLDER / f"{name}-train.npy", mode="w+", dtype=np.float32, shape=shape)
        for at in range(0, n_samples, 20_000):
            part = rows[rng.integers(len(rows), size=min(20_000, n_samples - at))]
            part += rng.standard_normal(part.shape, dtype=np.float32) * (rows.std(0) / 10)
            made[at : at + len(part)] = part
        made.flush()
        np.save(FOLDER / f"{name}-test.npy", rows_of(source, "test"))
    return name


def settings_of(
    side: int, n_epochs: int | None, final_sigma: float | None, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Settings of a run under shared names: a PCA start and a first radius of a fifth of the side."""
    shared = {"rows": side, "cols": side, "topology": "rectangular", "n_epochs": n_epochs, "sigma": side / 5}
    return {**shared, "final_sigma": final_sigma, "init": "pca", "seed": seed, "threads": 1, **more}


def ours_of(side: int, final_sigma: float | None, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Settings of a run of imatlas: its default first radius and number of epochs."""
    return settings_of(side, None, final_sigma, seed, **{"sigma": None, **more})


def installed(peer: str) -> bool:
    """Whether the environment of a peer exists."""
    return python_of(_environment(peer)).exists()


def measured(
    peer: str, data: str, settings: dict[str, Any], *, prefix: Sequence[str] = (), again: bool = False, turn: int = 0
) -> dict[str, Any]:
    """One run: the cached one, or a new one if there is none or `again`.

    Returns
    -------
    dict
        peer, data, settings, seconds, qe, te (errors on the test rows), peak_mb (process tree including input),
        input_mb, version; or peer, data, settings, failed.
    """
    facts = {"peer": peer, "data": data, "settings": settings, "turn": turn, "pins": _pins(peer)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = FOLDER / "runs" / f"{peer}-{data}-{settings['rows']}-{key}.json"
    if path.exists() and not again:
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {**facts, **_run(peer, data, settings, prefix)}
    path.write_text(json.dumps(run, indent=1))
    return run


def _run(peer: str, data: str, settings: dict[str, Any], prefix: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        chosen, codebook = Path(folder) / "settings.json", Path(folder) / "codebook.npy"
        chosen.write_text(json.dumps(settings))
        arguments = [PEERS / f"som_{peer}.py", FOLDER / f"{data}-train.npy", chosen, codebook]
        command = [*prefix, *env_command(_environment(peer)), *map(str, arguments)]
        try:
            run = run_measured(command, every=0.05)
        except RuntimeError as problem:
            return {"failed": str(problem).strip().splitlines()[-1]}
        return {**last_json(run.output), "peak_mb": run.peak_mb, **errors(np.load(codebook), data, settings)}


def errors(codebook: np.ndarray, data: str, settings: dict[str, Any]) -> dict[str, float]:
    """Quantization and topographic error on the test rows, by the same functions for every peer."""
    if not np.isfinite(codebook).all():
        return {"qe": float("nan"), "te": float("nan")}
    test = rows_of(data, "test")
    te = topographic_error(test, codebook, settings["rows"], settings["cols"], settings["topology"])
    return {"qe": quantization_error(test, codebook), "te": te}


def _environment(peer: str) -> str:
    return "imatlas" if peer == "numpy" else peer


@cache
def _pins(peer: str) -> str:
    """What a cached run depends on: the pinned versions of a peer; of imatlas, the modules that its SOM imports."""
    path = PEERS / f"som_{peer}.txt"
    if path.exists():
        return " ".join(path.read_text().split())
    if peer != "imatlas":
        return "own"
    listed = "import sys, imatlas.models.som; print(*sorted(m.__file__ for n, m in sys.modules.items() if "
    listed += "n.startswith('imatlas.') and m.__file__), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(PEERS.parents[1] / "src")}
    found = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True, env=environment)
    names = [*found.stdout.splitlines(), PEERS / "_som.py", PEERS / "som_imatlas.py"]
    code = b"".join(Path(name).read_bytes() for name in names)
    return hashlib.sha256(code).hexdigest()[:12]
