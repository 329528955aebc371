"""The command that splits images into segments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from imatlas.cli.shared import (
    Json,
    Overwrite,
    Seed,
    Sources,
    app,
    is_named_atlas,
    one_source,
    open_atlas,
    print_result,
    refuse_existing,
)


@app.command(epilog="Example: imatlas segment photos/ -o segments/ --level 0.4 --coco")
def segment(
    images: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="a new folder for the results")],
    method: Annotated[
        Literal["hierarchy", "superpixels", "collection"],
        typer.Option(
            "--method",
            help="parts that a person would name, small segments that follow the colors, or classes that are the same "
            "in all images",
        ),
    ] = "hierarchy",
    level: Annotated[
        float | None,
        typer.Option("--level", min=0, max=1, help="0: fine, 1: coarse", show_default="0.5"),
    ] = None,
    n_segments: Annotated[
        int | None,
        typer.Option(
            "--segments",
            min=1,
            help="number of segments of each image, instead of a level (200 for superpixels); or of classes of the "
            "collection (proposed if not given)",
        ),
    ] = None,
    pixel_size: Annotated[
        float, typer.Option("--pixel-size", help="side of a pixel, in the unit of areas and lengths in the table")
    ] = 1.0,
    coco: Annotated[bool, typer.Option("--coco", help="also write coco.json")] = False,
    cut_outs: Annotated[
        bool, typer.Option("--cut-outs", help="also write each segment as an image with alpha")
    ] = False,
    objects: Annotated[
        bool, typer.Option("--objects", help="also write the salient object of each image, with alpha, and its box")
    ] = False,
    scribbles: Annotated[
        Path | None,
        typer.Option(
            "--scribbles",
            help="segments from strokes: a folder of PNG (labels in gray, 0: nothing drawn) or a CSV of key,y,x,label",
        ),
    ] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Split images into segments, without labels: label maps, overlays and a table of regions.

    Of an atlas folder, the originals of its images are split. A run that was stopped is continued by the same command.
    """
    from imatlas.tasks.segment import segment_files

    if level is not None and n_segments is not None:
        raise typer.BadParameter("give either --level or --segments, not both.")
    if level is not None and method != "hierarchy":
        raise typer.BadParameter(f"--level is for the method 'hierarchy'; give --segments with '{method}'.")
    refuse_existing(output, overwrite)
    is_one_atlas = len(images) == 1 and is_named_atlas(images[0])
    result = segment_files(
        open_atlas(images[0]).store.originals_of() if is_one_atlas else one_source(images),
        output,
        method=method,
        level=level,
        n_segments=n_segments,
        pixel_size=pixel_size,
        with_coco=coco,
        with_cut_outs=cut_outs,
        with_objects=objects,
        scribbles=scribbles,
        overwrite=overwrite,
        random_state=seed,
        progress=not json_,
    )
    print_result(result, json_)
