"""Export to other programs: an atlas as Parquet, NumPy or folders of its images; the networks of a model as ONNX."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from imatlas.arguments import check_path, strict_yes
from imatlas.errors import ArtifactError, DecodeError, ImatlasError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import file_name_of, file_of, key_of
from imatlas.models.onnx import TOLERANCE, export_onnx
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import (
    is_link,
    open_new,
    output_path,
    relative,
    replacing,
    within,
    write_file,
    write_folder,
)
from imatlas.system.csv_files import csv_bytes, read_csv, write_csv
from imatlas.system.inventory import entry_of, is_as_written, with_own_hash
from imatlas.system.terminal import file_word, shell

ROWS = 1024
"""Rows of a Parquet file that are written at a time, with their pictures."""

LISTED = "clusters.csv"
"""The file within exported folders that says which image became which file."""

MOST_NAME_BYTES = 255
"""The longest name of a file that file systems take."""

COLUMNS = ("key", "cluster", "file")

PLANNED = re.compile(r"cluster-(-?[0-9]+)_[0-9]+-images/([^/]+)")
"""Names that exported files have in their folder."""

NEIGHBORS = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@strict_yes
def write_embedding_atlas(
    rows: pa.Table,
    neighbors: tuple[np.ndarray, np.ndarray],
    pictures: Callable[[np.ndarray], list[bytes]],
    output: str | Path,
    *,
    overwrite: bool = False,
) -> Result:
    """Write a Parquet file that Apple's embedding-atlas opens: a dot an image, its picture, and its neighbors.

    Parameters
    ----------
    rows : Table
        One row an image: `key`, `x`, `y`, and whatever else is to be seen of it.
    neighbors : (indices, distances), each ndarray (n_images, k)
        Rows of the images nearest to each, and how far they are.
    pictures : function of ndarray (n,) -> list of bytes
        The small pictures of some rows, as the bytes of image files.
    output : path
        Ends in .parquet.
    overwrite : bool

    Returns
    -------
    Result
        With the command that opens the file.
    """
    output = _new_file(output, (".parquet",), overwrite)
    indices, distances = neighbors
    schema = pa.schema([*rows.schema, ("neighbors", NEIGHBORS), ("image", PICTURE)])
    with (
        replacing(output) as aside,
        aside.open("wb") as file,  # by name pyarrow opens UTF-8 alone
        parquet.ParquetWriter(file, schema) as writer,
    ):
        for start in range(0, len(rows), ROWS):
            part = rows.slice(start, ROWS).combine_chunks()
            some = slice(start, start + len(part))
            near = [
                {"ids": ids, "distances": far}
                for ids, far in zip(indices[some].tolist(), distances[some].tolist(), strict=True)
            ]
            shown = [
                {"bytes": content, "path": key}
                for content, key in zip(
                    pictures(np.arange(some.start, some.stop)), part["key"].to_pylist(), strict=True
                )
            ]
            columns = [*part.columns, pa.array(near, NEIGHBORS), pa.array(shown, PICTURE)]
            writer.write_table(pa.table(columns, schema=schema))
    opened = shell(
        *("embedding-atlas", file_word(output), "--x", "x", "--y", "y", "--text", "key"),
        *("--image", "image", "--neighbors", "neighbors"),
    )
    return Result(
        name="export",
        title="For embedding-atlas",
        sentences=[f"{len(rows):,} images with their pictures and {indices.shape[1]} neighbors each.", opened],
        panels=[FileList(files=[(str(output), _size(output))])],
        data={"files": [str(output)], "command": opened},
    )


@strict_yes
def write_numpy(embedding: np.ndarray, keys: Sequence[str], output: str | Path, *, overwrite: bool = False) -> Result:
    """Write an embedding and the keys of its rows as NumPy files, neither of which needs pickle.

    Parameters
    ----------
    embedding : ndarray (n_images, n_features) float32
    keys : sequence of str
    output : path
        An .npz file holds both, as `embedding` and `keys`; of an .npy file the keys go to a second one beside it.
    overwrite : bool
    """
    output = _new_file(output, (".npz", ".npy"), overwrite)
    names = np.asarray(keys, dtype=np.str_)
    if output.suffix.lower() == ".npz":
        files = [output]
        with replacing(output) as aside, aside.open("wb") as file:
            np.savez(file, embedding=embedding, keys=names)
    else:
        files = [output, _new_file(output.with_suffix(".keys.npy"), (".npy",), overwrite)]
        if os.path.lexists(files[1]) and not is_as_written(files[1]):  # nobody has named it
            raise ArtifactError(
                f"'{files[1]}', where the keys go, holds something else than an export has written; move it away or "
                "choose another name."
            )
        with replacing(output) as aside, aside.open("wb") as file:
            np.save(file, embedding)
        content = BytesIO()
        np.save(content, names)
        write_file(files[1], with_own_hash(files[1].name, content.getvalue()))
    return Result(
        name="export",
        title="As NumPy arrays",
        sentences=[f"{len(embedding):,} images in {embedding.shape[1]} dimensions, and their keys in the same order."],
        panels=[FileList(files=[(str(path), _size(path)) for path in files])],
        data={"files": [str(path) for path in files]},
    )


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
) -> Result:
    """Put the images into one folder a cluster, as links to their originals or as copies; the originals stay.

    Parameters
    ----------
    keys : sequence of str
    labels : ndarray (n_images,) int
        The cluster of each.
    path_of : function of a key -> Path or None
        The file of an original.
    read : function of a key -> bytes
        The content of an original, also within an archive; raises `DecodeError` or `SourceError`.
    output : path
        The folder. `clusters.csv` in it says which image became which file.
    copy : bool
        Copy in place of linking.
    overwrite : bool
        Replace folders that an earlier export made. They are left alone where anything else lies in them, or a copy
        that may be the only one.

    Returns
    -------
    Result
        What was written, and what is left out because its original is not there.

    Raises
    ------
    InputError
        If not one original can be used; told why.
    ArtifactError
        If `output` is there already.
    """
    output = output_path(check_path(output, "output", "export"))
    planned = planned_files(keys, labels)
    lost: list[tuple[str, str]] = []

    def outside(key: str) -> Path | None:
        path = path_of(key)
        if path is not None and _lies_in(path, output):  # once that is replaced, the link would lead nowhere
            raise UnsafePathError(f"its original lies in '{output}' itself (--copy writes it)")
        return path

    def write(aside: Path) -> None:
        told = []
        for key, label, name in zip(keys, np.asarray(labels).tolist(), planned, strict=True):
            reason = _placed(aside, name, key, outside, read, copy)
            if reason:
                lost.append((key, reason))
            else:
                told.append((key, label, name))
        if not told:
            raise InputError(f"No original can be used ({lost[0][0]}: {lost[0][1]}); nothing was written.")
        write_csv(aside / LISTED, COLUMNS, told)

    write_folder(output, write, replaces=_written_before(output, path_of, read) if overwrite else None)
    n_folders = len({PurePosixPath(name).parent for name in planned})
    done = len(planned) - len(lost)
    sentences = [f"{done:,} images in {n_folders:,} folders, {'copied' if copy else 'as links to the originals'}."]
    if lost:
        sentences.append(f"{len(lost):,} are left out, such as {lost[0][0]}: {lost[0][1]}.")
    return Result(
        name="export",
        title="Cluster folders",
        sentences=sentences,
        panels=[FileList(files=[(str(output / LISTED), "which image is which file")])],
        data={"files": [str(output)], "left_out": [list(pair) for pair in lost]},
    )


def planned_files(keys: Sequence[str], labels: np.ndarray) -> list[str]:
    """A file for each image, "cluster-003_12-images/name.jpg"; the second of one name becomes "name (2).jpg".

    Names that differ in case alone count as one: not every file system tells them apart.
    """
    numbers = np.asarray(labels).tolist()
    sizes = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))
    digits = max(3, len(str(max(sizes, default=0))))
    taken: set[str] = set()
    planned = []
    for key, label in zip(keys, numbers, strict=True):
        folder = f"cluster-{label:0{digits}d}_{sizes[label]}-images"
        name = PurePosixPath(file_name_of(key)).name
        number, file = 1, f"{folder}/{name}"
        while file.casefold() in taken:
            number += 1
            file = f"{folder}/{_numbered(name, number)}"
        taken.add(file.casefold())
        planned.append(key_of(file))
    return planned


def _numbered(name: str, number: int) -> str:
    """ "name.jpg" as "name (2).jpg", shortened where no file system would take it."""
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, dot + ending) if dot else (name, "")
    while stem and len(os.fsencode(f"{stem} ({number}){ending}")) > MOST_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem} ({number}){ending}"


def _placed(
    folder: Path, name: str, key: str, path_of: Callable[[str], Path | None], read: Callable[[str], Any], copy: bool
) -> str:
    """Link or copy one original to a name in a folder; the reason in words where that cannot be, else ""."""
    try:
        relative(file_name_of(key))  # a key that leads out of the source is no image of it
        target = file_of(folder, name)
        target.parent.mkdir(exist_ok=True)
        if copy:
            content = read(key)
            if not isinstance(content, bytes):
                return "it was no file, but pixels in an array"
            with open_new(target) as file:
                file.write(content)
            return ""
        path = path_of(key)
        if path is None:
            return "its original is not there as a file (from an archive, --copy writes it)"
        target.symlink_to(path.resolve())
    except (DecodeError, SourceError, UnsafePathError, OSError) as error:
        return str(error).rstrip(".")
    return ""


def _written_before(folder: Path, path_of: Callable[[str], Path | None], read: Callable[[str], Any]) -> set[str]:
    """The names of the files that an earlier export put into a folder: links, and copies of what still is elsewhere.

    Raises
    ------
    ArtifactError
        If the list of them was changed, or one of them is what no export writes: a copy that may be the only one.
    """
    listed = folder / LISTED
    if is_link(folder) or not os.path.lexists(listed):
        return set()
    rows = _rows_as_written(listed)
    if rows is None:
        raise ArtifactError(
            f"'{folder}' holds '{LISTED}', which imatlas did not write there as it is, so it is not overwritten; move "
            "it away or choose another name."
        )
    found = {name: within(folder, name, link=True) for name in rows}
    going = {(s.st_dev, s.st_ino) for s in (os.lstat(path) for path in found.values() if os.path.lexists(path))}
    for name, path in found.items():
        key = rows[name]
        if is_link(path):
            if not os.path.isabs(os.readlink(path)):  # as no export makes one
                raise ArtifactError(f"'{path}' is a link that imatlas did not write; move it away.")
        elif path.is_file() and not _is_spare(path, key, folder, going, path_of, read):
            raise ArtifactError(
                f"'{path}' is not the same as its original '{key}' any more, or is that itself, so it is not "
                "overwritten; move it away or choose another name."
            )
    return {LISTED, *found}


def _rows_as_written(listed: Path) -> dict[str, str] | None:
    """The list of an export, file -> key; None where a user has written anything into it, or it is his own."""
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
    """Whether `planned_files` may give a file this name: that of its original, or with a number."""
    own = PurePosixPath(file_name_of(key)).name
    number = re.search(r" \(([0-9]{1,9})\)(?:\.[^.]*)?$", name)
    return name == own or (number is not None and name == _numbered(own, int(number[1])))


def _is_spare(
    path: Path,
    key: str,
    folder: Path,
    going: set[tuple[int, int]],
    path_of: Callable[[str], Path | None],
    read: Callable[[str], Any],
) -> bool:
    """Whether the content of a copy will be there without it: in an original that is none of the files in `going`."""
    try:
        original = path_of(key)
        if original is not None:
            status = os.stat(original)
            if (status.st_dev, status.st_ino) in going or _lies_in(original, folder):
                return False
        content = read(key)
        return isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == entry_of(path).sha256
    except (ImatlasError, OSError):
        return False


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, or what it is a link to, lies below a folder."""
    if not folder.is_dir():
        return False
    return any(os.path.samefile(above, folder) for above in Path(os.path.realpath(path)).parents)


def _new_file(output: str | Path, endings: tuple[str, ...], overwrite: bool) -> Path:
    """The file to write, its folder made; refused where it exists or its ending is none of those."""
    output = output_path(check_path(output, "output", "export"))
    if output.suffix.lower() not in endings:
        raise InputError(f"This export is a {' or '.join(endings)} file. Got '{output.name}'; change its ending.")
    if os.path.lexists(output) and not overwrite:
        raise ArtifactError(f"'{output}' already exists; choose another name with -o, or pass --overwrite.")
    return output


def export_model(model: Any, output: str | Path, *, tolerance: float = TOLERANCE, overwrite: bool = False) -> Result:
    """Write a model as ONNX files; see `imatlas.models.onnx.export_onnx` for what is checked and what is refused.

    Parameters
    ----------
    model : Estimator
        Fitted.
    output : path
        A folder, or a name that ends in .onnx for a model of one network.
    tolerance : float
        Largest difference allowed, as a share of the largest output.
    overwrite : bool
        Replace an earlier export.

    Returns
    -------
    Result
        The largest difference of each network, and the files.

    Raises
    ------
    InputError
        If the model has no network to export.
    """
    done = export_onnx(model, output, tolerance=tolerance, overwrite=overwrite)
    said = [
        f"The {part} gives the same through onnxruntime as through PyTorch on {one.n_checked} inputs: largest "
        f"difference {one.difference:.2g}, where the largest output is {one.largest:.2g}."
        for part, one in done.items()
    ]
    return Result(
        name="export",
        title=f"{type(model).__name__} as ONNX",
        sentences=said,
        metrics={f"largest difference, {part}": one.difference for part, one in done.items()},
        panels=[
            FileList(title="Files", files=[(str(one.path), _size(one.path)) for one in done.values()]),
        ],
        data={"files": {part: str(one.path) for part, one in done.items()}},
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
