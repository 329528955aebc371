"""Exact duplicates: images whose files have equal bytes, and the order that decides which image of a group is kept."""

from __future__ import annotations

from typing import Any

import numpy as np


def content_ids(records: Any) -> np.ndarray:
    """The SHA-256 of each image's file with its frame number (n_images,) of str: equal for exact duplicates."""
    return np.char.add(records["sha256"].astype(str), np.char.mod("#%d", records["frame"]))


def n_pixels(records: Any) -> np.ndarray:
    """The number of pixels of each original (n_images,) int64."""
    return records["width"].astype(np.int64) * records["height"]


def quality_rank(*qualities: np.ndarray) -> np.ndarray:
    """The rank (n_images,) int64 by several qualities, the most important first; 0 is the best, ties go by position."""
    n = len(qualities[0])
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), *(-quality for quality in reversed(qualities))))] = np.arange(n)
    return rank


def best_of_equals(labels: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each item (n,) the index of the best-ranked item with the same label; its own where it is the best."""
    order = np.lexsort((rank, labels))
    starts = np.flatnonzero(np.append(True, labels[order][1:] != labels[order][:-1]))
    result = np.empty(len(labels), np.int64)
    result[order] = np.repeat(order[starts], np.diff(starts, append=len(labels)))
    return result
