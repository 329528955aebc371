"""The command that says which images are odd."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imatlas.cli.shared import (
    AtlasFolder,
    Json,
    Overwrite,
    app,
    open_atlas,
    open_images,
    refuse_existing,
    tell,
    write_table,
)
from imatlas.system.terminal import say

EXPLAINED = 12
"""Odd images that a page shows with where they are odd."""


def share(text: str) -> float:
    """A share as people write it: '1%' or '0.01'.

    Raises
    ------
    BadParameter
        If it is no share above 0 and up to 50 %.
    """
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 0.5:
        raise typer.BadParameter(f"a share above 0 and up to 50%, such as 1% or 0.01; got '{text}'")
    return value


@app.command(epilog="Example: imatlas outliers photos.atlas --false-alarms 1% -o odd.csv --page odd.html")
def outliers(
    atlas: AtlasFolder,
    false_alarms: Annotated[
        str,
        typer.Option("--false-alarms", metavar="SHARE", help="of ordinary images that may be called odd"),
    ] = "1%",
    images: Annotated[
        str | None, typer.Option("--images", help="judge these images, in place of those of the atlas")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="every image's oddness, p-value and flags: a .csv, .parquet or .json file"),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="an .html file that shows the oddest and where they are odd")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Say which images are odd, at a given rate of false alarms, and show where."""
    import pyarrow as pa

    allowed = share(false_alarms)
    for path in (output, page):
        if path is not None:
            refuse_existing(path, overwrite)
    opened = open_atlas(atlas)
    others = open_images(images, progress=not json_) if images is not None else None
    found = opened.outliers(others, false_alarms=allowed)
    tell(found.result, json_)
    if output is not None:
        keys, flags = (
            (opened.store.rows["key"], opened.store.rows.get("flags")) if others is None else (others.keys, None)
        )
        columns = {"key": list(keys), "oddness": found.oddness, "p_value": found.p_values}
        columns["odd"] = found.p_values <= allowed
        if flags is not None:
            columns["flags"] = list(flags)
        write_table(pa.table(columns), output)
    if page is not None:
        _write_page(opened, others, found, page)
    if not json_:
        told = [f"Table: {output} ({len(found.oddness):,} rows)"] if output else []
        told += [f"Page:  {page}"] if page else []
        for line in told or ["With --page odd.html it is shown where the oddest are odd."]:
            say(line)


def _write_page(opened: Any, others: Any, found: Any, page: Path) -> None:
    """Write the oddest images, where they are odd, and the ordinary images nearest to them as one HTML file."""
    from dataclasses import replace

    import numpy as np

    from imatlas.report import render

    oddest = np.argsort(-found.oddness, kind="stable")[:EXPLAINED]
    if others is None:
        shown = opened.store.rows["key"][oddest].tolist()
        pairs = opened.why_odd(shown, found)
    else:
        shown = [others.keys[i] for i in oddest]
        pairs = replace(opened.why_odd([others[int(i)] for i in oddest], found), captions=shown)
    result = replace(found.result, panels=[pairs, *found.result.panels])
    render([result], title=opened.name, subtitle="The odd ones", facts={}, path=page)
