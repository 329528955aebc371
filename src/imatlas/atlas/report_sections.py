"""The sections of an atlas's report as Results, in their order: no HTML here, and no learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas.arguments import counted
from imatlas.atlas.segments_section import segments
from imatlas.atlas.store import Store
from imatlas.atlas.words import words_of_clusters
from imatlas.images.pixels import display_view
from imatlas.images.thumbnails import shown
from imatlas.metrics.topology import u_heights
from imatlas.models.outlier_detector import MIN_ROWS
from imatlas.models.parts.patch_posterior import Locality
from imatlas.neighbors import as_tensor, k_nearest, squared_to
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
from imatlas.tasks.conditions import composes
from imatlas.tasks.quality_flags import FLAGS
from imatlas.tasks.score import small_pixels
from imatlas.tasks.words import LEARNED_WITH, in_words

if TYPE_CHECKING:
    from imatlas.atlas.atlas import Atlas

MOST_PICTURES = 3000
"""Pictures in all cells of the map together: bounds the size of the report."""

MOST_CLUSTERS = 40
"""Clusters shown with their most typical images."""

PICTURE, LARGE_PICTURE = 72, 128
"""Longest side in pixels of a picture in the report's grids, and in the cells of a small map."""

MAX_COMPARED = 5_000
"""Images up to which the report searches for edited near-duplicates: some seconds."""

SMALL_MAP = 300
"""Cells up to which a map has room for large pictures."""

N_SOURCES = 4
"""Sources shown beside a composed image."""

SMALLEST_SHARE = 0.01
"""Share of the pixels from which an image is shown as a source."""

TYPICAL = 10
"""Images shown of each cluster: one row."""


def sections(atlas: Atlas) -> list[Result]:
    """All sections, in the order of the report."""
    store = atlas.store
    parts = [
        the_map(atlas),
        clusters(atlas),
        layout(atlas),
        new_images(atlas),
        reconstructions(store),
        segments(store),
        outliers(atlas),
        flagged(store),
        duplicates(atlas),
        quality(store),
        learning_curves(store),
        skipped(store),
        settings(store),
    ]
    return [part for part in parts if part is not None]


def facts(atlas: Atlas) -> dict[str, str]:
    """The few numbers at the top of the report."""
    store, n_clusters = atlas.store, len(np.unique(atlas.table()["cluster"].to_numpy()))
    n_cells, n_duplicates = len(store.model("map").codebook_), int(_is_duplicate(store).sum())
    return {
        "images": f"{len(store):,}",
        "cluster" if n_clusters == 1 else "clusters": f"{n_clusters:,}",
        "cell on the map" if n_cells == 1 else "cells on the map": f"{n_cells:,}",
        f"unedited duplicate{'' if n_duplicates == 1 else 's'}": f"{n_duplicates:,}",
        "skipped": f"{store.manifest.stages['intake']['n_skipped']:,}",
        "time to learn": _minutes(sum(stage["seconds"] for stage in store.manifest.stages.values())),
    }


def summary(atlas: Atlas) -> Result:
    """What an atlas holds and how it was learned, in a few lines."""
    manifest, spec = atlas.store.manifest, atlas.store.spec
    sentences = [
        f"{counted(len(atlas), 'image')} from {manifest.source}; "
        f"{counted(manifest.stages['intake']['n_skipped'], 'file')} skipped.",
        f"The models see them at {spec.width} x {spec.height} pixels with {counted(spec.channels, 'channel')} of "
        f"{spec.dtype}.",
    ]
    texts = [stage["summary"].rstrip(".") for name, stage in manifest.stages.items() if name != "report"]
    sentences += [f"{text[:1].upper()}{text[1:]}." for text in texts if text]
    if not manifest.finished:
        sentences.append("It is not finished; the same 'imatlas learn' command continues it.")
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
    """The lattice with a picture in every cell that has images."""
    store, decided = atlas.store, atlas.decided_clusters
    som, rows = store.model("map"), store.rows
    territory = decided.merged[store.model("clusters").predict(som.codebook_)]
    n_cells = len(som.codebook_)
    heights = u_heights(som.codebook_, som.rows_, som.cols_, som.topology)
    each = int(np.clip(MOST_PICTURES // n_cells, 3, 12))
    members = [np.flatnonzero(rows["cell"] == cell) for cell in range(n_cells)]
    ordered = [store.nearest_first(m, som.codebook_[cell])[:each] for cell, m in enumerate(members)]
    shown = np.concatenate(ordered)
    pictures = dict(zip(shown.tolist(), _pictures(store, shown), strict=True))
    faces = [near[0] for near in ordered if len(near)]
    size = LARGE_PICTURE if n_cells <= SMALL_MAP else PICTURE
    exemplars = dict(zip(faces, _pictures(store, np.array(faces), size), strict=True))
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
    measured, n_empty = store.manifest.metrics.get("map", {}), sum(not cell.count for cell in cells)
    return Result(
        name="map",
        title="The map",
        sentences=[
            "Every image has a cell on this map, and images with similar features lie side by side.",
            f"Each cell shows the image nearest to its center{_empty_in_words(n_empty, n_cells)}",
            *measured.get("sentences", []),
        ],
        metrics=measured.get("metrics", {}),
        protocol=measured.get("protocol", ""),
        panels=[
            MapPanel(
                rows=som.rows_,
                columns=som.cols_,
                topology=som.topology,
                cells=cells,
                sizes=Counter(decided.merged[rows["cluster"]].tolist()),
                names=decided.given,
                alt=f"A {som.topology} map of {som.rows_} by {som.cols_} cells, each with its most typical image.",
            )
        ],
    )


def clusters(atlas: Atlas) -> Result:
    """Each cluster with its size, its proposed words, and the images that are most typical of it."""
    store, decided, model = atlas.store, atlas.decided_clusters, atlas.model("clusters")
    all_labels, confidence = (atlas.table()[name].to_numpy() for name in ("cluster", "confidence"))
    proposed = words_of_clusters(store, all_labels, model.n_clusters_)
    labels, counts = np.unique(all_labels, return_counts=True)
    panels: list[Panel] = []
    largest = sorted(zip(labels.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:MOST_CLUSTERS]
    for label, count in largest:
        members = np.flatnonzero(all_labels == label)
        centers = model.cluster_centers_[decided.parts(label)]
        far = np.min([squared_to(center, store.embedding, members) for center in centers], axis=0)
        typical = members[np.argsort(far, kind="stable")][:TYPICAL]
        name = f" ({decided.given[label]})" if label in decided.given else ""
        words = in_words(proposed[0][label]) if proposed else ""
        panels.append(
            ImageGrid(
                title=f"Cluster {label}{name}: {counted(count, 'image')}, confidence {confidence[members].mean():.0%}",
                note=words and f"Proposed words: {words}.",
                images=_pictures(store, typical),
                alt=f"The {len(typical)} most typical images of cluster {label}.",
            )
        )
    measured = store.manifest.metrics["clusters"]
    sentences = [
        *measured["sentences"],
        "Confidence: the share of an image's nearest images that are in the same cluster, averaged over the cluster.",
    ]
    if decided.any_merged:
        sentences.append(f"{len(decided.merged):,} clusters were found, and some merged: {len(labels):,} are left.")
    if proposed:
        sentences.append(
            f"Words are proposed {LEARNED_WITH}, with their mean probability in {counted(proposed[1], 'image')}; what "
            "it has no word for gets a wrong one, or none."
        )
    if len(labels) > MOST_CLUSTERS:
        sentences.append(f"The {MOST_CLUSTERS} largest of {len(labels):,} clusters are shown.")
    return Result("clusters", "Clusters", sentences, measured["metrics"], panels, protocol=measured["protocol"])


def layout(atlas: Atlas) -> Result:
    """All images as dots in the plane, with pictures of some."""
    store, decided = atlas.store, atlas.decided_clusters
    x, y = store.layout.T
    model = store.model("layout")
    n = len(model.references_)
    how = (
        "similar images lie together (UMAP). The distance between two islands means little."
        if model.by_umap_
        else "the axes are the first two principal components."
    )
    others = f" The layout is that of {n:,} images; the others lie among their nearest neighbors." if n < len(x) else ""
    return Result(
        name="layout",
        title="Layout",
        sentences=[f"Every image is a dot in the color of its cluster; {how}{others}"],
        panels=[
            Scatter(
                x=x,
                y=y,
                groups=decided.merged[store.rows["cluster"]],
                names=decided.given,
                keys=store.rows["key"].tolist(),
                images=_LazyPictures(store),
                alt=f"{len(x):,} images as dots in the plane, with pictures of some.",
            )
        ],
    )


def new_images(atlas: Atlas, n: int = 24, random_state: int = 0) -> Result:
    """Generated images, some beside the nearest training image."""
    if composes(atlas.model("generator")):
        return _composed(atlas.store, n, random_state)
    made = atlas.sample(n, random_state=random_state)
    train = np.flatnonzero(~atlas.store.rows["held_out"])
    train = train[:: max(1, len(train) // 5000)]
    real, new = (display_view(pixels, atlas.store.spec) for pixels in (atlas.store.pixels(train), made))
    nearest = k_nearest(as_tensor(small_pixels(real)), as_tensor(small_pixels(new)), 1)[0].numpy()[:, 0]
    return Result(
        name="new",
        title="New images",
        sentences=[f"{n} generated images, drawn from map cells in proportion to their images (seed {random_state})."],
        panels=[
            ImageGrid(images=list(new), size=112, alt=f"{n} generated images."),
            ImagePairs(
                title="Memorized?",
                note="Beside each is the nearest training image; a model that memorizes would show one picture twice.",
                names=("new", "nearest training image"),
                rows=[(new[i], real[nearest[i]]) for i in range(min(8, n))],
                alt="Generated images beside their nearest training images.",
            ),
        ],
    )


def _composed(store: Store, n: int, random_state: int) -> Result:
    """New images composed of others, some beside those that gave most of their pixels."""
    model = store.model("generator")
    made, provenance = model.sample(n, random_state=random_state, return_provenance=True)
    new = display_view(made, store.spec)
    shown = range(min(8, n))
    sources = [
        [(row, share) for k, (row, share) in enumerate(one.items()) if k == 0 or share >= SMALLEST_SHARE][:N_SOURCES]
        for one in provenance.sources[: len(shown)]
    ]
    rows, captions, keys = [], [], store.composed_of[0]
    for i, some in zip(shown, sources, strict=True):
        given = display_view(model.images_[[row for row, _ in some]], model.spec_)
        blank = np.full_like(new[i], 255)
        rows.append((new[i], *given, *[blank] * (N_SOURCES - len(some))))
        captions.append(", ".join(f"{keys[row]} {share:.0%}" for row, share in some))
    return Result(
        name="new",
        title="New images",
        sentences=[
            f"{n} new images (seed {random_state}), composed of {counted(len(model.images_), 'image')} with novelty "
            f"{model.novelty_:g}. At most {Locality.of(model.novelty_).max_share:.0%} of the pixels of a new image are "
            "of one image of the set.",
        ],
        panels=[
            ImageGrid(images=list(new), size=112, alt=f"{n} new images."),
            ImagePairs(
                title="Where they come from",
                note="Beside each new image are the images that gave most of its pixels, with their share.",
                names=("new", *(f"source {i + 1}" for i in range(N_SOURCES))),
                rows=rows,
                captions=captions,
                alt="New images beside their main sources.",
            ),
        ],
    )


def reconstructions(store: Store, n: int = 10) -> Result | None:
    """Held-out images beside their reconstructions."""
    held_out = np.flatnonzero(store.rows["held_out"])
    if not len(held_out):
        return None
    held_out = held_out[np.linspace(0, len(held_out) - 1, min(n, len(held_out))).astype(int)]
    generator = store.autoencoder
    if generator is None:
        return None
    pixels = store.pixels(held_out)
    rebuilt = display_view(generator.inverse_transform(generator.transform(pixels)), store.spec)
    return Result(
        name="rebuilt",
        title="Reconstructions",
        sentences=[f"Held-out images, encoded into {generator.latent_dim} numbers and decoded again."],
        panels=[
            ImagePairs(
                names=("original", "reconstruction"),
                rows=list(zip(display_view(pixels, store.spec), rebuilt, strict=True)),
                alt="Held-out images beside their reconstructions.",
            )
        ],
    )


def outliers(atlas: Atlas, n: int = 18, n_explained: int = 6) -> Result | None:
    """The images with the highest outlier scores, and outlier heat maps of the first."""
    if len(atlas) < MIN_ROWS:
        return None
    found = atlas.outliers()
    rows = np.argsort(-found.outlier_scores, kind="stable")[:n]
    keys = atlas.store.rows["key"][rows].tolist()
    pairs = replace(
        atlas.outlier_heatmaps(keys[:n_explained]),
        title="What is unusual about them",
        note="Highlighted is what is unlike every part of the nearest ordinary images.",
    )
    grid = ImageGrid(
        images=_pictures(atlas.store, rows),
        captions=[f"{key} ({found.outlier_scores[i]:.1f})" for key, i in zip(keys, rows, strict=True)],
        alt="The images with the highest outlier scores.",
    )
    note = "Below each image is its outlier score; 1 is ordinary."
    return replace(found.result, sentences=[note, *found.result.sentences], panels=[grid, pairs])


def flagged(store: Store, n: int = 24) -> Result:
    """The flagged images."""
    texts = store.rows["flags"]
    rows = np.flatnonzero(texts != "")
    counts = Counter(flag for text in texts[rows] for flag in text.split("; "))
    sentences = [f"{count:,} {flag}: {FLAGS[flag]}." for flag, count in counts.most_common()]
    grid = ImageGrid(
        images=_pictures(store, rows[:n]),
        captions=[f"{store.rows['key'][i]}: {texts[i]}" for i in rows[:n]],
        alt="Flagged images.",
    )
    return Result(
        "flags", "Flagged images", sentences or ["No images are flagged."], panels=[grid] if len(rows) else []
    )


def duplicates(atlas: Atlas, n: int = 12) -> Result:
    """The duplicates; in sets of up to `MAX_COMPARED` images edited near-duplicates, too."""
    store, keys = atlas.store, atlas.keys
    command = ("imatlas", "duplicates", file_word(atlas.folder.name))
    if len(keys) <= MAX_COMPARED:
        found = atlas.duplicates()
        rows = np.flatnonzero((found.group >= 0) & ~found.best)
        rows = rows[np.argsort(found.similarity[rows], kind="stable")]
        best, how = found.best_of[rows], [found.kind[i] for i in rows]
        sentences = list(found.result.sentences)
        if len(rows):
            sentences.append(f"The number at the top counts only unedited ones: {int(_is_duplicate(store).sum()):,}.")
        metrics = found.result.metrics
    else:
        row_of = {key: i for i, key in enumerate(keys)}
        rows = np.flatnonzero(_is_duplicate(store))
        best = np.array([row_of[str(store.rows["duplicate_of"][i])] for i in rows], dtype=int)
        how, metrics = ["same picture"] * len(rows), {}
        count = f"{counted(len(rows), 'image')} {'is an' if len(rows) == 1 else 'are'} unedited"
        sentences = [f"{count} duplicate{'' if len(rows) == 1 else 's'} of another image."]
        sentences.append(f"To find edited near-duplicates, too: {shell(*command)}")
    panels: list[Panel] = []
    if len(rows):
        pairs = zip(_pictures(store, rows[:n]), _pictures(store, best[:n]), strict=True)
        panels.append(
            ImagePairs(
                names=("duplicate", "kept"),
                rows=list(pairs),
                captions=[f"{keys[i]} = {keys[j]} ({what})" for i, j, what in zip(rows[:n], best, how)],
                alt="Pairs of duplicates.",
            )
        )
        sentences = [*sentences, f"To write a plan for moving them: {shell(*command, '-o', 'plan.csv')}"]
    return Result("duplicates", "Duplicates", sentences, metrics, panels)


def quality(store: Store) -> Result | None:
    """How good the generator is, in words and numbers."""
    measured = store.manifest.metrics.get("quality")
    if not measured:
        return None
    return Result(
        "quality", "Quality of new images", measured["sentences"], measured["metrics"], protocol=measured["protocol"]
    )


def learning_curves(store: Store) -> Result | None:
    """The loss of the generator over training time."""
    model = store.model("generator")
    history: dict[str, list[Any]] = getattr(model, "history_", {})
    series: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for name, label in (("train", "training"), ("held_out", "held-out")):
        pairs = zip(history.get("seconds", []), history.get(name, []), strict=False)
        points = [(x, y) for x, y in pairs if y is not None and np.isfinite(y)]
        if points:
            series[label] = ([x for x, _ in points], [y for _, y in points])
    if not series:
        return None
    sentence = f"After {model.n_steps_:,} steps the loss on held-out images is {model.verdict_}."
    if not store.rows["held_out"].any():
        sentence = f"{model.n_steps_:,} steps; no image was held out, so nothing says whether more would help."
    if model.verdict_ == "still improving":
        sentence += " A larger --budget would help."
    return Result(
        name="learning",
        title="Training",
        sentences=[sentence],
        panels=[Curve(series=series, x_label="seconds", y_label="loss", log_y=True, alt="Loss over time.")],
    )


def skipped(store: Store) -> Result:
    """The skipped files, each with its reason."""
    path = store.folder / "skipped.csv"
    files: list[tuple[str, str]] = []
    if path.name in store.inventory.files:
        store.inventory.check([path.name])
        files = [(row["key"], row["reason"]) for row in read_csv(path, ("key", "reason"), what="a list of files")]
    verb = "was" if len(files) == 1 else "were"
    sentence = f"{counted(len(files), 'file')} {verb} skipped." if files else "No file was skipped."
    return Result("skipped", "Skipped files", [sentence], panels=[FileList(files=files)] if files else [])


def settings(store: Store) -> Result:
    """All settings, to learn the same atlas again."""
    manifest = store.manifest
    rows = [(name, "default" if value is None else value) for name, value in manifest.settings.items()]
    rows += [
        ("encoder chosen", manifest.stages["intake"]["why"]),
        *([("preset of the encoder", why)] if (why := manifest.stages.get("encoder", {}).get("why")) else []),
        ("budget, seconds", manifest.stages["intake"]["budget"]),
    ]
    rows += [(f"{name}, seconds", stage["seconds"]) for name, stage in manifest.stages.items()]
    rows += [("imatlas", manifest.library)]
    return Result("settings", "Settings", panels=[DataTable(columns=("setting", "value"), rows=rows)])


class _LazyPictures(Sequence[Picture]):
    """The pictures of all images, each read on access: a scatter shows few of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, row: Any) -> Any:
        return _pictures(self._store, np.array([row]))[0]


def _pictures(store: Store, rows: np.ndarray, size: int = PICTURE) -> list[Picture]:
    return [shown(data, size) for data in store.thumbnails(rows)]


def _is_duplicate(store: Store) -> np.ndarray:
    return np.array([value is not None for value in store.rows["duplicate_of"]], dtype=bool)


def _empty_in_words(n_empty: int, n_cells: int) -> str:
    if not n_empty:
        return "."
    return f"; {n_empty:,} of {n_cells:,} cells {'is' if n_empty == 1 else 'are'} empty."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
