"""The command that finds copies, writes a plan for them, applies it, and takes it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imatlas.cli.shared import (
    Json,
    Overwrite,
    app,
    command_line,
    open_atlas,
    refuse_existing,
    say_next,
    tell,
    write_table,
)


@app.command(epilog="Example: imatlas duplicates photos/ -o plan.csv, then imatlas duplicates --apply plan.csv")
def duplicates(
    source: Annotated[
        str | None, typer.Argument(metavar="IMAGES", help="a folder or other source of images, or an atlas")
    ] = None,
    turned: Annotated[bool, typer.Option("--turned", help="find turned and mirrored copies too")] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="tell which images have a copy in this other folder or atlas")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="a plan to edit and apply, .csv; with --against a table of the leaks"),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="PLAN", help="move the copies that a plan says to a trash folder")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="bring back what the last plan moved")] = False,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find images that are here more than once, edited copies too, and put them aside by a plan that you can edit."""
    if sum((apply is not None, undo, output is not None or against is not None)) > 1:
        raise typer.BadParameter("--apply and --undo stand alone, with no -o, --against and each other.")
    if source is None and apply is None:
        raise typer.BadParameter("name a folder of images, or a plan with --apply.")
    if apply is not None:
        _apply(apply, source, json_)
    elif undo:
        from imatlas.tasks.tidy import undo as bring_back

        tell(bring_back(str(source)), json_)
    else:
        _find(str(source), turned, against, output, json_, overwrite)


def _apply(plan: Path, folder: str | None, json_: bool) -> None:
    from imatlas.tasks.tidy import apply_plan, read_plan

    read = read_plan(plan, folder)
    tell(apply_plan(read), json_)
    say_next(json_, f"{command_line('imatlas', 'duplicates', read.folder, '--undo')}   brings them back")


def _find(source: str, turned: bool, against: str | None, output: Path | None, json_: bool, overwrite: bool) -> None:
    import pyarrow as pa

    from imatlas.errors import InputError
    from imatlas.tasks.doubles import find_duplicates

    if output is not None:
        refuse_existing(output, overwrite)
    if output is not None and against is None and output.suffix.lower() != ".csv":
        raise InputError(f"A plan is a .csv file. Got '{output.name}'; change its ending.")
    images = _opened(source, json_)
    others = None if against is None else _opened(against, json_)
    found = find_duplicates(images, turned=turned, against=others, progress=not json_)
    if output is not None and against is not None:
        leaks = found.result.data["leaks"]
        write_table(pa.table({name: [leak[name] for leak in leaks] for name in ("key", "other", "how")}), output)
    elif output is not None:
        found.plan(output)
    tell(found.result, json_)
    if output is not None and against is None:
        say_next(
            json_,
            f"look into {output}, change move to keep where you like",
            command_line("imatlas", "duplicates", "--apply", output),
        )
    elif against is None and found.result.metrics["n_copies"]:
        command = command_line("imatlas", "duplicates", Path(source), "-o", "plan.csv")
        say_next(json_, f"{command}   writes a plan to put the copies aside")


def _opened(source: str, json_: bool) -> Any:
    """A gallery from an atlas, or from any other source."""
    from imatlas.inventory import is_atlas
    from imatlas.tasks.doubles import Gallery

    if is_atlas(source):
        return open_atlas(Path(source)).gallery()
    return Gallery.of(source, progress=not json_)
