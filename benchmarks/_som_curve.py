"""The trade-off of a map's two errors, ours and each peer's: a table and docs/pictures/som-tradeoff.svg."""

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
"""Points with radius, te, qe, te_std, qe_std, seconds; in the order of te."""


def curves(
    sizes: Sequence[int],
    names: Sequence[str],
    peers: Sequence[str],
    our_radii: Sequence[float | None],
    radii: Sequence[float],
    seeds: int,
    prefix: list[str],
) -> None:
    """Sweep the last radius of ours and of each peer over some seeds; save the table and draw it."""
    rows, drawn = [], {}
    for data in names:
        for side in sizes:
            found = {"imatlas": _curve("imatlas", data, side, our_radii, seeds, prefix)}
            found.update({peer: _curve(peer, data, side, radii, seeds, prefix) for peer in peers})
            drawn[data, side] = found
            rows += _rows(data, side, found)
    save_table(
        "som_tradeoff",
        "The two errors of a map, as the last radius is swept",
        ["data", "map", "library", "last radius", "TE", "QE", "seconds", "of ours: above a curve by more than spread"],
        rows,
        [
            f"Ours: mean ± standard deviation over {seeds} seeds, its default number of epochs and first radius. "
            f"Peers: {N_EPOCHS} epochs, PCA start, first radius a fifth of the side; after it they draw nothing from "
            "their seed, so they have one run and no spread. On the 10,000 test rows.",
            "Above: the peer's curve, straight between its points, holds at our TE less the spread a QE below ours "
            "less the spread; the spread is the root of the sum of both variances. '-': no peer's curve reaches that "
            "far.",
        ],
    )
    _draw(drawn)


def _curve(peer: str, data: str, side: int, radii: Sequence[float | None], seeds: int, prefix: list[str]) -> Curve:
    points = []
    for radius in radii:
        runs = []
        for seed in range(seeds if peer == "imatlas" else 1):
            mine = ours_of(side, radius, seed)
            chosen = mine if peer == "imatlas" else settings_of(side, N_EPOCHS, radius, seed)
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
            told = _above(point, {name: other for name, other in found.items() if name != peer})
            rows.append(
                [
                    data,
                    f"{side} x {side}",
                    peer,
                    point["radius"] or "default",
                    f"{point['te']:.4f} ± {point['te_std']:.4f}",
                    f"{point['qe']:.3f} ± {point['qe_std']:.3f}",
                    point["seconds"],
                    told if peer == "imatlas" else None,
                ]
            )
    return rows


def _above(point: dict[str, Any], others: dict[str, Curve]) -> str:
    """The peers whose curve runs below a point of ours by more than the spread; "no", or "-" where none compares."""
    compared, worse = 0, []
    for peer, curve in others.items():
        if not curve:
            continue
        te, qe = (np.array([p[name] for p in curve]) for name in ("te", "qe"))
        nearest = curve[int(np.abs(te - point["te"]).argmin())]
        at = point["te"] - np.hypot(point["te_std"], nearest["te_std"])
        if not te[0] <= at <= te[-1]:
            continue
        compared += 1
        gap = point["qe"] - float(np.interp(at, te, qe))
        if gap > np.hypot(point["qe_std"], nearest["qe_std"]):
            worse.append(f"{peer} (+{gap:.3f})")
    return ", ".join(worse) or ("no" if compared else "-")


def _draw(drawn: dict[tuple[str, int], dict[str, Curve]]) -> None:
    """One panel a set and size; ours in bold, with its default ringed."""
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
