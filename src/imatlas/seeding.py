"""Randomness without global state: every generator is seeded by a hash of its purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from a seed and a purpose, such as `seed_of(0, "step", 12)`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `seed_of(*parts)`."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*parts))


def rng(*parts: int | str) -> np.random.Generator:
    """A NumPy generator, seeded by `seed_of(*parts)`."""
    return np.random.default_rng(seed_of(*parts))


def noise(seed: int, n: int, size: int) -> np.ndarray:
    """Standard normal samples (n, size) float32; row i depends on (seed, i) only, whatever n is."""
    rows = [rng(seed, "sample", i).standard_normal(size, dtype=np.float32) for i in range(n)]
    return np.stack(rows) if rows else np.zeros((0, size), np.float32)


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Context in which torch layers are initialized from `seed`; torch's global generator is restored."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which also reseeds accelerators; fork_rng(devices=[]) does not restore these.
        torch.default_generator.manual_seed(seed_of(seed, "init"))
        yield
