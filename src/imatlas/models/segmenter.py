"""Segmentation of a set of images into shared classes: one label means the same stuff in all images.

    each image -> hierarchy of regions, with the mean features of the pretrained encoder in each    (`RegionTree`)
    regions of all images -> many clusters -> the trees are labeled with them, the clusters are moved, and again
    -> clusters are merged to the number of classes (Ward) -> the trees are labeled with the classes, and again

Clusters of patches are smeared over outlines, and those of regions depend on how an image was cut. Here both are found
together, as in expectation maximization: given the classes, each tree is cut and labeled at the least cost
(`RegionTree.labeled`); given the segments, distances are measured in units of the deviation *within* segments, and
classes are their means.

Hamilton et al. 2022, "Unsupervised Semantic Segmentation by Distilling Feature Correspondences" (STEGO), and
Melas-Kyriazi et al. 2022, "Deep Spectral Methods", cluster deep features over a set of images, too; they train a
network, or solve an eigenproblem for each image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from imatlas.errors import InputError
from imatlas.images.dataset import Images, images_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.models.kmeans import KMeans
from imatlas.models.learned_attributes import COUNT, SIDE, Array, Spec, State, Value
from imatlas.models.onnx import Network, images_in, random_images
from imatlas.models.parts.boundary_cues import texture_network
from imatlas.models.parts.hierarchy import hierarchy_of
from imatlas.models.parts.region_graph import RegionGraph, region_graph
from imatlas.models.parts.region_tree import N_FEATURES, RegionTree, dense_maps
from imatlas.models.parts.superpixels import superpixels_of
from imatlas.models.parts.ward import ward_linkage
from imatlas.system.threads import sharing_cores

LEVEL = 0.5
"""Default level of a hierarchy: regions that are more likely one than two are joined."""
N_SUPERPIXELS = 200
"""Default number of superpixels of an image."""
MAX_FIT_IMAGES = 200
"""Images that the classes are learned from, at most."""
N_COMPONENTS = 60
"""Principal components of the features, at most."""
N_FIRST_SEGMENTS = 10
"""Segments of each image, before there are classes."""
OVERCLUSTERING = 2
"""Clusters for each class, before they are merged."""
N_DEFAULT_CLUSTERS = 30
"""Clusters before the number of classes is chosen."""
ROUNDS, STEPS, LAST_STEPS = 3, 3, 4
WINDOW = 1 / 64
"""Share of an image within which features vary without being different stuff."""
SHRINKAGE = 0.4
"""Weight of equal variances in the covariance within segments."""
EVIDENCE = 3.3
"""Log-likelihood ratio of a label that is nearer by a squared deviation of 1 all over an image."""
SMALL = 0.3
"""Segments smaller than this share of the median segment are no cluster of their own."""


@estimator
class Segmenter(Estimator):
    """Segmentation of images without labels: classes of stuff that are the same in all, or the parts of each image.

    For methods other than "collection", `fit` only takes note of the depth of the images, and the labels of one image
    have nothing to do with those of another. A collection takes about 1 s per image of 481 x 321 pixels. Features are
    those of EfficientNet-Lite0, which was trained with ImageNet's labels; outlines are those of
    `imatlas.models.parts.hierarchy`. The same seed gives the same result.

    Attributes
    ----------
    spec_ : ImageSpec
        Depth and value range of the fitted images.
    n_classes_ : int
        Of a collection, as all that follows: the given or proposed number, or fewer if there are no more different
        segments.
    class_shares_ : ndarray (n_classes,) float64
        Share of the fitted images in each class; class 0 is the largest.
    mean_ : ndarray (n_features,) float32
    axes_ : ndarray (n_features, n_axes) float32
        Features less `mean_`, times `axes_`, have unit deviation within segments.
    cluster_centers_ : ndarray (n_classes, n_axes) float32
        Classes along the axes.
    n_images_ : int
        Images that the classes were learned from: at most 200, drawn at random from larger sets.

    Examples
    --------
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(4, size=48, channels=3)
    >>> Segmenter(n_classes=2).fit(images).predict(images).shape
    (4, 48, 48)
    """

    method: Annotated[
        Literal["collection", "hierarchy", "superpixels"],
        Field(
            description="classes that are the same in all images; parts of each image that a person would name; or "
            "small segments that follow the colors"
        ),
    ] = "collection"
    level: Annotated[
        float, Field(ge=0, le=1, description="of a hierarchy, from fine to coarse; without n_segments")
    ] = LEVEL
    n_segments: Annotated[
        int | None,
        Field(ge=1, description=f"segments of each image, of a hierarchy or superpixels ({N_SUPERPIXELS} if None)"),
    ] = None
    n_classes: Annotated[
        int | None,
        Field(ge=1, description="classes of a collection; None: chosen by the modularity of all segments"),
    ] = None
    random_state: Seed = 0
    input = "images"
    pretrained = True

    _state: ClassVar[State] = {
        "spec_": Spec(),
        "n_classes_": Value(SIDE, optional=True),
        "n_images_": Value(COUNT, optional=True),
        "mean_": Array("float32", N_FEATURES, optional=True),
        "axes_": Array("float32", N_FEATURES, "n_axes", optional=True),
        "cluster_centers_": Array("float32", "n_classes_", "n_axes", optional=True),
        "class_shares_": Array("float64", "n_classes_", low=0, high=1, optional=True),
    }

    @sharing_cores()
    def fit(self, images: Any, y: Any = None) -> Segmenter:
        """Learn the classes.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            uint8, uint16 or float.
        y : None
            Ignored.

        Raises
        ------
        ParameterError, InputError, InputTypeError
            If a parameter is invalid, or the images cannot be read.
        """
        self._check_parameters()
        opened = images_of(images)
        rows = np.sort(np.random.default_rng(self._seed()).permutation(len(opened))[:MAX_FIT_IMAGES])
        spec = opened.spec
        if self.method != "collection":
            self.spec_ = spec
            return self
        return self.fit_trees([RegionTree.of(pixels, spec) for pixels in _each(opened[rows])], spec)

    def fit_trees(self, trees: list[RegionTree], spec: ImageSpec) -> Segmenter:
        """Learn the classes of a collection from images of any sizes, given as trees; `spec` is that of one of them.

        Raises
        ------
        InputError
            If there is no image.
        """
        self._check_parameters()
        if not trees:
            raise InputError("A Segmenter learns from at least one image. Got none.")
        seed = self._seed()
        nodes = [tree.cut(N_FIRST_SEGMENTS) for tree in trees]
        mean, projection = _principal_axes(trees, nodes)
        rows = [(tree.means - mean) @ projection for tree in trees]
        n_clusters = N_DEFAULT_CLUSTERS if self.n_classes is None else OVERCLUSTERING * self.n_classes
        for _ in range(ROUNDS):
            whitening = _whitening(trees, rows, nodes)
            projection, rows = projection @ whitening, [values @ whitening for values in rows]
            segments, shares = _segments(trees, rows, nodes)
            centers = _clusters(segments, shares, n_clusters, seed)
            for _ in range(STEPS):
                centers, weights, nodes = _moved(trees, rows, centers)
        if self.n_classes is None:
            segments, _ = _segments(trees, rows, nodes)
            n_classes = propose_n_clusters(segments, random_state=seed).n_clusters
        else:
            n_classes = self.n_classes
        centers = _merged(centers, weights, n_classes)
        for _ in range(LAST_STEPS):
            centers, weights, nodes = _moved(trees, rows, centers)
        order = np.argsort(-weights, kind="stable")
        self.spec_ = spec
        self.n_classes_, self.n_images_ = len(centers), len(trees)
        self.mean_, self.axes_ = mean.astype(np.float32), projection.astype(np.float32)
        self.cluster_centers_, self.class_shares_ = centers[order].astype(np.float32), weights[order] / weights.sum()
        return self

    @sharing_cores()
    def predict(self, images: Any) -> np.ndarray:
        """Class or segment of each pixel (N, H, W) int32, from 0.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            Of the fitted depth.

        Raises
        ------
        InputError
            If the depth differs from the fitted images.
        """
        self._check_fitted()
        opened = images_of(images)
        if opened.spec.dtype != self.spec_.dtype:
            raise InputError(
                f"This Segmenter was fitted on {self.spec_.dtype} images. Got {opened.spec.dtype} instead; give images "
                "of the same depth."
            )
        spec = replace(opened.spec, low=self.spec_.low, high=self.spec_.high)
        labels = np.empty((len(opened), spec.height, spec.width), np.int32)
        for i, pixels in enumerate(_each(opened)):
            labels[i] = self.label(pixels, spec)
        return labels

    def fit_predict(self, images: Any, y: Any = None) -> np.ndarray:
        """`fit`, then `predict` of the same images."""
        return self.fit(images).predict(images)

    def label(self, pixels: np.ndarray, spec: ImageSpec, graph: RegionGraph | None = None) -> np.ndarray:
        """Class or segment of each pixel (H, W) int32, from 0, of one image (H, W, C) of any size.

        `graph` is its `region_graph`, if that is known already. Only a collection needs to be fitted.
        """
        if self.method == "collection":
            graph = region_graph(pixels, spec) if graph is None else graph
            return self.label_tree(RegionTree.on(graph))[graph.regions]
        if self.method == "superpixels":
            return superpixels_of(pixels, spec, self.n_segments or N_SUPERPIXELS)
        hierarchy = hierarchy_of(pixels, spec) if graph is None else graph.hierarchy
        return hierarchy.segments(self.n_segments) if self.n_segments else hierarchy.cut(self.level)

    def label_tree(self, tree: RegionTree) -> np.ndarray:
        """Class (n,) int32 of each of the finest regions of one image of a collection."""
        self._check_fitted()
        costs = _costs(tree, (tree.means - self.mean_) @ self.axes_, self.cluster_centers_)
        return tree.labeled(costs)[0].astype(np.int32)

    def _networks(self) -> dict[str, Network]:
        """The features of a collection, for ONNX: squared distances of each place to the classes, without outlines."""
        channels = self.spec_.channels
        if self.method != "collection" or channels not in (1, 3):
            raise InputError(
                "Only a Segmenter of a collection of gray or RGB images has a network to export. "
                f"Got method='{self.method}' and {channels} channels."
            )
        mean, axes, centers = (torch.from_numpy(a) for a in (self.mean_, self.axes_, self.cluster_centers_))

        def call(module: Any, x: Tensor) -> Tensor:
            maps = dense_maps(module, x.expand(-1, 3, -1, -1))
            places = (maps.permute(0, 2, 3, 1) - mean) @ axes
            squares = (places**2).sum(-1, keepdim=True) - 2 * places @ centers.T + (centers**2).sum(-1)
            return squares.permute(0, 3, 1, 2)

        contract = {
            "input images": images_in(self.spec_),
            "output distances": f"float32 (N, {len(centers)}, ceil(H / 4), ceil(W / 4)): squared distance of each "
            "place to each class; the class is the nearest one",
        }
        return {
            "classes": Network(texture_network(), call, {"images": random_images(self.spec_)}, "distances", contract)
        }


def _each(images: Images) -> Iterator[np.ndarray]:
    """Pixels (H, W, C) of each image."""
    for pixels in images.batches(16):
        yield from pixels


def _principal_axes(trees: list[RegionTree], nodes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and principal axes (F, D) of the features of segments."""
    segments, shares = _segments(trees, [tree.means for tree in trees], nodes)
    mean = shares @ segments
    centered = segments - mean
    values, axes = np.linalg.eigh((centered * shares[:, None]).T @ centered)
    n = min(N_COMPONENTS, max(1, int((values > 1e-9 * max(values[-1], 1e-30)).sum())))
    return mean, axes[:, ::-1][:, :n] / np.sqrt(max(values.sum(), 1e-12))


def _segments(
    trees: list[RegionTree], rows: list[np.ndarray], nodes: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Means (S, D) of the segments of all images, and their shares (S,) of all images, from rows of each region."""
    means, shares = [], []
    for tree, values, of_region in zip(trees, rows, nodes, strict=True):
        index = np.unique(of_region, return_inverse=True)[1]
        weights = np.bincount(index, weights=tree.shares)
        sums = np.zeros((len(weights), values.shape[1]))
        np.add.at(sums, index, values * tree.shares[:, None])
        means.append(sums / weights[:, None])
        shares.append(weights / len(trees))
    return np.concatenate(means), np.concatenate(shares)


def _whitening(trees: list[RegionTree], rows: list[np.ndarray], nodes: list[np.ndarray]) -> np.ndarray:
    """Transform (D, D) after which windows differ from the mean of their segment by a covariance of 1."""
    n_axes = rows[0].shape[1]
    covariance = np.zeros((n_axes, n_axes))
    for tree, values, of_region in zip(trees, rows, nodes, strict=True):
        means = tree.node_means(values)
        windows = np.minimum(tree.largest_within(WINDOW), of_region)  # no larger than the segment
        differences = means[windows] - means[of_region]
        covariance += (differences * tree.shares[:, None]).T @ differences / len(trees)
    level = max(float(np.trace(covariance)) / n_axes, 1e-9)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(n_axes)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)).T)


def _clusters(segments: np.ndarray, shares: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Centers (K, D) of segments (S, D), without small ones."""
    large = shares >= SMALL * np.median(shares)
    segments = segments[large].astype(np.float32)
    n_clusters = min(n_clusters, len(np.unique(segments, axis=0)))
    model = KMeans(n_clusters=n_clusters, n_init=5, random_state=seed)
    return model.fit(segments, sample_weight=shares[large]).cluster_centers_.astype(np.float64)


def _costs(tree: RegionTree, values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Cost (n, K) of each class in each finest region: squared distances, times the share of the image."""
    squares = (values**2).sum(axis=1)[:, None] - 2 * values @ centers.T + (centers**2).sum(axis=1)
    return np.asarray(EVIDENCE * tree.shares[:, None] * np.maximum(squares, 0), np.float64)


def _moved(
    trees: list[RegionTree], rows: list[np.ndarray], centers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Label all trees and move the centers to the means of their regions; those without any are left out.

    Returns the centers (K, D), the images' total share (K,) of each, and the labeled node of each finest region.
    """
    sums, weights, nodes = np.zeros_like(centers), np.zeros(len(centers)), []
    for tree, values in zip(trees, rows, strict=True):
        labels, of_region = tree.labeled(_costs(tree, values, centers))
        np.add.at(sums, labels, values * tree.shares[:, None])
        weights += np.bincount(labels, weights=tree.shares, minlength=len(centers))
        nodes.append(of_region)
    used = weights > 0
    return sums[used] / weights[used, None], weights[used], nodes


def _merged(centers: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """Weighted means (n, D) of groups of centers, by Ward linkage; at most as many as there are."""
    from scipy.cluster.hierarchy import fcluster

    if len(centers) <= n:
        return centers
    groups = fcluster(ward_linkage(centers, weights), n, "maxclust") - 1
    totals = np.bincount(groups, weights=weights)
    return np.stack([np.bincount(groups, weights=weights * axis) / totals for axis in centers.T], axis=1)
