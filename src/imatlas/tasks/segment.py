"""Segments of the images of a folder, each at its own size, written as files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from imatlas.arguments import check_int, check_number, check_path, check_seed, counted, refused
from imatlas.errors import DecodeError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.intake import with_progress
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.models import artifact
from imatlas.models.parts.channels import rgb_view
from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.region_tree import RegionTree
from imatlas.models.parts.salient_object import salient_object, soft_alpha
from imatlas.models.parts.scribbles import segment_by_strokes
from imatlas.models.segmenter import LEVEL, MAX_FIT_IMAGES, Segmenter
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import check_free, output_path, replacing
from imatlas.system.csv_files import write_csv
from imatlas.system.terminal import finite
from imatlas.tasks.region_files import class_overlay, coco_text, cut_out, label_file, measure_regions, overlay
from imatlas.tasks.source_pictures import Item, plain_title, read_item, unfinished_items, upright
from imatlas.tasks.stroke_files import StrokeFiles
from imatlas.tasks.unfinished_folder import Done, Layout, UnfinishedFolder, written_before

Method = Literal["hierarchy", "superpixels", "collection"]

OBJECT_COLUMNS = ("object", "top", "left", "bottom", "right")
"""Of `images.csv`: file and box of the salient object, the last two exclusive; empty if there is none."""

MIN_CUT_OUT = 0.01
"""Share of the pixels of an image from which a segment becomes a cut-out."""

TABLE_IMAGES = 1000
"""Images whose segments are written to the tables together."""


class Segmented(Done):
    """One image that is segmented.

    Attributes
    ----------
    files : list of str
        The label map, the overlay, then the cut-outs and the object.
    n_segments : int
    columns : dict of list
        Its rows of the table of regions; null stands for NaN.
    box : list of int, optional
        top, left, bottom, right of its object.
    """

    n_segments: int
    columns: dict[str, list[int | float | None]]
    box: list[int] | None = None


LAYOUT = Layout(
    command="segment",
    settings="segments.json",
    done=Segmented,
    folders="labels|overlays|cut-outs|objects",
    files=r"(images|skipped)\.csv|regions\.(csv|parquet)|coco\.json"
    r"|(labels|overlays|cut-outs|objects)/\d{5,}-[A-Za-z0-9-]+\.(png|tif)",
)

Run = UnfinishedFolder[Segmented]


def segment_files(
    source: Any,
    output: str | Path,
    *,
    method: Method = "hierarchy",
    level: float | None = None,
    n_segments: int | None = None,
    pixel_size: float = 1.0,
    with_coco: bool = False,
    with_cut_outs: bool = False,
    with_objects: bool = False,
    scribbles: str | Path | None = None,
    overwrite: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> Result:
    """Split every image into segments, without labels, and write them.

    Until everything is done, the files are in the folder `OUTPUT.unfinished`. A run that was killed is continued by the
    same call: finished images stay, except those that have changed since.

    Parameters
    ----------
    source : folder, pattern, archive, array or list, as `Images` takes them
    output : path
        A new folder: `labels/` with label maps as 16-bit PNG (labels from 1; 32-bit TIFF for
        more than 65,535), `overlays/`, `regions.csv` and `regions.parquet` with one row per segment, `images.csv` with
        the files of each image.
    method : {"hierarchy", "superpixels", "collection"}
        The parts that a person would name; small segments that follow the colors (200 by default); or classes of stuff
        that are the same in all images, learned by a `Segmenter` from at most 200 of them. It is saved in `model/`.
    level : float in [0, 1], optional
        From fine to coarse: regions whose probability of being separate is at most this are joined. Default 0.5.
    n_segments : int, optional
        Number of segments of every image, instead of a level; of a collection, the number of classes.
    pixel_size : float
        Side of a pixel in the unit of the table.
    with_coco, with_cut_outs : bool
        Also write `coco.json`; and `cut-outs/` with each segment of at least 1 % of its image, as RGBA.
    with_objects : bool
        Also write `objects/`, the salient object of each image as RGBA with a soft edge, and its box in `images.csv`.
    scribbles : path, optional
        Strokes of each image, as `StrokeFiles` takes them; segments then continue these strokes, with their labels.
        Images without are skipped.
    overwrite : bool
        Replace the output of an earlier call, and begin a killed one anew if its settings differ.
    random_state : int
        Seed of the classes of a collection.
    progress : bool

    Returns
    -------
    Result
        With the images that were skipped, and why.

    Raises
    ------
    InputError
        If no image can be read, both `level` and `n_segments` are given, a level without a hierarchy, or one of these
        and strokes; or if the strokes cannot be read.
    ParameterError
        If one of the numbers is out of its range.
    ArtifactError
        If `output` already exists and is not to be replaced, or a killed run had other settings, which are listed.
    AtlasBusyError
        If another process writes the same output.
    """
    settings, strokes = _settings(method, level, n_segments, scribbles)
    pixel_size = check_number(pixel_size, "pixel_size", "segment_files", low=0, above=True)
    opened = open_source(source)
    settings |= {"source": opened.origin.place, "pixel_size": pixel_size, "coco": with_coco, "cut_outs": with_cut_outs}
    settings |= {"objects": with_objects, "random_state": check_seed(random_state, "segment_files")}
    output = output_path(check_path(output, "output", "segment_files"))
    check_free(output, written_before(output, overwrite, LAYOUT))
    skipped = list(opened.skipped)
    with UnfinishedFolder.opened(output, settings, opened, LAYOUT, overwrite=overwrite) as run:
        segmenter = (
            _shared_classes(run, opened, settings, progress)
            if method == "collection"
            else Segmenter(method=method, level=settings["level"], n_segments=settings["n_segments"])
        )
        for item in unfinished_items(opened, run, skipped, "Segmenting", progress=progress):
            try:
                _segment(run, item, segmenter, strokes, settings)
            except InputError as error:
                skipped.append((item.key, str(error)))
        unused = [] if strokes is None else strokes.unused(opened.keys)
        if not len(run):
            run.discard()
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            why += f"; {_without_image(unused)}" if unused else ""
            raise InputError(f"No image of {opened.name} can be segmented{why}; nothing was written.")
        counts = [done.n_segments for done in run.lines()]
        n_classes = segmenter.n_classes_ if method == "collection" else None
        _write_tables(run, settings, skipped, n_classes)
        run.finish(overwrite)
    return _result(output, settings, counts, n_classes, skipped, unused)


def _settings(
    method: Method, level: float | None, n_segments: int | None, scribbles: str | Path | None
) -> tuple[dict[str, Any], StrokeFiles | None]:
    """What decides on the segments, checked, and the strokes."""
    if method not in get_args(Method):
        raise refused("method", "segment_files", "'hierarchy', 'superpixels' or 'collection'", method)
    if method != "hierarchy" and level is not None:
        raise InputError(f"Only a hierarchy has levels, not method='{method}'; give 'n_segments' instead.")
    if level is not None and n_segments is not None:
        raise InputError("Give either 'level' or 'n_segments', not both.")
    if scribbles is not None and (method != "hierarchy" or level is not None or n_segments is not None):
        raise InputError("Strokes decide on the segments; give no 'method', 'level' or 'n_segments' with them.")
    strokes = None if scribbles is None else StrokeFiles(scribbles)
    settings = {
        "method": method,
        "level": check_number(LEVEL if level is None else level, "level", "segment_files", low=0, high=1),
        "n_segments": None if n_segments is None else check_int(n_segments, "n_segments", "segment_files", low=1),
        "scribbles": None if strokes is None else strokes.stamp(),
    }
    return settings, strokes


def _segment(
    run: Run,
    item: Item,
    segmenter: Segmenter,
    strokes: StrokeFiles | None,
    settings: dict[str, Any],
) -> None:
    """Segment one image and write its files; raises InputError if it has no strokes, or none that can be used."""
    pixels, spec = upright(item.picture)
    graph = None if strokes is None and not settings["objects"] else region_graph(pixels, spec)
    if strokes is None or graph is None:
        labels = segmenter.label(pixels, spec, graph)
    else:
        labels = segment_by_strokes(graph, strokes.of(item.key, graph.regions.shape)).labels - 1
    name = run.new_name(plain_title(item.key))
    regions = measure_regions(labels, pixels, pixel_size=settings["pixel_size"])
    columns = {title: finite(values.tolist()) for title, values in regions.items()}
    view = rgb_view(pixels, spec)
    files = _write_files(run, name, view, labels, settings)
    found = None if graph is None or not settings["objects"] else salient_object(graph)
    box = None if found is None else found.box
    if found is not None and box is not None:
        content = encode(cut_out(view, soft_alpha(view, found.mask)), compress_level=1)
        files.append(run.write(f"objects/{name}.png", content))
    n, place = len(columns["label"]), None if box is None else list(box)
    run.add(Segmented(key=item.key, stamp=item.stamp, files=files, n_segments=n, columns=columns, box=place))


def _shared_classes(run: Run, source: Source, settings: dict[str, Any], progress: bool) -> Segmenter:
    """The classes of all images: those of the killed run that is continued, or learned from a sample."""
    if run.model:
        return artifact.load(run.model, classes=(Segmenter,))
    seed, trees = settings["random_state"], []
    rows = np.sort(np.random.default_rng(seed).permutation(len(source.keys))[:MAX_FIT_IMAGES])
    for i in with_progress(rows.tolist(), "Learning classes", progress):
        try:
            pixels, spec = upright(read_item(source, i))
        except DecodeError:  # told when it is to be segmented
            continue
        trees.append(RegionTree.of(pixels, spec))
    if not trees:
        run.discard()
        raise InputError(f"None of {counted(len(rows), 'file')} of '{source.name}' can be read; nothing was written.")
    model = Segmenter(n_classes=settings["n_segments"], random_state=seed).fit_trees(trees, spec)
    run.save_model(model)
    return model


def _write_files(run: Run, name: str, view: np.ndarray, labels: np.ndarray, settings: dict[str, Any]) -> list[str]:
    """Write the label map, the overlay and the cut-outs of an image; returns their names."""
    suffix, content = label_file(labels)
    drawn = (class_overlay if settings["method"] == "collection" else overlay)(view, labels)
    files = [
        run.write(f"labels/{name}{suffix}", content),
        run.write(f"overlays/{name}.png", encode(drawn, compress_level=1)),
    ]
    if settings["cut_outs"]:
        sizes = np.bincount(labels.ravel())
        for label in np.flatnonzero(sizes >= MIN_CUT_OUT * labels.size):
            content = encode(cut_out(view, labels == label), compress_level=1)
            files.append(run.write(f"cut-outs/{name}-{label + 1}.png", content))
    return files


def _write_tables(run: Run, settings: dict[str, Any], skipped: list[tuple[str, str]], n_classes: int | None) -> None:
    """Write what lists all images, one after the other: with many images, this does not fit into memory."""
    with_coco, with_objects = settings["coco"], settings["objects"]
    if skipped:
        write_csv(run.folder / "skipped.csv", ("key", "reason"), skipped)
    files = (
        (done.key, done.n_segments, *done.files[:2], *(_object_columns(done) if with_objects else ()))
        for done in run.lines()
    )
    titles = ("key", "segments", "labels", "overlay", *(OBJECT_COLUMNS if with_objects else ()))
    write_csv(run.folder / "images.csv", titles, files)
    schema = _schema(run)
    rows = (row for table in _tables(run, schema) for row in zip(*(c.to_pylist() for c in table.columns), strict=True))
    write_csv(run.folder / "regions.csv", schema.names, rows)
    with (
        replacing(run.folder / "regions.parquet") as aside,
        aside.open("wb") as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        for table in _tables(run, schema):
            writer.write_table(table)
    if with_coco:
        maps = ((done.key, _label_map(run.folder / done.files[0])) for done in run.lines())
        with replacing(run.folder / "coco.json") as aside, aside.open("w", encoding="utf-8") as text:
            classes = None if n_classes is None else [f"class {k}" for k in range(1, n_classes + 1)]
            text.writelines(coco_text(maps, classes))


def _object_columns(done: Segmented) -> tuple[str | int, ...]:
    return ("",) * len(OBJECT_COLUMNS) if done.box is None else (done.files[-1], *done.box)


def _tables(run: Run, schema: pa.Schema) -> Iterator[pa.Table]:
    """The segments of some thousand images at a time; labels are those in the files."""
    lines = run.lines()
    while several := list(islice(lines, TABLE_IMAGES)):
        yield pa.concat_tables(_table(done, schema) for done in several)


def _table(done: Segmented, schema: pa.Schema) -> pa.Table:
    n = len(done.columns["label"])
    columns: dict[str, Any] = {"key": [done.key] * n}
    for field in schema:
        if field.name in done.columns:
            shift = int(field.name == "label")
            missing = None if pa.types.is_integer(field.type) else np.nan
            columns[field.name] = [missing if v is None else v + shift for v in done.columns[field.name]]
    return pa.table([pa.array(columns.get(f.name, [None] * n), f.type) for f in schema], schema=schema)


def _schema(run: Run) -> pa.Schema:
    integers = ("label", "top", "left", "bottom", "right")
    columns = dict.fromkeys(name for done in run.lines() for name in done.columns)
    types = [(name, pa.int64() if name in integers else pa.float64()) for name in columns]
    return pa.schema([("key", pa.string()), *types])


def _label_map(path: Path) -> np.ndarray:
    """The labels (H, W) int32, from 0, in a file."""
    return read_picture(path.read_bytes()).pixels()[..., 0].astype(np.int32) - 1


def _result(
    output: Path,
    settings: dict[str, Any],
    counts: list[int],
    n_classes: int | None,
    skipped: list[tuple[str, str]],
    unused: list[str],
) -> Result:
    middle = int(np.median(counts))
    sentences = [f"{counted(len(counts), 'image')} split into {counted(sum(counts), 'segment')}; median {middle}."]
    if n_classes is not None:
        sentences.append(f"A label is the same kind of stuff in all images; there are {n_classes}.")
    elif (wanted := settings["n_segments"]) and (n_fewer := sum(count < wanted for count in counts)):
        sentences.append(f"{counted(n_fewer, 'image')} of {len(counts):,} cannot be split into {wanted:,} segments.")
    if skipped:
        sentences.append(f"{counted(len(skipped), 'file')} skipped, such as {skipped[0][0]}: {skipped[0][1]}.")
    if unused:
        sentences.append(f"Not used: {_without_image(unused)}.")
    written = {
        "labels": "label maps, 16-bit PNG, labels from 1",
        "overlays": "the classes on the images" if n_classes is not None else "the borders on the images",
        "regions.csv": "area, position, shape and color of each segment",
        "images.csv": "the files of each image",
        "coco.json": "outlines for programs that read COCO",
        "cut-outs": "each segment as an RGBA image",
        "objects": "the salient object of each image as an RGBA image",
        "model": "the classes, for new images: imatlas.load",
        "skipped.csv": "the files that were skipped, and why",
    }
    return Result(
        name="segment",
        title="Segments",
        sentences=sentences,
        metrics={"n_images": len(counts), "n_segments": sum(counts)},
        panels=[FileList(files=[(str(output / n), what) for n, what in written.items() if (output / n).exists()])],
        data={"files": [str(output)], "skipped": [list(pair) for pair in skipped]},
    )


def _without_image(keys: list[str]) -> str:
    """Says that strokes were not used."""
    return f"strokes of {counted(len(keys), 'key')} belong to no image, such as '{keys[0]}'"
