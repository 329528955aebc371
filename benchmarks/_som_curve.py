"""Trade-off between quantization and topographic error: a table and docs/pictures/som-tradeoff.svg."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks._som_runs import measured, ours_of, settings_of
from benchmarks._table import save_table

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "som-tradeoff.svg"
N_EPOCHS = 10
Curve = list[dict[str, Any]]
"""Points with radius, te, qe, te_std, qe_std, seconds, sorted by te."""


def curves(
    sizes: Sequence[int],
    names: Sequence[str],
    peers: Sequence[str],
    our_radii: Sequence[float | None],
    radii: Sequence[float],
    seeds: int,
    prefix: list[str],
) -> None:
    """Sweep the last radius of imatlas and of each peer; save the table and the figure."""
    rows, drawn = [], {}
    for data in names:
        for side in sizes:
            found = {"imatlas": _curve("imatlas", data, side, our_radii, seeds, prefix)}
            found.update({peer: _curve(peer, data, side, radii, seeds, prefix) for peer in peers})
            drawn[data, side] = found
            rows += _rows(data, side, found)
    save_table(
        "som_tradeoff",
        "Quantization against topographic error over the last radius",
        ["data", "map", "library", "last radius", "TE", "QE", "seconds", "ours above a peer's curve"],
        rows,
        [
            f"imatlas: mean ± standard deviation over {seeds} seeds, default number of epochs and first radius. "
            f"Peers: {N_EPOCHS} epochs, PCA start, first radius a fifth of the side; deterministic, so one run. On the "
            "10,000 test rows.",
            "Above: at our TE minus the spread, the linearly interpolated curve of the peer has a QE below ours minus "
            "the spread; the spread is the root of the sum of both variances. '-': no peer's curve reaches that TE.",
        ],
    )
    _draw(drawn)


def _curve(peer: str, data: str, side: int, radii: Sequence[float | None], seeds: int, prefix: list[str]) -> Curve:
    points = []
    for radius in radii:
        runs = []
        for seed in range(seeds if peer == "imatlas" else 1):
            ours = ours_of(side, radius, seed)
            chosen = ours if peer == "imatlas" else settings_of(side, N_EPOCHS, radius, seed)
            run = measured(peer, data, chosen, prefix=prefix)
            runs += [] if "failed" in run else [run]
        if runs:
            point = {"radius": radius, "seconds": statistics.median(run["seconds"] for run in runs)}
            for name in ("te", "qe"):
                values = [run[name] for run in runs]
                point |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values, ddof=len(values) > 1))}
            points.append(point)
    return sorted(points, key=lambda point: point["te"])


def _rows(data: str, side: int, found: dict[str, Curve]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for peer, curve in found.items():
        for point in curve:
            comparison = _above(point, {name: other for name, other in found.items() if name != peer})
            rows.append(
                [
                    data,
                    f"{side} x {side}",
                    peer,
                    point["radius"] or "default",
                    f"{point['te']:.4f} ± {point['te_std']:.4f}",
                    f"{point['qe']:.3f} ± {point['qe_std']:.3f}",
                    point["seconds"],
                    comparison if peer == "imatlas" else None,
                ]
            )
    return rows


def _above(point: dict[str, Any], others: dict[str, Curve]) -> str:
    """The peers whose curve is below a point of ours by more than the spread; "no", or "-" if none is comparable."""
    n_compared, better = 0, []
    for peer, curve in others.items():
        if not curve:
            continue
        te, qe = (np.array([p[name] for p in curve]) for name in ("te", "qe"))
        nearest = curve[int(np.abs(te - point["te"]).argmin())]
        te_compared = point["te"] - np.hypot(point["te_std"], nearest["te_std"])
        if not te[0] <= te_compared <= te[-1]:
            continue
        n_compared += 1
        gap = point["qe"] - float(np.interp(te_compared, te, qe))
        if gap > np.hypot(point["qe_std"], nearest["qe_std"]):
            better.append(f"{peer} (+{gap:.3f})")
    return ", ".join(better) or ("no" if n_compared else "-")


def _draw(drawn: dict[tuple[str, int], dict[str, Curve]]) -> None:
    """One panel per data set and map size; imatlas in bold, its default ringed."""
    names, sizes = (list(dict.fromkeys(key[i] for key in drawn)) for i in (0, 1))
    figure = Figure(figsize=(4.6 * len(sizes), 3.6 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(sizes), squeeze=False)
    for (data, side), found in drawn.items():
        ax = axes[names.index(data)][sizes.index(side)]
        for peer, curve in found.items():
            ours = peer == "imatlas"
            te, qe = ([point[name] for point in curve] for name in ("te", "qe"))
            style = {"lw": 2.4, "color": "black", "zorder": 3} if ours else {"lw": 1.2}
            ax.plot(te, qe, marker="o", markersize=4, label=peer, **style)
            for point in curve:
                if point["radius"] is None:
                    ax.plot(point["te"], point["qe"], "o", ms=10, mfc="none", mec="black", zorder=4)
        ax.set_title(f"{data}, {side} x {side}", fontsize=10)
        ax.set_xlabel("topographic error")
        ax.set_ylabel("quantization error")
    axes[0][0].legend(frameon=False, fontsize=9)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
