"""Explain a cluster or an image: what is typical, what is on the border, which pixels and which direction decide.

What speaks for a cluster is measured against a rival: how far an image lies on the cluster's side of the plane that
divides the two, along the clusterer's axes. The heat map shows how much of that is lost where a part of the picture is
blurred away (occlusion: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, figure 6d;
blurred, not grayed: Fong & Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017).
It needs nothing of the encoder but that it embeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imatlas.arguments import check_int, strict_yes
from imatlas.errors import InputError
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.models.image_clusterer import N_VOTES, ImageClusterer
from imatlas.result import DataTable, ImageGrid, ImagePairs, Picture, Result
from imatlas.tasks.search import search

N_CELLS = 7
"""Rows and columns of a heat map: 49 looks at an image."""

WINDOW = 3
"""Cells of the heat map across the part that is blurred at a time: parts overlap, so that edges between them do not."""

N_HEATED = 4
"""Images of a cluster that get a heat map."""

SHOWN = 10
"""Images in a row."""

RED, BLUE = np.array([220.0, 30.0, 30.0]), np.array([30.0, 80.0, 220.0])

HEATED = "red: without this part it would be less of cluster {own}, blue: more; each picture by its own scale"


@dataclass(frozen=True)
class Space:
    """All that is known of the images of an atlas.

    Attributes
    ----------
    clusterer : ImageClusterer
    embedding : ndarray (n_images, n_features)
    keys : sequence of str
    show : callable
        Rows -> a small picture of each.
    look : callable
        Rows -> each as the encoder sees it, ndarray (n, H, W, C).
    embed : callable
        Images (n, H, W, C) -> their places, ndarray (n, n_features).
    spec : ImageSpec
        Depth and range of what `look` gives.
    """

    clusterer: ImageClusterer
    embedding: np.ndarray
    keys: Sequence[str]
    show: Callable[[np.ndarray], list[Picture]]
    look: Callable[[np.ndarray], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]
    spec: ImageSpec

    def with_image(self, place: np.ndarray, key: str, picture: Picture, seen: np.ndarray) -> Space:
        """The same with one more image after the others, which is none of the atlas.

        Parameters
        ----------
        place : ndarray (n_features,)
        key : str
            What to call it.
        picture
            It, small.
        seen : ndarray (H, W, C)
            It as the encoder sees it.
        """
        n = len(self.embedding)

        def show(rows: np.ndarray) -> list[Picture]:
            own = iter(self.show(rows[rows < n]) if (rows < n).any() else [])
            return [picture if row == n else next(own) for row in rows.tolist()]

        def look(rows: np.ndarray) -> np.ndarray:
            own = iter(self.look(rows[rows < n]) if (rows < n).any() else [])
            return np.stack([seen if row == n else next(own) for row in rows.tolist()])

        embedding = np.concatenate([self.embedding, place[None]])
        return replace(self, embedding=embedding, keys=[*self.keys, key], show=show, look=look)


@strict_yes
def explain_cluster(space: Space, cluster: int, *, heat: bool = True) -> Result:
    """Say what makes a cluster: its typical images, those on its border, what decides in them, and the way to the
    nearest other cluster.

    Parameters
    ----------
    space : Space
    cluster : int
    heat : bool
        Draw heat maps, which takes 49 looks at each of 4 images.

    Raises
    ------
    InputError
        If there is no such cluster, or only one.
    """
    model = space.clusterer
    k = _need_clusters(model)
    cluster = check_int(cluster, "cluster", "explain")
    if not 0 <= cluster < k:
        raise InputError(f"There are clusters 0 to {k - 1}. Got {cluster}; see 'imatlas clusters'.")
    labels, sure = model.predict(space.embedding), model.confidence(space.embedding)
    members = np.flatnonzero(labels == cluster)
    along, centers = model.transform(space.embedding), model.transform(model.cluster_centers_)
    gaps = np.linalg.norm(centers - centers[cluster], axis=1)
    gaps[cluster] = np.inf
    rival = int(gaps.argmin())
    typical = members[np.argsort(np.linalg.norm(along[members] - centers[cluster], axis=1), kind="stable")]
    border = members[np.argsort(sure[members], kind="stable")][:SHOWN]
    others = second_best(along[border], centers, labels[border])
    side = _side(along, centers, cluster, rival)
    both = np.flatnonzero((labels == cluster) | (labels == rival))
    way = both[np.argsort(-side[both], kind="stable")]
    way = way[np.unique(np.linspace(0, len(way) - 1, SHOWN).round().astype(int))]
    parts = [
        ImageGrid(
            title="Most typical",
            images=space.show(typical[:SHOWN]),
            captions=[space.keys[i] for i in typical[:SHOWN]],
            alt=f"The images nearest to the center of cluster {cluster}.",
        ),
        ImageGrid(
            title="On the border",
            note="Those whose cluster is least sure, and the cluster that they would be in otherwise.",
            images=space.show(border),
            captions=[f"{sure[i]:.0%} sure, else {o}: {space.keys[i]}" for i, o in zip(border, others, strict=True)],
            alt=f"The members of cluster {cluster} that are least sure.",
        ),
        *([_heated(space, typical[:N_HEATED], cluster, [rival] * N_HEATED)] if heat else []),
        ImageGrid(
            title=f"From cluster {cluster} to cluster {rival}, its nearest",
            note="Along the one direction that divides the two: at either end the images that are most on that side.",
            images=space.show(way),
            captions=[f"{labels[i]}: {side[i]:+.2f}" for i in way],
            alt=f"Images from one end of the direction between clusters {cluster} and {rival} to the other.",
        ),
    ]
    right = np.where(labels[both] == cluster, side[both] > 0, side[both] < 0).mean()
    data = {
        "cluster": cluster,
        "size": len(members),
        "nearest_cluster": rival,
        "typical": [space.keys[i] for i in typical[:SHOWN]],
        "border": [
            {"key": space.keys[i], "confidence": float(sure[i]), "else": int(o)}
            for i, o in zip(border, others, strict=True)
        ],
        "way": [{"key": space.keys[i], "cluster": int(labels[i]), "side": float(side[i])} for i in way],
    }
    return Result(
        "explain",
        f"Cluster {cluster}",
        [
            f"{len(members):,} images, {sure[members].mean():.0%} sure on average; the most typical is "
            f"{space.keys[typical[0]]}.",
            f"Its nearest cluster is {rival}, of {(labels == rival).sum():,} images. One direction tells {right:.0%} "
            "of the images of both apart.",
            f"{(sure[members] < 0.5).sum():,} are on its border: most images near them are in other clusters.",
        ],
        panels=list(parts),
        data=data,
        protocol=f"confidence: share of an image's {N_VOTES} nearest ones that are in its cluster",
    )


@strict_yes
def explain_image(space: Space, row: int, *, cell: tuple[int, int] | None = None, heat: bool = True) -> Result:
    """Say why an image is where it is: its cluster and the second best, its nearest images, and what in it decides.

    Parameters
    ----------
    space : Space
    row : int
        Of the embedding.
    cell : (row, column), optional
        Where it lies on the map.
    heat : bool
        Draw a heat map, which takes 49 looks at it.

    Raises
    ------
    InputError
        If there is only one cluster.
    """
    model = space.clusterer
    _need_clusters(model)
    place = space.embedding[row : row + 1]
    label, sure = int(model.predict(place)[0]), float(model.confidence(place)[0])
    along, centers = model.transform(place), model.transform(model.cluster_centers_)
    rival = int(second_best(along, centers, np.array([label]))[0])
    own, other = (float(np.linalg.norm(along[0] - centers[c])) for c in (label, rival))
    found = search(space.embedding, place, k=SHOWN + 1)
    near = [(i, c) for i, c in zip(found.indices[0], found.closer_than[0], strict=True) if i != row][:SHOWN]
    rows = np.array([i for i, _ in near])
    labels = model.predict(space.embedding[rows])
    where = "" if cell is None else f" and on the map in cell {cell[0]},{cell[1]}"
    n_same = int((labels == label).sum())
    parts = [
        *([_heated(space, np.array([row]), label, [rival])] if heat else []),
        ImageGrid(
            title="Its nearest images",
            note=f"{n_same} of these {len(near)} are in cluster {label} too.",
            images=space.show(rows),
            captions=[f"{c}: {space.keys[i]}" for i, c in zip(rows, labels, strict=True)],
            alt=f"The images nearest to {space.keys[row]}.",
        ),
        DataTable(
            title="Nearest images",
            columns=("key", "cluster", "closer than"),
            rows=[(space.keys[i], int(c), f"{close:.1%}") for (i, close), c in zip(near, labels, strict=True)],
        ),
    ]
    data = {
        "key": space.keys[row],
        "cluster": label,
        "confidence": sure,
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
            f"It is in cluster {label}, {sure:.0%} sure{where}.",
            f"It is {own:.2f} from the center of cluster {label}, and {other:.2f} from the second best, {rival}.",
        ],
        panels=list(parts),
        data=data,
        protocol=f"confidence: share of an image's {N_VOTES} nearest ones that are in its cluster; distances along the "
        "axes that divide the clusters, in which a cluster has deviation 1 on average",
    )


def second_best(along: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The nearest center (n,) that is not the own of rows (n, n_axes)."""
    distances = np.linalg.norm(along[:, None] - centers[None], axis=2)
    distances[np.arange(len(along)), labels] = np.inf
    return distances.argmin(axis=1)


def heat_map(image: np.ndarray, score: Callable[[np.ndarray], np.ndarray], *, n_cells: int = N_CELLS) -> np.ndarray:
    """How much of a score an image loses where a part of it is blurred away.

    Parameters
    ----------
    image : ndarray (H, W, C)
    score : callable
        Images (n, H, W, C) -> their scores (n,).
    n_cells : int
        Rows and columns of the map; the image is scored n_cells² + 1 times.

    Returns
    -------
    heat : ndarray (n_cells, n_cells) float32
        Above 0: without this part the score is lower. Mean over the windows that cover a cell.
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
    hidden = np.repeat(image[None], len(windows) + 1, axis=0)
    for picture, (down, across) in zip(hidden[1:], windows, strict=True):
        top, bottom = rows[down.start], rows[min(down.stop, n_cells)]
        left, right = columns[across.start], columns[min(across.stop, n_cells)]
        picture[top:bottom, left:right] = blurred[top:bottom, left:right]
    scores = np.asarray(score(hidden), np.float32)
    lost, covered = np.zeros((n_cells, n_cells), np.float32), np.zeros((n_cells, n_cells), np.float32)
    for (down, across), value in zip(windows, scores[1:], strict=True):
        lost[down, across] += scores[0] - value
        covered[down, across] += 1
    return lost / covered


def overlaid(view: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 in gray, red where the heat (n, n) is above 0 and blue where it is below."""
    from scipy.ndimage import zoom

    height, width = view.shape[:2]
    smooth = zoom(heat, (height / heat.shape[0], width / heat.shape[1]), order=1, grid_mode=True, mode="nearest")
    strength = smooth / max(float(np.abs(heat).max()), 1e-12)
    share = 0.65 * np.clip(np.abs(strength), 0, 1)[..., None]
    gray = view.mean(axis=2, keepdims=True)
    color = np.where(strength[..., None] > 0, RED, BLUE)
    return np.rint((1 - share) * gray + share * color).astype(np.uint8)


def _heated(space: Space, rows: np.ndarray, own: int, rivals: Sequence[int]) -> ImagePairs:
    """Images beside what in them speaks for their cluster against another."""
    model = space.clusterer
    centers = model.transform(model.cluster_centers_)
    images = space.look(rows)
    pairs = []
    for image, rival in zip(images, rivals, strict=False):

        def score(some: np.ndarray, rival: int = rival) -> np.ndarray:
            return _side(model.transform(space.embed(some)), centers, own, rival)

        view = _rgb(image, space.spec)
        pairs.append((view, overlaid(view, heat_map(image, score))))
    return ImagePairs(
        title="What in the pictures decides",
        note=f"Against cluster {rivals[0]}; {HEATED.format(own=own)}.",
        names=("image", "what speaks for its cluster"),
        rows=pairs,
        captions=[str(space.keys[i]) for i in rows],
        size=160,
        alt=f"Images and heat maps of what in them speaks for cluster {own}.",
    )


def _side(along: np.ndarray, centers: np.ndarray, own: int, rival: int) -> np.ndarray:
    """How far rows (n, n_axes) lie on the own side of the plane midway between two centers."""
    way = centers[own] - centers[rival]
    return (along - (centers[own] + centers[rival]) / 2) @ way / max(float(np.linalg.norm(way)), 1e-12)


def _rgb(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    return rgb_view(image[None], spec)[0]


def _need_clusters(model: ImageClusterer) -> int:
    if model.n_clusters_ < 2:
        raise InputError(
            "There is one cluster only, so nothing divides it from others; where not all images are alike, "
            "'imatlas learn' with --clusters 2 --overwrite gives more."
        )
    return int(model.n_clusters_)
