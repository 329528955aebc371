"""Commands that generate images and measure their quality."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas import __version__
from imatlas.cli.shared import (
    AtlasFolder,
    Json,
    Overwrite,
    Seed,
    app,
    open_atlas,
    open_images,
    print_json,
    print_result,
    refuse_existing,
)
from imatlas.system.atomic_io import output_path
from imatlas.system.terminal import say

N_SOURCES = 5
"""Number of sources of an image in its recipe."""

Novelty = Annotated[
    float | None,
    typer.Option(
        "--novelty",
        min=0,
        max=1,
        help="0: near the images of the atlas, 1: free collage",
        show_default="as calibrated",
    ),
]

Cells = Annotated[
    list[str] | None,
    typer.Option(
        "--cells", metavar="ROW,COLUMN", help="cell of a path on the map, instead of images; repeat for each cell"
    ),
]

OneImage = Annotated[str, typer.Argument(metavar="IMAGE", help="an image file, or a key of the atlas")]

PngFile = Annotated[Path, typer.Option("-o", "--output", help="a .png file")]


@app.command(epilog="Example: imatlas sample photos.atlas -n 16 -o new.png --like a.jpg --strength 0.5")
def sample(
    atlas: AtlasFolder,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="a .png contact sheet, or a folder for one file per image")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="number of images")] = 16,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", metavar="ROW,COLUMN", help="cell of the map; may be repeated")
    ] = None,
    cluster: Annotated[list[int] | None, typer.Option("--cluster", help="number of a cluster; may be repeated")] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", help="image to vary: a file or a key; may be repeated")
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            "--strength", min=0, max=1, help="strength of the variation: 0 is the image itself, 1 an unrelated one"
        ),
    ] = 0.6,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="weights of the cells, clusters and images in this order, such as 2,1,1"),
    ] = None,
    novelty: Novelty = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", metavar="HEIGHTxWIDTH", help="size in pixels, such as 256x512", show_default="as learned"
        ),
    ] = None,
    tile: Annotated[
        bool, typer.Option("--tile", help="make images that can be laid side by side without a seam")
    ] = False,
    provenance: Annotated[
        Path | None,
        typer.Option(
            "--provenance", metavar="FILE.csv", help="write from which images new ones are composed: image,key,share"
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Generate new images: of all kinds, of a cell or cluster, or variations of an image."""
    from imatlas.system.csv_files import write_csv
    from imatlas.tasks.conditions import composes
    from imatlas.tasks.sample import write_samples

    refuse_existing(output, overwrite)
    if provenance is not None:
        check_suffix(provenance, ".csv")
        refuse_existing(provenance, overwrite)
    opened = open_atlas(atlas)
    conditions: dict[str, Any] = {
        "cell": [_pair(text) for text in cell] if cell else None,
        "cluster": cluster or None,
        "like": like or None,
        "weights": _numbers(weights) if weights else None,
        "novelty": novelty,
        "shape": _size(shape) if shape else None,
        "tile": tile or None,
    }
    conditions = {name: value for name, value in conditions.items() if value is not None}
    varies = bool(like) and strength < 1 and not (cell or cluster or weights)
    traced = provenance is not None or (not varies and composes(opened.model("generator")))
    made = opened.sample(n, strength=strength, random_state=seed, return_provenance=traced, **conditions)
    made, found = made if traced else (made, None)
    images = _displayable(opened, made)
    recipe = {"atlas": Path(atlas).name, "n": n, "seed": seed, "imatlas": __version__, **conditions}
    recipe |= {"strength": strength} if like else {}
    top = None if found is None else [_largest(one) for one in found.sources]
    written = write_samples(images, output, recipe=recipe, sources=top, overwrite=overwrite)
    if found is not None and provenance is not None:
        table = found.table()
        write_csv(output_path(provenance), table.column_names, zip(*table.to_pydict().values(), strict=True))
    if json_:
        named = {} if provenance is None else {"provenance": str(provenance)}
        print_json({"files": [str(path) for path in written], **recipe, **({"sources": top} if top else {}), **named})
    else:
        say(f"New images: {output} ({n} images, seed {seed})")
        if provenance is not None:
            say(f"Sources: {provenance}")


@app.command(epilog="Example: imatlas morph photos.atlas a.jpg b.jpg -o morph.gif")
def morph(
    atlas: AtlasFolder,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE ...", help="two or more images: files, or keys of the atlas")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .gif, .webp or .mp4 file")] = Path("morph.gif"),
    cells: Cells = None,
    frames: Annotated[int, typer.Option("--frames", min=2, help="number of frames")] = 60,
    novelty: Novelty = None,
    fps: Annotated[float, typer.Option("--fps", min=1, max=60, help="frames per second")] = 20.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Write a video that morphs from image to image, or along a path of map cells."""
    import json

    from imatlas.images.video import check_video_ending, write_video

    check_video_ending(output)
    refuse_existing(output, overwrite)
    pairs = [_pair(text) for text in cells or []]
    opened = open_atlas(atlas)
    made = opened.morph(*(images or []), cells=pairs, frames=frames, novelty=novelty, random_state=seed)
    recipe = {"atlas": Path(atlas).name, "images": images or [], "cells": pairs, "frames": frames, "seed": seed}
    recipe |= {} if novelty is None else {"novelty": novelty}
    write_video(output, _displayable(opened, made), fps=fps, text=json.dumps(recipe | {"imatlas": __version__}))
    if json_:
        print_json({"file": str(output), **recipe})
    else:
        say(f"Morph: {output} ({frames} frames, {frames / fps:.1f} s)")


@app.command(epilog="Example: imatlas panorama photos.atlas a.jpg b.jpg -o panorama.png --shape 128x1024")
def panorama(
    atlas: AtlasFolder,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE ...", help="one or more images: files, or keys of the atlas")
    ] = None,
    output: PngFile = Path("panorama.png"),
    cells: Cells = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", metavar="HEIGHTxWIDTH", help="size in pixels", show_default="by the number of images or cells"
        ),
    ] = None,
    novelty: Novelty = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Generate one wide image along a path through images, or through cells of the map."""
    check_suffix(output, ".png")
    refuse_existing(output, overwrite)
    pairs, size = [_pair(text) for text in cells or []], _size(shape) if shape else None
    opened = open_atlas(atlas)
    made = opened.panorama(*(images or []), cells=pairs, shape=size, novelty=novelty, random_state=seed)
    recipe = {"images": images or [], "cells": pairs, "shape": size or made.shape[:2], "novelty": novelty}
    write_picture(opened, made, output, "Panorama", {"atlas": Path(atlas).name, **recipe, "seed": seed}, json_)


@app.command(epilog="Example: imatlas extend photos.atlas a.jpg --shape 128x256 -o wide.png")
def extend(
    atlas: AtlasFolder,
    image: OneImage,
    output: PngFile,
    shape: Annotated[
        str, typer.Option("--shape", metavar="HEIGHTxWIDTH", help="size of the canvas in pixels, such as 128x256")
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TOP,LEFT", help="place of the image on the canvas", show_default="its middle"),
    ] = None,
    novelty: Novelty = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Continue an image beyond its borders on a larger canvas."""
    check_suffix(output, ".png")
    refuse_existing(output, overwrite)
    size, place = _size(shape), _pair(at, "A place is a row and a column in pixels") if at else None
    opened = open_atlas(atlas)
    made = opened.extend(image, size, at=place, novelty=novelty, random_state=seed)
    recipe = {"atlas": Path(atlas).name, "image": image, "shape": size, "at": place, "novelty": novelty, "seed": seed}
    write_picture(opened, made, output, "Extended", recipe, json_)


@app.command(epilog="Example: imatlas blend photos.atlas a.jpg b.jpg --axis horizontal -o both.png")
def blend(
    atlas: AtlasFolder,
    first: Annotated[str, typer.Argument(metavar="FIRST", help="an image file, or a key of the atlas")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="another")],
    output: PngFile,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            help="gray picture of the size of the first image: black where that is wanted, white where the second is",
            show_default="half of each everywhere",
        ),
    ] = None,
    axis: Annotated[
        Literal["horizontal", "vertical"] | None,
        typer.Option("--axis", help="instead of a mask: from the first image to the second along this axis"),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="0 cross-fades; with more, the join is composed anew")
    ] = 0.5,
    novelty: Novelty = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Join two images by a mask, or along an axis."""
    check_suffix(output, ".png")
    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    options: dict[str, Any] = {"axis": axis, "strength": strength, "novelty": novelty}
    made = opened.blend(first, second, mask, random_state=seed, **options)
    recipe = {
        "atlas": Path(atlas).name,
        "images": [first, second],
        "mask": None if mask is None else mask.name,
        **options,
    }
    write_picture(opened, made, output, "Blended", {**recipe, "seed": seed}, json_)


@app.command(epilog="Example: imatlas sliders photos.atlas -o sliders.png --like a.jpg")
def sliders(
    atlas: AtlasFolder,
    output: PngFile,
    like: Annotated[
        str | None, typer.Option("--like", help="image to start from: a file or a key", show_default="the mean")
    ] = None,
    directions: Annotated[int, typer.Option("-n", min=1, help="number of directions, one row each")] = 8,
    steps: Annotated[int, typer.Option("--steps", min=2, help="images per row")] = 9,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Show the main ways in which the images vary: one row of images per direction, found without labels."""
    from imatlas.tasks.sample import write_samples

    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    made = _displayable(opened, opened.sliders(like, directions=directions, steps=steps))
    recipe = {"atlas": Path(atlas).name, "like": like, "directions": directions, "steps": steps, "imatlas": __version__}
    write_samples(made.reshape(-1, *made.shape[2:]), output, recipe=recipe, columns=steps, overwrite=overwrite)
    if json_:
        print_json({"file": str(output), **recipe})
    else:
        say(f"Sliders: {output} ({len(made)} directions, {steps} images each)")


@app.command(epilog="Example: imatlas score photos.atlas   or: imatlas score runs/vae --images photos/")
def score(
    folder: Annotated[str, typer.Argument(metavar="ATLAS|MODEL", help="atlas, or model saved by 'imatlas fit'")],
    images: Annotated[
        str | None, typer.Option("--images", help="for a model: the images that it was fitted to")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option("--held-out", help="instead, for a PatchDiffusion: others of the same kind, which it never saw"),
    ] = None,
    json_: Json = False,
    seed: Seed = 0,
) -> None:
    """Measure a generator on held-out images: sample quality, and memorization of training images."""
    from imatlas.atlas.atlas import Atlas, load
    from imatlas.errors import InputError
    from imatlas.tasks.score import score_model

    opened = load(folder)
    if isinstance(opened, Atlas):
        if images is not None or held_out is not None:
            raise InputError(f"'{folder}' is an atlas and contains its images; omit --images and --held-out.")
        print_result(opened.score(random_state=seed), json_)
        return
    known, unseen = (
        None if source is None else open_images(source, image_size=None, progress=not json_)
        for source in (images, held_out)
    )
    print_result(score_model(opened, known, held_out=unseen, random_state=seed), json_)


def _displayable(opened: Any, made: Any) -> Any:
    """New images with at most three channels, for picture files; prints a line if channels are left out."""
    from imatlas.images.pixels import display_view

    shown = display_view(made, opened.store.spec)
    if shown.shape[-1] < made.shape[-1]:
        first = "the first" if shown.shape[-1] == 1 else "the first three"
        say(f"Written: {first} of {made.shape[-1]} channels; Atlas.sample in Python returns all.", error=True)
    return shown


def write_picture(opened: Any, made: Any, output: Path, name: str, recipe: dict[str, Any], json_: bool) -> None:
    """Write one new image (H, W, C) with its recipe, and print where."""
    from imatlas.tasks.sample import write_samples

    shown = _displayable(opened, made)
    recipe = {key: value for key, value in recipe.items() if value is not None} | {"imatlas": __version__}
    write_samples(shown[None], output, recipe=recipe)
    if json_:
        print_json({"file": str(output), **recipe})
    else:
        say(f"{name}: {output} ({shown.shape[1]} x {shown.shape[0]} pixels, seed {recipe['seed']})")


def _largest(sources: dict[str, float]) -> dict[str, float]:
    """The first sources of an image, with rounded shares."""
    return {key: round(share, 4) for key, share in list(sources.items())[:N_SOURCES]}


def check_suffix(path: Path, suffix: str) -> None:
    """Refuse a file name with another ending."""
    from imatlas.errors import InputError

    if path.suffix.lower() != suffix:
        raise InputError(f"The output must be a {suffix} file. Got '{path.name}'; change its name.")


def _size(text: str) -> tuple[int, int]:
    """Parse a size such as "256x512"."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"A size is a height and a width in pixels, such as 256x512. Got '{text}'.")
    return int(parts[0]), int(parts[1])


def _pair(text: str, what: str = "A cell is a row and a column") -> tuple[int, int]:
    """Parse a cell such as "3,4"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{what}, such as 3,4. Got '{text}'.")
    return int(parts[0]), int(parts[1])


def _numbers(text: str) -> list[float]:
    """Parse weights such as "2,1,0.5"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"Weights are numbers separated by commas, such as 2,1,1. Got '{text}'.") from None
