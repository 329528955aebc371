"""What does work on other processors: the interface that images and models know, whatever stands behind it.

`imatlas.scale.ray_cluster` has the workers of a Ray cluster. Without any, the same functions run in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

PART = 16_384
"""Rows that a worker is sent at a time: a multiple of the rows that models compute at a time, so that the results are
the same without workers."""

PARTS_HERE = 4
"""So many parts are computed at a time in this process, which bounds the memory."""


class Shards(Protocol):
    """Parts of some data that lie where the workers are."""

    @property
    def n_parts(self) -> int:
        """Number of parts."""

    def map(self, work: Callable[..., Any], *common: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """`work(part, *common)` of each part, or with its own value as well, `work(part, value, *common)`, in order."""


@runtime_checkable
class Workers(Protocol):
    """Processes, here or on other machines, that compute functions of things that can be pickled."""

    @property
    def n_workers(self) -> int:
        """How many tasks run at a time."""

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        """`work(task)` of each task, in order, computed ahead; a task whose worker died is computed again."""

    def place(self, parts: Sequence[Any]) -> Shards:
        """Send parts to the workers, where they stay until the result is deleted."""


def by_rows(work: Callable[[np.ndarray], Any], rows: np.ndarray, workers: Workers | None) -> list[Any]:
    """`work` of one part of the rows (n, ...), n > 0, after the other, in this process or on the workers."""
    if workers is None:
        return [work(part) for part in Parts(rows.__getitem__, len(rows), PARTS_HERE * PART)]
    return list(workers.map(work, Parts(rows.__getitem__, len(rows), PART)))


class Parts(Sequence[Any]):
    """Parts of some data, each read when it is asked for, as tasks for workers.

    Parameters
    ----------
    read : function of slice
    n : int
        Length of the data.
    size : int
        Length of a part.
    """

    def __init__(self, read: Callable[[slice], Any], n: int, size: int) -> None:
        self._read, self._n, self._size = read, n, size

    def __len__(self) -> int:
        return -(-self._n // self._size)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._read(slice(number * self._size, min((number + 1) * self._size, self._n)))
