"""What all commands share: the program, its options, and how things are opened and printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas._version import __version__

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


def open_images(
    source: str,
    *,
    progress: bool,
    image_size: int | None = None,
    fit: Fit = "crop",
    thumbnail_size: int | None = None,
) -> Any:
    from imatlas.images.dataset import Images

    return Images(source, image_size=image_size, fit=fit, progress=progress, thumbnail_size=thumbnail_size)


def open_atlas(folder: Path) -> Any:
    from imatlas.atlas import Atlas

    return Atlas(folder)


def refuse_existing(path: Path, overwrite: bool) -> None:
    from imatlas.errors import ArtifactError

    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise ArtifactError(f"'{path}' already exists; choose another name with -o, or pass --overwrite.")


def write_table(rows: Any, path: Path) -> None:
    """Write a pyarrow table in the format that the file name's ending names."""
    import io

    from pyarrow import csv, parquet

    from imatlas.disk import write_file
    from imatlas.errors import InputError
    from imatlas.result import plain

    buffer = io.BytesIO()
    ending = path.suffix.lower()
    if ending == ".csv":
        csv.write_csv(rows, buffer)
    elif ending == ".parquet":
        parquet.write_table(rows, buffer)
    elif ending == ".json":
        buffer.write(json.dumps(plain(rows.to_pylist()), indent=1, allow_nan=False).encode())
    else:
        raise InputError(f"A table can be a .csv, .parquet or .json file. Got '{path.name}'; change its ending.")
    write_file(path, buffer.getvalue())


def tell(result: Any, json_: bool) -> None:
    """Print a Result: its sentences, then its numbers; or as JSON."""
    if json_:
        print_json(result.to_json())
        return
    from rich.console import Console

    from imatlas.result import DataTable, FileList

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{result.title}[/bold]", markup=True)
    for sentence in result.sentences:
        console.print(f"  {sentence}", markup=False)
    for name, value in result.metrics.items():
        console.print(f"  {name:<44} {as_text(value)}", markup=False)
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
        shown.add_row(*(escape(as_text(value)) for value in row))
    console.print(shown)
    if len(rows) > most:
        console.print(f"  … and {len(rows) - most:,} more (--json shows all)", markup=False)


def as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_json(value: Any) -> None:
    from imatlas.result import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def say_next(json_: bool, *commands: str) -> None:
    """Say what one would do next."""
    if not json_:
        print("Next:  " + "\n       ".join(commands))


def suggest(source: str) -> str:
    """A name for the atlas of a source: 'photos/' becomes 'photos.atlas'."""
    stem = Path(source.rstrip("/*?")).name.partition(".")[0]
    return f"{stem or 'images'}.atlas"
