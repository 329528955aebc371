"""Commands that compress images: compress, decompress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from imatlas.cli.shared import Json, Overwrite, Seed, Sources, app, command_line, one_source, print_next, print_result
from imatlas.system.terminal import say

if TYPE_CHECKING:
    from imatlas.models.parts.codec_base import CodecBase

Effort = Literal["normal", "high"]
Model = Annotated[
    Path | None, typer.Option("--model", help="a saved codec", show_default="the general one, learned from photographs")
]


@app.command(epilog="Example: imatlas compress photos/ -o photos.imc --quality 60")
def compress(
    images: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="the file to write, such as photos.imc")],
    quality: Annotated[
        float | None, typer.Option("--quality", min=1, max=100, help="1 to 100", show_default="50")
    ] = None,
    psnr: Annotated[
        float | None, typer.Option("--psnr", min=10, max=90, help="instead: least quality of each image, in dB")
    ] = None,
    bpp: Annotated[
        float | None, typer.Option("--bpp", min=0.001, max=64, help="instead: most bits per pixel of each image")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", min=1, help="instead: most bytes of each image")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="keep every value as it is")] = False,
    effort: Annotated[
        Effort, typer.Option("--effort", help="high: smaller files at equal quality, which take longer to read, too")
    ] = "normal",
    learn: Annotated[
        str | None,
        typer.Option(
            "--learn", metavar="TIME", help="first learn from these images, such as 15m; the file holds the model"
        ),
    ] = None,
    model: Model = None,
    best: Annotated[bool, typer.Option("--best", help="keep an image as WebP or AVIF where that is smaller")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="write a page with sizes of a few images at all qualities and in other formats, before and after",
        ),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="add images to a file that exists")] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Compress images into one file, with loss if not said otherwise, by a codec that has learned from images.

    A run that was stopped is continued by the same command.
    """
    from imatlas.images.dataset import Images
    from imatlas.models.codec import ImageCodec, step_of
    from imatlas.models.lossless_codec import LosslessCodec
    from imatlas.report import render
    from imatlas.result import FileList
    from imatlas.tasks.coded_file import CodedFile
    from imatlas.tasks.compress import Target, compress_images, is_worth_its_bytes, learning_for
    from imatlas.tasks.decompress import codec_of
    from imatlas.tasks.rate_distortion import rate_distortion

    targets = {"--quality": quality, "--psnr": psnr, "--bpp": bpp, "--max-bytes": max_bytes, "--lossless": lossless}
    given = [name for name, value in targets.items() if value not in (None, False)]
    if len(given) > 1:
        raise typer.BadParameter(f"give one of {' and '.join(given)}.")
    if learn is not None and append:
        raise typer.BadParameter("--append uses the model of the file; give it without --learn.")
    if learn is not None and model is not None:
        raise typer.BadParameter("--learn makes a model; give it without --model.")
    if report is not None and lossless:
        raise typer.BadParameter("--report compares qualities, and --lossless has only one; give one of them.")
    if effort == "high" and lossless:
        raise typer.BadParameter("--effort is for files with loss; give it without --lossless.")
    source = one_source(images)
    step = step_of(50 if quality is None else quality) if not given or quality is not None else None
    target = Target(step, psnr, bpp, max_bytes, effort)

    kind: type[CodecBase] = LosslessCodec if lossless else ImageCodec

    def codec(packed: bytes) -> CodecBase:
        if packed or (learn is None and model is None):
            return kind.from_weights(packed)
        if model is not None:
            return codec_at(model, kind)
        parameters = learning_for(source, lossless)
        made = kind(budget=learn, random_state=seed, progress=not json_, **parameters).fit(Images(source))
        if is_worth_its_bytes(made, kind.general(), source, target):
            return made
        say("What was learned saves less than the model takes, so the general one is used.", error=True)
        return kind.general()

    learned = {"learn": learn, "seed": seed} if learn is not None else {"codec": str(model)} if model else None
    how: dict[str, Any] = {"best": best, "append": append, "overwrite": overwrite, "progress": not json_}
    result = compress_images(source, output, codec, target, learned=learned, **how)
    if report is not None:
        codec_used = codec_of(CodedFile.open(output), None if model is None else codec_at(model, kind))
        page = rate_distortion(source, codec_used, target)
        render([page], title=output.name, subtitle="Compressed images", path=report)
        result.panels.append(FileList(files=[(str(report), "sizes and qualities")]))
    print_result(result, json_)
    print_next(json_, command_line("imatlas", "decompress", output, "-o", output.with_name(f"{output.stem}-again")))


@app.command(epilog="Example: imatlas decompress photos.imc -o photos/")
def decompress(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a file that `imatlas compress` wrote")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="a new folder; or of one image a file, such as image.png")
    ],
    key: Annotated[list[str] | None, typer.Option("--key", help="only this image; may be repeated")] = None,
    model: Model = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Write the images of a compressed file as PNG, or TIFF where a PNG cannot hold them."""
    from imatlas.models.codec import ImageCodec
    from imatlas.models.lossless_codec import LosslessCodec
    from imatlas.tasks.decompress import decompress_images

    codec = None if model is None else codec_at(model, ImageCodec, LosslessCodec)
    result = decompress_images(file, output, codec, keys=key, overwrite=overwrite, progress=not json_)
    print_result(result, json_)


def codec_at(model: Path, *kinds: type[CodecBase]) -> CodecBase:
    """The codec of a folder, which is one of some kinds."""
    from imatlas.models import artifact

    return artifact.load(model, classes=kinds)
