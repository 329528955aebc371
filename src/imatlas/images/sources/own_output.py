"""Output folders of imatlas: atlases, models, pixel caches and trashes are never a source of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

NOT_A_SOURCE = "{}, whose files are not input images"


def own_folder(folder: str | Path) -> str:
    """The kind of an output folder that is never a source: an atlas, a model, a cache, a trash; else ""."""
    from imatlas.system.inventory import is_atlas

    if is_atlas(folder):
        return "an atlas"
    return _kind_of(os.path.abspath(folder), {name for name in _MARKS if os.path.lexists(os.path.join(folder, name))})


def _kind_of(folder: str, names: set[str]) -> str:
    """The kind of an output folder by the names of its files; else ""."""
    if "atlas.json" in names:
        return "an atlas"
    if "undo.json" in names and os.path.dirname(folder).endswith("-trash"):
        return "a trash"
    return next((what for what, all_of in _FILES.items() if names.issuperset(all_of)), "")


def images_inside(folder: Path) -> Path:
    """The folder of the images themselves, if a folder is one of restored images; else the folder."""
    inside = folder / "images"
    return inside if (folder / "restored.json").is_file() and inside.is_dir() else folder


def own_export(folder: str | Path) -> str:
    """The kind of an export, of segments or a sample, which may be a source if it is given itself; else ""."""
    try:
        names = os.listdir(folder)
        if "clusters.csv" in names and any(_CLUSTER.fullmatch(name) for name in names):
            with open(os.path.join(folder, "clusters.csv"), "rb") as file:
                return "an export of clusters" if file.read(18) == b"key,cluster,file\r\n" else ""
    except OSError:
        return ""
    if "segments.json" in names and "labels" in names:
        return "a folder of segments"
    if "restored.json" in names and "images" in names:
        return "a folder of restored images"
    if "00000.png" in names and all(_SAMPLE.fullmatch(name) for name in names):
        from imatlas.system.inventory import is_as_written

        return "a folder of generated images" if is_as_written(Path(folder, "00000.png")) else ""
    return ""


_CLUSTER = re.compile(r"cluster-(-?[0-9]+)_[0-9]+-images")
_SAMPLE = re.compile(r"[0-9]{5,}\.png")
_FILES = {
    "a model": ("model.json", "weights.safetensors"),
    "a pixel cache": ("cache.json", "pixels.npy", "records.parquet"),
}
_MARKS = {"atlas.json", "undo.json"}.union(*_FILES.values())


def own_folders(keys: Iterable[str]) -> dict[str, str]:
    """The output folders in an archive and their kinds, from the keys of its members."""
    named: dict[str, set[str]] = {}
    for key in keys:
        folder, _, name = key.rpartition("/")
        if name in _MARKS and folder:
            named.setdefault(folder, set()).add(name)
    found = {folder: _kind_of(folder, names) for folder, names in named.items()}
    return {folder: what for folder, what in found.items() if what}


def own_around(folder: str, root: str, known: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """The output folder that a folder is or lies in, up to `root`, and its kind; ("", "") if there is none."""
    if folder not in known:
        above = os.path.dirname(folder)
        inside = len(folder) > len(root) and above != folder
        what = own_folder(folder or ".") or (own_export(folder) if inside else "")
        known[folder] = (folder, what) if what else own_around(above, root, known) if inside else ("", "")
    return known[folder]
