"""Commands that check images, learn an atlas, and show or write what it contains."""

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
    Video,
    app,
    command_line,
    one_source,
    open_atlas,
    open_images,
    place_word,
    print_json,
    print_next,
    print_result,
    refuse_existing,
    source_words,
    suggested_name,
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
    video: Video = "cuts",
    field: Field = None,
) -> None:
    """Check images before learning: formats, unusable files, duplicates, and the time and memory needed to learn."""
    from imatlas.atlas.learn import estimate
    from imatlas.tasks.check import check as run_check
    from imatlas.tasks.quality_flags import THUMBNAIL

    pictures = open_images(
        images,
        image_size=image_size,
        frames=frames,
        video=video,
        field=field,
        progress=not json_,
        thumbnail_size=THUMBNAIL,
    )
    result = run_check(pictures, estimate=estimate(pictures))
    print_result(result, json_)
    sources = source_words(images)
    options = ["--frames", frames] if frames != "first" else []
    options += ["--video", video] if video != "cuts" else []
    options += ["--field", field] if field else []
    command = command_line("imatlas", "learn", *sources, "-o", suggested_name(images), *options)
    print_next(json_, command if sources else f"{command}   # with the same images")


@app.command(epilog="Example: imatlas learn photos/ -o photos.atlas --budget 5m")
def learn(
    images: Sources,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="atlas to create, continue or update: a folder, or an address such as s3://bucket/a.atlas",
        ),
    ],
    budget: Budget = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="number of clusters", show_default="chosen from the images")
    ] = None,
    encoder: Annotated[
        Literal["auto", "pretrained", "own", "self-supervised"],
        typer.Option(
            "--encoder",
            help="the encoder: pretrained (trained with ImageNet's labels), or trained here without labels: own (an "
            "autoencoder) or self-supervised (better clusters, less time for the generator)",
        ),
    ] = "auto",
    image_size: ImageSize = None,
    fit: Fit = "crop",
    frames: Frames = "first",
    video: Video = "cuts",
    field: Field = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    moved_from: Annotated[
        str | None,
        typer.Option(
            "--moved-from", help="former location of the images, if they were moved since the atlas was learned"
        ),
    ] = None,
    cache_size: Annotated[
        str | None,
        typer.Option(
            "--cache-size",
            help="most that the cache of the atlas may take, such as 20G",
            show_default="what the pixels need, and 2G of features",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="compute on a Ray cluster: its address, such as ray://host:10001, or local for this machine alone",
            show_default="none",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Learn an atlas from images. Run the same command again to continue a stopped run or update a finished atlas."""
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
        video=video,
        field=field,
        random_state=seed,
        device=device,
        overwrite=overwrite,
        moved_from=moved_from,
        cache_size=cache_size,
        cluster=cluster,
        progress=not json_,
    )
    if json_:
        print_json(atlas.info().to_json())
    word = place_word(output)
    page = (
        ("open", word / "report.html") if isinstance(word, Path) else ("imatlas", "report", word, "-o", "report.html")
    )
    print_next(json_, command_line(*page), command_line("imatlas", "sample", word, "-n", 16, "-o", "new.png"))


@app.command(epilog="Example: imatlas info photos.atlas")
def info(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="ATLAS", help="atlas, a model saved by 'imatlas fit' and others, or a file of 'imatlas compress'"
        ),
    ],
    json_: Json = False,
) -> None:
    """Show what an atlas contains, how it was learned, and its quality metrics; or what a saved model is, or a file of
    compressed images."""
    from imatlas.models import artifact

    if Path(folder).is_file():
        from imatlas.tasks.decompress import describe_compressed

        print_result(describe_compressed(Path(folder)), json_)
        return
    if artifact.is_saved(folder):
        from imatlas.tasks.describe import describe

        print_result(describe(artifact.load(folder)), json_)
        return
    print_result(open_atlas(folder).info(), json_)


@app.command(epilog="Example: imatlas report photos.atlas -o report.html")
def report(
    atlas: AtlasFolder,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="an .html file", show_default="ATLAS/report.html")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the report as one self-contained HTML file."""
    from imatlas.arguments import is_address
    from imatlas.errors import InputError

    if output is None and is_address(atlas):
        raise InputError("The report of an atlas at an address needs a file to write to; give one by -o report.html.")
    path = output or Path(atlas, "report.html")
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
            "--show",
            help="what each cell shows: its most typical image, the mean of its images, its prototype, or a number",
        ),
    ] = "exemplar",
    width: Annotated[int, typer.Option("--width", min=16, help="width in pixels; 96 per inch in .svg and .pdf")] = 2400,
    outline: Annotated[
        Literal["clusters", "regions", "none"],
        typer.Option("--outline", help="what to outline and number; regions are connected on the map"),
    ] = "clusters",
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Draw the map as a figure of any size."""
    from imatlas.plots.save import check_ending

    check_ending(output)
    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    opened.map(output, show, width=width, outline=outline)
    som = opened.model("map")
    regions = opened.regions if outline == "regions" else None
    if json_:
        values = {"file": str(output), "show": show, "width": width, "rows": som.rows_, "cols": som.cols_}
        print_json(values | ({"regions": regions.result.to_json()} if regions else {}))
        return
    say(f"Map: {output} ({som.rows_} x {som.cols_} cells, {width:,} pixels wide)")
    if regions:
        print_result(regions.result, False)


@app.command(epilog="Example: imatlas table photos.atlas -o photos.csv")
def table(
    atlas: AtlasFolder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a .csv, .parquet or .json file")] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Print or write the table: one row per image with key, size, cell, position, cluster, outlier score, duplicate."""
    if output is not None:
        refuse_existing(output, overwrite)
    rows = open_atlas(atlas).table()
    if output is not None:
        write_table(rows, output)
    if json_:
        print_json(rows.to_pylist())
    elif output is None:
        write_csv_table(rows, sys.stdout.buffer)
    else:
        say(f"Table: {output} ({len(rows):,} rows)")


@app.command(epilog="Example: imatlas demo -o demo")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the photographs and the atlas")] = Path(
        "demo"
    ),
    budget: Annotated[str, typer.Option("--budget", help="learning time, such as 90s, 5m or 1h")] = "75s",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Learn an atlas from photographs that are installed with imatlas, in about two minutes."""
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
        raise ArtifactError(
            f"'{folder}' was not made by the demo and is not overwritten; choose another folder with -o."
        )
    write_demo_images(pictures, random_state=seed, listed=output / "demo.json")
    run_learn(pictures, folder, budget=budget, random_state=seed, overwrite=overwrite)
    print_next(
        False,
        command_line("open", folder / "report.html"),
        command_line("imatlas", "sample", folder, "-n", 16, "-o", "new.png"),
    )
