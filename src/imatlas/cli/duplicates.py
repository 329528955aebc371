"""The command that finds duplicates, writes a plan for them, applies it, and undoes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imatlas.cli.shared import (
    Frames,
    Json,
    Overwrite,
    app,
    command_line,
    one_source,
    open_atlas,
    refuse_existing,
    say_next,
    source_words,
    tell,
    write_table,
)


@app.command(epilog="Example: imatlas duplicates photos/ -o plan.csv, then imatlas duplicates --apply plan.csv")
def duplicates(
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES ...", help="a folder or other sources of images, or an atlas"),
    ] = None,
    frames: Frames = "first",
    rotated: Annotated[bool, typer.Option("--rotated", help="find rotated and mirrored duplicates too")] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="list images with a duplicate in this other folder or atlas")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="write a plan to edit and apply, .csv; with --against, a table of the leaks"
        ),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="PLAN", help="move the files of a plan to a trash folder")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="restore the files that the last plan moved")] = False,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find duplicates, edited ones too, and move them to a trash folder by a plan that you can edit."""
    if sum((apply is not None, undo, output is not None or against is not None)) > 1:
        raise typer.BadParameter("--apply and --undo cannot be combined with -o, --against or each other.")
    named = source or []
    if not named and apply is None:
        raise typer.BadParameter("name a folder of images, or a plan with --apply.")
    if len(named) > 1 and (apply is not None or undo):
        raise typer.BadParameter("--apply and --undo work in one folder; name only that one.")
    if frames == "all" and output is not None and against is None:
        raise typer.BadParameter("a plan moves files, not frames; leave out -o or --frames all.")
    if apply is not None:
        _apply(apply, named[0] if named else None, json_)
    elif undo:
        from imatlas.tasks.duplicates.trash import undo as restore

        tell(restore(named[0]), json_)
    else:
        _find(named, frames, rotated, against, output, json_, overwrite)


def _apply(plan: Path, folder: str | None, json_: bool) -> None:
    from imatlas.tasks.duplicates.plans import read_plan
    from imatlas.tasks.duplicates.trash import apply_plan

    read = read_plan(plan, folder)
    tell(apply_plan(read), json_)
    say_next(json_, f"{command_line('imatlas', 'duplicates', read.folder, '--undo')}   # restores them")


def _find(
    sources: list[str],
    frames: Frames,
    rotated: bool,
    against: str | None,
    output: Path | None,
    json_: bool,
    overwrite: bool,
) -> None:
    import pyarrow as pa

    from imatlas.errors import InputError
    from imatlas.tasks.duplicates.groups import find_duplicates

    if output is not None:
        refuse_existing(output, overwrite)
    if output is not None and against is None and output.suffix.lower() != ".csv":
        raise InputError(f"A plan is a .csv file. Got '{output.name}'; change its ending.")
    images = _opened(sources, frames, json_)
    others = None if against is None else _opened([against], frames, json_)
    found = find_duplicates(images, rotated=rotated, against=others, progress=not json_)
    if output is not None and against is not None:
        leaks = found.result.data["leaks"]
        write_table(pa.table({name: [leak[name] for leak in leaks] for name in ("key", "other", "kind")}), output)
    elif output is not None:
        found.plan(output)
    tell(found.result, json_)
    if output is not None and against is None:
        say_next(
            json_,
            f"# check {output}; change move to keep as you like",
            command_line(
                "imatlas", "duplicates", *([] if found.user_named_folder else [found.folder]), "--apply", output
            ),
        )
    elif (
        against is None and found.folder is not None and found.result.metrics["n_duplicates"] and source_words(sources)
    ):
        command = command_line("imatlas", "duplicates", *source_words(sources), "-o", "plan.csv")
        say_next(json_, f"{command}   # writes a plan to move the duplicates")


def _opened(sources: list[str], frames: Frames, json_: bool) -> Any:
    """A gallery from an atlas, or from any other sources."""
    from imatlas.atlas.gallery import gallery
    from imatlas.system.inventory import is_atlas
    from imatlas.tasks.duplicates.gallery import Gallery

    if len(sources) == 1 and is_atlas(sources[0]):
        return gallery(open_atlas(Path(sources[0])).store)
    return Gallery.of(one_source(sources), frames=frames, progress=not json_)
