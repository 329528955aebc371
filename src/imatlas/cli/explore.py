"""Commands that say what is in an atlas: search, group, classify, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imatlas.cli.shared import (
    AtlasFolder,
    Json,
    Overwrite,
    app,
    open_atlas,
    open_images,
    print_json,
    refuse_existing,
    tell,
    write_table,
)
from imatlas.system.terminal import say


@app.command(epilog="Example: imatlas clusters photos.atlas --groups 5")
def clusters(
    atlas: AtlasFolder,
    n_clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="group anew into so many  [default: those of the atlas]")
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", min=1, help="merge the clusters into so many groups, and tell which")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="each image's cluster: a .csv, .parquet or .json file"),
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Say what clusters there are: size, how sure, and the most typical image of each."""
    import pyarrow as pa

    if output is not None:
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    found = opened.clusters(n_clusters, groups=groups)
    tell(found.result, json_)
    if output is not None:
        columns = {"key": opened.keys, "cluster": found.labels, "confidence": found.confidence}
        write_table(pa.table(columns), output)
    if output is not None and not json_:
        say(f"Table: {output} ({len(opened):,} rows)")


@app.command(epilog="Example: imatlas classify photos.atlas --labels labels.csv -o all.csv")
def classify(
    atlas: AtlasFolder,
    labels: Annotated[
        Path, typer.Option("--labels", help="a CSV file with the columns key and label, of a few images")
    ],
    images: Annotated[
        str | None,
        typer.Option("--images", help="label these images with what was learned, in place of those of the atlas"),
    ] = None,
    n_next: Annotated[int, typer.Option("--next", min=0, help="how many images to propose for labeling")] = 10,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="key, label and confidence: a .csv, .parquet or .json file")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Propagate the labels of a few images to all of them, with calibrated confidences."""
    import pyarrow as pa

    if output is not None:
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    found = opened.classify(labels, n_next=n_next)
    columns = {"key": opened.keys, "label": found.labels.tolist(), "confidence": found.confidence}
    if images is not None:
        others = open_images(images, progress=not json_)
        shares = found.model.predict_proba(opened.embed(others))
        kinds = found.model.classes_[shares.argmax(axis=1)]
        columns = {"key": list(others.keys), "label": kinds.tolist(), "confidence": shares.max(axis=1)}
    rows = pa.table(columns)
    tell(found.result, json_)
    if output is not None:
        write_table(rows, output)
    if not json_:
        say(
            f"Table: {output} ({len(rows):,} rows)" if output else "With -o all.csv the label of each image is written."
        )


@app.command(epilog="Example: imatlas explain photos.atlas --cluster 3 -o explain.html")
def explain(
    atlas: AtlasFolder,
    cluster: Annotated[int | None, typer.Option("--cluster", min=0, help="why these images are together")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="KEY", help="why this image is where it is")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a page with the pictures and heat maps: an .html file")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Explain a cluster or an image: what is typical, what is on the border, which pixels decide."""
    from imatlas.errors import InputError
    from imatlas.report import render

    if output is not None:
        if output.suffix.lower() != ".html":
            raise InputError(f"An explanation is an .html file. Got '{output.name}'; change its ending.")
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    found = opened.explain(cluster=cluster, image=image, heat=output is not None)
    tell(found, json_)
    if output is not None:
        render([found], title=opened.name, subtitle=found.title, path=output)
    if not json_:
        say(f"Page: {output}" if output else "With -o explain.html it is shown in pictures, and which pixels decide.")


@app.command(epilog="Example: imatlas search photos.atlas query.jpg --less other.jpg --region 10,20,100,80 -k 10")
def search(
    atlas: AtlasFolder,
    query: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE ...", help="image files, or keys of images in the atlas; more like any of these"),
    ],
    less: Annotated[
        list[str] | None, typer.Option("--less", metavar="IMAGE", help="less like this image; may be repeated")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="LEFT,TOP,WIDTH,HEIGHT", help="the part of the first image that is meant"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="how many")] = 10,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="a .csv, .parquet or .json file, or a .png sheet of the pictures"),
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the images of the atlas that are nearest to one image, to a part of it, or to several."""
    from imatlas.tasks.search import write_sheet

    if output is not None:
        refuse_existing(output, overwrite)
    part = _region(region) if region else None
    opened = open_atlas(atlas)
    found = opened.search(query[0], k, like=query[1:], unlike=less or (), region=part)
    if output is not None and output.suffix.lower() == ".png":
        write_sheet(opened.thumbnails(query, region=part), opened.thumbnails(found["key"].to_pylist()), output)
    elif output is not None:
        write_table(found, output)
    if json_:
        print_json(found.to_pylist())
        return
    say("rank  distance  closer than pairs  than neighbors  key")
    for row in found.to_pylist():
        near = f"{row['closer_than']:17.1%}  {row['closer_than_neighbors']:14.0%}"
        say(f"{row['rank']:>4}  {row['distance']:8.4f}  {near}  {row['key']}")
    say("Closer than that share of random pairs of images, and than that share of images to their nearest one.")
    if output is not None:
        say(f"Found: {output}")


def _region(text: str) -> tuple[int, int, int, int]:
    """A region as it is typed: "10,20,100,80"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"A region is left, top, width and height, such as 10,20,100,80. Got '{text}'.")
    left, top, width, height = map(int, parts)
    return left, top, width, height
