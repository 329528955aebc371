"""Runs of map libraries, each in a process and an environment of its own, measured once and kept.

A run is kept under benchmarks/.data/som/runs by its peer, its version, its data and its settings: a sweep that was
stopped goes on where it was, and one peer can be run again alone (delete its files).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
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
from imatlas.metrics.topology import quantization_error, topographic_error

HERE = Path(__file__).parent
FOLDER = SCRATCH / "som"
OWN = ("imatlas", "numpy")
"""Run in the environment of imatlas itself."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def sets() -> tuple[str, ...]:
    """Names of the data: `NAME-train.npy` and `NAME-test.npy` lie under `FOLDER`, made on the first call."""
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
    """The rows of a set, from disk."""
    return np.load(FOLDER / f"{name}-{part}.npy")


def noisy(dim: int, n_samples: int = 1_000_000) -> str:
    """Name of a large synthetic set: training rows of `dim` columns, repeated, each with Gaussian noise of a tenth of
    the deviation of the column; its test rows are those of the set itself."""
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
    """The settings of a run in the shared names: a PCA start and a first radius of a fifth of the side."""
    shared = {"rows": side, "cols": side, "topology": "rectangular", "n_epochs": n_epochs, "sigma": side / 5}
    return {**shared, "final_sigma": final_sigma, "init": "pca", "seed": seed, "threads": 1, **more}


def ours_of(side: int, final_sigma: float | None, seed: int = 0, **more: Any) -> dict[str, Any]:
    """The settings of a run of ours: its own first radius and number of epochs."""
    return settings_of(side, None, final_sigma, seed, **{"sigma": None, **more})


def installed(peer: str) -> bool:
    """Whether the environment of a peer is there."""
    return Path(_python(peer)).exists()


def measured(
    peer: str, data: str, settings: dict[str, Any], *, prefix: Sequence[str] = (), again: bool = False, turn: int = 0
) -> dict[str, Any]:
    """One run: the kept one, or a new one where there is none or `again`.

    Returns
    -------
    dict
        peer, data, settings, seconds, qe, te (errors on the test rows), peak_mb (of the process tree, with its input),
        input_mb, version; or peer, data, settings, failed.
    """
    described = {"peer": peer, "data": data, "settings": settings, "turn": turn, "pins": _pins(peer)}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    path = FOLDER / "runs" / f"{peer}-{data}-{settings['rows']}-{key}.json"
    if path.exists() and not again:
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {**described, **_run(peer, data, settings, prefix)}
    path.write_text(json.dumps(run, indent=1))
    return run


def _run(peer: str, data: str, settings: dict[str, Any], prefix: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        chosen, codebook = Path(folder) / "settings.json", Path(folder) / "codebook.npy"
        chosen.write_text(json.dumps(settings))
        script = HERE / "peers" / f"som_{peer}.py"
        wanted = f"PYTHONPATH={HERE.parent / 'src'}" if peer in OWN else "PYTHONPATH="
        limits = ["env", wanted, *[f"{name}={value}" for name, value in ONE_THREAD.items()]]
        arguments = [str(FOLDER / f"{data}-train.npy"), str(chosen), str(codebook)]
        try:
            run = run_measured([*prefix, *limits, _python(peer), str(script), *arguments], every=0.05)
        except RuntimeError as problem:
            return {"failed": str(problem).strip().splitlines()[-1]}
        told = json.loads(next(line for line in reversed(run.output.splitlines()) if line.startswith("{")))
        return {**told, "peak_mb": run.peak_mb, **errors(np.load(codebook), data, settings)}


def errors(codebook: np.ndarray, data: str, settings: dict[str, Any]) -> dict[str, float]:
    """Both errors on the test rows, by the one function that measures every peer."""
    if not np.isfinite(codebook).all():
        return {"qe": float("nan"), "te": float("nan")}
    test = rows_of(data, "test")
    torn = topographic_error(test, codebook, settings["rows"], settings["cols"], settings["topology"])
    return {"qe": quantization_error(test, codebook), "te": torn}


def _python(peer: str) -> str:
    return sys.executable if peer in OWN else str(HERE / ".envs" / peer / "bin" / "python")


@cache
def _pins(peer: str) -> str:
    """What a kept run stands for: the pins of a peer; for imatlas, the code that its map imports and its runner."""
    path = HERE / "peers" / f"som_{peer}.txt"
    if path.exists():
        return " ".join(path.read_text().split())
    if peer != "imatlas":
        return "own"
    listed = "import sys, imatlas.models.som; print(*sorted(m.__file__ for n, m in sys.modules.items() if "
    listed += "n.startswith('imatlas.') and m.__file__), sep='\\n')"
    wanted = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    found = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True, env=wanted)
    names = [*found.stdout.splitlines(), HERE / "peers" / "_som.py", HERE / "peers" / "som_imatlas.py"]
    code = b"".join(Path(name).read_bytes() for name in names)
    return hashlib.sha256(code).hexdigest()[:12]


def default_prefix() -> str:
    """One core, where the machine can be told so."""
    return "taskset -c 0" if Path("/usr/bin/taskset").exists() else ""


def split_prefix(text: str) -> list[str]:
    """The words of a command that runs go through."""
    return shlex.split(text)
