"""The report's section of segments: some typical images, split into parts and into classes that they share."""

from __future__ import annotations

import numpy as np

from imatlas.arguments import counted
from imatlas.atlas.store import Store
from imatlas.images.decode import check_thumbnail, read_picture
from imatlas.models.parts.channels import rgb_view
from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.region_tree import RegionTree
from imatlas.models.segmenter import Segmenter
from imatlas.result import ImagePairs, Result
from imatlas.system.terminal import file_word, shell
from imatlas.tasks.region_files import class_overlay, overlay
from imatlas.tasks.source_pictures import upright

N_LEARNED, N_SHOWN = 24, 12
"""Images that the classes are learned from, and those shown."""

SMALLEST = 48
"""Shorter side in pixels below which an image has no parts worth showing."""


def segments(store: Store, random_state: int = 0) -> Result | None:
    """Some images beside their parts, and the classes of stuff that are the same in all.

    None if the images are small, or if nothing learned with labels is to be used: the segments' features are.
    """
    if store.manifest.settings.get("encoder") in ("own", "self-supervised"):
        return None
    opened = [upright(read_picture(check_thumbnail(data))) for data in store.thumbnails(_typical(store, N_LEARNED))]
    opened = [(pixels, spec) for pixels, spec in opened if min(pixels.shape[:2]) >= SMALLEST]
    if not opened:
        return None
    graphs = [region_graph(pixels, spec) for pixels, spec in opened]
    trees = [RegionTree.on(graph) for graph in graphs]
    classes, parts = Segmenter(random_state=random_state).fit_trees(trees, opened[0][1]), Segmenter(method="hierarchy")
    rows = []
    for (pixels, spec), graph, tree in list(zip(opened, graphs, trees, strict=True))[:N_SHOWN]:
        view = rgb_view(pixels, spec)
        shared = classes.label_tree(tree)[graph.regions]
        rows.append((view, overlay(view, parts.label(pixels, spec, graph)), class_overlay(view, shared)))
    command = shell("imatlas", "segment", file_word(store.folder.name), "-o", "segments/")
    return Result(
        name="segments",
        title="Segments",
        sentences=[
            f"{counted(len(rows), 'image')} split without labels: into the parts that a person would name, and into "
            f"{counted(classes.n_classes_, 'kind')} of stuff, each with one color in all images. These were learned "
            f"from {counted(len(trees), 'thumbnail')}, with features of a network that was trained with ImageNet's "
            "labels.",
            f"All images at full size: {command}",
        ],
        panels=[
            ImagePairs(
                names=("image", "parts", "kinds of stuff"),
                rows=rows,
                size=128,
                alt="Images beside their parts and the kinds of stuff in them.",
            )
        ],
    )


def _typical(store: Store, n: int) -> np.ndarray:
    """Up to n rows: the most typical image of each cluster, those of large clusters first, then the second of each…"""
    labels, counts = np.unique(store.rows["cluster"], return_counts=True)
    centers = store.model("clusters").cluster_centers_
    largest = labels[np.argsort(-counts, kind="stable")][:n]
    ordered = [
        store.nearest_first(np.flatnonzero(store.rows["cluster"] == label), centers[label])[:n] for label in largest
    ]
    return np.array([rows[i] for i in range(n) for rows in ordered if i < len(rows)][:n])
