"""Decisions about images: labels, names of clusters, what to leave out; and what helps with them."""

# no postponed annotations: FastAPI evaluates those of the functions below

import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from imatlas.arguments import shown
from imatlas.atlas.decided_duplicates import bring_back, move_duplicates, reviewed
from imatlas.errors import InputError
from imatlas.studio.opened import Studio
from imatlas.studio.pages import picture
from imatlas.studio.pictures import as_webp
from imatlas.studio.requests import Body, Label, Row, Rows
from imatlas.studio.views import Views

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


class Telling(Body):
    """Take images for no duplicates of others, or, without others, of each other; or forget that (false)."""

    kind: Literal["different"]
    rows: Rows
    others: Annotated[Rows, Field(default_factory=list)]
    value: bool = True


class Choosing(Body):
    """Keep an image rather than its duplicates."""

    kind: Literal["best"]
    row: Row


Decided = Annotated[
    Labeling | UsingNames | LeavingOut | Keeping | Naming | Merging | Splitting | Telling | Choosing,
    Field(discriminator="kind"),
]


class Review:
    """Labels that spread, outliers, near-duplicates and left-out images of an atlas."""

    def __init__(self, views: Views) -> None:
        self.views, self.atlas = views, views.atlas
        self._lock = threading.Lock()
        self._groups: list[list[int]] = []
        self._kind: dict[int, str] = {}

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
        numbers = np.full(len(given), -1, np.int32)
        numbers[rows] = index
        self.views.predict([str(value) for value in values], numbers, found.confidence)
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

    def heat_map(self, row: int) -> bytes:
        """An image under a heat map of what is unlike the ordinary images nearest to it."""
        with self._lock:
            (pictures,) = self.atlas.outlier_heatmaps(self.views.keys[row]).rows
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

    def find_duplicates(self) -> dict[str, Any]:
        """Search for duplicates; see `duplicates`."""
        with self._lock:
            found = self.atlas.duplicates()
        groups = []
        for number in range(int(found.group.max(initial=-1)) + 1):
            rows = np.flatnonzero(found.group == number)
            groups.append(rows[np.argsort(~found.best[rows], kind="stable")].tolist())
        self._groups = groups
        self._kind = {int(row): found.kind[row] for row in np.flatnonzero(found.group >= 0)}
        return self.duplicates()

    def duplicates(self) -> dict[str, Any]:
        """The groups that were found, as they were reviewed since: the one to keep first."""
        groups = []
        for rows in self.reviewed():
            images = self.views.images(rows)
            is_best = rows[0] in self._kind and not self._kind[rows[0]]  # else the kinds are beside another image
            kinds = ["", *((self._kind[row] if is_best else "") for row in rows[1:])]
            groups.append([each | {"best": not i, "kind": kinds[i]} for i, each in enumerate(images)])
        different = self.views.decisions.state.different
        marked = {key for pair in different for part in pair for key in part if key in self.views.row_of}
        return {"groups": groups, "different": sorted(self.views.row_of[key] for key in marked)}

    def reviewed(self) -> list[list[int]]:
        """The rows of the groups that were found, without what was decided to be no duplicate."""
        decided = reviewed(self.views.decisions.state, self.views.keys)
        return [group for rows in self._groups if (group := decided.group(rows))]

    def move_away(self, rows: list[int]) -> dict[str, Any]:
        """Move the files of some images to a trash folder beside theirs; of each group that was found, one stays.

        Raises
        ------
        InputError
            If they are in no group that was found, a group would lose all images, or the images are no files.
        ArtifactError
            If a file is gone or has changed.
        """
        moved, kept = set(rows), dict[str, str]()
        for group in self.reviewed():
            stays = next((row for row in group if row not in moved), None)
            if stays is None:
                raise InputError("Every image of a group would be moved; leave at least one.")
            kept |= {self.views.keys[row]: self.views.keys[stays] for row in group if row in moved}
        if not moved or len(kept) < len(moved):
            raise InputError("Only duplicates are moved; look for duplicates first, and choose among them.")
        try:
            return {"sentences": move_duplicates(self.views.store, self.views.decisions, kept).sentences}
        finally:
            self.views.forget_moved()

    def bring_back(self) -> dict[str, Any]:
        """Bring back what was moved to the trash last, also on an earlier day.

        Raises
        ------
        InputError, SourceError
            If nothing was moved.
        """
        try:
            return {"sentences": bring_back(self.views.store, self.views.decisions)}
        finally:
            self.views.forget_moved()


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
        if isinstance(decision, Choosing):
            views.decisions.best_duplicate(views.keys[studio.one(decision.row)])
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
        elif isinstance(decision, Telling):
            tell = views.decisions
            tell.not_duplicates(keys, studio.keys(decision.others)) if decision.value else tell.maybe_duplicates(keys)
        else:
            views.decisions.leave_out(keys, decision.value)
        return overview()

    @api.post("/api/undo", dependencies=writable)
    def undo() -> dict[str, Any]:
        return turned(views.atlas.undo)

    @api.post("/api/redo", dependencies=writable)
    def redo() -> dict[str, Any]:
        return turned(views.atlas.redo)

    def turned(turn: Callable[[], list[str]]) -> dict[str, Any]:
        try:
            sentences = turn()
        finally:
            views.forget_moved()
        return overview() | {"sentences": sentences}


def review_routes(api: FastAPI, studio: Studio) -> None:
    """What helps to decide."""
    review = Review(studio.views)
    writable = [Depends(studio.writable)]

    @api.post("/api/propagate")
    def propagate(asked: Propagating) -> dict[str, Any]:
        return review.propagated(asked.n_next) | {"atlas": studio.overview()}

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
        return {"job": studio.jobs.start("Looking for near-duplicates", review.find_duplicates, "long").id}

    @api.get("/api/duplicates/groups")
    def get_groups() -> dict[str, Any]:
        return review.duplicates()

    @api.post("/api/duplicates/move", dependencies=writable)
    def move_away(asked: Moving) -> dict[str, Any]:
        return review.move_away(studio.known(asked.rows)) | {"atlas": studio.overview()}

    @api.post("/api/duplicates/undo", dependencies=writable)
    def bring_back() -> dict[str, Any]:
        return review.bring_back() | {"atlas": studio.overview()}
