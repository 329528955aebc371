"""Groups of images that are copies of each other, edited or not, with the best copy of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imatlas.arguments import check_path, counted, strict_yes
from imatlas.errors import InputError, UnsafePathError
from imatlas.images.dataset import Images
from imatlas.images.keys import file_name_of, file_of
from imatlas.images.memory_budget import amount
from imatlas.images.pixels import rgb_view
from imatlas.result import DataTable, ImagePairs, Panel, Picture, Result
from imatlas.system.atomic_io import relative
from imatlas.tasks.duplicates.candidates import View, find_matches
from imatlas.tasks.duplicates.plans import PlanRow, write_plan
from imatlas.tasks.duplicates.registration import SIDE

WAYS = ("", "rotated by 90°", "rotated by 180°", "rotated by 270°") + ("mirrored",) + ("mirrored and rotated",) * 3

SHOWN = 12


@dataclass(frozen=True)
class Gallery:
    """Images to look for copies in: their names, pixels and what makes one copy better than another.

    Attributes
    ----------
    keys : list of str
    view : callable
        Rows (n,) -> pixels (n, H, W, 3) uint8, each image stretched to one size.
    picture : callable
        Row -> a picture to show.
    content : ndarray (n_images,) of str
        Equal for equal files.
    area, size : ndarray (n_images,) int64
        Pixels of the original, and bytes of its file; 0 where that is not known.
    folder : Path or None
        The folder that the keys are files in.
    named : bool
        Whether the user has named that folder; an atlas, which may come from anywhere, tells one itself.
    """

    keys: list[str]
    view: View
    picture: Callable[[int], Picture]
    content: np.ndarray
    area: np.ndarray
    size: np.ndarray
    folder: Path | None = None
    named: bool = True

    @classmethod
    def of(cls, images: Any, *, frames: Literal["first", "all"] = "first", progress: bool = False) -> Gallery:
        """The gallery of `Images` or of anything that they can be made from, with some of the `frames` of each file.

        Images that were cropped to a square hold only their middle: those made here are stretched. Frames are no files
        of a folder, so they cannot be moved by a plan.
        """
        if not isinstance(images, Images):
            images = Images(images, image_size=SIDE, fit="stretch", frames=frames, progress=progress)
        records, pixels, thumbnails = images.records, images.pixels, images.thumbnails
        table = records.table
        known = table.column("size").to_numpy() if "size" in table.column_names else np.zeros(len(records), np.int64)
        return cls(
            keys=images.keys,
            view=lambda rows: rgb_view(np.asarray(pixels[rows]), images.spec, images.background),
            picture=lambda row: thumbnails[row],
            content=np.char.add(records["sha256"].astype(str), np.char.mod("#%d", records["frame"])),
            area=records["width"].astype(np.int64) * records["height"],
            size=np.maximum(known, 0),
            folder=images.root if images.root and images.root.is_dir() and images.frames == "first" else None,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def with_others(self, others: Gallery) -> Gallery:
        """These images and then the others."""
        n = len(self)

        def view(rows: np.ndarray) -> np.ndarray:
            own = rows < n
            parts = [self.view(rows[own]), others.view(rows[~own] - n)]
            parts = [_at_one_size(part) for part in parts]
            both = np.empty((len(rows), *parts[0].shape[1:]), np.uint8)
            both[own], both[~own] = parts
            return both

        return Gallery(
            keys=[*self.keys, *others.keys],
            view=view,
            picture=lambda row: self.picture(row) if row < n else others.picture(row - n),
            content=np.concatenate([self.content, others.content]),
            area=np.concatenate([self.area, others.area]),
            size=np.concatenate([self.size, others.size]),
        )


@dataclass(frozen=True)
class Duplicates:
    """Groups of copies.

    Attributes
    ----------
    keys : list of str
    group : ndarray (n_images,) int64
        The number of the group that each image is in, from 0; -1 for images without a copy.
    best : ndarray (n_images,) bool
        True for the best copy of each group.
    best_of : ndarray (n_images,) int64
        The row of the best copy of each image's group; its own row where it has none.
    how : list of str
        What each image is beside the best copy: "same file", "near-duplicate", "mirrored" and so on; "" for the others.
    likeness : ndarray (n_images,) float32
        The share of the picture that the best copy explains, 0 to 1.
    result : Result
    named : bool
        As of the gallery.
    """

    keys: list[str]
    group: np.ndarray
    best: np.ndarray
    best_of: np.ndarray
    how: list[str]
    similarity: np.ndarray
    content: np.ndarray
    folder: Path | None
    result: Result
    named: bool = True

    def plan(self, path: str | Path) -> None:
        """Write a plan that keeps the best copy of each group and moves the others, to be edited and then applied.

        What lies behind a link is not moved, as it is elsewhere; so one copy in the folder itself is kept, too.

        Raises
        ------
        InputError
            If the images are not the files of a folder.
        """
        if self.folder is None:
            raise InputError(
                "A plan moves files of a folder, and these images come from elsewhere; without -o the groups are shown."
            )
        order = np.lexsort((np.arange(len(self.keys)), ~self.best, self.group))
        rows: list[PlanRow] = []
        kept: set[int] = set()  # groups of which a copy in the folder itself stays
        for row in order[self.group[order] >= 0].tolist():
            linked, group = self._is_linked(row), int(self.group[row])
            if not self._is_below(row):
                continue
            why = "best copy" if self.best[row] else f"{self.how[row]} of {self.keys[self.best_of[row]]}"
            why += ", behind a link" if linked else ""
            action = "keep" if linked or group not in kept else "move"
            kept |= set() if linked else {group}
            sha256 = str(self.content[row]).partition("#")[0]
            rows.append(PlanRow(self.keys[row], action, str(group + 1), why, sha256))
        write_plan(rows, self.folder, check_path(path, "path", "plan"), sealed=self.named)

    def _is_below(self, row: int) -> bool:
        """Whether the key of an image leads nowhere but into the folder."""
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
    """Images that are copies of others: the same file, recompressed, scaled, cropped by about a tenth, relit, marked.

    A copy is proposed by its features and confirmed by laying one picture on the other (`registration`). The best
    copy has the most pixels, of these the largest file, of these the first place in the set; every other one of its
    group was compared with it.

    Parameters
    ----------
    images : Gallery, Images, or anything that Images can be made from
    rotated : bool
        Also find duplicates that were rotated by 90, 180 or 270 degrees, or mirrored.
    against : like images, optional
        Find instead which of `images` have a copy there: leaks from a test set into a training set.
    progress : bool
    shown : int
        How many pairs to show.

    Returns
    -------
    Duplicates
        With `against`, of the images alone: `how` is told of those that leak.
    """
    gallery = images if isinstance(images, Gallery) else Gallery.of(images, progress=progress)
    if against is not None:
        others = against if isinstance(against, Gallery) else Gallery.of(against, progress=progress)
        return _leaks(gallery, others, rotated, shown)
    copies = find_matches(gallery.view, _rank(gallery), gallery.content, rotated=rotated)
    double = copies.best != np.arange(len(gallery))
    group = np.full(len(gallery), -1)
    bests = np.unique(copies.best[double])
    group[double] = np.searchsorted(bests, copies.best[double])
    group[bests] = np.arange(len(bests))
    best = np.isin(np.arange(len(gallery)), bests)
    how = _how(gallery, copies.best, copies.orientation)
    alike = 1 - copies.share**2
    nothing = Result("duplicates", "Duplicates")
    found = Duplicates(
        gallery.keys, group, best, copies.best, how, alike, gallery.content, gallery.folder, nothing, gallery.named
    )
    return replace(found, result=_told(gallery, found, rotated, shown))


def _rank(gallery: Gallery) -> np.ndarray:
    """The place (n,) of each image when the best copies come first."""
    rank = np.empty(len(gallery), np.int64)
    rank[np.lexsort((np.arange(len(gallery)), -gallery.size, -gallery.area))] = np.arange(len(gallery))
    return rank


def _how(gallery: Gallery, best: np.ndarray, orientation: np.ndarray) -> list[str]:
    how = []
    for row, (to, way) in enumerate(zip(best.tolist(), orientation.tolist())):
        if to == row:
            how.append("")
        elif gallery.content[to] == gallery.content[row]:
            how.append("same file")
        else:
            how.append(WAYS[way] or "near-duplicate")
    return how


def _told(gallery: Gallery, found: Duplicates, rotated: bool, shown: int) -> Result:
    copies = np.flatnonzero((found.group >= 0) & ~found.best)
    n_same = sum(found.how[row] == "same file" for row in copies)
    metrics = {
        "n_images": len(gallery),
        "n_groups": int(found.best.sum()),
        "n_duplicates": len(copies),
        "n_same_file": n_same,
    }
    sentences = [f"No image is here twice ({counted(len(gallery), 'image')})."]
    if len(copies):
        sentences = [
            f"{len(copies):,} of {len(gallery):,} images are further copies of {_others(int(found.best.sum()))}: "
            f"{n_same:,} the same file, {len(copies) - n_same:,} edited."
        ]
        if gallery.size[copies].all():
            sentences.append(f"Without them the files would be {amount(int(gallery.size[copies].sum()))} smaller.")
    groups = [
        {
            "best": found.keys[row],
            "duplicates": [
                {"key": found.keys[i], "how": found.how[i], "similarity": round(float(found.similarity[i]), 4)}
                for i in copies[found.best_of[copies] == row].tolist()
            ],
        }
        for row in np.flatnonzero(found.best).tolist()
    ]
    pairs = [(int(row), int(found.best_of[row])) for row in copies]
    return Result(
        "duplicates",
        "Duplicates",
        sentences,
        metrics,
        _panels(gallery, pairs, found.how, found.similarity, ("duplicate", "kept"), shown),
        data={"groups": groups},
        protocol=PROTOCOL + (", rotated and mirrored too" if rotated else ""),
    )


PROTOCOL = "each copy was laid on the best one of its group, with scale, shift and light free"


def _leaks(gallery: Gallery, others: Gallery, rotated: bool, shown: int) -> Duplicates:
    """Which images have a copy among the others, the nearest of which is named."""
    both, n = gallery.with_others(others), len(gallery)
    rank = np.concatenate([_rank(gallery) + len(others), _rank(others)])  # the others lead every group they are in
    copies = find_matches(both.view, rank, both.content, rotated=rotated)
    best = copies.best[:n]
    leaking = np.flatnonzero(best >= n)
    how = _how(both, np.where(best >= n, best, np.arange(n)), copies.orientation[:n])
    pairs = [(int(row), int(best[row])) for row in leaking]
    sentences = [f"No image of the {n:,} has a copy among the {len(others):,} others."]
    if len(leaking):
        sentences = [f"{len(leaking):,} of {n:,} images have a copy among the {len(others):,} others."]
    share = 1 - copies.share**2
    result = Result(
        "leaks",
        "Duplicates in the other set",
        sentences,
        {"n_images": n, "n_others": len(others), "n_leaks": len(leaking)},
        _panels(both, pairs, [*how, *[""] * len(others)], share, ("image", "among the others"), shown),
        data={"leaks": [{"key": both.keys[i], "other": both.keys[j], "how": how[i]} for i, j in pairs]},
        protocol=PROTOCOL + (", rotated and mirrored too" if rotated else ""),
    )
    group = np.full(n, -1)
    group[leaking] = np.unique(best[leaking], return_inverse=True)[1]
    nobody = np.zeros(n, bool)
    return Duplicates(gallery.keys, group, nobody, np.arange(n), how, share[:n], gallery.content, None, result)


def _panels(
    gallery: Gallery,
    pairs: Sequence[tuple[int, int]],
    how: Sequence[str],
    share: np.ndarray,
    names: tuple[str, str],
    shown: int,
) -> list[Panel]:
    """Some pairs side by side, the least alike first, and a table of all."""
    if not pairs:
        return []
    first = sorted(pairs, key=lambda pair: share[pair[0]])[:shown]
    keys = gallery.keys
    return [
        ImagePairs(
            title="The least alike",
            note=f"Left the {names[0]}, right the {names[1]}.",
            names=names,
            rows=[(gallery.picture(i), gallery.picture(j)) for i, j in first],
            captions=[f"{keys[i]} ({how[i]}, {share[i]:.0%} alike)" for i, _ in first],
            alt=f"{len(first)} pairs of images and their copies.",
        ),
        DataTable(
            title="All duplicates",
            columns=(*names, "how", "alike"),
            rows=[(keys[i], keys[j], how[i], f"{share[i]:.0%}") for i, j in pairs[:1000]],
        ),
    ]


def _at_one_size(view: np.ndarray) -> np.ndarray:
    """Pixels (n, H, W, 3) at the size of comparison."""
    from imatlas.tasks.duplicates.registration import pictures

    if view.shape[1:3] == (SIDE, SIDE):
        return view
    return pictures(view).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def _others(n: int) -> str:
    return "1 other" if n == 1 else f"{n:,} others"
