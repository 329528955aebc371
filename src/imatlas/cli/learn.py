"""Commands that learn an atlas and look into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from imatlas.cli.shared import (
    AtlasFolder,
    Budget,
    Device,
    Field,
    Fit,
    Frames,
    ImageSize,
    Json,
    Overwrite,
    Seed,
    Sources,
    app,
    command_line,
    one_source,
    open_atlas,
    open_images,
    print_json,
    refuse_existing,
    say_next,
    source_words,
    suggest,
    tell,
    write_csv_table,
    write_table,
)
from imatlas.system.terminal import say


@app.command(epilog="Example: imatlas check photos/")
def check(
    images: Sources,
    json_: Json = False,
    image_size: ImageSize = None,
    frames: Frames = "first",
    field: Field = None,
) -> None:
    """Say what is in a folder, what is broken or doubled, and what learning from it would take."""
    from imatlas.atlas.learn import estimate
    from imatlas.tasks.check import check as run_check
    from imatlas.tasks.quality_flags import THUMBNAIL

    pictures = open_images(
        images, image_size=image_size, frames=frames, field=field, progress=not json_, thumbnail_size=THUMBNAIL
    )
    result = run_check(pictures, estimate=estimate(pictures))
    tell(result, json_)
    again = source_words(images)
    options = ["--frames", frames] if frames != "first" else []
    options += ["--field", field] if field else []
    command = command_line("imatlas", "learn", *again, "-o", suggest(images), *options)
    say_next(json_, command if again else f"{command}   # with the same images")


@app.command(epilog="Example: imatlas learn photos/ -o photos.atlas --budget 5m")
def learn(
    images: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="the atlas to make, continue or update")],
    budget: Budget = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="number of clusters  [default: found]")
    ] = None,
    encoder: Annotated[
        Literal["auto", "pretrained", "own", "self-supervised"],
        typer.Option(
            "--encoder",
            help="the eyes: pretrained (learned with ImageNet's labels), or learned here without labels: own (an "
            "autoencoder) or self-supervised (groups better, less time for new images)",
        ),
    ] = "auto",
    image_size: ImageSize = None,
    fit: Fit = "crop",
    frames: Frames = "first",
    field: Field = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    moved_from: Annotated[
        str | None, typer.Option("--moved-from", help="where the images were when the atlas was learned")
    ] = None,
    json_: Json = False,
) -> None:
    """Learn an atlas from images. The same command again continues a stopped run, or updates a finished atlas."""
    from imatlas.atlas.learn import learn as run_learn

    atlas = run_learn(
        one_source(images, field),
        output,
        budget=budget,
        clusters=clusters,
        encoder=encoder,
        image_size=image_size,
        fit=fit,
        frames=frames,
        field=field,
        random_state=seed,
        device=device,
        overwrite=overwrite,
        moved_from=moved_from,
        progress=not json_,
    )
    if json_:
        print_json(atlas.info().to_json())
    say_next(
        json_,
        command_line("open", output / "report.html"),
        command_line("imatlas", "sample", output, "-n", 16, "-o", "new.png"),
    )


@app.command(epilog="Example: imatlas info photos.atlas")
def info(atlas: AtlasFolder, json_: Json = False) -> None:
    """Say what an atlas holds, how it was learned, and how good it is."""
    tell(open_atlas(atlas).info(), json_)


@app.command(epilog="Example: imatlas report photos.atlas -o report.html")
def report(
    atlas: AtlasFolder,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="the file  [default: ATLAS/report.html]")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the report again: one HTML file that needs nothing else."""
    path = output or atlas / "report.html"
    if output is not None:
        refuse_existing(path, overwrite)
    open_atlas(atlas).report(path)
    say(f"Report: {path}")


@app.command(name="map", epilog="Example: imatlas map photos.atlas -o map.png --show mean")
def map_(
    atlas: AtlasFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .png, .jpg, .webp, .tif, .svg or .pdf file")],
    show: Annotated[
        Literal["exemplar", "mean", "prototype", "u-matrix", "u-matrix-between", "hits"],
        typer.Option(
            "--show", help="what each cell shows: an image, the mean of its images, its prototype, or numbers"
        ),
    ] = "exemplar",
    width: Annotated[int, typer.Option("--width", min=16, help="in pixels; .svg and .pdf take 96 to the inch")] = 2400,
    outline: Annotated[
        Literal["clusters", "regions", "none"],
        typer.Option("--outline", help="what to outline and number; regions hang together on the map"),
    ] = "clusters",
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Draw the map as one picture, at any size."""
    from imatlas.plots.save import check_ending

    check_ending(output)
    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    opened.map(output, show, width=width, outline=outline)
    som = opened.model("map")
    told = opened.regions if outline == "regions" else None
    if json_:
        said = {"file": str(output), "show": show, "width": width, "rows": som.rows_, "cols": som.cols_}
        print_json(said | ({"regions": told.result.to_json()} if told else {}))
        return
    say(f"Map: {output} ({som.rows_} x {som.cols_} cells, {width:,} pixels wide)")
    if told:
        tell(told.result, False)


@app.command(epilog="Example: imatlas table photos.atlas -o photos.csv")
def table(
    atlas: AtlasFolder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a .csv, .parquet or .json file")] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Print or write one row an image: key, size, cell, place, cluster, outlier score, duplicate."""
    rows = open_atlas(atlas).table()
    if json_:
        print_json(rows.to_pylist())
    elif output is None:
        write_csv_table(rows, sys.stdout.buffer)
    else:
        refuse_existing(output, overwrite)
        write_table(rows, output)
        say(f"Table: {output} ({len(rows):,} rows)")


@app.command(epilog="Example: imatlas demo -o demo")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="a folder for the pictures and the atlas")] = Path(
        "demo"
    ),
    budget: Budget = "75s",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Learn an atlas from real photographs that come with the program, in about two minutes."""
    import os

    from imatlas.atlas.learn import learn as run_learn
    from imatlas.cli.demo_images import write_demo_images
    from imatlas.errors import ArtifactError
    from imatlas.system.atomic_io import make_folder, output_path, refuse_links, within

    refuse_existing(output, overwrite)
    output = output_path(output)
    make_folder(output)
    refuse_links(output, ["photos/", "demo.json"])
    pictures, folder = output / "photos", within(output, "photos.atlas")
    if os.path.lexists(folder) and not os.path.lexists(output / "demo.json"):
        raise ArtifactError(f"'{folder}' is not of a demo, so it is not overwritten; choose another folder with -o.")
    write_demo_images(pictures, random_state=seed, listed=output / "demo.json")
    run_learn(pictures, folder, budget=budget, random_state=seed, overwrite=overwrite)
    say_next(
        False,
        command_line("open", folder / "report.html"),
        command_line("imatlas", "sample", folder, "-n", 16, "-o", "new.png"),
    )
