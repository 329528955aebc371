"""The command that exports an atlas or a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas.cli.shared import Json, Overwrite, app, print_next, print_result

To = Literal["onnx", "embedding-atlas", "numpy", "folders", "coco"]


@app.command(epilog="Example: imatlas export photos.atlas --to folders -o clusters")
def export(
    folder: Annotated[
        str, typer.Argument(metavar="ATLAS|MODEL", help="atlas, or model saved by 'imatlas fit' or model.save")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the file or folder to write")],
    to: Annotated[
        To | None,
        typer.Option(
            "--to",
            help="an atlas: embedding-atlas (a .parquet file), numpy (the embedding as .npz or .npy), folders (one per "
            "cluster) or coco (the labels as .json); a model: onnx",
            show_default="onnx for a model",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            help="folders and coco: only the images in this text file, one key in each line, as the studio exports it",
            show_default="all images that are not left out",
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="folders: copy the images instead of linking to them")] = False,
    propagate: Annotated[
        bool, typer.Option("--propagate", help="coco: also the labels that spread to other images, with confidence")
    ] = False,
    neighbors: Annotated[
        int, typer.Option("--neighbors", min=1, help="embedding-atlas: number of nearest neighbors per image")
    ] = 15,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, help="onnx: largest difference from PyTorch, relative to the largest output"
        ),
    ] = 1e-4,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Export an atlas as folders, COCO labels, NumPy arrays or Parquet for embedding-atlas; a model as ONNX."""
    from imatlas.atlas.atlas import Atlas, load
    from imatlas.errors import InputError
    from imatlas.tasks.export import export_model

    opened = load(folder)
    if isinstance(opened, Atlas):
        if to is None or to == "onnx":
            raise InputError(
                f"'{folder}' is an atlas; choose a format with --to embedding-atlas, numpy, folders or coco. "
                f"(For ONNX give one of its models, such as {folder}/encoder-0001.)"
            )
        options: dict[str, Any] = {"copy": copy, "propagate": propagate, "n_neighbors": neighbors}
        options["keys"] = None if keys is None else _lines(keys)
        print_result(opened.export(output, to=to, overwrite=overwrite, **options), json_)
        return
    if to not in (None, "onnx"):
        raise InputError(f"'{folder}' is a model and can only be exported --to onnx; give an atlas for --to {to}.")
    print_result(export_model(opened, output, tolerance=tolerance, overwrite=overwrite), json_)
    print_next(json_, "# docs/export.md shows how to run it without imatlas")


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises
    ------
    SourceError
        If it cannot be read as text.
    """
    from imatlas.errors import SourceError

    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"'{path}' cannot be read as a list of keys ({error}).") from None
