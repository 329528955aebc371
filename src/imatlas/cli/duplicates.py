"""The command that finds duplicates, writes a plan to remove them, applies the plan, and undoes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imatlas.cli.shared import (
    Field,
    Frames,
    Json,
    Overwrite,
    Video,
    app,
    command_line,
    is_named_atlas,
    one_source,
    open_atlas,
    print_next,
    print_result,
    refuse_existing,
    source_words,
    write_table,
)


@app.command(epilog="Example: imatlas duplicates photos/ -o plan.csv   then: imatlas duplicates --apply plan.csv")
def duplicates(
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES ...", help="folder, other sources of images, or an atlas"),
    ] = None,
    frames: Frames = "first",
    video: Video = "cuts",
    field: Field = None,
    rotated: Annotated[bool, typer.Option("--rotated", help="find rotated and mirrored duplicates too")] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="find images that have a duplicate in this other folder or atlas")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="write a plan to edit and apply, a .csv file; with --against, a table of the duplicates",
        ),
    ] = None,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="PLAN", help="move the files in a plan to a trash folder")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="restore the files moved by the last plan")] = False,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find duplicates and edited copies; write a plan, edit it, and apply it to move them to a trash folder."""
    if sum((apply is not None, undo, output is not None or against is not None)) > 1:
        raise typer.BadParameter("--apply and --undo cannot be combined with -o, --against or each other.")
    sources = source or []
    if not sources and apply is None:
        raise typer.BadParameter("give a folder of images, or a plan with --apply.")
    if len(sources) > 1 and (apply is not None or undo):
        raise typer.BadParameter("--apply and --undo work on a single folder; give only that one.")
    if frames == "all" and output is not None and against is None:
        raise typer.BadParameter("a plan moves files, not frames; omit -o or --frames all.")
    if apply is not None:
        _apply(apply, sources[0] if sources else None, json_)
    elif undo:
        from imatlas.tasks.duplicates.trash import undo as restore

        print_result(restore(sources[0]), json_)
    else:
        _find(sources, {"frames": frames, "video": video, "field": field}, rotated, against, output, json_, overwrite)


def _apply(plan: Path, folder: str | None, json_: bool) -> None:
    from imatlas.tasks.duplicates.plans import read_plan
    from imatlas.tasks.duplicates.trash import apply_plan

    parsed = read_plan(plan, folder)
    print_result(apply_plan(parsed), json_)
    print_next(json_, f"{command_line('imatlas', 'duplicates', parsed.folder, '--undo')}   # restores them")


def _find(
    sources: list[str],
    taken: dict[str, Any],
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
        raise InputError(f"A plan must be a .csv file. Got '{output.name}'; change its file extension.")
    images = _gallery(sources, taken, json_)
    others = None if against is None else _gallery([against], taken, json_)
    found = find_duplicates(images, rotated=rotated, against=others, progress=not json_)
    if output is not None and against is not None:
        leaks = found.result.data["leaks"]
        write_table(pa.table({name: [leak[name] for leak in leaks] for name in ("key", "other", "kind")}), output)
    elif output is not None:
        found.plan(output)
    print_result(found.result, json_)
    if output is not None and against is None:
        print_next(
            json_,
            f"# review {output}; change 'move' to 'keep' where needed",
            command_line(
                "imatlas", "duplicates", *([] if found.user_named_folder else [found.folder]), "--apply", output
            ),
        )
    elif (
        against is None and found.folder is not None and found.result.metrics["n_duplicates"] and source_words(sources)
    ):
        command = command_line("imatlas", "duplicates", *source_words(sources), "-o", "plan.csv")
        print_next(json_, f"{command}   # writes a plan to move the duplicates")


def _gallery(sources: list[str], taken: dict[str, Any], json_: bool) -> Any:
    """The gallery of an atlas or of any other sources."""
    from imatlas.atlas.gallery import gallery
    from imatlas.tasks.duplicates.gallery import Gallery

    if len(sources) == 1 and is_named_atlas(sources[0]):
        return gallery(open_atlas(sources[0]).store)
    return Gallery.of(one_source(sources, taken["field"]), **taken, progress=not json_)
