"""What all commands share: the program, its options, and how things are opened and printed."""

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
    help="Learn from images that nobody labeled: map, group, find and create, on your own machine.",
    epilog="Start with: imatlas learn photos/ -o photos.atlas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES ...",
        help="a folder, glob, file, .zip, .tar, .parquet, .npy or .npz; several files or folders are one set",
    ),
]
Frames = Annotated[
    Literal["first", "all"], typer.Option("--frames", help="what to take from animations and stacks of pages")
]
Field = Annotated[str | None, typer.Option("--field", help="the column of a Parquet file that holds the images")]
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
    """Learn from images that nobody labeled: map, group, find and create, on your own machine."""
    if version:
        say(f"imatlas {__version__}")
        raise typer.Exit


def one_source(sources: list[str], field: str | None = None) -> Any:
    """What was named as one source of images: it, or the files of all, opened."""
    if len(sources) == 1:
        return sources[0]
    from imatlas.images.sources.opening import open_several

    return open_several(sources, field)


def open_images(source: str | list[str], *, progress: bool, **options: Any) -> Any:
    """`Images` of what was named, with their own options where any are given."""
    from imatlas.images.dataset import Images

    opened = source if isinstance(source, str) else one_source(source, options.get("field"))
    return Images(opened, progress=progress, **options)


def open_atlas(folder: Path) -> Any:
    from imatlas.atlas.atlas import Atlas

    return Atlas(folder)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that is there already, a broken link or a pipe too; an empty folder may be filled."""
    import os

    from imatlas.errors import ArtifactError
    from imatlas.system.atomic_io import is_link, output_path

    path = output_path(path)
    if not os.path.lexists(path) or (path.is_dir() and not is_link(path) and not any(path.iterdir())):
        return
    if not overwrite:
        raise ArtifactError(f"'{path}' already exists; choose another name with -o, or pass --overwrite.")
    if not path.is_dir() and not path.is_file() and not is_link(path):
        raise ArtifactError(f"'{path}' is not a file, so it is not replaced; choose another name with -o.")


def write_table(rows: Any, path: Path) -> None:
    """Write a pyarrow table in the format that the file name's ending names."""
    import io

    from pyarrow import parquet

    from imatlas.errors import InputError
    from imatlas.system.atomic_io import write_file

    buffer = io.BytesIO()
    ending = path.suffix.lower()
    if ending == ".csv":
        write_csv_table(rows, buffer)
    elif ending == ".parquet":
        parquet.write_table(rows, buffer)
    elif ending == ".json":
        buffer.write(json_text(rows.to_pylist()).encode())
    else:
        raise InputError(f"A table can be a .csv, .parquet or .json file. Got '{path.name}'; change its ending.")
    write_file(path, buffer.getvalue())


def write_csv_table(rows: Any, stream: Any) -> None:
    """Write a pyarrow table as CSV in UTF-8, its texts made safe for a spreadsheet."""
    import pyarrow as pa
    from pyarrow import csv

    from imatlas.system.csv_files import cell

    for place, field in enumerate(rows.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            safe = pa.array([cell(value) for value in rows.column(place).to_pylist()], field.type)
            rows = rows.set_column(place, field, safe)
    csv.write_csv(rows, stream)


def tell(result: Any, json_: bool) -> None:
    """Print a Result: its sentences, then its numbers; or as JSON."""
    if json_:
        print_json(result.to_json())
        return
    from rich.text import Text

    from imatlas.result import DataTable, FileList

    shown = console()
    shown.print(Text(_written(result.title), style="bold"), soft_wrap=True)
    for sentence in result.sentences:
        say(f"  {sentence}")
    for name, value in result.metrics.items():
        say(f"  {name:<44} {as_text(value)}")
    if result.protocol:
        say(f"  ({result.protocol})")
    for panel in result.panels:
        if isinstance(panel, DataTable):
            _show_rows(shown, panel.title, panel.columns, panel.rows)
        elif isinstance(panel, FileList):
            _show_rows(shown, panel.title, ("file", ""), panel.files)


def _show_rows(shown: Any, title: str, columns: Any, rows: Any, most: int = 20) -> None:
    from rich.table import Table

    table = Table(title=_written(title), title_justify="left", box=None, pad_edge=True)
    for column in columns:
        table.add_column(_written(column), overflow="fold")
    for row in list(rows)[:most]:
        table.add_row(*(_written(as_text(value)) for value in row))
    shown.print(table)
    if len(rows) > most:
        say(f"  … and {len(rows) - most:,} more (--json shows all)")


def _written(text: object) -> str:
    """A text as the standard output can show it."""
    return writable(visible(text), sys.stdout)


def as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_json(value: Any) -> None:
    """Print JSON values; what a terminal would obey is escaped."""
    print(json_text(value, sys.stdout))


def say_next(json_: bool, *commands: str) -> None:
    """Say what one would do next; `command_line` makes commands of words, and what is none begins with a '#'."""
    if not json_:
        for number, command in enumerate(commands):
            say(f"{'       ' if number else 'Next:  '}{command}")


def command_line(*words: object) -> str:
    """A command to be pasted into a shell; a path among its words never becomes an option."""
    return shell(*(file_word(word) if isinstance(word, Path) else word for word in words))


MOST_SOURCES = 5
"""Sources that a command to be pasted repeats."""


def source_words(sources: list[str]) -> list[Path]:
    """What was named as a source of images, as words of the next command; nothing where a shell made it of a pattern,
    so that the user writes it again."""
    return [Path(source) for source in sources] if len(sources) <= MOST_SOURCES else []


def suggest(sources: list[str]) -> Path:
    """A name for the atlas of a source: 'photos/', 'photos/*.jpg' and the files in it become 'photos.atlas'."""
    import glob
    import os

    first = Path(sources[0])
    if len(sources) > 1:
        folders = {source.rstrip("/") if os.path.isdir(source) else os.path.dirname(source) for source in sources}
        first = Path(folders.pop()) if len(folders) == 1 else Path()
    elif not os.path.lexists(first):
        first = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), first.parts))
    stem = first.name.partition(".")[0]
    return Path(f"{stem or 'images'}.atlas")
