"""What a person decided about duplicates: which images are none of each other, and which are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Reviewed:
    """Decisions about the images of a set, by row.

    Attributes
    ----------
    different : mapping {row: sets of rows}
        The images that each is no duplicate of; symmetric. A set may hold the row itself, which says nothing.
    chosen : mapping {row: number}
        Images to keep rather than their duplicates; of several in a group, that of the highest number.
    """

    different: Mapping[int, Sequence[frozenset[int]]] = field(default_factory=dict)
    chosen: Mapping[int, int] = field(default_factory=dict)

    def are_different(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the images of each pair are no duplicates, (n_pairs,) bool."""
        found = np.isin(first, list(self.different))
        pairs = zip(first[found].tolist(), second[found].tolist(), strict=True)
        found[found] = [self.differ(one, other) for one, other in pairs]
        return found

    def choice(self, n: int) -> np.ndarray:
        """The number by which each image was chosen (n,) int64; 0 for none."""
        numbers = np.zeros(n, np.int64)
        numbers[list(self.chosen)] = list(self.chosen.values())
        return numbers

    def apart(self, labels: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """The labels (n,) of equal files, with one of its own for what differs from better ones of its label."""
        if not self.different:
            return labels
        changed = labels.astype(object)
        for label in np.unique(labels[list(self.different)]):
            rows = np.flatnonzero(labels == label)
            for number, part in enumerate(self._parts(rows[np.argsort(rank[rows])].tolist())):
                changed[part] = f"{label} {number}"
        return changed.astype(str)

    def group(self, rows: Sequence[int]) -> list[int]:
        """What is left of a group that was found (its best first): the one to keep, then its duplicates.

        Empty if none is left. What was found to be like an image that is none of the group now must be searched anew.
        """
        best = max(rows, key=lambda row: self.chosen.get(row, 0))
        kept = [best, *(row for row in rows if row != best and not self.differ(best, row))]
        return kept if len(kept) > 1 else []

    def differ(self, one: int, other: int) -> bool:
        """Whether two images are no duplicates."""
        return one != other and any(other in rows for rows in self.different.get(one, ()))

    def _parts(self, rows: list[int]) -> list[list[int]]:
        """Rows in parts without different ones; each goes to the first part that it fits in."""
        parts: list[list[int]] = []
        for row in rows:
            for part in parts:
                if row not in self.different or not any(self.differ(row, other) for other in part):
                    part.append(row)
                    break
            else:
                parts.append([row])
        return parts


UNREVIEWED = Reviewed()
"""Nothing was decided."""
