"""Export for other programs: the embedding as Parquet or NumPy files, the networks of a model as ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from imatlas.arguments import check_path, counted, strict_yes
from imatlas.errors import ArtifactError, InputError
from imatlas.models.onnx import TOLERANCE, export_onnx
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import (
    output_path,
    replacing,
    write_file,
)
from imatlas.system.inventory import is_as_written, with_own_hash
from imatlas.system.terminal import file_word, shell

ROWS = 1024
"""Rows of a Parquet file written together, with their pictures."""

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
    """Write a Parquet file for Apple's embedding-atlas: one point per image, with its picture and neighbors.

    Parameters
    ----------
    rows : Table
        One row per image: `key`, `x`, `y`, and further columns to show.
    neighbors : (indices, distances), each ndarray (n_images, k)
        Rows of the images nearest to each, and their distances.
    pictures : function of ndarray (n,) -> list of bytes
        The thumbnails of some rows, as the bytes of image files.
    output : path
        Ends in .parquet.
    overwrite : bool

    Returns
    -------
    Result
        With the command that opens the file.
    """
    output = new_file(output, (".parquet",), overwrite)
    indices, distances = neighbors
    schema = pa.schema([*rows.schema, ("neighbors", NEIGHBORS), ("image", PICTURE)])
    with (
        replacing(output) as aside,
        aside.open("wb") as file,  # pyarrow only opens names in UTF-8
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
        title="Export for embedding-atlas",
        sentences=[
            f"{counted(len(rows), 'image')} with thumbnails and {indices.shape[1]} neighbors each. Open with:",
            opened,
        ],
        panels=[FileList(files=[(str(output), _size(output))])],
        data={"files": [str(output)], "command": opened},
    )


@strict_yes
def write_numpy(embedding: np.ndarray, keys: Sequence[str], output: str | Path, *, overwrite: bool = False) -> Result:
    """Write an embedding and the keys of its rows as NumPy files that can be read without pickle.

    Parameters
    ----------
    embedding : ndarray (n_images, n_features) float32
    keys : sequence of str
    output : path
        An .npz file holds both, as `embedding` and `keys`; for an .npy file, the keys go to a second one beside it.
    overwrite : bool
    """
    output = new_file(output, (".npz", ".npy"), overwrite)
    names = np.asarray(keys, dtype=np.str_)
    if output.suffix.lower() == ".npz":
        files = [output]
        with replacing(output) as aside, aside.open("wb") as file:
            np.savez(file, embedding=embedding, keys=names)
    else:
        files = [output, new_file(output.with_suffix(".keys.npy"), (".npy",), overwrite)]
        if os.path.lexists(files[1]) and not is_as_written(files[1]):  # --overwrite names the other file
            raise ArtifactError(
                f"'{files[1]}', where the keys would go, was not written by an export; move it away or choose another "
                "name."
            )
        with replacing(output) as aside, aside.open("wb") as file:
            np.save(file, embedding)
        content = BytesIO()
        np.save(content, names)
        write_file(files[1], with_own_hash(files[1].name, content.getvalue()))
    return Result(
        name="export",
        title="Export as NumPy arrays",
        sentences=[
            f"{counted(len(embedding), 'image')} in {counted(embedding.shape[1], 'dimension')}, and their keys in the "
            "same order."
        ],
        panels=[FileList(files=[(str(path), _size(path)) for path in files])],
        data={"files": [str(path) for path in files]},
    )


def new_file(output: str | Path, endings: tuple[str, ...], overwrite: bool) -> Path:
    """The file to write; refused if it exists or has another file extension."""
    output = output_path(check_path(output, "output", "export"))
    if output.suffix.lower() not in endings:
        raise InputError(
            f"The output must be a {' or '.join(endings)} file. Got '{output.name}'; change its file extension."
        )
    if os.path.lexists(output) and not overwrite:
        raise ArtifactError(f"'{output}' already exists; choose another name with -o, or pass --overwrite.")
    return output


def export_model(model: Any, output: str | Path, *, tolerance: float = TOLERANCE, overwrite: bool = False) -> Result:
    """Write a model as ONNX files; see `imatlas.models.onnx.export_onnx` for the checks.

    Parameters
    ----------
    model : Estimator
        Fitted.
    output : path
        A folder, or a file name ending in .onnx for a model of one network.
    tolerance : float
        Largest difference allowed, relative to the largest output.
    overwrite : bool
        Replace an earlier export.

    Returns
    -------
    Result
        The largest difference for each network, and the files.

    Raises
    ------
    InputError
        If the model has no network to export.
    """
    done = export_onnx(model, output, tolerance=tolerance, overwrite=overwrite)
    sentences = [
        f"The {part} gives the same output in onnxruntime as in PyTorch for {counted(one.n_checked, 'input')}: the "
        f"largest difference is {one.difference:.2g}, the largest output {one.largest:.2g}."
        for part, one in done.items()
    ]
    return Result(
        name="export",
        title=f"{type(model).__name__} as ONNX",
        sentences=sentences,
        metrics={f"largest difference, {part}": one.difference for part, one in done.items()},
        panels=[
            FileList(title="Files", files=[(str(one.path), _size(one.path)) for one in done.values()]),
        ],
        data={"files": {part: str(one.path) for part, one in done.items()}},
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
