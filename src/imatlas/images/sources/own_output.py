"""Folders that imatlas wrote itself: atlases, models, pixel caches and trashes are never a source of images."""

from __future__ import annotations

import os
from collections.abc import Iterable

NOT_A_SOURCE = "{}, whose files are no images to learn from"


def own_folder(folder: str) -> str:
    """What of ours a folder is, whose files are no images to learn from: an atlas, a model, a cache, a trash; or ""."""
    from imatlas.system.inventory import is_atlas

    if is_atlas(folder):
        return "an atlas"
    return _ours(os.path.abspath(folder), {name for name in _MARKS if os.path.lexists(os.path.join(folder, name))})


def _ours(folder: str, names: set[str]) -> str:
    """What of ours a folder is by the marks among the names in it; or ""."""
    if "atlas.json" in names:
        return "an atlas"
    if "undo.json" in names and os.path.dirname(folder).endswith("-trash"):
        return "a trash"
    return next((what for what, all_of in _OURS.items() if names.issuperset(all_of)), "")


_OURS = {
    "a model": ("model.json", "weights.safetensors"),
    "a pixel cache": ("cache.json", "pixels.npy", "records.parquet"),
}
_MARKS = {"atlas.json", "undo.json"}.union(*_OURS.values())


def own_folders(keys: Iterable[str]) -> dict[str, str]:
    """The folders of ours in an archive, and what they are, by the keys of its members."""
    named: dict[str, set[str]] = {}
    for key in keys:
        folder, _, name = key.rpartition("/")
        if name in _MARKS and folder:
            named.setdefault(folder, set()).add(name)
    found = {folder: _ours(folder, names) for folder, names in named.items()}
    return {folder: what for folder, what in found.items() if what}


def lies_in_own(folder: str, root: str, known: dict[str, bool]) -> bool:
    """Whether a folder, or one above it up to `root`, is one of ours."""
    if folder not in known:
        above = os.path.dirname(folder)
        inside = len(folder) > len(root) and above != folder
        known[folder] = bool(own_folder(folder or ".")) or (inside and lies_in_own(above, root, known))
    return known[folder]
