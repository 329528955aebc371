"""The memory of this process."""

from __future__ import annotations

import sys


def resident_mb() -> float:
    """The most memory in MB that this process has taken so far; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
