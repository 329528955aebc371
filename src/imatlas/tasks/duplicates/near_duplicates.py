"""Which images are duplicates of which: candidate pairs confirmed by registration, joined into groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from imatlas.tasks.duplicates.candidates import MAX_TANGENT_DISTANCE, Pairs, propose
from imatlas.tasks.duplicates.exact import best_of_equals
from imatlas.tasks.duplicates.features import BATCH, N_ORIENTATIONS, WINDOWS, Features, PixelReader, reorient, resize
from imatlas.tasks.duplicates.registration import Differences, align, differences, window_alignment
from imatlas.tasks.duplicates.reviewed import UNREVIEWED, Reviewed

CERTAIN_RESIDUAL, MAX_RESIDUAL, MAX_LEVELS = 0.06, 0.5, 2.5
"""A pair matches where its residual is at most CERTAIN_RESIDUAL. Up to MAX_RESIDUAL, or MAX_LEVELS of 255, it must also
be much more similar than the next most similar image of both."""

MAX_RATIO = {"residual": 0.55, "levels": 0.4, "trimmed_levels": 0.3}
"""Largest ratio of the difference of a pair to that of the next most similar image."""

MAX_RESIDUAL_RATIO_BY_LEVELS = 0.9
"""The same for the residual of pairs that are judged by levels."""

N_ROUNDS = 4
"""Most rounds of search: each finds further duplicates in the place of those found before."""

INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
"""The orientation that undoes each orientation; mirrored ones undo themselves."""


@dataclass(frozen=True)
class Matches:
    """The image that each image (n,) is a duplicate of.

    Attributes
    ----------
    best : ndarray (n_images,) int64
        The row of the best image of its group; its own row for the best one and for images without duplicates.
    orientation : ndarray (n_images,) int8
        The orientation in which it matches the best one.
    residual : ndarray (n_images,) float32
        Root of the share of the picture that the best one leaves unexplained; 0 for the best one itself.
    """

    best: np.ndarray
    orientation: np.ndarray
    residual: np.ndarray


def find_matches(
    pixels_of: PixelReader,
    rank: np.ndarray,
    content: np.ndarray,
    *,
    rotated: bool = False,
    reviewed: Reviewed = UNREVIEWED,
) -> Matches:
    """Find the duplicates of each image; each was compared with the best image of its group, so groups do not chain.

    Parameters
    ----------
    pixels_of : callable
        Rows (n,) -> pixels (n, H, W, 3) uint8, each image stretched to one size.
    rank : ndarray (n_images,)
        All different; the image of the lowest rank in a group is its best.
    content : ndarray (n_images,)
        Equal for equal files.
    rotated : bool
        Also find duplicates rotated by 90, 180 or 270 degrees, or mirrored; the search takes about eight times as long.
    reviewed : Reviewed
        Pairs that are no duplicates, whatever they look like.
    """
    n, content = len(rank), reviewed.apart(content, rank)
    best = best_of_equals(content, rank)
    orientation, residual = np.zeros(n, np.int8), np.zeros(n, np.float32)
    leaders = np.flatnonzero(best == np.arange(n))
    if len(leaders) < 2:
        return Matches(best, orientation, residual)
    features = Features.of(pixels_of, n)
    queries = leaders
    for _ in range(N_ROUNDS):  # duplicates that were found make room for further ones among the candidates
        pairs, runner_up = propose(features, leaders, queries, rotated=rotated)
        found = compare(pixels_of, pairs)
        is_match = confirm(pairs, found, runner_up) & ~reviewed.are_different(pairs.first, pairs.second)
        if not is_match.any():
            break
        pairs, residuals = pairs[is_match], found.residual.numpy()[is_match]
        joined = _join(pixels_of, features, best, rank, pairs, residuals, rotated)
        for row, (to, way, rest) in joined.items():
            is_none = reviewed.differ(row, to)  # it follows another's match
            best[row], orientation[row], residual[row] = (row, 0, 0.0) if is_none else (to, way, rest)
        leaders = np.flatnonzero(best == np.arange(n))
        queries = np.intersect1d(leaders, np.unique(np.concatenate([pairs.first, pairs.second])))
        if len(queries) < 1 or len(leaders) < 2:
            break
    exact = best_of_equals(content, rank)  # equal files follow the first of them
    alone = reviewed.are_different(np.arange(n), best[exact])
    best, orientation, residual = best[exact], orientation[exact], residual[exact]
    best[alone], orientation[alone], residual[alone] = np.flatnonzero(alone), 0, 0
    return Matches(best, orientation, residual)


def compare(pixels_of: PixelReader, pairs: Pairs) -> Differences:
    """Align the pictures of each pair and measure their differences (n,)."""
    found = []
    for start in range(0, len(pairs), BATCH):
        some = pairs[np.arange(start, min(len(pairs), start + BATCH))]
        a, b = resize(pixels_of(some.first)), resize(pixels_of(some.second))
        for orientation in np.unique(some.orientation[some.orientation > 0]):
            chosen = torch.from_numpy(some.orientation == orientation)
            a[chosen] = reorient(a[chosen], int(orientation))
        window, orientations = (torch.from_numpy(x.astype(np.int64)) for x in (some.window, some.orientation))
        found.append(differences(a, b, align(a, b, window_alignment(window, orientations))))
    if not found:
        return Differences(*(torch.empty(0) for _ in range(3)))
    return Differences(*(torch.cat(parts) for parts in zip(*found)))


def confirm(pairs: Pairs, found: Differences, runner_up: np.ndarray) -> np.ndarray:
    """Which pairs (n,) match: nearly nothing is unexplained, or far less than for the next image of either."""
    residual, levels, trimmed = (values.numpy() for values in found)
    beyond = np.minimum(runner_up, MAX_TANGENT_DISTANCE)
    alone = ~np.isfinite(runner_up)
    last = np.where(alone, 2 * MAX_LEVELS, 0.0)  # the last of more candidates than were compared cannot stand out
    by_residual = (residual <= MAX_RESIDUAL) & _stands_out(pairs, residual, beyond, MAX_RATIO["residual"])
    by_levels = (levels <= MAX_LEVELS) & _stands_out(pairs, levels, last, MAX_RATIO["levels"])
    by_trimmed = (trimmed <= MAX_LEVELS) & _stands_out(pairs, trimmed, last, MAX_RATIO["trimmed_levels"])
    by_trimmed &= pairs.orientation == 0
    nearly = _stands_out(pairs, residual, np.where(alone, 1.0, beyond), MAX_RESIDUAL_RATIO_BY_LEVELS)
    return (residual <= CERTAIN_RESIDUAL) | by_residual | (by_levels | by_trimmed) & nearly


def _stands_out(pairs: Pairs, values: np.ndarray, last: np.ndarray, ratio: float) -> np.ndarray:
    """Whether pairs (n,) come, for both of their images, before a gap in the sorted values of the image.

    A gap lies between two values of which the first is at most `ratio` times the second; so an image may have several
    duplicates. `last` (n_images,) stands for the value after the last.
    """
    image, pair = pairs.by_image
    order = np.lexsort((values[pair], image))
    image, pair = image[order], pair[order]
    own = values[pair]
    ends = np.append(image[1:] != image[:-1], True) if len(image) else np.empty(0, bool)
    following = np.where(ends, last[image], np.append(own[1:], 0.0)) if len(image) else own
    gap = own <= ratio * following
    position = np.arange(len(image))
    last_gap = np.full(int(image.max(initial=0)) + 1, -1)
    np.maximum.at(last_gap, image[gap], position[gap])
    before = np.zeros(len(pairs), np.int64)
    np.add.at(before, pair[position <= last_gap[image]], 1)
    return before == 2


def _join(
    pixels_of: PixelReader,
    features: Features,
    best: np.ndarray,
    rank: np.ndarray,
    pairs: Pairs,
    residuals: np.ndarray,
    rotated: bool,
) -> dict[int, tuple[int, int, float]]:
    """New rows of `Matches` (row -> best, orientation, residual); orphans of joined images are compared anew."""
    links: dict[int, list[tuple[int, int, float]]] = {}
    for i in range(len(pairs)):
        a, b, way, rest = int(pairs.first[i]), int(pairs.second[i]), int(pairs.orientation[i]), float(residuals[i])
        links.setdefault(b, []).append((a, way, rest))
        links.setdefault(a, []).append((b, INVERSE[way], rest))
    followers: dict[int, list[int]] = {}
    for row in np.flatnonzero(best != np.arange(len(best))):
        followers.setdefault(int(best[row]), []).append(int(row))
    joined: dict[int, tuple[int, int, float]] = {}
    orphans: list[tuple[int, int]] = []
    for leader in sorted(links, key=lambda row: rank[row]):
        if leader in joined:
            continue
        for other, way, rest in links[leader]:
            if other in joined or rank[other] < rank[leader]:
                continue
            joined[other] = (leader, way, rest)
            orphans += [(row, leader) for row in followers.get(other, [])]
    if orphans:
        rows, leaders = np.array(orphans).T
        compared = _compare_best_way(pixels_of, features, rows, leaders, rotated)
        for row, to, way, rest in zip(rows.tolist(), leaders.tolist(), *compared):
            joined[row] = (to, int(way), float(rest)) if rest <= MAX_RESIDUAL else (row, 0, 0.0)
    return joined


def _compare_best_way(
    pixels_of: PixelReader, features: Features, rows: np.ndarray, leaders: np.ndarray, rotated: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The orientation and the residual of given pairs (n,), in the window and orientation of the smallest distance."""
    ways = []
    for orientation in range(N_ORIENTATIONS if rotated else 1):
        for window in range(len(WINDOWS)):
            for first, second in ((rows, leaders), (leaders, rows)):
                distance = features.distance(first, second, window, orientation)
                by = np.full(len(rows), window, np.int8), np.full(len(rows), orientation, np.int8)
                ways.append(Pairs(first, second, *by, distance))
    chosen = np.stack([way.distance for way in ways]).argmin(0)
    pairs = Pairs.concatenate([ways[way][np.array([i])] for i, way in enumerate(chosen.tolist())])
    orientations = np.where(pairs.first == rows, np.array(INVERSE)[pairs.orientation], pairs.orientation)
    return orientations, compare(pixels_of, pairs).residual.numpy()
