"""Values as short text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def plain(value: Any) -> str:
    """A number, flag, text or list as readable text: 60000 -> "60,000", 0.03125 -> "0.0312", None -> "–"."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{words(str(key))} {plain(item)}" for key, item in value.items())
    return str(value)


def words(name: str) -> str:
    """A machine name as words: "topographic_error" -> "topographic error"."""
    return name.replace("_", " ")


def is_number(value: Any) -> bool:
    """Whether a table aligns the value to the right."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def shortened(text: str, length: int = 44) -> str:
    """A long name with an ellipsis in the middle, between words where there are some: "46%" never becomes "6%"."""
    if len(text) <= length:
        return text
    before, after = text[: length // 2 - 4], text[-length // 2 - 3 :]
    return f"{before.rpartition(' ')[0] or before}…{after.partition(' ')[2] or after}"


def images(count: int) -> str:
    """ "1 image", "2,000 images"."""
    return f"{count:,} image" + ("" if count == 1 else "s")


def cluster_name(cluster: int, name: str = "") -> str:
    """A cluster by its number, and the name that it was given; negative numbers are images without one."""
    return (f"cluster {cluster} ({name})" if name else f"cluster {cluster}") if cluster >= 0 else "no cluster"


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
