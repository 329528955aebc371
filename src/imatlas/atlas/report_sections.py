"""What there is to tell about an atlas, as Results in the order of a report: no HTML here, and no learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas.arguments import counted
from imatlas.images.pixels import display_view
from imatlas.images.thumbnails import shown
from imatlas.metrics.topology import u_heights
from imatlas.models.layout import MIN_ROWS as MIN_LAYOUT_ROWS
from imatlas.models.outlier_detector import MIN_ROWS
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.result import (
    Cell,
    Curve,
    DataTable,
    FileList,
    ImageGrid,
    ImagePairs,
    MapPanel,
    Panel,
    Picture,
    Result,
    Scatter,
)
from imatlas.system.csv_files import read_csv
from imatlas.system.terminal import file_word, shell
from imatlas.tasks.quality_flags import FLAGS
from imatlas.tasks.score import autoencoder_of, small_pixels

if TYPE_CHECKING:
    from imatlas.atlas.atlas import Atlas

MOST_PICTURES = 3000
"""Pictures that the cells of the map may hold in all: bounds the size of the report."""

MOST_CLUSTERS = 40
"""Clusters that are shown with exemplars; the rest are counted."""

PICTURE, LARGE_PICTURE = 72, 128
"""Longest side in pixels of a picture in the report's grids, and of those in the cells of a small map."""

MOST_COMPARED = 5_000
"""Images up to which the report looks for edited copies: some seconds."""

SMALL_MAP = 300
"""Cells up to which a map has room for large pictures."""

TYPICAL = 10
"""Images that are shown of each cluster: one row."""


def tell(atlas: Atlas) -> list[Result]:
    """Everything there is to see, in the order of a report."""
    parts = [
        the_map(atlas),
        clusters(atlas),
        layout(atlas),
        new_images(atlas),
        reconstructions(atlas),
        outliers(atlas),
        flagged(atlas),
        duplicates(atlas),
        quality(atlas),
        learning_curves(atlas),
        skipped(atlas),
        settings(atlas),
    ]
    return [part for part in parts if part is not None]


def facts(atlas: Atlas) -> dict[str, str]:
    """The few numbers that stand at the top."""
    manifest, rows = atlas.manifest, atlas.rows
    map_ = atlas.model("map")
    n_clusters, n_duplicates = len(np.unique(rows["cluster"])), int(_has_duplicate(atlas).sum())
    return {
        "images": f"{len(atlas):,}",
        "cluster" if n_clusters == 1 else "clusters": f"{n_clusters:,}",
        "cell on the map" if len(map_.codebook_) == 1 else "cells on the map": f"{len(map_.codebook_):,}",
        "duplicate" if n_duplicates == 1 else "duplicates": f"{n_duplicates:,}",
        "skipped": f"{manifest.stages['intake']['n_skipped']:,}",
        "time to learn": _minutes(sum(stage["seconds"] for stage in manifest.stages.values())),
    }


def summary(atlas: Atlas) -> Result:
    """What an atlas holds and how it was learned, in a few lines."""
    manifest, spec = atlas.manifest, atlas.spec
    sentences = [
        f"{counted(len(atlas), 'image')} from {manifest.source}, "
        f"{counted(manifest.stages['intake']['n_skipped'], 'file')} skipped.",
        f"Models see them as {spec.width} x {spec.height} pixels, {counted(spec.channels, 'channel')}, {spec.dtype}.",
    ]
    said = [stage["said"].rstrip(".") for name, stage in manifest.stages.items() if name != "report"]  # a path
    sentences += [f"{text[:1].upper()}{text[1:]}." for text in said if text]
    if not manifest.finished:
        sentences.append("It is not finished: the same 'imatlas learn' command continues it.")
    scores = manifest.metrics.get("quality", {})
    return Result(
        name="info",
        title=f"Atlas {atlas.name}",
        sentences=sentences + scores.get("sentences", []),
        metrics={**manifest.metrics.get("map", {}).get("metrics", {}), **scores.get("metrics", {})},
        protocol=scores.get("protocol", ""),
        data={"settings": manifest.settings, "stages": manifest.stages, "finished": manifest.finished},
    )


def the_map(atlas: Atlas) -> Result:
    """The lattice with a picture in every cell that an image fell on."""
    som, rows = atlas.model("map"), atlas.rows
    territory = atlas.model("clusters").predict(som.codebook_)
    n_cells = len(som.codebook_)
    heights = u_heights(som.codebook_, som.rows_, som.cols_, som.topology)
    each = int(np.clip(MOST_PICTURES // n_cells, 3, 12))
    members = [np.flatnonzero(rows["cell"] == cell) for cell in range(n_cells)]
    ordered = [_by_distance(atlas.embedding, m, som.codebook_[cell])[:each] for cell, m in enumerate(members)]
    shown = np.concatenate(ordered)
    pictures = dict(zip(shown.tolist(), _small(atlas, shown), strict=True))
    faces = [near[0] for near in ordered if len(near)]
    size = LARGE_PICTURE if n_cells <= SMALL_MAP else PICTURE
    exemplars = dict(zip(faces, _small(atlas, np.array(faces), size), strict=True))
    keys = rows["key"]
    cells = [
        Cell(
            row=cell // som.cols_,
            column=cell % som.cols_,
            count=len(members[cell]),
            image=exemplars[near[0]] if len(near) else None,
            cluster=int(territory[cell]),
            members=[(str(keys[i]), pictures[int(i)]) for i in near],
            u_height=float(heights[cell]),
        )
        for cell, near in enumerate(ordered)
    ]
    numbers = atlas.manifest.metrics.get("map", {})
    return Result(
        name="map",
        title="The map",
        sentences=[
            "Every image has a place here, and images that look alike to the eyes of this atlas lie side by side.",
            "Each cell shows the image nearest to its center"
            + _empty_in_words(sum(not c.count for c in cells), n_cells),
            *numbers.get("sentences", []),
        ],
        metrics=numbers.get("metrics", {}),
        protocol=numbers.get("protocol", ""),
        panels=[
            MapPanel(
                rows=som.rows_,
                columns=som.cols_,
                topology=som.topology,
                cells=cells,
                alt=f"A {som.topology} map of {som.rows_} by {som.cols_} cells with pictures of the images.",
            )
        ],
    )


def clusters(atlas: Atlas) -> Result:
    """Each cluster with its size and the images that are most typical of it."""
    rows, model = atlas.rows, atlas.model("clusters")
    labels, counts = np.unique(rows["cluster"], return_counts=True)
    panels: list[Panel] = []
    for label, count in sorted(zip(labels.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[
        :MOST_CLUSTERS
    ]:
        members = np.flatnonzero(rows["cluster"] == label)
        typical = _by_distance(atlas.embedding, members, model.cluster_centers_[label])[:TYPICAL]
        sure = f", {rows['confidence'][members].mean():.0%} sure" if "confidence" in rows else ""
        panels.append(
            ImageGrid(
                title=f"Cluster {label}: {count:,} image{'' if count == 1 else 's'}{sure}",
                images=_small(atlas, typical),
                alt=f"The {len(typical)} most typical images of cluster {label}.",
            )
        )
    said = atlas.manifest.metrics.get("clusters", {})
    sentences = list(said.get("sentences", []))
    if "confidence" in rows:
        sentences.append("How sure a cluster is: the mean share of an image's nearest images that are in it too.")
    if len(labels) > MOST_CLUSTERS:
        sentences.append(f"The {MOST_CLUSTERS} largest of {len(labels):,} clusters are shown.")
    return Result("clusters", "Clusters", sentences, said.get("metrics", {}), panels, protocol=said.get("protocol", ""))


def layout(atlas: Atlas) -> Result | None:
    """All images in the plane, pictures of some where they lie."""
    if "umap_x" not in atlas.images_table.columns:  # an atlas of an older imatlas
        return None
    x, y = atlas.layout.T
    model = atlas.model("layout")
    n = len(model.references_)
    how = (
        "images that look alike lie together (UMAP). How far two islands lie apart says little."
        if n >= MIN_LAYOUT_ROWS
        else "they lie along the two directions in which they differ most."
    )
    others = f" {n:,} of them were laid out, each of the others lies where its neighbors do." if n < len(x) else ""
    return Result(
        name="layout",
        title="Side by side",
        sentences=[
            f"Every image is a dot, in the color of its cluster; {how}{others}",
        ],
        panels=[
            Scatter(
                x=x,
                y=y,
                groups=atlas.rows["cluster"],
                keys=atlas.rows["key"].tolist(),
                images=_LaterSmall(atlas),
                alt=f"{len(x):,} images as dots in the plane, with pictures of some of them.",
            )
        ],
    )


def new_images(atlas: Atlas, n: int = 24, random_state: int = 0) -> Result:
    """Images that the generator made, each beside the training image that it is nearest to."""
    made = atlas.sample(n, random_state=random_state)
    train = np.flatnonzero(~atlas.rows["held_out"])
    train = train[:: max(1, len(train) // 5000)]
    reference, seen = (display_view(pixels, atlas.spec) for pixels in (atlas.pixels(train), made))
    nearest = k_nearest(as_tensor(small_pixels(reference)), as_tensor(small_pixels(seen)), 1)[0].numpy()[:, 0]
    note = "Beside each is the training image that it is nearest to; a model that copies would show one picture twice."
    return Result(
        name="new",
        title="New images",
        sentences=[
            f"{n} images that nobody took, from places on the map drawn as the images lie there (seed {random_state}).",
        ],
        panels=[
            ImageGrid(images=list(seen), size=112, alt=f"{n} new images made by the model."),
            ImagePairs(
                title="Are they copies?",
                note=note,
                names=("new", "nearest real"),
                rows=[(seen[i], reference[nearest[i]]) for i in range(min(8, n))],
                alt="New images beside their nearest training images.",
            ),
        ],
    )


def reconstructions(atlas: Atlas, n: int = 10) -> Result | None:
    """Held-out images, and what is left of them after encoding and decoding."""
    held = np.flatnonzero(atlas.rows["held_out"])
    if not len(held):
        return None
    held = held[np.linspace(0, len(held) - 1, min(n, len(held))).astype(int)]
    generator = autoencoder_of(atlas.model("generator"))
    pixels = atlas.pixels(held)
    rebuilt = display_view(generator.inverse_transform(generator.transform(pixels)), atlas.spec)
    return Result(
        name="rebuilt",
        title="What the model keeps",
        sentences=[f"Images that it never learned from, squeezed into {generator.latent_dim} numbers and drawn again."],
        panels=[
            ImagePairs(
                names=("original", "rebuilt"),
                rows=list(zip(display_view(pixels, atlas.spec), rebuilt, strict=True)),
                alt="Held-out images beside their reconstructions.",
            )
        ],
    )


def outliers(atlas: Atlas, n: int = 18, n_explained: int = 6) -> Result | None:
    """The images that are farthest from what is ordinary here, and where the oddest of them are odd."""
    if len(atlas) < MIN_ROWS:
        return None
    found = atlas.outliers()
    odd = np.argsort(-found.outlier_scores, kind="stable")[:n]
    keys = atlas.rows["key"][odd].tolist()
    pairs = replace(
        atlas.why_odd(keys[:n_explained], found),
        title="Why they are odd",
        note="What glows is unlike any place of the ordinary images that are nearest to the odd one.",
    )
    grid = ImageGrid(
        images=_small(atlas, odd),
        captions=[f"{key} ({found.outlier_scores[i]:.1f})" for key, i in zip(keys, odd, strict=True)],
        alt="The images of the highest outlier scores.",
    )
    said = ["How many times farther than usual each is from what is ordinary here stands below it; 1 is ordinary."]
    return replace(found.result, sentences=[*said, *found.result.sentences], panels=[grid, pairs])


def flagged(atlas: Atlas, n: int = 24) -> Result | None:
    """The flagged images."""
    if "flags" not in atlas.rows:
        return None
    texts = atlas.rows["flags"]
    rows = np.flatnonzero(texts != "")
    counts = Counter(flag for text in texts[rows] for flag in text.split("; "))
    told = [f"{count:,} {flag}: {FLAGS[flag]}." for flag, count in counts.most_common()]
    grid = ImageGrid(
        images=_small(atlas, rows[:n]),
        captions=[f"{atlas.rows['key'][i]}: {texts[i]}" for i in rows[:n]],
        alt="Flagged images.",
    )
    return Result("flags", "Flagged images", told or ["No images are flagged."], panels=[grid] if len(rows) else [])


def duplicates(atlas: Atlas, n: int = 12) -> Result:
    """Images that are the same picture as another one, and in small sets those that are edited copies too."""
    keys = atlas.rows["key"].tolist()
    if len(keys) <= MOST_COMPARED:
        found = atlas.duplicates()
        copies = np.flatnonzero((found.group >= 0) & ~found.best)
        copies = copies[np.argsort(found.similarity[copies], kind="stable")]
        originals, how = found.best_of[copies], [found.kind[i] for i in copies]
        said, metrics = found.result.sentences, found.result.metrics
    else:
        place = {key: i for i, key in enumerate(keys)}
        copies = np.flatnonzero(_has_duplicate(atlas))
        originals = np.array([place[str(atlas.rows["duplicate_of"][i])] for i in copies], dtype=int)
        how, metrics = ["same picture"] * len(copies), {}
        said = [f"{len(copies):,} images are the same picture as another one, to the byte or nearly."]
        if not len(copies):
            said = ["No duplicates were found."]
        said.append(f"Edited copies are found by: {shell('imatlas', 'duplicates', file_word(atlas.folder.name))}")
    panels: list[Panel] = []
    if len(copies):
        left, right = _small(atlas, copies[:n]), _small(atlas, originals[:n])
        panels.append(
            ImagePairs(
                names=("duplicate", "kept"),
                rows=list(zip(left, right, strict=True)),
                captions=[f"{keys[i]} = {keys[j]} ({what})" for i, j, what in zip(copies[:n], originals, how)],
                alt="Pairs of images that are the same picture.",
            )
        )
        command = shell("imatlas", "duplicates", file_word(atlas.folder.name), "-o", "plan.csv")
        said = [*said, f"To put them aside: {command}"]
    return Result("duplicates", "Duplicates", said, metrics, panels)


def quality(atlas: Atlas) -> Result | None:
    """The measured numbers, in words first."""
    said = atlas.manifest.metrics.get("quality")
    if not said:
        return None
    return Result("quality", "Quality of new images", said["sentences"], said["metrics"], protocol=said["protocol"])


def learning_curves(atlas: Atlas) -> Result | None:
    """The losses of the generator over the time of its training."""
    model = atlas.model("generator")
    history: dict[str, list[Any]] = getattr(model, "history_", {})
    series: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for name, label in (("train", "training"), ("held_out", "held out")):
        pairs = zip(history.get("seconds", []), history.get(name, []), strict=False)
        points = [(x, y) for x, y in pairs if y is not None and np.isfinite(y)]
        if points:
            series[label] = ([x for x, _ in points], [y for _, y in points])
    if not series:
        return None
    sentence = f"After {model.n_steps_:,} steps the loss on held-out images is {model.verdict_}."
    if not atlas.rows["held_out"].any():
        sentence = f"{model.n_steps_:,} steps, with no image held out to say whether more would help."
    if model.verdict_ == "still improving":
        sentence += " A larger --budget would help."
    return Result(
        name="learning",
        title="How it learned",
        sentences=[sentence],
        panels=[Curve(series=series, x_label="seconds", y_label="loss", log_y=True, alt="Loss over time.")],
    )


def skipped(atlas: Atlas) -> Result:
    """The files that were not used, each with its reason."""
    path = atlas.folder / "skipped.csv"
    files: list[tuple[str, str]] = []
    if path.name in atlas.inventory.files:
        atlas.inventory.check([path.name])
        files = [(row["key"], row["reason"]) for row in read_csv(path, ("key", "reason"), what="a list of files")]
    said = (
        f"{counted(len(files), 'file')} {'was' if len(files) == 1 else 'were'} not used."
        if files
        else "Every file was used."
    )
    return Result("skipped", "Left out", [said], panels=[FileList(files=files)] if files else [])


def settings(atlas: Atlas) -> Result:
    """Everything that is needed to learn the same atlas again."""
    manifest = atlas.manifest
    rows = [(name, "default" if value is None else value) for name, value in manifest.settings.items()]
    rows += [
        ("encoder chosen", manifest.stages["intake"]["why"]),
        *([("preset of the encoder", why)] if (why := manifest.stages.get("encoder", {}).get("why")) else []),
        ("budget, seconds", manifest.stages["intake"]["budget"]),
    ]
    rows += [(f"{name}, seconds", stage["seconds"]) for name, stage in manifest.stages.items()]
    rows += [("imatlas", manifest.library)]
    return Result("settings", "Settings", panels=[DataTable(columns=("setting", "value"), rows=rows)])


class _LaterSmall(Sequence[Picture]):
    """The small pictures of all images, each read when it is asked for: a scatter shows few of them."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas

    def __len__(self) -> int:
        return len(self._atlas)

    def __getitem__(self, row: Any) -> Any:
        return _small(self._atlas, np.array([row]))[0]


def _small(atlas: Atlas, rows: np.ndarray, size: int = PICTURE) -> list[Picture]:
    return [shown(data, size) for data in atlas.thumbnails(rows)]


def _has_duplicate(atlas: Atlas) -> np.ndarray:
    return np.array([value is not None for value in atlas.rows["duplicate_of"]], dtype=bool)


def _empty_in_words(n_empty: int, n_cells: int) -> str:
    if not n_empty:
        return "."
    return f"; {n_empty:,} of {n_cells:,} cells {'is' if n_empty == 1 else 'are'} empty."


def _by_distance(embedding: np.ndarray, members: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Rows `members` from the nearest to `center` to the farthest."""
    distance = ((embedding[members] - center) ** 2).sum(1)
    return members[np.argsort(distance, kind="stable")]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
