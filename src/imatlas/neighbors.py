"""Exact nearest-neighbor search in chunks.

Every function takes tensors on one device and works there. A chunk costs one matrix product,
|x - c|² = |x|² - 2 x·c + |c|², taken after both sides were shifted by the mean of `centers`, so that data far from the
origin lose no digits. Distances of winners are then recomputed as a plain sum of squares: they are exact to the last
bits of float32 and zero for equal rows. Memory besides the inputs and outputs stays below `memory` bytes.

With `missing=True` NaN in the rows is a missing value. Distances are then over the known values only, their squares
scaled up by the number of features over that of known ones, as in scikit-learn's `nan_euclidean_distances`
(Dixon 1979, "Pattern recognition with partly missing data"). The product gets one more column per feature, 1 where the
value is known: |x - c|² over the known values = |x|² - 2 x·c + known·c².
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch

MEMORY = 32 * 2**20
"""Default number of bytes for the buffers of one search: small enough to stay in a processor's cache."""

CACHE = 4 * 2**20
"""Maximum number of bytes of scores and rows in a chunk of the search: what stays in a core's own cache."""

ROUNDING = 1e-6
"""Relative differences up to this are rounding errors of float32."""

_GROUP = 32  # centers are padded to a multiple of this, so that the smallest score is found by groups
_PAD = 64  # rows of a product are padded to a multiple of this, so that no batch size changes a result
_SPARE = 4  # candidates beyond k whose exact distances decide on the k nearest


def all_alike(X: np.ndarray) -> bool:
    """Whether rows (n_samples, n_features) are all equal up to rounding."""
    if not X.size:
        return True
    low, high = X.min(axis=0), X.max(axis=0)
    return bool((high - low <= ROUNDING * np.maximum(np.abs(low), np.abs(high)).max()).all())


def as_tensor(array: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """An array as a float32 tensor on `device`, sharing its memory where it can. The tensor must not be written to."""
    with warnings.catch_warnings():
        # a read-only memory map is fine: nothing here writes to its input
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)


def nearest(
    X: torch.Tensor, centers: torch.Tensor, *, missing: bool = False, memory: int = MEMORY
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest center of every row.

    Parameters
    ----------
    X : Tensor (n_samples, n_features)
        Any real dtype; chunks are converted to the dtype of `centers`.
    centers : Tensor (n_centers, n_features)
        Floating point, on the device of `X`.
    missing : bool
        Whether NaN in `X` is a missing value.
    memory : int
        Limit in bytes for the buffers.

    Returns
    -------
    indices : Tensor (n_samples,) int64
        Of centers equally far up to rounding, any one; -1 for a row without any value.
    squared_distances : Tensor (n_samples,)
        NaN for a row without any value.
    """
    indices = nearest_index(X, centers, missing=missing, memory=memory)
    return indices, paired_distances(X, centers, indices, missing=missing, memory=memory)


def nearest_index(
    X: torch.Tensor, centers: torch.Tensor, *, missing: bool = False, memory: int = MEMORY
) -> torch.Tensor:
    """The indices (n_samples,) of `nearest`, without distances."""
    indices = torch.empty(len(X), dtype=torch.int64, device=X.device)
    for start, stop, scores, _ in _score_chunks(X, centers, missing, memory):
        indices[start:stop] = _smallest(scores)
        if missing:
            indices[start:stop].masked_fill_(X[start:stop].isnan().all(1), -1)
    return indices


def nearest_index_by_projection(
    X: torch.Tensor, centers: torch.Tensor, projections: torch.Tensor, center_projections: torch.Tensor
) -> torch.Tensor:
    """`nearest_index` for rows of many features: exact, at about the cost of a search in few.

    The projection of a row is its coordinates along some orthonormal axes, followed by its distance from their plane.
    Projecting never increases a distance: |x - c|² is the squared distance within the plane plus that of the residuals,
    which is at least the square of the difference of their lengths. So only centers whose projections are nearer than
    the best candidate itself have to be checked.

    Parameters
    ----------
    X : Tensor (n_samples, n_features)
    centers : Tensor (n_centers, n_features)
    projections, center_projections : Tensor (n_samples, n_axes + 1), (n_centers, n_axes + 1)

    Returns
    -------
    indices : Tensor (n_samples,) int64
    """
    indices = torch.empty(len(X), dtype=torch.int64, device=X.device)
    for start, stop, scores, shifted in _score_chunks(projections, center_projections, False, MEMORY):
        rows, best = X[start:stop], _smallest(scores)
        squared = paired_distances(rows, centers, best)
        limit = (squared * (1 + 1e-4) - shifted[:, :-1].square().sum(1)) / 2
        row, center = _below(scores, limit)
        other = center != best[row]
        row, center = row[other], center[other]
        if len(row) > len(rows) * len(centers) // 8:  # the axes hold too little of the variance
            best = nearest_index(rows, centers)
        elif len(row):
            found = _pair_distances(rows, centers, row, center)
            nearest_found = squared.scatter_reduce(0, row, found, "amin")
            better = (found == nearest_found[row]) & (found < squared[row])
            best[row[better]] = center[better]
        indices[start:stop] = best
    return indices


def _below(scores: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns (n_found,) of the scores below the limit (n_rows,) of their row, checked by groups first."""
    groups = scores.view(len(scores), -1, _GROUP)
    row, group = (groups.amin(dim=2) < limit[:, None]).nonzero().unbind(1)
    chosen = groups.view(-1, _GROUP).index_select(0, row * groups.shape[1] + group)
    at, place = (chosen < limit[row][:, None]).nonzero().unbind(1)
    return row[at], group[at] * _GROUP + place


def _pair_distances(X: torch.Tensor, centers: torch.Tensor, rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Squared distance of `X[rows[i]]` to `centers[others[i]]` (n_pairs,), in chunks that stay in the cache."""
    squared = torch.empty(len(rows), dtype=centers.dtype, device=X.device)
    size = max(1, CACHE // (8 * X.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        difference = centers.index_select(0, others[part]).sub_(X.index_select(0, rows[part]))
        squared[part] = torch.linalg.vector_norm(difference, dim=1).square_()
    return squared


def nearest_two(X: torch.Tensor, centers: torch.Tensor, *, missing: bool = False, memory: int = MEMORY) -> torch.Tensor:
    """The nearest and second-nearest center of every row (n_samples, 2) int64, by the expanded square."""
    two = torch.empty((len(X), 2), dtype=torch.int64, device=X.device)
    for start, stop, scores, _ in _score_chunks(X, centers, missing, memory):
        two[start:stop, 0] = first = _smallest(scores)
        two[start:stop, 1] = _smallest(scores.scatter_(1, first[:, None], torch.inf))
    return two


def paired_distances(
    X: torch.Tensor, centers: torch.Tensor, indices: torch.Tensor, *, missing: bool = False, memory: int = MEMORY
) -> torch.Tensor:
    """Squared distance of row i of `X` to `centers[indices[i]]` as a plain sum of squares. Returns (n_samples,)."""
    squared = torch.empty(len(X), dtype=centers.dtype, device=X.device)
    rows = max(1, min(len(X), memory // (2 * centers.element_size() * max(1, X.shape[1]))))
    for start in range(0, len(X), rows):
        stop = min(start + rows, len(X))
        difference = centers[indices[start:stop]]
        torch.sub(difference, X[start:stop], out=difference)
        if missing:
            n_known = difference.isnan().logical_not_().sum(1)
            torch.sum(difference.square_().nan_to_num_(0.0), dim=1, out=squared[start:stop])
            squared[start:stop] *= X.shape[1] / n_known  # 0 · inf is NaN for a row without any value
        else:
            torch.sum(difference.square_(), dim=1, out=squared[start:stop])
    return squared


def squared_to(point: np.ndarray, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distance (n,) of some rows (n,) of X to a point (n_features,), without a copy of all of these rows."""
    out = np.empty(len(rows), X.dtype)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        out[part] = ((X[rows[part]] - point) ** 2).sum(axis=1)
    return out


def k_nearest(
    X: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    *,
    exclude_self: torch.Tensor | None = None,
    memory: int = MEMORY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the `k` nearest rows of `X` for every query, nearest first.

    Parameters
    ----------
    X : Tensor (n_samples, n_features)
        Floating point.
    queries : Tensor (n_queries, n_features)
    k : int
        At most n_samples, or n_samples - 1 with `exclude_self`.
    exclude_self : Tensor (n_queries,) int64, optional
        The row of `X` that each query is, which is excluded; -1 for a query that is not in `X`.
    memory : int
        Limit in bytes for the buffers.

    Returns
    -------
    indices : Tensor (n_queries, k) int64
    squared_distances : Tensor (n_queries, k)
        Ascending; the lowest index comes first among equals.

    Raises
    ------
    ValueError
        If there are fewer than `k` rows to find.
    """
    available = len(X) - (exclude_self is not None)
    if not 1 <= k <= available:
        raise ValueError(f"'k' must be between 1 and the {available} rows there are to find. Got {k}.")
    wanted = min(k + _SPARE, len(X))
    block = max(wanted, min(len(X), 16384))
    indices = torch.empty((len(queries), k), dtype=torch.int64, device=X.device)
    squared = torch.empty((len(queries), k), dtype=X.dtype, device=X.device)
    rows = max(1, memory // (2 * X.element_size() * max(block, wanted * X.shape[1])))
    for start in range(0, len(queries), rows):
        stop = min(start + rows, len(queries))
        own = None if exclude_self is None else exclude_self[start:stop]
        found = _candidates(X, queries[start:stop], wanted, block, own, memory // 2)
        indices[start:stop], squared[start:stop] = _settle(X, queries[start:stop], found, own, k)
    return indices, squared


def all_distances(
    X: torch.Tensor, centers: torch.Tensor, *, missing: bool = False, memory: int = MEMORY
) -> torch.Tensor:
    """Euclidean distance of every row to every center. Returns (n_samples, n_centers), in the dtype of `centers`.

    From the expanded square: distances far below those between the centers carry its rounding error, about 1e-3.
    """
    n_features = X.shape[1]
    distances = torch.empty((len(X), len(centers)), dtype=centers.dtype, device=X.device)
    for start, stop, scores, shifted in _score_chunks(X, centers, missing, memory):
        squared = (
            scores[:, : len(centers)].mul_(2).add_(shifted[:, :n_features].square().sum(1, keepdim=True)).clamp_(min=0)
        )
        if missing:
            squared *= n_features / shifted[:, n_features:].sum(1, keepdim=True)
        torch.sqrt(squared, out=distances[start:stop])
    return distances


def group_sums(
    X: torch.Tensor,
    groups: torch.Tensor,
    n_groups: int,
    weights: torch.Tensor | None = None,
    *,
    missing: bool = False,
    memory: int = MEMORY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the rows of each group, in the same order every time.

    Parameters
    ----------
    X : Tensor (n_samples, n_features)
    groups : Tensor (n_samples,) int64
    n_groups : int
    weights : Tensor (n_samples,), optional

    Returns
    -------
    sums : Tensor (n_groups, n_features)
    totals : Tensor (n_groups,), with `missing` (n_groups, n_features)
        Total weight of each group, or of its known values.
    """
    if missing:
        known = X.isnan().logical_not_()
        sums, _ = group_sums(X.nan_to_num(0.0), groups, n_groups, weights, memory=memory)
        totals, _ = group_sums(known.to(X.dtype), groups, n_groups, weights, memory=memory)
        return sums, totals
    dtype = X.dtype if X.dtype.is_floating_point else torch.float32
    counts = torch.ones(len(X), dtype=dtype, device=X.device) if weights is None else weights.to(dtype)
    sums = torch.zeros((n_groups, X.shape[1]), dtype=dtype, device=X.device)
    totals = torch.zeros(n_groups, dtype=dtype, device=X.device)
    width = X.shape[1] + (0 if X.device.type == "cpu" else n_groups)
    rows = max(1, min(len(X), memory // (sums.element_size() * max(1, width))))
    for start in range(0, len(X), rows):
        stop = min(start + rows, len(X))
        part, weight = groups[start:stop], counts[start:stop]
        if X.device.type == "cpu":
            values = X[start:stop].to(dtype)
            sums.index_add_(0, part, values if weights is None else values * weight[:, None])
            totals.index_add_(0, part, weight)
        else:  # index_add_ on a GPU adds in any order; a product with the membership matrix does not
            member = torch.zeros((stop - start, n_groups), dtype=dtype, device=X.device)
            member.scatter_(1, part[:, None], weight[:, None])
            sums.addmm_(member.T, X[start:stop].to(dtype))
            totals += member.sum(0)
    return sums, totals


def _score_chunks(
    X: torch.Tensor, centers: torch.Tensor, missing: bool, memory: int
) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """Yield (start, stop, scores, shifted rows) chunk by chunk, in buffers that the next chunk overwrites.

    `scores` (rows, n_centers + padding) is (|x - c|² - |x|²) / 2 after the shift, which orders the centers of a row.
    |c|² / 2 is in one more column of the product, or with `missing` in one per feature. Padding scores, up to a
    multiple of `_GROUP`, exceed all others.
    """
    n_real, n_features = centers.shape
    n_centers = -(-n_real // _GROUP) * _GROUP
    shift = centers.mean(0)
    width = n_features + (n_features if missing else 1)
    table = torch.zeros((width, n_centers), dtype=centers.dtype, device=X.device)
    table[:n_features, :n_real] = shift[:, None] - centers.T
    halves = table[:n_features, :n_real].square() / 2
    table[n_features:, :n_real] = halves if missing else halves.sum(0)
    table[n_features:, n_real:] = 1e30
    rows = min(memory, CACHE) // (centers.element_size() * (n_centers + width))
    rows = max(_PAD, min(rows, len(X) + _PAD - 1) // _PAD * _PAD)
    shifted = torch.zeros((rows, width), dtype=centers.dtype, device=X.device)
    shifted[:, n_features:] = 1
    scores = torch.empty((rows, n_centers), dtype=centers.dtype, device=X.device)
    for start in range(0, len(X), rows):
        stop = min(start + rows, len(X))
        used = stop - start
        padded = -(-used // _PAD) * _PAD
        values = shifted[:used, :n_features]
        torch.sub(X[start:stop], shift, out=values)
        if missing:
            unknown = values.isnan()
            shifted[:used, n_features:] = ~unknown
            values.masked_fill_(unknown, 0.0)
        torch.mm(shifted[:padded], table, out=scores[:padded])
        yield start, stop, scores[:used], shifted[:used]


def _smallest(scores: torch.Tensor) -> torch.Tensor:
    """The index of the smallest score of each row (n_rows,).

    On a CPU torch.argmin is slower than the product itself. Here the minimum of each group of 32 is found first, then
    the group, then the position within it.
    """
    n_rows, n_groups = len(scores), scores.shape[1] // _GROUP
    if n_groups < 3 or scores.device.type != "cpu":
        return scores.argmin(dim=1)
    groups = scores.view(n_rows, n_groups, _GROUP)
    group = groups.amin(dim=2).min(dim=1).indices
    chosen = groups.view(-1, _GROUP).index_select(0, group + torch.arange(n_rows) * n_groups)
    return chosen.min(dim=1).indices + group * _GROUP


def _candidates(
    X: torch.Tensor, queries: torch.Tensor, wanted: int, block: int, own: torch.Tensor | None, memory: int
) -> torch.Tensor:
    """The `wanted` most promising rows of `X` for each query, by the expanded square: (n_queries, wanted)."""
    best: torch.Tensor | None = None
    index = torch.empty(0)
    shift = X.mean(0)  # one shift for all blocks, so that their scores can be compared
    for first in range(0, len(X), block):
        part = X[first : first + block] - shift
        half = part.square().sum(1) / 2
        scores = torch.addmm(half, queries - shift, part.T, alpha=-1)
        if own is not None:
            row = torch.nonzero((own >= first) & (own < first + len(part)))[:, 0]
            scores[row, own[row] - first] = torch.inf
        found = torch.topk(scores, min(wanted, len(part)), dim=1, largest=False)
        if best is None:
            best, index = found.values, found.indices
            continue
        both = torch.cat([best, found.values], dim=1)
        chosen = torch.topk(both, wanted, dim=1, largest=False)
        best = chosen.values
        index = torch.cat([index, found.indices + first], dim=1).gather(1, chosen.indices)
    return index


def _settle(
    X: torch.Tensor, queries: torch.Tensor, found: torch.Tensor, own: torch.Tensor | None, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` nearest among the candidates by their exact distances, ties broken by the lower index."""
    found = found.sort(dim=1).values
    squared = (X[found] - queries[:, None]).square_().sum(2)
    if own is not None:
        squared.masked_fill_(found == own[:, None], torch.inf)
    order = torch.sort(squared, dim=1, stable=True)
    chosen = order.indices[:, :k]
    return found.gather(1, chosen), order.values[:, :k]
