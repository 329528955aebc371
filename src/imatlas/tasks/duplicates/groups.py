"""Groups of duplicates, edited ones too, with the image to keep of each group; leaks between two sets.

Slower and less strict than `by_hash.duplicate_of`: pairs proposed by features are aligned and compared one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path, counted, strict_yes
from imatlas.errors import InputError, UnsafePathError
from imatlas.images.keys import file_name_of, file_of, video_frame
from imatlas.images.memory_budget import amount
from imatlas.result import DataTable, ImagePairs, Panel, Result
from imatlas.system.atomic_io import relative
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.near_duplicates import find_matches
from imatlas.tasks.duplicates.plans import PlanRow, write_plan

KINDS = ("near", "rotated by 90°", "rotated by 180°", "rotated by 270°") + ("mirrored",) + ("mirrored and rotated",) * 3
"""What a duplicate is called by the orientation in which it matches; equal files are "exact"."""

SHOWN = 12
"""Pairs shown."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates.

    Attributes
    ----------
    keys : list of str
    group : ndarray (n_images,) int64
        The number of each image's group, from 0; -1 for images without duplicates.
    best : ndarray (n_images,) bool
        True for the image to keep of each group.
    best_of : ndarray (n_images,) int64
        The row of the image to keep of each image's group; its own row where it has no duplicates.
    kind : list of str
        "exact", "near", "rotated by 90°", "mirrored" and so on, compared with the image to keep; "" for the others.
    similarity : ndarray (n_images,) float32
        The share of the picture that the image to keep explains, 0 to 1.
    content : ndarray (n_images,) of str
        The SHA-256 of each file, with the number of the frame.
    folder : Path or None
        The folder that the keys are files in.
    result : Result
    user_named_folder : bool
        Whether the user named that folder.
    """

    keys: list[str]
    group: np.ndarray
    best: np.ndarray
    best_of: np.ndarray
    kind: list[str]
    similarity: np.ndarray
    content: np.ndarray
    folder: Path | None
    result: Result
    user_named_folder: bool = True

    def plan(self, path: str | Path) -> None:
        """Write a plan that keeps the best image of each group and moves its duplicates, to be edited and applied.

        Files behind a link are never moved. They lie elsewhere, so one image in the folder itself is kept as well.

        Raises
        ------
        InputError
            If the images are not the files of a folder.
        """
        if self.folder is None:
            raise InputError(
                "A plan moves the files of a folder, but these images are not files of one; leave out -o to list the "
                "groups."
            )
        order = np.lexsort((np.arange(len(self.keys)), ~self.best, self.group))
        rows: list[PlanRow] = []
        kept: set[int] = set()  # groups that keep an image in the folder itself
        for row in order[self.group[order] >= 0].tolist():
            linked, group = self._is_linked(row), int(self.group[row])
            if not self._is_below(row):
                continue
            why = "best" if self.best[row] else f"duplicate of {self.keys[self.best_of[row]]} ({self.kind[row]})"
            why += ", behind a link" if linked else ""
            action = "keep" if linked or group not in kept else "move"
            kept |= set() if linked else {group}
            sha256 = str(self.content[row]).partition("#")[0]
            rows.append(PlanRow(self.keys[row], action, str(group + 1), why, sha256))
        write_plan(rows, self.folder, check_path(path, "path", "plan"), signed=self.user_named_folder)

    def _is_below(self, row: int) -> bool:
        """Whether the key of an image is that of a file within the folder, and not of a frame of a video."""
        if video_frame(self.keys[row]):
            return False
        with suppress(UnsafePathError):
            relative(file_name_of(self.keys[row]))
            return True
        return False

    def _is_linked(self, row: int) -> bool:
        """Whether an image lies behind a link."""
        assert self.folder is not None
        try:
            file_of(self.folder, self.keys[row])
        except UnsafePathError:
            return True
        return False


@strict_yes
def find_duplicates(
    images: Any, *, rotated: bool = False, against: Any = None, progress: bool = False, shown: int = SHOWN
) -> Duplicates:
    """Find duplicates: equal files, and those recompressed, scaled, cropped by about a tenth, relit or watermarked.

    Of each group the image with the most pixels is kept; of these the largest file, then one that is not called
    "name (1)" or "name copy", then the first in the set. Each duplicate was compared with the one that is kept.

    Parameters
    ----------
    images : Gallery, Images, or anything that Images can be made from
    rotated : bool
        Also find duplicates that were rotated by 90, 180 or 270 degrees, or mirrored.
    against : like images, optional
        Find the `images` that have a duplicate there instead: leaks from a test set into a training set.
    progress : bool
    shown : int
        Number of pairs shown.

    Returns
    -------
    Duplicates
        With `against`, of the images alone: `kind` is set for those that leak.
    """
    gallery = images if isinstance(images, Gallery) else Gallery.of(images, progress=progress)
    if against is not None:
        others = against if isinstance(against, Gallery) else Gallery.of(against, progress=progress)
        return _find_leaks(gallery, others, rotated, shown)
    matches = find_matches(gallery.pixels_of, gallery.rank, gallery.content, rotated=rotated)
    duplicate = matches.best != np.arange(len(gallery))
    group = np.full(len(gallery), -1)
    bests = np.unique(matches.best[duplicate])
    group[duplicate] = np.searchsorted(bests, matches.best[duplicate])
    group[bests] = np.arange(len(bests))
    kind = _kinds(gallery, matches.best, matches.orientation)
    similarity = 1 - matches.residual**2
    return Duplicates(
        keys=gallery.keys,
        group=group,
        best=np.isin(np.arange(len(gallery)), bests),
        best_of=matches.best,
        kind=kind,
        similarity=similarity,
        content=gallery.content,
        folder=gallery.folder,
        result=_groups_result(gallery, matches.best, kind, similarity, rotated, shown),
        user_named_folder=gallery.user_named_folder,
    )


def _find_leaks(gallery: Gallery, others: Gallery, rotated: bool, shown: int) -> Duplicates:
    """The images that have a duplicate among the others; the nearest one is named."""
    both, n = gallery.with_others(others), len(gallery)
    rank = np.concatenate([gallery.rank + len(others), others.rank])  # the others are the best of every group
    matches = find_matches(both.pixels_of, rank, both.content, rotated=rotated)
    best = matches.best[:n]
    leaking = np.flatnonzero(best >= n)
    kind = _kinds(both, np.where(best >= n, best, np.arange(n)), matches.orientation[:n])
    similarity = (1 - matches.residual**2)[:n]
    pairs = [(int(row), int(best[row])) for row in leaking]
    group = np.full(n, -1)
    group[leaking] = np.unique(best[leaking], return_inverse=True)[1]
    return Duplicates(
        keys=gallery.keys,
        group=group,
        best=np.zeros(n, bool),
        best_of=np.arange(n),
        kind=kind,
        similarity=similarity,
        content=gallery.content,
        folder=None,
        result=_leaks_result(both, n, pairs, kind, similarity, rotated, shown),
    )


def _kinds(gallery: Gallery, best: np.ndarray, orientation: np.ndarray) -> list[str]:
    """What each image is called beside the best of its group; "" for the best ones."""
    same = gallery.content[best] == gallery.content[: len(best)]
    return [
        "" if to == row else "exact" if same[row] else KINDS[way]
        for row, (to, way) in enumerate(zip(best.tolist(), orientation.tolist()))
    ]


def _groups_result(
    gallery: Gallery, best: np.ndarray, kind: list[str], similarity: np.ndarray, rotated: bool, shown: int
) -> Result:
    n, keys = len(gallery), gallery.keys
    rows = np.flatnonzero(best != np.arange(n))
    bests = np.unique(best[rows])
    n_exact = sum(kind[row] == "exact" for row in rows)
    sentences = [f"No duplicates among {counted(n, 'image')}."]
    if len(rows):
        sentences = [
            f"{len(rows):,} of {n:,} images {'is a duplicate' if len(rows) == 1 else 'are duplicates'}, in "
            f"{counted(len(bests), 'group')}: {n_exact:,} exact, {len(rows) - n_exact:,} near."
        ]
        if gallery.size[rows].all():
            sentences.append(f"Without them the set would be {amount(int(gallery.size[rows].sum()))} smaller.")
    groups = [
        {
            "best": keys[row],
            "duplicates": [
                {"key": keys[i], "kind": kind[i], "similarity": round(float(similarity[i]), 4)}
                for i in rows[best[rows] == row].tolist()
            ],
        }
        for row in bests.tolist()
    ]
    pairs = [(int(row), int(best[row])) for row in rows]
    return Result(
        name="duplicates",
        title="Duplicates",
        sentences=sentences,
        metrics={"n_images": n, "n_groups": len(bests), "n_duplicates": len(rows), "n_exact": n_exact},
        panels=_panels(gallery, pairs, kind, similarity, ("duplicate", "kept"), shown),
        data={"groups": groups},
        protocol=_protocol(rotated),
    )


def _leaks_result(
    both: Gallery,
    n: int,
    pairs: Sequence[tuple[int, int]],
    kind: list[str],
    similarity: np.ndarray,
    rotated: bool,
    shown: int,
) -> Result:
    n_others, n_leaks = len(both) - n, len(pairs)
    has = "has" if n_leaks == 1 else "have"
    return Result(
        name="leaks",
        title="Duplicates in the other set",
        sentences=[f"{n_leaks:,} of {counted(n, 'image')} {has} a duplicate among the {n_others:,} of the other set."],
        metrics={"n_images": n, "n_others": n_others, "n_leaks": n_leaks},
        panels=_panels(both, pairs, kind, similarity, ("image", "duplicate in the other set"), shown),
        data={"leaks": [{"key": both.keys[i], "other": both.keys[j], "kind": kind[i]} for i, j in pairs]},
        protocol=_protocol(rotated),
    )


def _protocol(rotated: bool) -> str:
    orientation = ", orientation" if rotated else ""
    return f"Each duplicate was aligned with its match; scale, shift{orientation} and lighting may differ."


def _panels(
    gallery: Gallery,
    pairs: Sequence[tuple[int, int]],
    kind: Sequence[str],
    similarity: np.ndarray,
    names: tuple[str, str],
    shown: int,
) -> list[Panel]:
    """Some pairs side by side, the least similar first, and a table of all."""
    if not pairs:
        return []
    first = sorted(pairs, key=lambda pair: similarity[pair[0]])[:shown]
    keys = gallery.keys
    return [
        ImagePairs(
            title="Least similar pairs",
            note=f"Left: {names[0]}. Right: {names[1]}.",
            names=names,
            rows=[(gallery.thumbnail_of(i), gallery.thumbnail_of(j)) for i, j in first],
            captions=[f"{keys[i]} ({kind[i]}, {similarity[i]:.0%} similar)" for i, _ in first],
            alt=f"{counted(len(first), 'pair')} of duplicates.",
        ),
        DataTable(
            title="All duplicates",
            columns=(*names, "kind", "similarity"),
            rows=[(keys[i], keys[j], kind[i], f"{similarity[i]:.0%}") for i, j in pairs[:1000]],
        ),
    ]
