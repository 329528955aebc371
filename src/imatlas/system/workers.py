"""What does work on other processors: the interface that images and models know, whatever stands behind it.

`imatlas.scale.ray_cluster` has the workers of a Ray cluster. Without any, the same functions run in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable


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
