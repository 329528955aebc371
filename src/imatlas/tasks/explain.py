"""Explain clusters and images: typical and border images, the rival cluster, and which pixels and direction decide.

Membership in a cluster is measured against a rival: the distance of an image from the plane midway between the two
centers, along the discriminant axes. The heat map is how much of it is lost when a part of the image is blurred
(occlusion: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, figure 6d; blurred as in
Fong & Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017). The encoder is
treated as a black box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from imatlas.arguments import check_int, strict_yes
from imatlas.errors import InputError
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.result import DataTable, ImageGrid, ImagePairs, Picture, Result
from imatlas.tasks.cluster import PROTOCOL, UNSURE
from imatlas.tasks.search import search

N_CELLS = 7
"""Rows and columns of a heat map, which takes 50 forward passes."""

WINDOW = 3
"""Width in cells of the window that is blurred; windows overlap."""

N_HEAT_MAPS = 4
"""Images of a cluster with a heat map."""

N_SHOWN = 10
"""Images in a panel."""

RED, BLUE = np.array([220.0, 30.0, 30.0]), np.array([30.0, 80.0, 220.0])

LEGEND = "red: evidence for cluster {own}, blue: against; each image on its own scale"


@dataclass(frozen=True)
class Space:
    """The images of an atlas, as needed for explanations.

    Attributes
    ----------
    clusterer : ImageClusterer
    embedding : ndarray (n_images, n_features)
    keys : sequence of str
    show : callable
        Rows -> a thumbnail of each.
    pixels : callable
        Rows -> the input of the encoder, ndarray (n, H, W, C).
    embed : callable
        Input of the encoder (n, H, W, C) -> embedding, ndarray (n, n_features).
    spec : ImageSpec
        Depth and value range of the input of the encoder.
    merged : ndarray (n_clusters,) int64, optional
        The cluster that each counts as. None: itself.
    names : mapping {cluster: name}
        Names that were given.
    """

    clusterer: ImageClusterer
    embedding: np.ndarray
    keys: Sequence[str]
    show: Callable[[np.ndarray], list[Picture]]
    pixels: Callable[[np.ndarray], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]
    spec: ImageSpec
    merged: np.ndarray | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def counts_as(self) -> np.ndarray:
        """The cluster that each counts as, (n_clusters,) int64."""
        return np.arange(self.clusterer.n_clusters_) if self.merged is None else self.merged

    def called(self, cluster: int) -> str:
        """The number of a cluster, and the name that it was given."""
        return f"{cluster} ({self.names[cluster]})" if cluster in self.names else str(cluster)

    def with_image(self, features: np.ndarray, key: str, thumbnail: Picture, image: np.ndarray) -> Space:
        """The same images followed by another one, which is not in the atlas.

        Parameters
        ----------
        features : ndarray (n_features,)
        key : str
            Its name.
        thumbnail
        image : ndarray (H, W, C)
            Input of the encoder.
        """
        n = len(self.embedding)

        def show(rows: np.ndarray) -> list[Picture]:
            own = iter(self.show(rows[rows < n]) if (rows < n).any() else [])
            return [thumbnail if row == n else next(own) for row in rows.tolist()]

        def pixels(rows: np.ndarray) -> np.ndarray:
            own = iter(self.pixels(rows[rows < n]) if (rows < n).any() else [])
            return np.stack([image if row == n else next(own) for row in rows.tolist()])

        embedding = np.concatenate([self.embedding, features[None]])
        return replace(self, embedding=embedding, keys=[*self.keys, key], show=show, pixels=pixels)


@strict_yes
def explain_cluster(space: Space, cluster: int, *, heat: bool = True) -> Result:
    """Explain a cluster: its typical and border images, heat maps, and the direction to the nearest other cluster.

    Parameters
    ----------
    space : Space
    cluster : int
    heat : bool
        Compute heat maps, which takes 50 forward passes for each of 4 images.

    Raises
    ------
    InputError
        If there is no such cluster, or a single one.
    """
    model, merged = space.clusterer, space.counts_as
    _need_clusters(merged)
    cluster = check_int(cluster, "cluster", "explain")
    if not 0 <= cluster < len(merged):
        raise InputError(f"There are clusters 0 to {len(merged) - 1}. Got {cluster}; see 'imatlas clusters'.")
    cluster = int(merged[cluster])
    labels, confidence = merged[model.predict(space.embedding)], model.confidence(space.embedding, groups=merged)
    members = np.flatnonzero(labels == cluster)
    if not len(members):
        raise InputError(f"Cluster {cluster} has no images any more; 'imatlas clusters' lists those that have some.")
    projected, centers = model.transform(space.embedding), model.transform(model.cluster_centers_)
    part, other_part = _nearest_parts(centers, merged == cluster)
    rival = int(merged[other_part])
    own_centers = centers[merged == cluster]
    far = np.linalg.norm(projected[members][:, None] - own_centers[None], axis=2).min(axis=1)
    typical = members[np.argsort(far, kind="stable")]
    border = members[np.argsort(confidence[members], kind="stable")][:N_SHOWN]
    others = merged[second_best(projected[border], centers, labels[border], merged)]
    side = _side(projected, centers, part, other_part)
    both = np.flatnonzero((labels == cluster) | (labels == rival))
    path = both[np.argsort(-side[both], kind="stable")]
    path = path[np.unique(np.linspace(0, len(path) - 1, N_SHOWN).round().astype(int))]
    parts = [
        ImageGrid(
            title="Most typical",
            images=space.show(typical[:N_SHOWN]),
            captions=[space.keys[i] for i in typical[:N_SHOWN]],
            alt=f"The images nearest to the center of cluster {cluster}.",
        ),
        ImageGrid(
            title="On the border",
            note="Images with the lowest confidence, and their second-best cluster.",
            images=space.show(border),
            captions=[
                f"confidence {confidence[i]:.0%}, else {o}: {space.keys[i]}"
                for i, o in zip(border, others, strict=True)
            ],
            alt=f"The members of cluster {cluster} with the lowest confidence.",
        ),
        *([_heat_maps(space, typical[:N_HEAT_MAPS], part, [other_part] * N_HEAT_MAPS)] if heat else []),
        ImageGrid(
            title=f"From cluster {space.called(cluster)} to cluster {space.called(rival)}, its nearest",
            note="Along the direction that separates the two, from one extreme to the other.",
            images=space.show(path),
            captions=[f"{labels[i]}: {side[i]:+.2f}" for i in path],
            alt=f"Images along the direction from cluster {cluster} to cluster {rival}.",
        ),
    ]
    separated = np.where(labels[both] == cluster, side[both] > 0, side[both] < 0).mean()
    data = {
        "cluster": cluster,
        "size": len(members),
        "nearest_cluster": rival,
        "typical": [space.keys[i] for i in typical[:N_SHOWN]],
        "border": [
            {"key": space.keys[i], "confidence": float(confidence[i]), "second_best": int(o)}
            for i, o in zip(border, others, strict=True)
        ],
        "path": [{"key": space.keys[i], "cluster": int(labels[i]), "side": float(side[i])} for i in path],
    }
    return Result(
        "explain",
        f"Cluster {space.called(cluster)}",
        [
            f"{len(members):,} images, mean confidence {confidence[members].mean():.0%}; the most typical is "
            f"{space.keys[typical[0]]}.",
            f"Its nearest cluster is {space.called(rival)}, of {(labels == rival).sum():,} images. A single direction "
            f"separates {separated:.0%} of the images of both.",
            f"{(confidence[members] < UNSURE).sum():,} are on its border: most of their nearest images are in other "
            "clusters.",
        ],
        panels=list(parts),
        data=data,
        protocol=PROTOCOL,
    )


@strict_yes
def explain_image(space: Space, row: int, *, cell: tuple[int, int] | None = None, heat: bool = True) -> Result:
    """Explain the position of an image: its cluster and the second-best one, its nearest images, and a heat map.

    Parameters
    ----------
    space : Space
    row : int
        Row of the embedding.
    cell : (row, column), optional
        Its cell on the map.
    heat : bool
        Compute a heat map, which takes 50 forward passes.

    Raises
    ------
    InputError
        If there is a single cluster.
    """
    model, merged = space.clusterer, space.counts_as
    _need_clusters(merged)
    features = space.embedding[row : row + 1]
    part, confidence = int(model.predict(features)[0]), float(model.confidence(features, groups=merged)[0])
    label = int(merged[part])
    projected, centers = model.transform(features), model.transform(model.cluster_centers_)
    other_part = int(second_best(projected, centers, np.array([label]), merged)[0])
    rival = int(merged[other_part])
    own, other = (float(np.linalg.norm(projected[0] - centers[c])) for c in (part, other_part))
    found = search(space.embedding, features, k=N_SHOWN + 1)
    near = [(i, c) for i, c in zip(found.indices[0], found.closer_than[0], strict=True) if i != row][:N_SHOWN]
    rows = np.array([i for i, _ in near])
    labels = merged[model.predict(space.embedding[rows])]
    on_map = "" if cell is None else f", on the map in cell {cell[0]},{cell[1]}"
    n_same = int((labels == label).sum())
    parts = [
        *([_heat_maps(space, np.array([row]), part, [other_part])] if heat else []),
        ImageGrid(
            title="Nearest images",
            note=f"{n_same} of these {len(near)} are in cluster {label} too.",
            images=space.show(rows),
            captions=[f"{c}: {space.keys[i]}" for i, c in zip(rows, labels, strict=True)],
            alt=f"The images nearest to {space.keys[row]}.",
        ),
        DataTable(
            title="Distances to the nearest images",
            columns=("key", "cluster", "closer than pairs"),
            rows=[(space.keys[i], int(c), f"{close:.1%}") for (i, close), c in zip(near, labels, strict=True)],
        ),
    ]
    data = {
        "key": space.keys[row],
        "cluster": label,
        "confidence": confidence,
        "second_best": rival,
        "distance": own,
        "distance_to_second_best": other,
        "cell": None if cell is None else list(cell),
        "nearest": [{"key": space.keys[i], "cluster": int(c)} for i, c in zip(rows, labels, strict=True)],
    }
    return Result(
        "explain",
        str(space.keys[row]),
        [
            f"It is in cluster {space.called(label)} with a confidence of {confidence:.0%}{on_map}.",
            f"Distance to the center of cluster {label}: {own:.2f}; of the second-best cluster, {space.called(rival)}: "
            f"{other:.2f}.",
        ],
        panels=list(parts),
        data=data,
        protocol=f"{PROTOCOL}; distances along the discriminant axes, in which clusters have mean deviation 1",
    )


def second_best(
    projected: np.ndarray, centers: np.ndarray, labels: np.ndarray, merged: np.ndarray | None = None
) -> np.ndarray:
    """The nearest center (n,) of rows (n, n_axes) other than that of their label, or than all that count as it."""
    distances = np.linalg.norm(projected[:, None] - centers[None], axis=2)
    merged = np.arange(len(centers)) if merged is None else merged
    distances[merged[None] == labels[:, None]] = np.inf
    return distances.argmin(axis=1)


def _nearest_parts(centers: np.ndarray, own: np.ndarray) -> tuple[int, int]:
    """Of the centers marked as own and the others, the pair that is nearest to each other."""
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    distances[~own] = np.inf
    distances[:, own] = np.inf
    part, other = np.unravel_index(distances.argmin(), distances.shape)
    return int(part), int(other)


def heat_map(image: np.ndarray, score: Callable[[np.ndarray], np.ndarray], *, n_cells: int = N_CELLS) -> np.ndarray:
    """Occlusion heat map: how much of its score an image loses when a part is blurred.

    Parameters
    ----------
    image : ndarray (H, W, C)
    score : callable
        Images (n, H, W, C) -> their scores (n,).
    n_cells : int
        Rows and columns of the map; n_cells² + 1 images are scored.

    Returns
    -------
    heat : ndarray (n_cells, n_cells) float32
        Loss of the score, averaged over the windows that cover a cell.
    """
    from scipy.ndimage import gaussian_filter

    height, width = image.shape[:2]
    known = np.nan_to_num(image.astype(np.float32))
    blurred = gaussian_filter(known, (height / 8, width / 8, 0))
    blurred = (np.rint(blurred) if image.dtype.kind == "u" else blurred).astype(image.dtype)
    rows, columns = (np.linspace(0, side, n_cells + 1).round().astype(int) for side in (height, width))
    reach = WINDOW // 2
    windows = [
        (slice(max(0, i - reach), i + reach + 1), slice(max(0, j - reach), j + reach + 1))
        for i in range(n_cells)
        for j in range(n_cells)
    ]
    variants = np.repeat(image[None], len(windows) + 1, axis=0)
    for variant, (down, across) in zip(variants[1:], windows, strict=True):
        top, bottom = rows[down.start], rows[min(down.stop, n_cells)]
        left, right = columns[across.start], columns[min(across.stop, n_cells)]
        variant[top:bottom, left:right] = blurred[top:bottom, left:right]
    scores = np.asarray(score(variants), np.float32)
    loss, n_windows = np.zeros((n_cells, n_cells), np.float32), np.zeros((n_cells, n_cells), np.float32)
    for (down, across), value in zip(windows, scores[1:], strict=True):
        loss[down, across] += scores[0] - value
        n_windows[down, across] += 1
    return loss / n_windows


def overlaid(view: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A gray image (H, W, 3) uint8 under its heat map (n, n): red above 0, blue below."""
    from scipy.ndimage import zoom

    height, width = view.shape[:2]
    smooth = zoom(heat, (height / heat.shape[0], width / heat.shape[1]), order=1, grid_mode=True, mode="nearest")
    strength = smooth / max(float(np.abs(heat).max()), 1e-12)
    share = 0.65 * np.clip(np.abs(strength), 0, 1)[..., None]
    gray = view.mean(axis=2, keepdims=True)
    color = np.where(strength[..., None] > 0, RED, BLUE)
    return np.rint((1 - share) * gray + share * color).astype(np.uint8)


def _heat_maps(space: Space, rows: np.ndarray, own: int, rivals: Sequence[int]) -> ImagePairs:
    """Images and their heat maps for a cluster against its rivals."""
    model = space.clusterer
    centers = model.transform(model.cluster_centers_)
    images = space.pixels(rows)
    pairs = []
    for image, rival in zip(images, rivals, strict=False):

        def score(variants: np.ndarray, rival: int = rival) -> np.ndarray:
            return _side(model.transform(space.embed(variants)), centers, own, rival)

        view = _rgb(image, space.spec)
        pairs.append((view, overlaid(view, heat_map(image, score))))
    return ImagePairs(
        title="Heat maps",
        note=f"Against cluster {space.counts_as[rivals[0]]}; {LEGEND.format(own=space.counts_as[own])}.",
        names=("image", "evidence for its cluster"),
        rows=pairs,
        captions=[str(space.keys[i]) for i in rows],
        size=160,
        alt=f"Images and heat maps of the evidence for cluster {space.counts_as[own]}.",
    )


def _side(projected: np.ndarray, centers: np.ndarray, own: int, rival: int) -> np.ndarray:
    """Signed distance (n,) of rows (n, n_axes) from the plane midway between two centers, positive on the own side."""
    direction = centers[own] - centers[rival]
    middle = (centers[own] + centers[rival]) / 2
    return (projected - middle) @ direction / max(float(np.linalg.norm(direction)), 1e-12)


def _rgb(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    return rgb_view(image[None], spec)[0]


def _need_clusters(merged: np.ndarray) -> None:
    if len(np.unique(merged)) < 2:
        raise InputError(
            "There is a single cluster, so there is nothing to compare it with; 'imatlas learn' with --clusters 2 "
            "--overwrite gives more unless all images are equal."
        )
