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
        columns = {"key": opened.rows["key"].tolist(), "cluster": found.labels, "confidence": found.confidence}
        write_table(pa.table(columns), output)
    if output is not None and not json_:
        print(f"Table: {output} ({len(opened):,} rows)")


@app.command(epilog="Example: imatlas classify photos.atlas --labels labels.csv -o all.csv")
def classify(
    atlas: AtlasFolder,
    labels: Annotated[
        Path, typer.Option("--labels", help="a CSV file with the columns key and label, of a few images")
    ],
    images: Annotated[
        str | None,
        typer.Option("--images", help="label these images with what was learnt, in place of those of the atlas"),
    ] = None,
    n_next: Annotated[int, typer.Option("--next", min=0, help="how many images to propose for labelling")] = 10,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="key, label and confidence: a .csv, .parquet or .json file")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Stretch the labels of a few images over all of them, with a confidence that means what it says."""
    import pyarrow as pa

    if output is not None:
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    found = opened.classify(labels, n_next=n_next)
    columns = {"key": opened.rows["key"].tolist(), "label": found.labels.tolist(), "confidence": found.confidence}
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
        print(
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
        print(f"Page: {output}" if output else "With -o explain.html it is shown in pictures, and which pixels decide.")


@app.command(epilog="Example: imatlas search photos.atlas query.jpg -k 10")
def search(
    atlas: AtlasFolder,
    query: Annotated[str, typer.Argument(metavar="IMAGE", help="an image file, or the key of an image in the atlas")],
    k: Annotated[int, typer.Option("-k", min=1, help="how many")] = 10,
    json_: Json = False,
) -> None:
    """Find the images of the atlas that are nearest to one image."""
    found = open_atlas(atlas).search(query, k=k)
    if json_:
        print_json(found.to_pylist())
        return
    for row in found.to_pylist():
        print(f"{row['rank']:>4}  {row['distance']:8.4f}  {row['closer_than']:6.1%}  {row['key']}")
