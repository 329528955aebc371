"""The command that hands a model or an atlas over to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imatlas.cli.shared import Json, Overwrite, app, say_next, tell

To = Literal["onnx", "embedding-atlas", "numpy", "folders"]


@app.command(epilog="Example: imatlas export photos.atlas --to folders -o clusters")
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="ATLAS|MODEL", help="an atlas, or a model that 'imatlas fit' or model.save made")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the file or folder to write")],
    to: Annotated[
        To | None,
        typer.Option(
            "--to",
            help="of an atlas: a .parquet file that embedding-atlas opens, an .npz or .npy file with the embedding, or "
            "a folder a cluster; of a model: ONNX files  [default: onnx for a model]",
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="folders: copy the images in place of linking to them")] = False,
    neighbors: Annotated[int, typer.Option("--neighbors", min=1, help="embedding-atlas: of each image")] = 15,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="onnx: largest difference, as a share of the largest output")
    ] = 1e-4,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Hand an atlas or a model over: cluster folders, NumPy, a Parquet file for embedding-atlas, ONNX."""
    from imatlas.atlas.atlas import Atlas, load
    from imatlas.errors import InputError
    from imatlas.tasks.export import export_model

    opened = load(folder)
    if isinstance(opened, Atlas):
        if to is None or to == "onnx":
            raise InputError(
                f"'{folder}' is an atlas; say what is wanted with --to embedding-atlas, --to numpy or --to folders. "
                f"(Its models lie inside it; for ONNX name one of them, such as {folder}/encoder-0001.)"
            )
        tell(opened.export(output, to=to, copy=copy, n_neighbors=neighbors, overwrite=overwrite), json_)
        return
    if to not in (None, "onnx"):
        raise InputError(f"'{folder}' is a model, which goes --to onnx only; name an atlas for '{to}'.")
    tell(export_model(opened, output, tolerance=tolerance, overwrite=overwrite), json_)
    say_next(json_, "# see docs/export.md for the few lines that run it, without imatlas")
