"""Duplicates by file hash and perceptual hash: the fast, strict search behind the column `duplicate_of` and `check`.

It finds unedited duplicates: equal files, and the same picture saved again or at another size. `groups.find_duplicates`
also finds edited ones (cropped, relit, watermarked, rotated) by aligning pairs of images, which is much slower.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from imatlas.arguments import counted
from imatlas.images.dataset import Images
from imatlas.images.hashing import hamming
from imatlas.images.pixel_rows import PixelRows
from imatlas.result import DataTable, ImagePairs, Panel, Result
from imatlas.system.workers import Workers
from imatlas.tasks.duplicates.exact import best_of_equals, content_ids, n_pixels, quality_rank
from imatlas.tasks.duplicates.reviewed import UNREVIEWED, Reviewed

MAX_DISTANCE = 3
"""Largest Hamming distance, in bits of 64, between the perceptual hashes of near-duplicates."""

MAX_DIFFERENCE = 0.04
"""Largest root mean square difference between their pixels, as a share of the value range."""


def duplicate_of(images: Images, *, max_distance: int = MAX_DISTANCE, reviewed: Reviewed = UNREVIEWED) -> np.ndarray:
    """For each image the index (n_images,) int64 of the image that it duplicates, or -1.

    Equal files are duplicates. So are images whose perceptual hashes differ in at most `max_distance` of 64 bits and
    whose pixels agree (simple pictures share hashes). The original is the one that was chosen, that of most pixels, or
    the first. An image that is a duplicate itself has none, so there are no chains. Deterministic; time is near-linear
    in the number of different hashes, memory linear.

    Parameters
    ----------
    images : Images
    max_distance : int
        0 to 8.
    reviewed : Reviewed
        What was decided about these images.
    """
    records = images.records
    rank = quality_rank(reviewed.choice(len(images)), n_pixels(records))
    original = best_of_equals(reviewed.apart(content_ids(records), rank), rank)
    is_first = original == np.arange(len(original))
    original[is_first] = -1
    _add_near_duplicates(original, images, np.flatnonzero(is_first), rank, max_distance, reviewed)
    # Exact duplicates of an image that turned out to be a near-duplicate follow it.
    chained = (original >= 0) & (original[np.maximum(original, 0)] >= 0)
    original[chained] = original[original[chained]]
    original[reviewed.are_different(np.arange(len(original)), original)] = -1
    return original


def _add_near_duplicates(
    original: np.ndarray,
    images: Images,
    rows: np.ndarray,
    rank: np.ndarray,
    max_distance: int,
    reviewed: Reviewed,
) -> None:
    """Set `original` (n_images,) for the near-duplicates among `rows`, the best-ranked images first."""
    pixels, allowed = images.pixel_rows, MAX_DIFFERENCE * (images.spec.high - images.spec.low)
    hashes, hash_of_row = np.unique(images.records["phash"][rows], return_inverse=True)
    members = np.split(rows[np.argsort(hash_of_row, kind="stable")], np.cumsum(np.bincount(hash_of_row))[:-1])
    near: dict[int, list[int]] = {i: [i] for i, m in enumerate(members) if len(m) > 1}
    for i, j in near_pairs(hashes, max_distance, workers=images.cluster_workers).tolist():
        near.setdefault(i, [i]).append(j)
        near.setdefault(j, [j]).append(i)
    hash_of = dict(zip(rows.tolist(), hash_of_row.tolist(), strict=True))
    candidates = rows[np.isin(hash_of_row, np.fromiter(near, np.int64, len(near)))]
    for index in candidates[np.argsort(rank[candidates])].tolist():
        if original[index] >= 0:
            continue
        others = np.concatenate([members[i] for i in near[hash_of[index]]])
        others = others[(original[others] < 0) & (rank[others] > rank[index])]
        others = others[_difference(pixels, index, others) <= allowed]
        others = others[~reviewed.are_different(np.full(len(others), index), others)]
        original[others] = index


def near_pairs(hashes: np.ndarray, max_distance: int, *, workers: Workers | None = None) -> np.ndarray:
    """All pairs (n_pairs, 2), i < j, of different hashes (n,) that differ in at most `max_distance` bits.

    Two hashes that differ in d bits agree in at least one of d + 1 bands of bits. So each band is sorted, and only
    hashes that agree in it, those of one bucket, are compared; by the workers of a cluster if there are any, each of
    which is sent whole buckets.
    """
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, 64, max_distance + 2).round().astype(np.uint64)
    compare = partial(_near_in_buckets, max_distance=max_distance)
    for low, high in pairwise(edges):
        band = (hashes >> low) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band = band[order]
        parts = [(band, hashes[order])]
        if workers is not None:
            wanted = np.linspace(0, len(band), workers.n_workers + 1).round().astype(int)[1:-1]
            parts = list(zip(*(np.split(of_all, _starts(band, wanted)) for of_all in parts[0]), strict=True))
        first = 0
        for (buckets, _), pairs in zip(parts, map(compare, parts) if workers is None else workers.map(compare, parts)):
            found.append(np.sort(order[first + pairs], axis=1))
            first += len(buckets)
    return np.unique(np.concatenate(found), axis=0)


def _starts(buckets: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The start of the bucket in which each of some places (n,) of a sorted array lies."""
    return np.searchsorted(buckets, buckets[wanted]) if len(buckets) else np.zeros(len(wanted), int)


def _near_in_buckets(part: tuple[np.ndarray, np.ndarray], max_distance: int) -> np.ndarray:
    """The pairs (n_pairs, 2) of hashes (n,) in the same bucket, by which they are sorted, that are near each other."""
    bucket, hashes = part
    found = [np.empty((0, 2), np.int64)]
    run = np.flatnonzero(bucket[:-1] == bucket[1:])
    step = 1
    while len(run):  # neighbors in the sorted order, then those two apart, and so on while the bucket is the same
        close = run[hamming(hashes[run], hashes[run + step]) <= max_distance]
        found.append(np.stack([close, close + step], axis=1))
        step += 1
        run = run[run + step < len(bucket)]
        run = run[bucket[run] == bucket[run + step]]
    return np.concatenate(found)


def _difference(pixels: np.ndarray | PixelRows, index: int, others: np.ndarray) -> np.ndarray:
    """Root mean square difference (n,) of one image to some others."""
    one = np.nan_to_num(pixels[index].astype(np.float32))
    squares = [np.mean(np.square(np.nan_to_num(pixels[i].astype(np.float32)) - one)) for i in others.tolist()]
    return np.sqrt(np.array(squares))


def duplicates(images: Images, *, max_distance: int = MAX_DISTANCE, shown: int = 12) -> Result:
    """`duplicate_of` as a Result: how many duplicates there are, which, and of which images.

    Parameters
    ----------
    images : Images
    max_distance : int
        0 to 8.
    shown : int
        Number of pairs shown.
    """
    original = duplicate_of(images, max_distance=max_distance)
    rows = np.flatnonzero(original >= 0)
    contents = content_ids(images.records)
    exact = contents[rows] == contents[original[rows]]
    keys = images.keys
    pairs = [(keys[i], keys[original[i]], "exact" if same else "near") for i, same in zip(rows, exact)]
    n_exact, n_near = int(exact.sum()), int((~exact).sum())
    sentence = f"{counted(n_exact, 'exact duplicate')} and {counted(n_near, 'near-duplicate')}."
    panels: list[Panel] = []
    if len(rows):
        thumbnails = images.thumbnails
        first = np.concatenate([np.flatnonzero(~exact), np.flatnonzero(exact)])[:shown]
        panels = [
            ImagePairs(
                title="Duplicates",
                note="Left: the duplicate. Right: the image that it duplicates.",
                names=("duplicate", "original"),
                rows=[(thumbnails[int(rows[i])], thumbnails[int(original[rows[i]])]) for i in first],
                captions=[f"{pairs[i][0]} ({pairs[i][2]})" for i in first],
                alt=f"{counted(len(first), 'pair')} of identical or nearly identical images.",
            ),
            DataTable(title="All duplicates", columns=("duplicate", "original", "kind"), rows=pairs[:1000]),
        ]
    return Result(
        name="duplicates",
        title="Duplicates",
        sentences=[sentence if len(rows) else f"No duplicates among {counted(len(images), 'image')}."],
        metrics={"n_images": len(images), "n_exact": n_exact, "n_near": n_near},
        panels=panels,
        data={"duplicates": [{"key": a, "duplicate_of": b, "kind": kind} for a, b, kind in pairs]},
        protocol=f"Equal SHA-256, or perceptual hashes within {max_distance} of 64 bits and pixels within "
        f"{MAX_DIFFERENCE:.0%} of the value range (root mean square).",
    )
