"""What `novelty` of PatchDiffusion does: a table and docs/pictures/novelty-curve.svg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks._classifier import classifier
from benchmarks._data import SETS, labeled
from benchmarks._generation_metrics import frechet, near_copies, overlap, subset
from benchmarks._table import save_table
from imatlas import PatchDiffusion
from imatlas.metrics.generation import copying_score
from imatlas.models.pretrained import PretrainedEncoder

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "novelty-curve.svg"
NOVELTIES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
N = 500
DATA = ("grocery_photos", "eurosat")


def curve() -> None:
    """Measure new images at several novelties; save the table and the figure."""
    rows: list[list[Any]] = []
    for name in DATA:
        data, judge = labeled(name), classifier(name)
        train, test = judge.features(data.train), judge.features(data.test)
        floor = frechet(test, subset(train, N))
        model = PatchDiffusion(novelty=0.5, device="cpu").fit(data.train, PretrainedEncoder().fit_transform(data.train))
        for novelty in NOVELTIES:
            new = judge.features(model.sample(N, novelty=novelty, random_state=0))
            copies, chance = near_copies(train, test, new)
            precision, recall = overlap(test, new)[:2]
            measured = [frechet(test, new), floor, precision, recall, copying_score(train, test, new), copies, chance]
            rows.append([SETS[name], novelty, *measured])
            print(rows[-1], flush=True)
    columns = ("set", "novelty", "Fréchet", "floor", "precision", "recall", "C_T", "near copies", "by chance")
    notes = [f"{N} new images each, judged as in `generation`. C_T below -1 suggests copying."]
    save_table("novelty", "New images over the novelty of PatchDiffusion", columns, rows, notes)
    _draw(rows)


def _draw(rows: list[list[Any]]) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, column, label in zip(
        figure.subplots(1, 3), (2, 6, 7), ("Fréchet distance", "C_T", "near copies"), strict=True
    ):
        for i, name in enumerate(dict.fromkeys(row[0] for row in rows)):
            of_set = [row for row in rows if row[0] == name]
            axes.plot(NOVELTIES, [row[column] for row in of_set], "o-", color=f"C{i}", label=name, markersize=3)
            if column != 6:
                axes.axhline(of_set[0][3 if column == 2 else 8], color=f"C{i}", linestyle=":", linewidth=1)
        if column == 6:
            axes.axhline(-1, color="gray", linestyle=":", linewidth=1)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("novelty")
        axes.set_title(label, fontsize=10)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})
