"""Find images that are in a set more than once: the same bytes, or nearly the same picture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from imatlas.arguments import counted
from imatlas.images.dataset import Images
from imatlas.images.hashing import hamming
from imatlas.result import DataTable, ImagePairs, Result

MAX_DISTANCE = 3
"""Perceptual hashes that differ in at most this many of 64 bits are taken for one picture."""

MAX_DIFFERENCE = 0.04
"""And their pixels must not differ by more than this root mean square, as a share of the range of the set."""


def duplicate_of(images: Images, *, max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """For each image the index (N,) int64 of the better copy that it doubles, or -1.

    Equal files are doubles. So are images whose perceptual hashes differ in at most `max_distance` of 64 bits, if their
    pixels agree too (the hash alone takes very simple or very similar pictures for each other: of Fashion-MNIST's
    60,000 it would call 3,900 doubles). The better copy is the one with more pixels, of equals the earlier one. An
    image doubles one that is itself no double, so chains of likeness do not run away. Time is near-linear in the number
    of different hashes, memory linear; nothing is left to chance.

    Parameters
    ----------
    images : Images
    max_distance : int
        0 to 8.
    """
    records, pixels = images.records, images.pixels
    allowed = MAX_DIFFERENCE * (images.spec.high - images.spec.low)
    n = len(records)
    area = records["width"].astype(np.int64) * records["height"]
    rank = np.empty(n, np.int64)
    order = np.lexsort((np.arange(n), -area))
    rank[order] = np.arange(n)
    names = np.char.add(records["sha256"].astype(str), np.char.mod("#%d", records["frame"]))
    result = _first_of_equals(np.unique(names, return_inverse=True)[1], rank)
    left = np.flatnonzero(result < 0)
    hashes, inverse = np.unique(records["phash"][left], return_inverse=True)
    members = np.split(left[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse))[:-1])
    near: dict[int, list[int]] = {i: [i] for i, m in enumerate(members) if len(m) > 1}
    for i, j in near_pairs(hashes, max_distance).tolist():
        near.setdefault(i, [i]).append(j)
        near.setdefault(j, [j]).append(i)
    place = np.full(n, -1, np.int64)
    place[left] = inverse
    candidates = np.flatnonzero(np.isin(place, np.fromiter(near, np.int64, len(near))))
    for index in candidates[np.argsort(rank[candidates])].tolist():
        if result[index] >= 0:
            continue
        others = np.concatenate([members[i] for i in near[int(place[index])]])
        others = others[(result[others] < 0) & (rank[others] > rank[index])]
        others = others[_difference(pixels, index, others) <= allowed]
        result[others] = index
    # A copy of an image that turned out to be a near double itself follows it.
    chained = (result >= 0) & (result[np.maximum(result, 0)] >= 0)
    result[chained] = result[result[chained]]
    return result


def near_pairs(hashes: np.ndarray, max_distance: int) -> np.ndarray:
    """All pairs (n_pairs, 2) of different hashes (N,) that differ in at most `max_distance` bits, i < j.

    Two hashes that differ in d bits agree in at least one of d + 1 bands of bits. So each band is sorted, and only
    hashes that agree in it are compared.
    """
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, 64, max_distance + 2).round().astype(np.uint64)
    for low, high in pairwise(edges):
        band = (hashes >> low) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band, values = band[order], hashes[order]
        run = np.flatnonzero(band[:-1] == band[1:])
        step = 1
        while len(run):  # neighbors in the sorted order, then those two apart, and so on while the band agrees
            close = run[hamming(values[run], values[run + step]) <= max_distance]
            found.append(np.sort(np.stack([order[close], order[close + step]], axis=1), axis=1))
            step += 1
            run = run[run + step < len(band)]
            run = run[band[run] == band[run + step]]
    return np.unique(np.concatenate(found), axis=0)


def _first_of_equals(labels: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each item the best-ranked other item with the same label, or -1 for that one itself."""
    order = np.lexsort((rank, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    best = np.repeat(order[starts], np.diff(starts, append=len(labels)))
    result = np.empty(len(labels), np.int64)
    result[order] = np.where(best == order, -1, best)
    return result


def _difference(pixels: np.ndarray, index: int, others: np.ndarray) -> np.ndarray:
    """Root mean square difference (n,) of one image to some others."""
    one = np.nan_to_num(pixels[index].astype(np.float32))
    squares = [np.mean(np.square(np.nan_to_num(pixels[i].astype(np.float32)) - one)) for i in others.tolist()]
    return np.sqrt(np.array(squares))


def duplicates(images: Images, *, max_distance: int = MAX_DISTANCE, shown: int = 12) -> Result:
    """The doubles in a set: exact ones by their bytes, near ones by perceptual hash and pixels.

    Parameters
    ----------
    images : Images
    max_distance : int
        Most bits, 0 to 8, that the hashes of near doubles may differ in.
    shown : int
        How many pairs to show.
    """
    double = duplicate_of(images, max_distance=max_distance)
    copies = np.flatnonzero(double >= 0)
    sha256 = images.records["sha256"]
    exact = sha256[copies] == sha256[double[copies]]
    keys = images.keys
    pairs = [(keys[i], keys[double[i]], "same file" if same else "near-duplicate") for i, same in zip(copies, exact)]
    n_exact, n_near = int(exact.sum()), int((~exact).sum())
    sentences = [
        f"{_counted(n_exact, 'exact duplicate', 'exact duplicates')} and "
        f"{_counted(n_near, 'near-duplicate', 'near-duplicates')} found."
        if len(copies)
        else f"No duplicates ({counted(len(images), 'image')})."
    ]
    panels: list[Any] = []
    if len(copies):
        thumbnails = images.thumbnails
        first = np.concatenate([np.flatnonzero(~exact), np.flatnonzero(exact)])[:shown]
        panels = [
            ImagePairs(
                title="Duplicates",
                note="Left the duplicate, right the image that it duplicates.",
                names=("duplicate", "original"),
                rows=[(thumbnails[int(copies[i])], thumbnails[int(double[copies[i]])]) for i in first],
                captions=[f"{pairs[i][0]} ({pairs[i][2]})" for i in first],
                alt=f"{len(first)} pairs of equal or nearly equal images.",
            ),
            DataTable(title="All duplicates", columns=("duplicate", "of", "how"), rows=pairs[:1000]),
        ]
    return Result(
        name="duplicates",
        title="Duplicates",
        sentences=sentences,
        metrics={"n_images": len(images), "n_exact": n_exact, "n_near": n_near},
        panels=panels,
        data={"duplicates": [{"key": a, "duplicate_of": b, "how": how} for a, b, how in pairs]},
        protocol=f"Equal SHA-256, or perceptual hashes within {max_distance} of 64 bits and pixels within "
        f"{MAX_DIFFERENCE:.0%} of the range (root mean square).",
    )


def _counted(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
