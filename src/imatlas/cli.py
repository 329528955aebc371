"""The command line: parse, call, print. Heavy imports wait until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas._version import __version__
from imatlas.errors import ImatlasError

app = typer.Typer(
    name="imatlas",
    help="Learn from images that nobody labelled: map, group, find and create, on your own machine.",
    epilog="Start with: imatlas learn photos/ -o photos.atlas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Source = Annotated[str, typer.Argument(metavar="IMAGES", help="folder, glob, file, .zip, .tar, .parquet, .npy or .npz")]
AtlasFolder = Annotated[Path, typer.Argument(metavar="ATLAS", help="an atlas that 'imatlas learn' made")]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs instead of text")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="seed of everything that chance decides")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is already at the output")]
Budget = Annotated[
    str | None, typer.Option("--budget", help="time to learn, such as 90s, 5m or 1h  [default: by size]")
]
Fit = Annotated[Literal["crop", "pad", "stretch"], typer.Option("--fit", help="what to do with odd aspect ratios")]
ImageSize = Annotated[int | None, typer.Option("--image-size", min=8, help="side in pixels  [default: by the set]")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of a failure (works anywhere)")] = False,
) -> None:
    """Learn from images that nobody labelled: map, group, find and create, on your own machine."""
    if version:
        print(f"imatlas {__version__}")
        raise typer.Exit


@app.command(epilog="Example: imatlas check photos/")
def check(
    images: Source,
    json_: Json = False,
    image_size: ImageSize = None,
) -> None:
    """Say what is in a folder, what is broken or doubled, and what learning from it would take."""
    from imatlas.learning import estimate
    from imatlas.tasks.check import check as run_check

    pictures = _images(images, image_size=image_size, progress=not json_)
    result = run_check(pictures, estimate=estimate(pictures))
    _show(result, json_)
    _next(json_, f"imatlas learn {images} -o {_suggest(images)}")


@app.command(epilog="Example: imatlas learn photos/ -o photos.atlas --budget 5m")
def learn(
    images: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="the atlas to make, continue or update")],
    budget: Budget = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="number of clusters  [default: found]")
    ] = None,
    encoder: Annotated[
        Literal["auto", "pretrained", "own"],
        typer.Option(
            "--encoder", help="the eyes: pretrained (learnt with ImageNet's labels) or own (learnt here, no labels)"
        ),
    ] = "auto",
    image_size: ImageSize = None,
    fit: Fit = "crop",
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Learn an atlas from images. The same command again continues a stopped run, or updates a finished atlas."""
    from imatlas.learning import learn as run_learn

    atlas = run_learn(
        images,
        output,
        budget=budget,
        clusters=clusters,
        encoder=encoder,
        image_size=image_size,
        fit=fit,
        random_state=seed,
        device=device,
        overwrite=overwrite,
        progress=not json_,
    )
    if json_:
        _print_json(atlas.info().to_json())
    _next(json_, f"open {output / 'report.html'}", f"imatlas sample {output} -n 16 -o new.png")


@app.command(epilog="Example: imatlas info photos.atlas")
def info(atlas: AtlasFolder, json_: Json = False) -> None:
    """Say what an atlas holds, how it was learnt, and how good it is."""
    _show(_atlas(atlas).info(), json_)


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
        _refuse_existing(path, overwrite)
    _atlas(atlas).report(path)
    print(f"Report: {path}")


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
    from imatlas.plots.export import check_ending

    check_ending(output)
    _refuse_existing(output, overwrite)
    opened = _atlas(atlas)
    opened.map(output, show, width=width, outline=outline)
    som = opened.model("map")
    told = opened.regions if outline == "regions" else None
    if json_:
        said = {"file": str(output), "show": show, "width": width, "rows": som.rows_, "cols": som.cols_}
        _print_json(said | ({"regions": told.result.to_json()} if told else {}))
        return
    print(f"Map: {output} ({som.rows_} x {som.cols_} cells, {width:,} pixels wide)")
    if told:
        _show(told.result, False)


@app.command(epilog="Example: imatlas table photos.atlas -o photos.csv")
def table(
    atlas: AtlasFolder,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a .csv, .parquet or .json file")] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Print or write one row an image: key, size, cell, place, cluster, outlier score, duplicate."""
    rows = _atlas(atlas).table()
    if json_:
        _print_json(rows.to_pylist())
    elif output is None:
        from pyarrow import csv

        csv.write_csv(rows, sys.stdout.buffer)
    else:
        _refuse_existing(output, overwrite)
        _write_table(rows, output)
        print(f"Table: {output} ({len(rows):,} rows)")


@app.command(epilog="Example: imatlas search photos.atlas query.jpg -k 10")
def search(
    atlas: AtlasFolder,
    query: Annotated[str, typer.Argument(metavar="IMAGE", help="an image file, or the key of an image in the atlas")],
    k: Annotated[int, typer.Option("-k", min=1, help="how many")] = 10,
    json_: Json = False,
) -> None:
    """Find the images of the atlas that are nearest to one image."""
    found = _atlas(atlas).search(query, k=k)
    if json_:
        _print_json(found.to_pylist())
        return
    for row in found.to_pylist():
        print(f"{row['rank']:>4}  {row['distance']:8.4f}  {row['closer_than']:6.1%}  {row['key']}")


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

    _refuse_existing(output, overwrite)
    opened = _atlas(atlas)
    asked: dict[str, Any] = {
        "cell": [_pair(text) for text in cell] if cell else None,
        "cluster": cluster or None,
        "like": like or None,
        "weights": _numbers(weights) if weights else None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    images = opened.sample(n, strength=strength, random_state=seed, **asked)
    recipe = {"atlas": atlas.name, "n": n, "seed": seed, "imatlas": __version__, **asked}
    recipe |= {"strength": strength} if like else {}
    written = write_samples(images, output, recipe=recipe)
    if json_:
        _print_json({"files": [str(path) for path in written], **recipe})
    else:
        print(f"New images: {output} ({n} images, seed {seed})")


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

    from imatlas.images.film import check_film_ending, write_film

    check_film_ending(output)
    _refuse_existing(output, overwrite)
    pairs = [_pair(text) for text in cells or []]
    made = _atlas(atlas).morph(*(images or []), cells=pairs, frames=frames, random_state=seed)
    recipe = {"atlas": atlas.name, "images": images or [], "cells": pairs, "frames": frames, "seed": seed}
    write_film(output, made, fps=fps, text=json.dumps(recipe | {"imatlas": __version__}))
    if json_:
        _print_json({"file": str(output), **recipe})
    else:
        print(f"Morph: {output} ({frames} frames, {frames / fps:.1f} s)")


@app.command(epilog="Example: imatlas score photos.atlas, or: imatlas score runs/vae --images photos/")
def score(
    folder: Annotated[Path, typer.Argument(metavar="ATLAS", help="an atlas, or a model that 'imatlas fit' saved")],
    images: Annotated[
        str | None, typer.Option("--images", help="for a model: the images that it was fitted on")
    ] = None,
    json_: Json = False,
    seed: Seed = 0,
) -> None:
    """Measure a generator on images that it never learnt from: how good it is, and whether it copies."""
    from imatlas.atlas import Atlas, load
    from imatlas.errors import InputError
    from imatlas.tasks.score import score_model

    opened = load(folder)
    if isinstance(opened, Atlas):
        if images is not None:
            raise InputError(f"'{folder}' is an atlas, which holds its own images; leave --images out.")
        _show(opened.score(random_state=seed), json_)
        return
    if images is None:
        raise InputError(f"'{folder}' is a model; name the images that it was fitted on with --images.")
    pictures = _images(images, image_size=None, progress=not json_)
    _show(score_model(opened, pictures, random_state=seed), json_)


@app.command(name="export", epilog="Example: imatlas export runs/vae -o vae-onnx")
def export_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a folder that 'imatlas fit' or model.save made")],
    output: Annotated[Path, typer.Option("-o", "--output", help="a folder; or an .onnx file, for a single network")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="largest difference, as a share of the largest output")
    ] = 1e-4,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> None:
    """Write the networks of a model as ONNX files, each checked against its network."""
    from imatlas.atlas import load
    from imatlas.tasks.export import export_model

    _show(export_model(load(model), output, tolerance=tolerance, overwrite=overwrite), json_)
    _next(json_, "see docs/export.md for the few lines that run it, without imatlas")


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
    import shutil

    from imatlas.demo import write_demo_images
    from imatlas.learning import learn as run_learn

    _refuse_existing(output, overwrite)
    pictures, folder = output / "photos", output / "photos.atlas"
    if output.exists():
        shutil.rmtree(pictures, ignore_errors=True)
    write_demo_images(pictures, random_state=seed)
    run_learn(pictures, folder, budget=budget, random_state=seed, overwrite=overwrite)
    _next(False, f"open {folder / 'report.html'}", f"imatlas sample {folder} -n 16 -o new.png")


fit_app = typer.Typer(no_args_is_help=True, help="Learn one model from images and save it.")
app.add_typer(fit_app, name="fit")


def _add_fit_command(name: str) -> None:
    """Give `imatlas fit NAME` an option for each parameter of the model, as the model declares it."""
    import inspect

    from imatlas.models import model_class
    from imatlas.models.base import parameters

    cls = model_class(name)
    options = {key: p for key, p in parameters(cls).items() if _as_option(p.type) is not None}

    def command(**values: Any) -> None:
        from imatlas.tasks.fit import fit_and_save

        source, output, overwrite = values.pop("images"), values.pop("output"), values.pop("overwrite")
        size, fit = values.pop("source_size"), values.pop("source_fit")
        chosen = {key: value for key, value in values.items() if value != options[key].default}
        pictures = _images(source, image_size=size, fit=fit, progress=True)
        fit_and_save(cls(**chosen), pictures, output, overwrite=overwrite)
        print(f"Model: {output}")
        _next(False, f'python -c "import imatlas; model = imatlas.load({str(output)!r})"')

    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = [
        inspect.Parameter("images", keyword, annotation=Source),
        inspect.Parameter(
            "output", keyword, annotation=Annotated[Path, typer.Option("-o", "--output", help="folder of the model")]
        ),
        inspect.Parameter("overwrite", keyword, annotation=Overwrite, default=False),
        inspect.Parameter("source_size", keyword, annotation=ImageSize, default=None),
        inspect.Parameter("source_fit", keyword, annotation=Fit, default="crop"),
    ]
    for key, parameter in options.items():
        option = typer.Option(f"--{key.replace('_', '-')}", help=parameter.description)
        kind = _as_option(parameter.type)
        if kind is bool:
            option = typer.Option(help=parameter.description)
        arguments.append(inspect.Parameter(key, keyword, annotation=Annotated[kind, option], default=parameter.default))
    command.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    command.__annotations__ = {a.name: a.annotation for a in arguments}
    command.__doc__ = (cls.__doc__ or "").strip().partition("\n\n")[0]
    fit_app.command(name, epilog=f"Example: imatlas fit {name} photos/ -o runs/{name}")(command)


def _as_option(kind: Any) -> Any:
    """The type that Typer can parse for a parameter's type; None where a command line cannot give it."""
    from typing import get_args, get_origin

    def simple(k: Any) -> bool:
        return k in (bool, int, float, str) or get_origin(k) is Literal

    if simple(kind):
        return kind
    members = [k for k in get_args(kind) if k is not type(None)]
    if not members or not all(simple(k) for k in members):
        return None
    member = str if str in members else members[0]  # budget is "90s" or 90: the model reads both from text
    return member | None if type(None) in get_args(kind) else member


def _add_models(arguments: list[str]) -> None:
    """Add the models to `fit`: the one that is named with all its options, the others by name and first sentence."""
    import ast

    from imatlas.models import MODELS

    if "fit" not in arguments[:1]:
        return
    for name, target in MODELS.items():
        if name in arguments:
            _add_fit_command(name)
            continue
        module, _, cls = target.partition(":")
        tree = ast.parse((Path(__file__).parent / "models" / f"{module}.py").read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls]
        text = (ast.get_docstring(found[0]) or "").partition("\n\n")[0] if found else ""
        fit_app.command(name, help=text)(lambda: None)


def _images(source: str, *, progress: bool, image_size: int | None = None, fit: Fit = "crop") -> Any:
    from imatlas.images.dataset import Images

    return Images(source, image_size=image_size, fit=fit, progress=progress)


def _atlas(folder: Path) -> Any:
    from imatlas.atlas import Atlas

    return Atlas(folder)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    from imatlas.errors import ArtifactError

    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise ArtifactError(f"'{path}' already exists; choose another name with -o, or pass --overwrite.")


def _write_table(rows: Any, path: Path) -> None:
    """Write a pyarrow table in the format that the file name's ending names."""
    import io

    from pyarrow import csv, parquet

    from imatlas.disk import write_file
    from imatlas.errors import InputError

    buffer = io.BytesIO()
    ending = path.suffix.lower()
    if ending == ".csv":
        csv.write_csv(rows, buffer)
    elif ending == ".parquet":
        parquet.write_table(rows, buffer)
    elif ending == ".json":
        buffer.write(json.dumps(rows.to_pylist(), indent=1).encode())
    else:
        raise InputError(f"A table can be a .csv, .parquet or .json file. Got '{path.name}'; change its ending.")
    write_file(path, buffer.getvalue())


def _show(result: Any, json_: bool) -> None:
    """Print a Result: its sentences, then its numbers; or as JSON."""
    if json_:
        _print_json(result.to_json())
        return
    from rich.console import Console

    from imatlas.result import DataTable, FileList

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{result.title}[/bold]", markup=True)
    for sentence in result.sentences:
        console.print(f"  {sentence}", markup=False)
    for name, value in result.metrics.items():
        console.print(f"  {name:<44} {_number(value)}", markup=False)
    if result.protocol:
        console.print(f"  ({result.protocol})", markup=False)
    for panel in result.panels:
        if isinstance(panel, DataTable):
            _show_rows(console, panel.title, panel.columns, panel.rows)
        elif isinstance(panel, FileList):
            _show_rows(console, panel.title, ("file", ""), panel.files)


def _show_rows(console: Any, title: str, columns: Any, rows: Any, most: int = 20) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(title), title_justify="left", box=None, pad_edge=True)
    for column in columns:
        shown.add_column(escape(str(column)), overflow="fold")
    for row in list(rows)[:most]:
        shown.add_row(*(escape(_number(value)) for value in row))
    console.print(shown)
    if len(rows) > most:
        console.print(f"  … and {len(rows) - most:,} more (--json shows all)", markup=False)


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


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _next(json_: bool, *commands: str) -> None:
    """Say what one would do next."""
    if not json_:
        print("Next:  " + "\n       ".join(commands))


def _suggest(source: str) -> str:
    """A name for the atlas of a source: 'photos/' becomes 'photos.atlas'."""
    stem = Path(source.rstrip("/*?")).name.partition(".")[0]
    return f"{stem or 'images'}.atlas"


def _one_line(error: Exception) -> str:
    """An error as one line; what nobody foresaw says how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImatlasError | OSError | MemoryError):
        return text
    return f"{type(error).__name__}: {text} (not foreseen; run again with --debug for the traceback)"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 a failure told in one line, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        _add_models(arguments)
        code = app(arguments, standalone_mode=False, prog_name="imatlas")
        return code if isinstance(code, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. What was finished is saved; the same command again continues.", file=sys.stderr)
        return 1
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error: the parser words it best
            error.show()
            return int(error.exit_code)
        if debug:
            raise
        print(f"Error: {_one_line(error)}", file=sys.stderr)
        return 1


def run() -> None:
    """The installed `imatlas` command."""
    # Threads that spin while they wait make a step 5 to 20 times slower once another program wants a core; sleeping
    # costs nothing measurable. PyTorch reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
