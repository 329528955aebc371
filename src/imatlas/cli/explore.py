"""Commands that explore an atlas: clusters, classify, explain, search."""

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
    print_json,
    print_result,
    refuse_existing,
    write_table,
)
from imatlas.system.terminal import say


@app.command(epilog="Example: imatlas clusters photos.atlas --groups 5")
def clusters(
    atlas: AtlasFolder,
    n_clusters: Annotated[
        int | None,
        typer.Option("--clusters", min=1, help="cluster again into this number", show_default="clusters of the atlas"),
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", min=1, help="merge the clusters into this number of groups")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="CLUSTER=NAME", help="name a cluster, such as 3=milk; may be repeated"),
    ] = None,
    merge: Annotated[
        str | None, typer.Option("--merge", metavar="CLUSTERS", help="take clusters, such as 3,5, as one from now on")
    ] = None,
    split: Annotated[int | None, typer.Option("--split", min=0, help="split this merged cluster again")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="write the cluster of each image: a .csv, .parquet or .json file"),
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """List the clusters: size, mean confidence, most typical image and proposed words of each; name and merge them."""
    import pyarrow as pa

    if output is not None:
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    named = [_named(text) for text in name or ()]
    if merge is not None:
        opened.merge_clusters(_numbers(merge))
    if split is not None:
        opened.split_cluster(split)
    for cluster, given in named:
        opened.name_cluster(cluster, given)
    found = opened.clusters(n_clusters, groups=groups, words=True)
    print_result(found.result, json_)
    if output is not None:
        columns = {"key": opened.keys, "cluster": found.labels, "confidence": found.confidence}
        if found.names:
            columns["name"] = [found.names.get(label) for label in found.labels.tolist()]
        write_table(pa.table(columns), output)
    if output is not None and not json_:
        say(f"Table: {output} ({len(opened):,} rows)")


@app.command(epilog="Example: imatlas classify photos.atlas --labels labels.csv -o all.csv")
def classify(
    atlas: AtlasFolder,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="CSV file with the columns key and label, for a few images",
            show_default="labels given in the studio",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option("--images", help="classify these images instead of those of the atlas"),
    ] = None,
    n_next: Annotated[int, typer.Option("--next", min=0, help="number of images to suggest for labeling")] = 10,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="write key, label and confidence: a .csv, .parquet or .json file"),
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
        probabilities = found.model.predict_proba(opened.embed(others))
        labels_of_others = found.model.classes_[probabilities.argmax(axis=1)].tolist()
        columns = {"key": list(others.keys), "label": labels_of_others, "confidence": probabilities.max(axis=1)}
    rows = pa.table(columns)
    print_result(found.result, json_)
    if output is not None:
        write_table(rows, output)
    if not json_:
        say(f"Table: {output} ({len(rows):,} rows)" if output else "Add -o all.csv to write the label of each image.")


@app.command(epilog="Example: imatlas explain photos.atlas --cluster 3 -o explain.html")
def explain(
    atlas: AtlasFolder,
    cluster: Annotated[int | None, typer.Option("--cluster", min=0, help="explain this cluster")] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="KEY", help="explain the cluster and position of this image")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write images and heat maps: an .html file")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Explain a cluster or an image: typical and border images, and the pixels that decide."""
    from imatlas.errors import InputError
    from imatlas.report import render

    if output is not None:
        if output.suffix.lower() != ".html":
            raise InputError(f"An explanation must be an .html file. Got '{output.name}'; change its file extension.")
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    found = opened.explain(cluster=cluster, image=image, heat=output is not None)
    print_result(found, json_)
    if output is not None:
        render([found], title=opened.name, subtitle=found.title, path=output)
    if not json_:
        say(f"Page: {output}" if output else "Add -o explain.html to write the images and heat maps.")


@app.command(epilog="Example: imatlas words photos.atlas banana -k 20")
def words(
    atlas: AtlasFolder,
    word: Annotated[
        str | None,
        typer.Argument(metavar="WORD", help="find images of this", show_default="propose names for the clusters"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of images to find")] = 10,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write the table: a .csv, .parquet or .json file")
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Propose names for the clusters, or find images by a word: of the 1,000 that the pretrained network knows."""
    import pyarrow as pa

    from imatlas.tasks.words import LEARNED_WITH, in_words

    if output is not None:
        refuse_existing(output, overwrite)
    opened = open_atlas(atlas)
    if word is not None:
        found = opened.find(word, k)
        lines = [f"{row['rank']:>4}  {row['probability']:11.2f}  {row['key']}" for row in found.to_pylist()]
        lines.insert(0, "rank  probability  key")
    else:
        labels = opened.clusters().labels
        proposed = opened.words(progress=not json_).of_clusters(labels, int(labels.max()) + 1)
        present = sorted(set(labels.tolist()))
        found = pa.table(
            {
                "cluster": present,
                "size": [int((labels == i).sum()) for i in present],
                "words": [in_words(proposed[i]) for i in present],
            }
        )
        lines = [f"{row['cluster']:>7}  {row['size']:>6,}  {row['words'] or '-'}" for row in found.to_pylist()]
        lines.insert(0, "cluster    size  words, with their mean probability")
    if output is not None:
        write_table(found, output)
    if json_:
        print_json(found.to_pylist())
        return
    for line in lines:
        say(line)
    say(f"Proposed {LEARNED_WITH}; what it has no word for gets a wrong one.")
    if output is not None:
        say(f"Table: {output} ({len(found):,} rows)")


@app.command(epilog="Example: imatlas search photos.atlas query.jpg --less other.jpg --region 10,20,100,80 -k 10")
def search(
    atlas: AtlasFolder,
    query: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE ...", help="what to find: image files, addresses, or keys of the atlas"),
    ],
    less: Annotated[
        list[str] | None, typer.Option("--less", metavar="IMAGE", help="example of what to avoid; may be repeated")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", metavar="LEFT,TOP,WIDTH,HEIGHT", help="search for this part of the first image, in pixels"
        ),
    ] = None,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions",
            help="find a part in parts of images: the region, the part at the point, or else the salient object; the "
            "first time takes about 1 s an image",
        ),
    ] = False,
    point: Annotated[
        str | None, typer.Option("--point", metavar="X,Y", help="with --regions: the part at this pixel")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of images to find")] = 10,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="a .csv, .parquet or .json file, or a .png contact sheet"),
    ] = None,
    json_: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the images of an atlas most similar to one image, to a part of it, or to several images."""
    from imatlas.tasks.search import write_sheet

    if output is not None:
        refuse_existing(output, overwrite)
    box = _region(region) if region else None
    opened = open_atlas(atlas)
    if regions:
        if query[1:] or less:
            raise typer.BadParameter("--regions takes one query; leave out the others, or --regions.")
        _search_regions(opened, query[0], box, point, k, output, json_)
        return
    at = None if point is None else _point(point)
    found = opened.search(query[0], k, like=query[1:], unlike=less or (), region=box, point=at)
    if output is not None and output.suffix.lower() == ".png":
        write_sheet(opened.thumbnails(query, region=box), opened.thumbnails(found["key"].to_pylist()), output)
    elif output is not None:
        write_table(found, output)
    if json_:
        print_json(found.to_pylist())
        return
    say("rank  distance    vs. all pairs  vs. neighbors  key")
    for row in found.to_pylist():
        closer = f"{row['closer_than']:17.1%}  {row['closer_than_neighbors']:14.0%}"
        say(f"{row['rank']:>4}  {row['distance']:8.4f}  {closer}  {row['key']}")
    say("Shares: of random pairs of images, and of images and their nearest neighbors, that are farther apart.")
    if output is not None:
        say(f"Results: {output}")


def _search_regions(
    opened: Any,
    query: str,
    region: tuple[int, int, int, int] | None,
    point: str | None,
    k: int,
    output: Path | None,
    json_: bool,
) -> None:
    """Search in parts of images, print the result and write it; a sheet shows the part that was found in each image."""
    from imatlas.atlas.region_search import query_region, write_region_sheet

    at = None if point is None else _point(point)
    found = opened.search(query, k, region=region, point=at, regions=True, progress=not json_)
    rows, looked_for = found.to_pylist(), query_region(found)
    if output is not None and output.suffix.lower() == ".png":
        write_region_sheet(opened.store, query, found, output)
    elif output is not None:
        write_table(found, output)
    if json_:
        print_json(rows)
        return
    left, top, width, height = looked_for
    say(f"Looked for the part at left {left}, top {top}, {width} x {height} pixels of the query.")
    say("rank  distance  left,top,width,height  key")
    for row in rows:
        box = f"{row['left']},{row['top']},{row['width']},{row['height']}"
        say(f"{row['rank']:>4}  {row['distance']:8.4f}  {box:>21}  {row['key']}")
    say("Distances: 0 is the same part, 1 is unrelated. An image has at most eight parts to be found.")
    if output is not None:
        say(f"Results: {output}")


def _named(text: str) -> tuple[int, str]:
    """Parse a cluster and its name such as "3=milk"."""
    number, equals, name = text.partition("=")
    if not equals or not number.strip().isdecimal():
        raise typer.BadParameter(f"--name takes a cluster and its name, such as 3=milk. Got '{text}'.")
    return int(number), name


def _numbers(text: str) -> list[int]:
    """Parse clusters such as "3,5"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--merge takes clusters, such as 3,5. Got '{text}'.")
    return [int(part) for part in parts]


def _point(text: str) -> tuple[int, int]:
    """Parse a point such as "120,80"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--point takes x and y in pixels, such as 120,80. Got '{text}'.")
    return int(parts[0]), int(parts[1])


def _region(text: str) -> tuple[int, int, int, int]:
    """Parse a region such as "10,20,100,80"."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--region takes left, top, width and height, such as 10,20,100,80. Got '{text}'.")
    left, top, width, height = map(int, parts)
    return left, top, width, height
