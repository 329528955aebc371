"""The command that finds outliers."""

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
    print_result,
    refuse_existing,
    write_table,
)
from imatlas.system.terminal import say

N_HEAT_MAPS = 12
"""Outliers with a heat map on the page."""


def share(text: str) -> float:
    """Parse a share such as '1%' or '0.01'.

    Raises
    ------
    BadParameter
        If it is not above 0 and at most 50 %.
    """
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 0.5:
        raise typer.BadParameter(f"must be above 0 and at most 50%, such as 1% or 0.01; got '{text}'")
    return value


@app.command(
    epilog="Example: imatlas outliers photos.atlas --false-positive-rate 1% -o outliers.csv --page outliers.html"
)
def outliers(
    atlas: AtlasFolder,
    false_positive_rate: Annotated[
        str,
        typer.Option(
            "--false-positive-rate", metavar="SHARE", help="share of ordinary images that may be called outliers"
        ),
    ] = "1%",
    images: Annotated[
        str | None, typer.Option("--images", help="check these images instead of those of the atlas")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="write outlier score, p-value and flags of each image: a .csv, .parquet or .json file",
        ),
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", help="write heat maps of the outliers: an .html file")] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find outliers at a given false positive rate, with heat maps of what is unusual."""
    import pyarrow as pa

    allowed = share(false_positive_rate)
    for path in (output, page):
        if path is not None:
            refuse_existing(path, overwrite)
    opened = open_atlas(atlas)
    others = open_images(images, progress=not json_) if images is not None else None
    found = opened.outliers(others, false_positive_rate=allowed)
    print_result(found.result, json_)
    if output is not None:
        keys, flags = (
            (opened.store.rows["key"], opened.store.rows.get("flags")) if others is None else (others.keys, None)
        )
        columns = {"key": list(keys), "outlier_score": found.outlier_scores, "p_value": found.p_values}
        columns["is_outlier"] = found.p_values <= allowed
        if flags is not None:
            columns["flags"] = list(flags)
        write_table(pa.table(columns), output)
    if page is not None:
        _write_page(opened, others, found, page)
    if not json_:
        lines = [f"Table: {output} ({len(found.outlier_scores):,} rows)"] if output else []
        lines += [f"Page:  {page}"] if page else []
        for line in lines or ["Add --page outliers.html to write heat maps of the outliers."]:
            say(line)


def _write_page(opened: Any, others: Any, found: Any, page: Path) -> None:
    """Write the images with the highest scores, their heat maps and their nearest ordinary images as one HTML file."""
    from dataclasses import replace

    import numpy as np

    from imatlas.report import render

    highest = np.argsort(-found.outlier_scores, kind="stable")[:N_HEAT_MAPS]
    if others is None:
        keys = opened.store.rows["key"][highest].tolist()
        pairs = opened.outlier_heatmaps(keys)
    else:
        keys = [others.keys[i] for i in highest]
        pairs = replace(opened.outlier_heatmaps([others[int(i)] for i in highest]), captions=keys)
    result = replace(found.result, panels=[pairs, *found.result.panels])
    render([result], title=opened.name, subtitle="Outliers", facts={}, path=page)
