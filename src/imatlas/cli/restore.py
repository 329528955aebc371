"""Commands that restore images: denoise, upscale, enhance, inpaint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imatlas.cli.shared import (
    Json,
    Overwrite,
    Seed,
    Sources,
    app,
    command_line,
    is_named_atlas,
    one_source,
    open_atlas,
    print_next,
    print_result,
    refuse_existing,
)

Output = Annotated[Path, typer.Option("-o", "--output", help="a new folder; or of one image a file, such as clean.png")]
Preview = Annotated[bool, typer.Option("--preview", help="also write a contact sheet before and after, preview.png")]
Learning = Annotated[
    str | None, typer.Option("--budget", help="learning time, such as 90s, 5m or 1h", show_default="of the model")
]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="a model saved by an earlier run, instead of one that learns from these images"),
]


@app.command(epilog="Example: imatlas denoise photos/ -o clean/ --preview")
def denoise(
    images: Sources,
    output: Output,
    error_map: Annotated[
        bool, typer.Option("--error-map", help="also write the error that is to be expected of each pixel, in maps/")
    ] = False,
    budget: Learning = None,
    model: Model = None,
    preview: Preview = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Remove noise, learned from the noisy images alone; images that it would not improve are left alone.

    A run that was stopped is continued by the same command.
    """
    options = {"error_map": error_map, "budget": budget}
    _restore("denoise", images, output, model, options, preview, overwrite, seed, json_)


@app.command(epilog="Example: imatlas upscale photos/ -o large/ --scale 2")
def upscale(
    images: Sources,
    output: Output,
    scale: Annotated[int | None, typer.Option("--scale", min=2, max=4, help="factor", show_default="2")] = None,
    budget: Learning = None,
    model: Model = None,
    preview: Preview = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Make images 2, 3 or 4 times as large, with details learned from the images' own scales.

    A run that was stopped is continued by the same command.
    """
    if model is not None and scale is not None:
        raise typer.BadParameter("--scale is that of the model; give it without --model.")
    options = {"scale": scale, "budget": budget}
    _restore("upscale", images, output, model, options, preview, overwrite, seed, json_)


@app.command(epilog="Example: imatlas enhance photos/ -o better/ --strength 0.7")
def enhance(
    images: Sources,
    output: Output,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="0 leaves images alone, 1 corrects fully")
    ] = 1.0,
    white_balance: Annotated[
        bool, typer.Option("--white-balance/--no-white-balance", help="remove color casts, too")
    ] = True,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="images|photographs",
            help="what is typical: these images, or photographs in general",
            show_default="images; photographs for fewer than 8",
        ),
    ] = None,
    model: Model = None,
    preview: Preview = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Correct exposure, contrast and color casts by what is typical of the images; good ones are left alone.

    A run that was stopped is continued by the same command.
    """
    if reference not in (None, "images", "photographs"):
        raise typer.BadParameter(f"--reference is 'images' or 'photographs'. Got '{reference}'.")
    options = {"strength": strength, "white_balance": white_balance, "reference": reference}
    _restore("enhance", images, output, model, options, preview, overwrite, seed, json_)


@app.command(
    epilog="Example: imatlas inpaint photos/ -o whole/ --mask masks/   "
    "or: imatlas inpaint photos.atlas a.jpg --mask mask.png -o whole.png"
)
def inpaint(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES ...",
            help="folder, glob pattern, file or archive; or an atlas and an image file or key, to fill it from the "
            "images of the atlas",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="a new folder; or of one image a file, such as whole.png")
    ],
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            help="picture of the size of the images, not black where pixels are missing; or a folder of such, one per "
            "image with its name",
            show_default="where images are fully transparent, or not a number",
        ),
    ] = None,
    n_samples: Annotated[
        int, typer.Option("-n", "--samples", min=1, max=64, help="plausible fills of each image, and their spread")
    ] = 1,
    budget: Learning = None,
    model: Model = None,
    novelty: Annotated[
        float | None,
        typer.Option(
            "--novelty",
            min=0,
            max=1,
            help="with an atlas: 0: near its images, 1: free collage",
            show_default="as calibrated",
        ),
    ] = None,
    preview: Preview = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Fill in missing pixels: scattered ones and scratches by what is learned from the images, holes by patches.

    With an atlas, the image is filled from the images of the atlas. A run over a folder that was stopped is continued
    by the same command.
    """

    if is_named_atlas(images[0]):
        if len(images) != 2:
            raise typer.BadParameter(f"with an atlas give one image, a file or a key. Got {len(images) - 1}.")
        if n_samples != 1 or preview or budget is not None or model is not None:
            raise typer.BadParameter("--samples, --preview, --budget and --model are for images without an atlas.")
        _inpaint_from_atlas(images[0], images[1], output, mask, novelty, seed, overwrite, json_)
        return
    if novelty is not None:
        raise typer.BadParameter("--novelty is for an image and an atlas.")
    options = {"n_samples": n_samples, "budget": budget}
    _restore("inpaint", images, output, model, options, preview, overwrite, seed, json_, masks=mask)


MODELS = {"denoise": "denoiser", "upscale": "super_resolver", "enhance": "enhancer", "inpaint": "inpainter"}

FEW_IMAGES = 8
"""Images from which on they tell what is typical of themselves."""


def _restore(
    command: str,
    images: list[str],
    output: Path,
    model: Path | None,
    options: dict[str, Any],
    preview: bool,
    overwrite: bool,
    seed: int,
    json_: bool,
    **more: Any,
) -> None:
    """Restore images to a folder, or one image to a file."""
    from imatlas.images.encode import SUFFIXES
    from imatlas.report import render
    from imatlas.tasks.restore import PARTS, restore_file, restore_files

    refuse_existing(output, overwrite)
    source = one_source(images)
    restorer = _restorer(command, source, model, options, seed, json_)
    if output.suffix.lower() in SUFFIXES:
        more_files = {
            "--preview": preview,
            "--error-map": options.get("error_map", False),
            "--samples": options.get("n_samples", 1) > 1,
        }
        if option := next((name for name, given in more_files.items() if given), None):
            raise typer.BadParameter(f"{option} needs a folder as output, as it makes more files than '{output.name}'.")
        print_result(restore_file(source, output, restorer, command=command, **more), json_)
        return
    result = restore_files(
        source,
        output,
        restorer,
        command=command,
        preview=preview,
        write_report=lambda result, path: render([result], title=PARTS[command], path=path),
        overwrite=overwrite,
        progress=not json_,
        **more,
    )
    print_result(result, json_)
    if (output / "model").is_dir():
        again = command_line("imatlas", command, "IMAGES", "-o", "OTHER", "--model", output / "model")
        print_next(json_, f"{again}   # the same for other images, without learning again")


def _restorer(command: str, source: Any, model: Path | None, options: dict[str, Any], seed: int, json_: bool) -> Any:
    """The model of a command: saved, or new with the options that were given."""
    from imatlas.images.sources.opening import open_source
    from imatlas.models import artifact, model_class

    cls = model_class(MODELS[command])
    given = {name: value for name, value in options.items() if value is not None}
    if model is not None:
        if "budget" in given:
            raise typer.BadParameter("--budget is for learning; give it without --model.")
        loaded = artifact.load(model, classes=(cls,))
        return loaded.set_params(**{name: value for name, value in given.items() if name != "reference"})
    if command == "enhance" and "reference" not in given and len(open_source(source).keys) < FEW_IMAGES:
        given["reference"] = "photographs"
    if "progress" in cls().get_params():
        given["progress"] = not json_
    return cls(random_state=seed, **given)


def _inpaint_from_atlas(
    atlas: str,
    image: str,
    output: Path,
    mask: Path | None,
    novelty: float | None,
    seed: int,
    overwrite: bool,
    json_: bool,
) -> None:
    """Fill one image from the images of an atlas."""
    from imatlas.cli.generate import check_suffix, write_picture

    check_suffix(output, ".png")
    refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    made = opened.inpaint([image], mask, novelty=novelty, random_state=seed)[0]
    recipe = {
        "atlas": Path(atlas).name,
        "image": image,
        "mask": None if mask is None else mask.name,
        "novelty": novelty,
    }
    write_picture(opened, made, output, "Filled in", {**recipe, "seed": seed}, json_)
