"""Export of images to one folder per cluster."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from imatlas.arguments import check_path, counted, strict_yes
from imatlas.errors import ArtifactError, DecodeError, ImatlasError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import copy_name, file_name_of, file_of, key_of
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import (
    is_link,
    open_new,
    output_path,
    relative,
    within,
    write_folder,
)
from imatlas.system.csv_files import csv_bytes, read_csv, write_csv
from imatlas.system.inventory import entry_of

LISTED = "clusters.csv"
"""The CSV file in an exported folder that lists the file of each image."""

MOST_NAME_BYTES = 255
"""Longest file name that file systems allow."""

MOST_LETTERS = 40
"""Of the name of a cluster in that of its folder."""

COLUMNS = ("key", "cluster", "file")

PLANNED = re.compile(r"cluster-(-?[0-9]+)(?:_[^/]*)?_[0-9]+-images/([^/]+)")
"""File names in an exported folder."""


@strict_yes
def write_folders(
    keys: Sequence[str],
    labels: np.ndarray,
    path_of: Callable[[str], Path | None],
    read: Callable[[str], Any],
    output: str | Path,
    *,
    copy: bool = False,
    overwrite: bool = False,
    names: Mapping[int, str] | None = None,
) -> Result:
    """Export images to one folder per cluster, as links to their originals or as copies.

    Parameters
    ----------
    keys : sequence of str
    labels : ndarray (n_images,) int
        The cluster of each.
    path_of : function of a key -> Path or None
        The original file.
    read : function of a key -> bytes
        The content of an original, also from an archive; raises `DecodeError` or `SourceError`.
    output : path
        The folder; `clusters.csv` in it lists the file of each image.
    copy : bool
        Copy instead of linking.
    overwrite : bool
        Replace an earlier export, unless it holds other files, or a copy that may be the only one.
    names : mapping {cluster: name}, optional
        Names that become part of those of the folders.

    Returns
    -------
    Result
        What was written, and which images are left out because their originals are missing.

    Raises
    ------
    InputError
        If no original can be used.
    ArtifactError
        If `output` already exists.
    """
    output = output_path(check_path(output, "output", "export"))
    planned = planned_files(keys, labels, names)
    lost: list[tuple[str, str]] = []

    def outside(key: str) -> Path | None:
        path = path_of(key)
        if path is not None and _lies_in(path, output):  # the link would be dangling once that is replaced
            raise UnsafePathError(f"its original lies in '{output}' itself (use --copy)")
        return path

    def write(aside: Path) -> None:
        written = []
        for key, label, name in zip(keys, np.asarray(labels).tolist(), planned, strict=True):
            reason = _placed(aside, name, key, outside, read, copy)
            if reason:
                lost.append((key, reason))
            else:
                written.append((key, label, name))
        if not written:
            raise InputError(f"No original can be used ({lost[0][0]}: {lost[0][1]}); nothing was written.")
        write_csv(aside / LISTED, COLUMNS, written)

    write_folder(output, write, replaces=_written_before(output, path_of, read) if overwrite else None)
    n_folders = len({PurePosixPath(name).parent for name in planned})
    done = len(planned) - len(lost)
    sentences = [f"{counted(done, 'image')} in {counted(n_folders, 'folder')}, as {'copies' if copy else 'links'}."]
    if lost:
        sentences.append(f"{counted(len(lost), 'image')} left out, such as {lost[0][0]}: {lost[0][1]}.")
    return Result(
        name="export",
        title="Cluster folders",
        sentences=sentences,
        panels=[FileList(files=[(str(output / LISTED), "the file of each image")])],
        data={"files": [str(output)], "left_out": [list(pair) for pair in lost]},
    )


def planned_files(keys: Sequence[str], labels: np.ndarray, names: Mapping[int, str] | None = None) -> list[str]:
    """A file for each image, "cluster-003_12-images/name.jpg"; a repeated name becomes "name (2).jpg".

    The name of a cluster stands after its number, "cluster-003_red-cars_12-images", without what is no letter or digit.
    Names that differ only in case count as equal, as on some file systems.
    """
    numbers = np.asarray(labels).tolist()
    sizes = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))
    digits = max(3, len(str(max(sizes, default=0))))
    taken: set[str] = set()
    planned = []
    for key, label in zip(keys, numbers, strict=True):
        called = re.sub(r"[\W_]+", "-", (names or {}).get(label, ""))[:MOST_LETTERS].strip("-")
        folder = f"cluster-{label:0{digits}d}{'_' + called if called else ''}_{sizes[label]}-images"
        name = PurePosixPath(file_name_of(copy_name(key))).name
        number, file = 1, f"{folder}/{name}"
        while file.casefold() in taken:
            number += 1
            file = f"{folder}/{_numbered(name, number)}"
        taken.add(file.casefold())
        planned.append(key_of(file))
    return planned


def _numbered(name: str, number: int) -> str:
    """ "name.jpg" as "name (2).jpg", shortened to the longest name allowed."""
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, dot + ending) if dot else (name, "")
    while stem and len(os.fsencode(f"{stem} ({number}){ending}")) > MOST_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem} ({number}){ending}"


def _placed(
    folder: Path, name: str, key: str, path_of: Callable[[str], Path | None], read: Callable[[str], Any], copy: bool
) -> str:
    """Link or copy one original to a name in a folder; return why it cannot be, else ""."""
    try:
        relative(file_name_of(key))  # a key must stay within the source
        target = file_of(folder, name)
        target.parent.mkdir(exist_ok=True)
        if copy:
            content = read(key)
            if not isinstance(content, bytes):
                return "it was pixels in an array, not a file"
            with open_new(target) as file:
                file.write(content)
            return ""
        path = path_of(key)
        if path is None:
            return "its original is not a file here (use --copy for those in an archive or a video)"
        target.symlink_to(path.resolve())
    except (DecodeError, SourceError, UnsafePathError, OSError) as error:
        return str(error).rstrip(".")
    return ""


def _written_before(folder: Path, path_of: Callable[[str], Path | None], read: Callable[[str], Any]) -> set[str]:
    """The names of the files of an earlier export in a folder: links, and copies whose originals still exist.

    Raises
    ------
    ArtifactError
        If their list was changed, or one of them is not from an export or may be the only copy.
    """
    listed = folder / LISTED
    if is_link(folder) or not os.path.lexists(listed):
        return set()
    rows = _rows_as_written(listed)
    if rows is None:
        raise ArtifactError(
            f"'{folder}' holds a '{LISTED}' that imatlas did not write or that was edited, so it is not overwritten; "
            "move it away or choose another name."
        )
    found = {name: within(folder, name, link=True) for name in rows}
    replaced = {(s.st_dev, s.st_ino) for s in (os.lstat(path) for path in found.values() if os.path.lexists(path))}
    for name, path in found.items():
        key = rows[name]
        if is_link(path):
            if not os.path.isabs(os.readlink(path)):  # exports write absolute links
                raise ArtifactError(f"'{path}' is a link that imatlas did not write; move it away.")
        elif path.is_file() and not _is_spare(path, key, folder, replaced, path_of, read):
            raise ArtifactError(
                f"'{path}' differs from its original '{key}', or is the original itself, so it is not overwritten; "
                "move it away or choose another name."
            )
    return {LISTED, *found}


def _rows_as_written(listed: Path) -> dict[str, str] | None:
    """The list of an export, file -> key; None if it was edited or is not from an export."""
    try:
        rows = [
            tuple(row[name] for name in COLUMNS) for row in read_csv(listed, COLUMNS, what="a list of exported files")
        ]
        if is_link(listed) or not rows or listed.read_bytes() != csv_bytes(COLUMNS, rows):
            return None
    except (ImatlasError, OSError):
        return None
    found = {file_name_of(file): key for key, _, file in rows}
    for key, cluster, file in rows:
        match = PLANNED.fullmatch(file_name_of(file))
        if match is None or match[1].lstrip("-0") != cluster.lstrip("-0") or not _is_planned(match[2], key):
            return None
    return found if len(found) == len(rows) else None


def _is_planned(name: str, key: str) -> bool:
    """Whether `planned_files` gives this name: that of the original, or with a number."""
    own = PurePosixPath(file_name_of(key)).name
    number = re.search(r" \(([0-9]{1,9})\)(?:\.[^.]*)?$", name)
    return name == own or (number is not None and name == _numbered(own, int(number[1])))


def _is_spare(
    path: Path,
    key: str,
    folder: Path,
    replaced: set[tuple[int, int]],
    path_of: Callable[[str], Path | None],
    read: Callable[[str], Any],
) -> bool:
    """Whether a copy is expendable: its original has the same content and is not in `replaced`."""
    try:
        original = path_of(key)
        if original is not None:
            status = os.stat(original)
            if (status.st_dev, status.st_ino) in replaced or _lies_in(original, folder):
                return False
        content = read(key)
        return isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == entry_of(path).sha256
    except (ImatlasError, OSError):
        return False


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, or the target of a link, lies below a folder."""
    if not folder.is_dir():
        return False
    return any(os.path.samefile(above, folder) for above in Path(os.path.realpath(path)).parents)
