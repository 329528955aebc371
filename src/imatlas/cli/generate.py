"""Commands that make new images and judge them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    refuse_existing,
    tell,
)
from imatlas.system.terminal import say


@app.command(epilog="Example: imatlas sample photos.atlas -n 16 -o new.png --like a.jpg --strength 0.5")
def sample(
    atlas: AtlasFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .png contact sheet, or a folder for single files")],
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 16,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", metavar="ROW,COLUMN", help="where on the map; may be repeated")
    ] = None,
    cluster: Annotated[list[int] | None, typer.Option("--cluster", help="in which cluster; may be repeated")] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", help="variations of an image: a file or a key; may be repeated")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="of variations: 0 is the image itself, 1 a new one")
    ] = 0.6,
    weights: Annotated[
        str | None, typer.Option("--weights", help="how often each cell, cluster and image comes up, such as 2,1,1")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Make new images: any, of one place on the map, of a cluster, or like an image."""
    from imatlas.tasks.sample import write_samples

    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    asked: dict[str, Any] = {
        "cell": [_pair(text) for text in cell] if cell else None,
        "cluster": cluster or None,
        "like": like or None,
        "weights": _numbers(weights) if weights else None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    images = _shown(opened, opened.sample(n, strength=strength, random_state=seed, **asked))
    recipe = {"atlas": atlas.name, "n": n, "seed": seed, "imatlas": __version__, **asked}
    recipe |= {"strength": strength} if like else {}
    written = write_samples(images, output, recipe=recipe, overwrite=overwrite)
    if json_:
        print_json({"files": [str(path) for path in written], **recipe})
    else:
        say(f"New images: {output} ({n} images, seed {seed})")


@app.command(epilog="Example: imatlas morph photos.atlas a.jpg b.jpg -o morph.gif")
def morph(
    atlas: AtlasFolder,
    images: Annotated[list[str] | None, typer.Argument(help="two or more images: files, or keys of the atlas")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .gif, .webp or .mp4 file")] = Path("morph.gif"),
    cells: Annotated[
        list[str] | None,
        typer.Option("--cells", metavar="ROW,COLUMN", help="a path on the map in place of images; repeat for each"),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=2, help="how many")] = 60,
    fps: Annotated[float, typer.Option("--fps", min=1, max=60, help="frames a second")] = 20.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Film the way from image to image, or along a path of map cells."""
    import json

    from imatlas.images.video import check_video_ending, write_video

    check_video_ending(output)
    refuse_existing(output, overwrite)
    pairs = [_pair(text) for text in cells or []]
    opened = open_atlas(atlas)
    made = _shown(opened, opened.morph(*(images or []), cells=pairs, frames=frames, random_state=seed))
    recipe = {"atlas": atlas.name, "images": images or [], "cells": pairs, "frames": frames, "seed": seed}
    write_video(output, made, fps=fps, text=json.dumps(recipe | {"imatlas": __version__}))
    if json_:
        print_json({"file": str(output), **recipe})
    else:
        say(f"Morph: {output} ({frames} frames, {frames / fps:.1f} s)")


@app.command(epilog="Example: imatlas sliders photos.atlas -o sliders.png --like a.jpg")
def sliders(
    atlas: AtlasFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="a .png file")],
    like: Annotated[str | None, typer.Option("--like", help="the image to start from: a file or a key")] = None,
    directions: Annotated[int, typer.Option("-n", min=1, help="how many directions, a row each")] = 8,
    steps: Annotated[int, typer.Option("--steps", min=2, help="images in a row")] = 9,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Show in what ways the images differ: a filmstrip for each direction, found without labels."""
    from imatlas.tasks.sample import write_samples

    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    made = _shown(opened, opened.sliders(like, directions=directions, steps=steps))
    recipe = {"atlas": atlas.name, "like": like, "directions": directions, "steps": steps, "imatlas": __version__}
    write_samples(made.reshape(-1, *made.shape[2:]), output, recipe=recipe, columns=steps, overwrite=overwrite)
    if json_:
        print_json({"file": str(output), **recipe})
    else:
        say(f"Sliders: {output} ({len(made)} directions, {steps} images each)")


@app.command(epilog="Example: imatlas score photos.atlas, or: imatlas score runs/vae --images photos/")
def score(
    folder: Annotated[Path, typer.Argument(metavar="ATLAS", help="an atlas, or a model that 'imatlas fit' saved")],
    images: Annotated[
        str | None, typer.Option("--images", help="for a model: the images that it was fitted on")
    ] = None,
    json_: Json = False,
    seed: Seed = 0,
) -> None:
    """Measure a generator on images that it never learned from: how good it is, and whether it copies."""
    from imatlas.atlas.atlas import Atlas, load
    from imatlas.errors import InputError
    from imatlas.tasks.score import score_model

    opened = load(folder)
    if isinstance(opened, Atlas):
        if images is not None:
            raise InputError(f"'{folder}' is an atlas, which holds its own images; leave --images out.")
        tell(opened.score(random_state=seed), json_)
        return
    if images is None:
        raise InputError(f"'{folder}' is a model; name the images that it was fitted on with --images.")
    pictures = open_images(images, image_size=None, progress=not json_)
    tell(score_model(opened, pictures, random_state=seed), json_)


def _shown(opened: Any, made: Any) -> Any:
    """New images as picture files hold them: of many channels the first three, which is said."""
    from imatlas.images.pixels import display_view

    shown = display_view(made, opened.store.spec)
    if shown.shape[-1] < made.shape[-1]:
        first = "the first" if shown.shape[-1] == 1 else "the first three"
        say(f"Shown: {first} of {made.shape[-1]} channels; Python's atlas.sample gives all.", error=True)
    return shown


def _pair(text: str) -> tuple[int, int]:
    """A cell as it is typed: "3,4"."""
    found = [part.strip() for part in text.split(",")]
    if len(found) != 2 or not all(part.isdecimal() for part in found):
        raise typer.BadParameter(f"A cell is a row and a column, such as 3,4. Got '{text}'.")
    return int(found[0]), int(found[1])


def _numbers(text: str) -> list[float]:
    """Numbers as they are typed: "2,1,0.5"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"Weights are numbers with commas between, such as 2,1,1. Got '{text}'.") from None
