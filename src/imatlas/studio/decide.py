"""Decisions about images: labels, names of clusters, what to leave out; and what helps with them."""

# no postponed annotations: FastAPI evaluates those of the functions below

import tempfile
import threading
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from imatlas.arguments import shown
from imatlas.errors import InputError
from imatlas.studio.opened import Studio
from imatlas.studio.pages import picture
from imatlas.studio.pictures import as_webp
from imatlas.studio.requests import Body, Label, Row, Rows
from imatlas.studio.views import Views
from imatlas.tasks.duplicates.plans import PlanRow, read_plan, write_plan
from imatlas.tasks.duplicates.trash import apply_plan, undo
from imatlas.tasks.outliers import Outliers

HEAT_SIDE = 512
"""Of a heat map of an outlier."""
MOST_KEY, MOST_KEYS = 4096, 100_000
"""Letters of a key, and keys, that a request may name."""


class Labeling(Body):
    """Give images a label; null takes it away."""

    kind: Literal["label"]
    rows: Rows
    value: Label | None


class LeavingOut(Body):
    """Mark images to be left out, or not."""

    kind: Literal["leave_out"]
    rows: Rows
    value: bool


class Keeping(Body):
    """Keep images again that were left out, by their keys: they may be in the atlas no longer."""

    kind: Literal["keep"]
    keys: Annotated[list[Annotated[str, Field(max_length=MOST_KEY)]], Field(min_length=1, max_length=MOST_KEYS)]


class Naming(Body):
    """Name a cluster; an empty name takes it away."""

    kind: Literal["name"]
    cluster: Row
    value: Label


class Merging(Body):
    """Take clusters as one."""

    kind: Literal["merge"]
    clusters: Annotated[list[Row], Field(min_length=2, max_length=10_000)]


class Splitting(Body):
    """Split a merged cluster."""

    kind: Literal["split"]
    cluster: Row


class Moving(Body):
    """Duplicates whose files are moved to the trash."""

    rows: Rows


class Propagating(Body):
    """Spread the labels over all images."""

    n_next: Annotated[int, Field(ge=0, le=1000)] = 24


class UsingNames(Body):
    """Label all images of named clusters that have no label by these names."""

    kind: Literal["label_by_names"]


Decided = Annotated[
    Labeling | UsingNames | LeavingOut | Keeping | Naming | Merging | Splitting, Field(discriminator="kind")
]


class Review:
    """Labels that spread, outliers, near-duplicates and left-out images of an atlas."""

    def __init__(self, views: Views) -> None:
        self.views, self.atlas = views, views.atlas
        self._lock = threading.Lock()
        self._groups: list[list[int]] = []

    def propagated(self, n_next: int) -> dict[str, Any]:
        """Labels of all images from those of a few; without those whose files are in the trash."""
        state = self.views.decisions.state
        given, _ = self.views.labels(state)
        labels = {key: label for key, label in state.labels.items() if key in self.views.row_of}
        moved, left_out = np.zeros(len(given), bool), self.views.left_out(state)
        moved[self.views.moved] = True
        not_next = moved | left_out
        found = self.atlas.classify(labels, n_next=n_next + int(not_next.sum()))
        rows = np.flatnonzero(~moved)
        values, index = np.unique(found.labels[rows], return_inverse=True)
        counts = np.bincount(index, minlength=len(values))
        n_given = np.bincount(index[given[rows] >= 0], minlength=len(values))
        return {
            "labels": [
                {"label": str(value), "count": int(count), "given": int(n)}
                for value, count, n in zip(values, counts, n_given, strict=True)
            ],
            "rows": rows.tolist(),
            "label_of": index.tolist(),
            "confidence": np.round(found.confidence[rows].astype(float), 4).tolist(),
            "next": found.next_rows[~not_next[found.next_rows]][:n_next].tolist(),
        }

    def use_names(self) -> None:
        """Label the images of named clusters by these names, but those that have a label.

        Raises
        ------
        InputError
            If there are none.
        """
        state = self.views.decisions.state
        clustered, (given, _), keys = self.views.clustered(state), self.views.labels(state), self.views.keys
        name_of = clustered.decided.given
        free = np.isin(clustered.labels, list(name_of)) & (given < 0)
        if not free.any():
            raise InputError("No image of a named cluster is without a label; name a cluster first.")
        rows = np.flatnonzero(free).tolist()
        self.views.decisions.label_each({keys[row]: name_of[int(clustered.labels[row])] for row in rows})

    def outliers(self, rate: float, limit: int) -> dict[str, Any]:
        """The outliers at a false positive rate."""
        with self._lock:
            found = self.atlas.outliers(false_positive_rate=rate)
        rows = found.rows[:limit]
        return {
            "total": len(found.rows),
            "images": [
                {
                    "row": int(row), "key": self.views.keys[row],
                    "outlier": float(found.outlier_scores[row]), "p_value": float(found.p_values[row]),
                }
                for row in rows
            ],
            "sentence": found.result.sentences[0] if found.result.sentences else "",
        }  # fmt: skip

    @cached_property
    def _ordinary(self) -> Outliers:
        """The outliers at the usual rate, beside which the others are ordinary."""
        return self.atlas.outliers()

    def heat_map(self, row: int) -> bytes:
        """An image under a heat map of what is unlike the ordinary images nearest to it."""
        with self._lock:
            (pictures,) = self.atlas.outlier_heatmaps(self.views.keys[row], self._ordinary).rows
        return as_webp(pictures[1], HEAT_SIDE)

    def left_out(self, limit: int) -> dict[str, Any]:
        """Images that are left out: rows of the atlas, and keys of those that it no longer has."""
        state, row_of = self.views.decisions.state, self.views.row_of
        gone = sorted(key for key in state.left_out if key not in row_of)
        originals = self.views.store.originals
        return {
            "rows": sorted(row_of[key] for key in state.left_out if key in row_of),
            "total": len(gone),
            "gone": [{"key": key, "is_there": originals.path(key) is not None} for key in gone[:limit]],
        }

    def duplicates(self) -> dict[str, Any]:
        """Groups of near-duplicates, the best of each first."""
        with self._lock:
            found = self.atlas.duplicates()
        self._groups = []
        for number in range(int(found.group.max(initial=-1)) + 1):
            rows = np.flatnonzero(found.group == number)
            self._groups.append(rows[np.argsort(~found.best[rows], kind="stable")].tolist())
        best = {int(row) for row in np.flatnonzero(found.best)}
        return {
            "groups": [[each | {"best": each["row"] in best} for each in self.views.images(g)] for g in self._groups]
        }

    def move_away(self, rows: list[int]) -> dict[str, Any]:
        """Move the files of some images to a trash folder beside theirs; of each group that was found, one stays.

        Raises
        ------
        InputError
            If they are in no group that was found, a group would lose all images, or the images are no files.
        ArtifactError
            If a file is gone or has changed.
        """
        moved, plan = set(rows), []
        for number, group in enumerate(self._groups, start=1):
            for row in group if moved & set(group) else ():
                action = "move" if row in moved else "keep"
                plan.append(
                    PlanRow(self.views.keys[row], action, str(number), "studio", self.views.texts(row)["sha256"])
                )
        if not moved or moved - {row for group in self._groups for row in group}:
            raise InputError("Only duplicates are moved; look for duplicates first, and choose among them.")
        folder = self._folder()
        with tempfile.TemporaryDirectory() as aside:
            path = Path(aside, "plan.csv")
            write_plan(plan, folder, path, signed=False)
            try:
                return {"sentences": apply_plan(read_plan(path, folder)).sentences}
            finally:
                self.views.forget_moved()

    def bring_back(self) -> dict[str, Any]:
        """Undo the last `move_away`, also of an earlier day.

        Raises
        ------
        InputError, SourceError
            If nothing was moved.
        """
        try:
            return {"sentences": undo(self._folder()).sentences}
        finally:
            self.views.forget_moved()

    def _folder(self) -> Path:
        folder = self.views.store.originals.folder
        if folder is None:
            raise InputError("The images of this atlas are not files of a folder, so they stay where they are.")
        return folder


def decision_routes(api: FastAPI, studio: Studio) -> None:
    """Decisions, each of which can be undone."""
    review = Review(studio.views)
    views, overview = studio.views, studio.overview
    writable = [Depends(studio.writable)]

    @api.post("/api/decisions", dependencies=writable)
    def decide(decision: Decided) -> dict[str, Any]:
        if isinstance(decision, Naming):
            views.atlas.name_cluster(decision.cluster, decision.value)
            return overview()
        if isinstance(decision, Merging):
            views.atlas.merge_clusters(decision.clusters)
            return overview()
        if isinstance(decision, Splitting):
            views.atlas.split_cluster(decision.cluster)
            return overview()
        if isinstance(decision, UsingNames):
            review.use_names()
            return overview()
        if isinstance(decision, Keeping):
            unknown = set(decision.keys) - views.decisions.state.left_out
            if unknown:
                raise InputError(f"The image {shown(min(unknown))} is not left out, so it cannot be brought back.")
            views.decisions.leave_out(decision.keys, False)
            return overview()
        keys = studio.keys(decision.rows)
        if not keys:
            raise InputError("Select at least one image.")
        if isinstance(decision, Labeling):
            views.decisions.label(keys, decision.value)
        else:
            views.decisions.leave_out(keys, decision.value)
        return overview()

    @api.post("/api/undo", dependencies=writable)
    def undo() -> dict[str, Any]:
        views.decisions.undo()
        return overview()

    @api.post("/api/redo", dependencies=writable)
    def redo() -> dict[str, Any]:
        views.decisions.redo()
        return overview()


def review_routes(api: FastAPI, studio: Studio) -> None:
    """What helps to decide."""
    review = Review(studio.views)
    writable = [Depends(studio.writable)]

    @api.post("/api/propagate")
    def propagate(asked: Propagating) -> dict[str, Any]:
        return review.propagated(asked.n_next)

    @api.get("/api/outliers")
    def get_outliers(
        rate: Annotated[float, Query(gt=0, le=0.5)] = 0.01, limit: Annotated[int, Query(ge=1, le=5000)] = 500
    ) -> dict[str, Any]:
        return review.outliers(rate, limit)

    @api.get("/api/outliers/{row}/heat", response_class=Response)
    def get_heat_map(row: Annotated[int, Depends(studio.one)]) -> Response:
        return picture(review.heat_map(row))

    @api.get("/api/left_out")
    def get_left_out(limit: Annotated[int, Query(ge=1, le=5000)] = 500) -> dict[str, Any]:
        return review.left_out(limit)

    @api.get("/api/duplicates")
    def get_duplicates() -> dict[str, Any]:
        return {"job": studio.jobs.start("Looking for near-duplicates", review.duplicates).id}

    @api.post("/api/duplicates/move", dependencies=writable)
    def move_away(asked: Moving) -> dict[str, Any]:
        return review.move_away(studio.known(asked.rows)) | {"atlas": studio.overview()}

    @api.post("/api/duplicates/undo", dependencies=writable)
    def bring_back() -> dict[str, Any]:
        return review.bring_back() | {"atlas": studio.overview()}
