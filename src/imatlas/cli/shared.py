"""Shared by all commands: the Typer app, common options, opening images and atlases, printing results."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas import __version__
from imatlas.system.terminal import console, file_word, json_text, say, shell, visible, writable

app = typer.Typer(
    name="imatlas",
    epilog="Start with: imatlas learn photos/ -o photos.atlas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES ...",
        help="folder, glob pattern, file, .zip, .tar, .parquet, .lance, .npy or .npz, or an address such as "
        "s3://bucket/photos; several files or folders form one set",
    ),
]
Frames = Annotated[
    Literal["first", "all"], typer.Option("--frames", help="frames of animations and pages of multi-page files to use")
]
Video = Annotated[
    str,
    typer.Option(
        "--video",
        help="frames of videos to use: cuts (one of each shot, and one every 5 seconds of a long one), or the time "
        "between two frames, such as 2s",
    ),
]
Field = Annotated[
    str | None, typer.Option("--field", help="column of a table (Parquet, Arrow, Lance) that contains the images")
]
AtlasFolder = Annotated[
    str,
    typer.Argument(
        metavar="ATLAS", help="atlas made by 'imatlas learn': a folder, or an address such as s3://bucket/a.atlas"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="seed of the random numbers")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output")]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="learning time, such as 90s, 5m or 1h", show_default="by number of images"),
]
Fit = Annotated[
    Literal["crop", "pad", "stretch"], typer.Option("--fit", help="how images of other aspect ratios become square")
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=8, help="side of the square images in pixels", show_default="by size and number of images"
    ),
]
Device = Annotated[str, typer.Option("--device", help="where to compute: auto, cpu, cuda, cuda:1 or mps")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="print the traceback of an error; works with every command")
    ] = False,
) -> None:
    """Learn from unlabeled images: map, cluster, search and generate, on your own machine."""
    if version:
        say(f"imatlas {__version__}")
        raise typer.Exit


def one_source(sources: list[str], field: str | None = None) -> Any:
    """One source of images from one or several arguments; several files and folders are listed together."""
    if len(sources) == 1:
        return sources[0]
    from imatlas.images.sources.opening import open_several

    return open_several(sources, field)


def open_images(source: str | list[str], *, progress: bool, **options: Any) -> Any:
    """The `Images` of one or several sources; the options are those of `Images`."""
    from imatlas.images.dataset import Images

    data = source if isinstance(source, str) else one_source(source, options.get("field"))
    return Images(data, progress=progress, **options)


def is_named_atlas(source: str) -> bool:
    """Whether a source of images is an atlas: a folder that is one, or an address that ends in .atlas."""
    from imatlas.arguments import is_address
    from imatlas.system.inventory import is_atlas

    return source.rstrip("/").endswith(".atlas") if is_address(source) else is_atlas(source)


def open_atlas(folder: str | Path) -> Any:
    from imatlas.atlas.atlas import Atlas

    return Atlas(folder)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an existing output, also a broken link or a pipe; an empty folder may be filled."""
    import os

    from imatlas.errors import ArtifactError
    from imatlas.system.atomic_io import is_link, output_path

    path = output_path(path)
    if not os.path.lexists(path) or (path.is_dir() and not is_link(path) and not any(path.iterdir())):
        return
    if not overwrite:
        raise ArtifactError(f"'{path}' already exists; choose another name with -o, or pass --overwrite.")
    if not path.is_dir() and not path.is_file() and not is_link(path):
        raise ArtifactError(f"'{path}' is not a regular file and cannot be replaced; choose another name with -o.")


def write_table(rows: Any, path: Path) -> None:
    """Write a pyarrow table in the format of the file extension: .csv, .parquet or .json."""
    import io

    from pyarrow import parquet

    from imatlas.errors import InputError
    from imatlas.system.atomic_io import write_file

    buffer = io.BytesIO()
    extension = path.suffix.lower()
    if extension == ".csv":
        write_csv_table(rows, buffer)
    elif extension == ".parquet":
        parquet.write_table(rows, buffer)
    elif extension == ".json":
        buffer.write(json_text(rows.to_pylist()).encode())
    else:
        raise InputError(
            f"A table must be a .csv, .parquet or .json file. Got '{path.name}'; change its file extension."
        )
    write_file(path, buffer.getvalue())


def write_csv_table(rows: Any, stream: Any) -> None:
    """Write a pyarrow table as UTF-8 CSV, with texts escaped for spreadsheets (no formulas)."""
    import pyarrow as pa
    from pyarrow import csv

    from imatlas.system.csv_files import cell

    for i, field in enumerate(rows.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            safe = pa.array([cell(value) for value in rows.column(i).to_pylist()], field.type)
            rows = rows.set_column(i, field, safe)
    csv.write_csv(rows, stream)


def print_result(result: Any, json_: bool) -> None:
    """Print a Result: its sentences, metrics and tables; or as JSON."""
    if json_:
        print_json(result.to_json())
        return
    from rich.text import Text

    from imatlas.result import DataTable, FileList

    out = console()
    out.print(Text(_printable(result.title), style="bold"), soft_wrap=True)
    for sentence in result.sentences:
        say(f"  {sentence}")
    for name, value in result.metrics.items():
        say(f"  {name:<44} {as_text(value)}")
    if result.protocol:
        say(f"  ({result.protocol})")
    for panel in result.panels:
        if isinstance(panel, DataTable):
            _print_rows(out, panel.title, panel.columns, panel.rows)
        elif isinstance(panel, FileList):
            _print_rows(out, panel.title, ("file", ""), panel.files)


def _print_rows(out: Any, title: str, columns: Any, rows: Any, limit: int = 20) -> None:
    from rich.table import Table

    table = Table(title=_printable(title), title_justify="left", box=None, pad_edge=True)
    for column in columns:
        table.add_column(_printable(column), overflow="fold")
    for row in list(rows)[:limit]:
        table.add_row(*(_printable(as_text(value)) for value in row))
    out.print(table)
    if len(rows) > limit:
        say(f"  … and {len(rows) - limit:,} more (--json prints all)")


def _printable(text: object) -> str:
    """A text with escapes for what the standard output cannot print."""
    return writable(visible(text), sys.stdout)


def as_text(value: Any) -> str:
    """A value for a table: four significant digits, thousands separators, a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_json(value: Any) -> None:
    """Print a value as JSON, with control characters escaped."""
    print(json_text(value, sys.stdout))


def print_next(json_: bool, *commands: str) -> None:
    """Print the next commands, each from `command_line`; a line that is not a command starts with '#'."""
    if not json_:
        for number, command in enumerate(commands):
            say(f"{'       ' if number else 'Next:  '}{command}")


def command_line(*words: object) -> str:
    """A command that can be pasted into a shell; a path that starts with a dash is not read as an option."""
    return shell(*(file_word(word) if isinstance(word, Path) else word for word in words))


MAX_SOURCES = 5
"""Most sources that a suggested command repeats."""


def source_words(sources: list[str]) -> list[Path | str]:
    """The sources as arguments of a suggested command; none if there are many, probably from a pattern that the shell
    expanded."""
    words = [place_word(source) for source in sources]
    return words if len(words) <= MAX_SOURCES else []


def place_word(place: str) -> Path | str:
    """A path or address as an argument of a suggested command."""
    from imatlas.arguments import is_address

    return place if is_address(place) else Path(place)


def suggested_name(sources: list[str]) -> Path:
    """The suggested atlas name: 'photos.atlas' for 'photos/', 'photos/*.jpg' and files in 'photos/'."""
    import glob
    import os

    from imatlas.arguments import is_address

    first = Path(sources[0])
    if len(sources) > 1:
        folders = {source.rstrip("/") if os.path.isdir(source) else os.path.dirname(source) for source in sources}
        first = Path(folders.pop()) if len(folders) == 1 else Path()
    elif is_address(sources[0]):
        first = Path("remote", *sources[0].partition("://")[2].rstrip("/").split("/"))
    if len(sources) == 1 and not os.path.lexists(first):
        first = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), first.parts))
    stem = first.name.partition(".")[0]
    return Path(f"{stem or 'images'}.atlas")
