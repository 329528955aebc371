"""Pairs of images of which one is an edited copy of the other: proposed by features, confirmed pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from imatlas.models.kmeans import KMeans
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.tasks.duplicates import registration
from imatlas.tasks.duplicates.registration import N_FEATURES, STRIPS, WINDOWS

View = Callable[[np.ndarray], np.ndarray]
"""Rows (n,) -> what the eye sees of these images, (n, H, W, 3) uint8."""

PROPOSED, COMPARED = 4, 4
"""How many images each search proposes for one image, and how many of all that were proposed are compared with it."""

UNLIKE = 0.6
"""Pairs of whose features more is unexplained are not compared."""

SURE, LIKELY, LEVELS = 0.06, 0.5, 2.5
"""A pair is a copy where no more than SURE of the picture is unexplained. Up to LIKELY it must stand out beside the
next most similar images; so must pictures that differ by at most LEVELS of 255, in all of their parts or in most."""

STANDS_OUT = {"share": 0.55, "levels": 0.4, "most": 0.3}
"""To stand out is to differ at most so many times as much as the next image of either does."""

NEARLY = 0.9
"""The same of the share, for pairs that are judged by levels."""

BATCH = 256
"""Images or pairs that are looked at together: bounds memory."""

WHOLE_SEARCH = 20_000
"""Images up to which every one is compared with every one in the search; above, with those of the nearest cells."""

CELLS_SEEN = 8

ROUNDS = 4

BACK = (0, 3, 2, 1, 4, 5, 6, 7)
"""The turn that undoes each turn: one that mirrors undoes itself."""


@dataclass(frozen=True)
class Features:
    """What all images are found by, as `likeness.features` gives it, in half precision."""

    windows: np.ndarray
    tangents: np.ndarray
    strips: np.ndarray

    @classmethod
    def of(cls, view: View, n: int) -> Features:
        """The looks of `n` images; 2 KB each."""
        shapes = (len(WINDOWS), 4, len(STRIPS))
        arrays = [np.empty((n, m, N_FEATURES), np.float16) for m in shapes]
        for start in range(0, n, BATCH):
            rows = np.arange(start, min(n, start + BATCH))
            for array, found in zip(arrays, registration.features(registration.pictures(view(rows)))):
                array[rows] = found.numpy()
        return cls(*arrays)


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, A = `first` and B = `second` (n,): B is the whole of a window of A after a turn of A."""

    first: np.ndarray
    second: np.ndarray
    window: np.ndarray
    orientation: np.ndarray
    unexplained: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: np.ndarray) -> Pairs:
        return Pairs(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: list[Pairs]) -> Pairs:
        """All pairs of several lists."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def propose(
    features: Features, rows: np.ndarray, asked: np.ndarray, *, rotated: bool = False
) -> tuple[Pairs, np.ndarray]:
    """The most similar pairs of images `rows` for each of the images `asked` among them.

    Returns
    -------
    pairs : Pairs
        At most a few an image; each two images once, in the way that explains most.
    next_ : ndarray (n_images,)
        What is unexplained of the best pair of each image that was left out; infinite where none was.
    """
    orientations = range(registration.N_ORIENTATIONS if rotated else 1)
    wholes = _tensor(features.windows[rows, 0])
    searches = [(registration.without_light(wholes), _by_windows(features, asked, orientations))]
    for strip in range(len(STRIPS)):
        own, others = (registration.without_light(_tensor(features.strips[some, strip])) for some in (asked, rows))
        searches.append((others, [(0, 0, own)]))
    absolute = _coarse(wholes)
    queries = [
        (0, orientation, _coarse(registration.oriented_features(_tensor(features.windows[asked, 0]), orientation)))
        for orientation in orientations
    ]
    searches.append((absolute, queries))
    found = []
    for index, ways in searches:
        search = _Search(index)
        for window, orientation, query in ways:
            near = search.nearest(query, PROPOSED + 1)
            first = np.repeat(asked, near.shape[1])
            second = rows[near.ravel()]
            keep = (first != second) & (near.ravel() >= 0)
            n = int(keep.sum())
            way = np.full(n, window, np.int8), np.full(n, orientation, np.int8)
            found.append(Pairs(first[keep], second[keep], *way, np.zeros(n, np.float32)))
    pairs = _explained(features, Pairs.joined(found))
    return _best(pairs, len(features.windows))


def _by_windows(features: Features, asked: np.ndarray, orientations: range) -> list[tuple[int, int, torch.Tensor]]:
    """(window, turn, queries) for each window and turn."""
    queries = []
    for window in range(len(WINDOWS)):
        feats = registration.without_light(_tensor(features.windows[asked, window]))
        queries += [
            (window, orientation, registration.oriented_features(feats, orientation)) for orientation in orientations
        ]
    return queries


def _coarse(feats: torch.Tensor) -> torch.Tensor:
    """The mean and the lowest waves alone, with their size: what tells pictures without detail apart."""
    size = registration.N_WAVES
    light = feats[:, : size**2].unflatten(1, (size, size))[:, :4, :4]
    return torch.cat([light.flatten(1), feats[:, size**2 :]], 1)


def _explained(features: Features, pairs: Pairs) -> Pairs:
    """The pairs with what is unexplained of each, those left out that are not alike."""
    share = np.empty(len(pairs), np.float32)
    for orientation in np.unique(pairs.orientation):
        chosen = np.flatnonzero(pairs.orientation == orientation)
        for start in range(0, len(chosen), 4096):
            some = chosen[start : start + 4096]
            query = _tensor(features.windows[pairs.first[some], pairs.window[some]])
            whole, tangents = (_tensor(x[pairs.second[some]]) for x in (features.windows[:, 0], features.tangents))
            share[some] = registration.unexplained(
                registration.oriented_features(query, int(orientation)), whole, tangents
            ).numpy()
    pairs = Pairs(pairs.first, pairs.second, pairs.window, pairs.orientation, share)
    return pairs[share <= UNLIKE]


def _best(pairs: Pairs, n: int) -> tuple[Pairs, np.ndarray]:
    """Each two images once, and of these the best `COMPARED` of each image; what is unexplained of its next."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((pairs.unexplained, high, low))
    pairs, low, high = pairs[order], low[order], high[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    pairs, low, high = pairs[new], low[new], high[new]
    image, pair = np.concatenate([low, high]), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((pairs.unexplained[pair], image))
    image, pair = image[order], pair[order]
    place = _place_in_run(image)
    kept = np.unique(pair[place < COMPARED])
    dropped = ~np.isin(pair, kept)
    next_ = np.full(n, np.inf, np.float32)
    np.minimum.at(next_, image[dropped], pairs.unexplained[pair[dropped]])
    return pairs[kept], next_


def _place_in_run(values: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values (n,)."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def compare(view: View, pairs: Pairs) -> registration.Differences:
    """Lay the pictures of each pair on each other, and say how much differs (n,)."""
    found = []
    for start in range(0, len(pairs), BATCH):
        some = pairs[np.arange(start, min(len(pairs), start + BATCH))]
        a, b = registration.pictures(view(some.first)), registration.pictures(view(some.second))
        for orientation in np.unique(some.orientation[some.orientation > 0]):
            chosen = torch.from_numpy(some.orientation == orientation)
            a[chosen] = registration.oriented(a[chosen], int(orientation))
        orientation = torch.from_numpy(some.orientation.astype(np.int64))
        start_at = registration.placed_by(torch.from_numpy(some.window.astype(np.int64)), orientation)
        found.append(registration.differences(a, b, registration.lay_on(a, b, start_at)))
    if not found:
        return registration.Differences(*(torch.empty(0) for _ in range(3)))
    return registration.Differences(*(torch.cat(parts) for parts in zip(*found)))


def confirmed(pairs: Pairs, found: registration.Differences, next_: np.ndarray) -> np.ndarray:
    """Which pairs (n,) are copies: so alike that nothing else explains it, or far more than the next of either is."""
    share, levels, most = (values.numpy() for values in found)
    beyond = np.minimum(next_, UNLIKE)
    alone = ~np.isfinite(next_)
    last = np.where(alone, 2 * LEVELS, 0.0)  # of images with more neighbors the last cannot stand out
    by_share = (share <= LIKELY) & _stand_out(pairs, share, beyond, STANDS_OUT["share"])
    by_levels = (levels <= LEVELS) & _stand_out(pairs, levels, last, STANDS_OUT["levels"])
    by_most = (most <= LEVELS) & (pairs.orientation == 0) & _stand_out(pairs, most, last, STANDS_OUT["most"])
    nearly = _stand_out(pairs, share, np.where(alone, 1.0, beyond), NEARLY)
    return (share <= SURE) | by_share | (by_levels | by_most) & nearly


def _stand_out(pairs: Pairs, values: np.ndarray, last: np.ndarray, ratio: float) -> np.ndarray:
    """Whether pairs (n,) come, for both of their images, before a gap in the row of all it was compared with.

    After some pair of the image the next must be 1 / `ratio` times as far; an image may have several copies. `last` is
    what counts as the next after the last.
    """
    image, pair = np.concatenate([pairs.first, pairs.second]), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((values[pair], image))
    image, pair = image[order], pair[order]
    own = values[pair]
    ends = np.append(image[1:] != image[:-1], True) if len(image) else np.empty(0, bool)
    following = np.where(ends, last[image], np.append(own[1:], 0.0)) if len(image) else own
    gap = own <= ratio * following
    place = np.arange(len(image))
    last_gap = np.full(int(image.max(initial=0)) + 1, -1)
    np.maximum.at(last_gap, image[gap], place[gap])
    before = np.zeros(len(pairs), np.int64)
    np.add.at(before, pair[place <= last_gap[image]], 1)
    return before == 2


class _Search:
    """The nearest rows of an index: among all, or among those of the nearest cells where there are many."""

    def __init__(self, index: torch.Tensor) -> None:
        self.index = index
        self.cells: list[torch.Tensor] = []
        if len(index) > WHOLE_SEARCH:
            n_cells = int(np.sqrt(len(index)))
            sample = index[:: max(1, len(index) // (64 * n_cells))]
            model = KMeans(n_clusters=n_cells, max_iter=8, n_init=1, random_state=0).fit(sample.numpy())
            self.centers = as_tensor(model.cluster_centers_)
            cell = k_nearest(self.centers, index, 1)[0][:, 0]
            order = torch.argsort(cell, stable=True)
            self.cells = list(order.split(torch.bincount(cell, minlength=n_cells).tolist()))

    def nearest(self, query: torch.Tensor, k: int) -> np.ndarray:
        """The rows (n, k) int64 nearest to each of `query` (n, n_features); -1 where there are fewer."""
        if not self.cells:
            return k_nearest(self.index, query, min(k, len(self.index)))[0].numpy()
        return np.concatenate([self._in_cells(part, k) for part in query.split(16_384)])

    def _in_cells(self, query: torch.Tensor, k: int) -> np.ndarray:
        n_seen = min(CELLS_SEEN, len(self.cells))
        seen = k_nearest(self.centers, query, n_seen)[0]
        rows = torch.full((len(query), n_seen, k), -1)
        far = torch.full((len(query), n_seen, k), torch.inf)
        order = torch.argsort(seen.flatten(), stable=True)
        counts = torch.bincount(seen.flatten(), minlength=len(self.cells)).tolist()
        for members, asked in zip(self.cells, order.split(counts), strict=True):
            if not len(members) or not len(asked):
                continue
            which, slot = asked // n_seen, asked % n_seen
            n = min(k, len(members))
            distance = torch.cdist(query[which], self.index[members])
            near = distance.topk(n, dim=1, largest=False)
            rows[which, slot, :n], far[which, slot, :n] = members[near.indices], near.values
        best = far.flatten(1).topk(k, dim=1, largest=False).indices
        return rows.flatten(1).gather(1, best).numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


@dataclass(frozen=True)
class Matches:
    """What each image (n,) is a copy of: the row of the best one or its own, the turn that makes it so, and how alike.

    `share` is the part of the picture that is left unexplained beside the best one; 0 for the best itself.
    """

    best: np.ndarray
    orientation: np.ndarray
    share: np.ndarray


def find_matches(view: View, rank: np.ndarray, content: np.ndarray, *, rotated: bool = False) -> Matches:
    """Which images are copies of which: each is compared with the best of its group itself, so likeness never drifts.

    Parameters
    ----------
    view : callable
        Rows (n,) -> pixels (n, H, W, 3) uint8, each image stretched to one size.
    rank : ndarray (n_images,)
        The lower, the better the copy; all different.
    content : ndarray (n_images,)
        Equal for files that are equal to the byte.
    rotated : bool
        Also find duplicates rotated by 90, 180 or 270 degrees, or mirrored; the search takes about eight times as long.
    """
    n = len(rank)
    best = _first_of_equals(content, rank)
    orientation, share = np.zeros(n, np.int8), np.zeros(n, np.float32)
    leaders = np.flatnonzero(best == np.arange(n))
    if len(leaders) < 2:
        return Matches(best, orientation, share)
    features = Features.of(view, n)
    asked = leaders
    for _ in range(ROUNDS):  # the places of copies that were found go to further ones
        pairs, next_ = propose(features, leaders, asked, rotated=rotated)
        found = compare(view, pairs)
        ok = confirmed(pairs, found, next_)
        if not ok.any():
            break
        pairs, shares = pairs[ok], found.share.numpy()[ok]
        joined = _join(view, features, best, rank, pairs, shares, rotated)
        for row, (to, way, rest) in joined.items():
            best[row], orientation[row], share[row] = to, way, rest
        leaders = np.flatnonzero(best == np.arange(n))
        asked = np.intersect1d(leaders, np.unique(np.concatenate([pairs.first, pairs.second])))
        if len(asked) < 1 or len(leaders) < 2:
            break
    exact = _first_of_equals(content, rank)  # equal files go where the first of them went
    best, orientation, share = best[exact], orientation[exact], share[exact]
    return Matches(best, orientation, share)


def _join(
    view: View, features: Features, best: np.ndarray, rank: np.ndarray, pairs: Pairs, shares: np.ndarray, rotated: bool
) -> dict[int, tuple[int, int, float]]:
    """Where images go (row -> best, turn, share), the better copy of each pair first; followers are compared anew."""
    links: dict[int, list[tuple[int, int, float]]] = {}
    for i in range(len(pairs)):
        a, b, way, rest = int(pairs.first[i]), int(pairs.second[i]), int(pairs.orientation[i]), float(shares[i])
        links.setdefault(b, []).append((a, way, rest))
        links.setdefault(a, []).append((b, BACK[way], rest))
    followers: dict[int, list[int]] = {}
    for row in np.flatnonzero(best != np.arange(len(best))):
        followers.setdefault(int(best[row]), []).append(int(row))
    gone: dict[int, tuple[int, int, float]] = {}
    again: list[tuple[int, int]] = []
    for leader in sorted(links, key=lambda row: rank[row]):
        if leader in gone:
            continue
        for other, way, rest in links[leader]:
            if other in gone or rank[other] < rank[leader]:
                continue
            gone[other] = (leader, way, rest)
            again += [(row, leader) for row in followers.get(other, [])]
    if again:
        rows, leaders = np.array(again).T
        verified = _direct(view, features, rows, leaders, rotated)
        for row, to, way, rest in zip(rows.tolist(), leaders.tolist(), *verified):
            gone[row] = (to, int(way), float(rest)) if rest <= LIKELY else (row, 0, 0.0)
    return gone


def _direct(
    view: View, features: Features, rows: np.ndarray, leaders: np.ndarray, rotated: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The turn and the unexplained share of given pairs (n,), in the way that explains most."""
    ways = []
    for way in range(registration.N_ORIENTATIONS if rotated else 1):
        for window in range(len(WINDOWS)):
            for first, second in ((rows, leaders), (leaders, rows)):
                share = _unexplained(features, first, second, window, way)
                by = np.full(len(rows), window, np.int8), np.full(len(rows), way, np.int8)
                ways.append(Pairs(first, second, *by, share))
    shares = np.stack([way.unexplained for way in ways])
    chosen = shares.argmin(0)
    parts = [ways[way][np.array([i])] for i, way in enumerate(chosen.tolist())]
    pairs = Pairs.joined(parts)
    orientation = np.where(pairs.first == rows, np.array(BACK)[pairs.orientation], pairs.orientation)
    return orientation, compare(view, pairs).share.numpy()


def _unexplained(
    features: Features, first: np.ndarray, second: np.ndarray, window: int, orientation: int
) -> np.ndarray:
    query = registration.oriented_features(_tensor(features.windows[first, window]), orientation)
    whole, tangents = _tensor(features.windows[second, 0]), _tensor(features.tangents[second])
    return registration.unexplained(query, whole, tangents).numpy()


def _first_of_equals(labels: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each item (n,) the best-ranked item with the same label, itself where there is no other."""
    order = np.lexsort((rank, labels))
    starts = np.flatnonzero(np.append(True, labels[order][1:] != labels[order][:-1]))
    result = np.empty(len(labels), np.int64)
    result[order] = np.repeat(order[starts], np.diff(starts, append=len(labels)))
    return result
