"""Rows of vectors for the closed-form models: input checks, missing values, weights, principal axes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import validate_data
from torch import Tensor

from imatlas.arguments import shown
from imatlas.errors import InputError, InputTypeError
from imatlas.images.dataset import Images
from imatlas.images.formats.sniff import has_image_name
from imatlas.neighbors import group_sums, nearest_index, nearest_index_by_projection, nearest_two
from imatlas.system.workers import Shards, Workers

MAX_LENGTH = 4e18
"""Largest length of a row: twice its square fits into float32."""

SMALL, LARGE = 1e-10, 1e15
"""Values between these have squares well inside the range of float32."""

N_PROJECTED = 96
"""Principal axes for a search by projection (`imatlas.neighbors.nearest_index_by_projection`)."""

N_SAMPLE = 4096
"""Rows that principal axes are computed from."""

CHUNK = 2**20
"""Bytes of rows projected at a time: they are read twice, so they should fit into a core's cache."""


def checked_rows(
    estimator: Any, X: Any, *, reset: bool = True, missing: bool = False, any_scale: bool = False
) -> np.ndarray:
    """Rows (n_rows, n_features) float32 as an estimator takes them; masked values of a masked array become NaN.

    Parameters
    ----------
    reset : bool
        Whether to record the number and names of the features, as in `fit`, rather than to compare them.
    missing : bool
        Whether NaN is allowed.
    any_scale : bool
        Whether values are allowed whose squared distances exceed float32.

    Raises
    ------
    InputError, InputTypeError
        If values are too large, or `X` holds images.
    ValueError
        If `X` is not a matrix of finite numbers (and NaN where allowed), or has other features than before.
    """
    if np.ma.is_masked(X):  # scikit-learn would take the values under the mask
        X = np.where(np.ma.getmaskarray(X), np.nan, np.ma.getdata(X).astype(np.float64))
    finite = "allow-nan" if missing else True
    _refuse_images(estimator, X)
    X = validate_data(estimator, X, dtype=np.float32, order="C", reset=reset, ensure_all_finite=finite)
    largest = 0.0 if any_scale else float(max(X.max(), -X.min()))
    if largest > MAX_LENGTH / math.sqrt(X.shape[1]):
        raise InputError(
            f"The values of X are as large as {largest:.1g}, too large for squared distances in single precision; "
            "divide them by their standard deviation."
        )
    return X


def _refuse_images(estimator: Any, X: Any) -> None:
    """Point users who pass images to a model for vectors to an encoder.

    Raises
    ------
    InputTypeError
        For paths, `Images`, images, or an array of them.
    """
    first = X[0] if isinstance(X, list | tuple) and len(X) else X
    images = isinstance(X, Images) or isinstance(first, os.PathLike | bytes) or hasattr(first, "getbands")
    images = images or (isinstance(first, str) and has_image_name(first))
    images = images or getattr(first, "ndim", 0) == (4 if first is X else 3)
    if images:
        name = type(estimator).__name__
        raise InputTypeError(
            f"{name} takes vectors (n_samples, n_features). Got images ({shown(X)}); embed them first: "
            f"{name}().fit(PretrainedEncoder().fit_transform(images))."
        )


def scale_of(values: Tensor) -> float:
    """The power of two that values (n, n_features) must be divided by so that their squares fit into float32.

    It is 1 if the largest absolute value lies between `SMALL` and `LARGE`. Dividing by a power of two rounds nothing.
    """
    largest = 0.0
    for part in values.split(8192):
        norm = float(torch.linalg.vector_norm(part, torch.inf))
        largest = max(largest, float(part.nan_to_num(nan=0.0).abs().max()) if math.isnan(norm) else norm)
    return 1.0 if largest == 0 or SMALL <= largest <= LARGE else 2.0 ** math.floor(math.log2(largest))


@dataclass(frozen=True)
class PrincipalAxes:
    """Principal axes of a sample of rows.

    Attributes
    ----------
    mean : Tensor (n_features,)
    axes : Tensor (n_axes, n_features)
        Zeros where the rows have fewer dimensions.
    deviations : Tensor (n_axes,)
        Standard deviations along the axes.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor

    def project(self, X: Tensor) -> Tensor:
        """Coordinates along the axes, followed by the distance from their plane: (n, n_axes + 1)."""
        n_axes, n_features = self.axes.shape
        projections = torch.empty((len(X), n_axes + 1), device=self.axes.device)
        centered = torch.empty((max(1, CHUNK // (4 * n_features)), n_features), device=self.axes.device)
        for start in range(0, len(X), len(centered)):
            out = projections[start : start + len(centered)]
            part = torch.sub(X[start : start + len(centered)], self.mean, out=centered[: len(out)])
            along = part @ self.axes.T
            residual = torch.linalg.vector_norm(part, dim=1).square_() - along.square().sum(1)
            out[:, :-1], out[:, -1] = along, residual.clamp_(min=0).sqrt_()
        return projections

    def reconstruct(self, coordinates: Tensor) -> Tensor:
        """Points (n, n_features) from coordinates along the first axes (n, n_first)."""
        return torch.addmm(self.mean, coordinates, self.axes[: coordinates.shape[1]])

    def of_coordinates(self, n_first: int) -> PrincipalAxes:
        """The principal axes of the coordinates along the first axes."""
        eye = torch.eye(n_first, device=self.axes.device)
        return PrincipalAxes(self.mean.new_zeros(n_first), eye, self.deviations[:n_first])

    def on_cpu(self) -> PrincipalAxes:
        """The same axes in the memory of the processor."""
        return PrincipalAxes(self.mean.cpu(), self.axes.cpu(), self.deviations.cpu())


@dataclass(frozen=True)
class Rows:
    """Rows with missing values and weights.

    Attributes
    ----------
    values : Tensor (n_rows, n_features) float32
        NaN where a value is missing.
    missing : bool
        Whether any value is missing.
    weights : Tensor (n_rows,), optional
    axes : PrincipalAxes, optional
        Axes for a search by projection.
    projections : Tensor (n_rows, n_axes + 1), optional
        Coordinates of the rows along them.
    shards : Shards, optional
        The same rows in parts on the workers of a cluster, which then compute `cells` and `sums`.
    """

    values: Tensor
    missing: bool = False
    weights: Tensor | None = None
    axes: PrincipalAxes | None = None
    projections: Tensor | None = None
    shards: Shards | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> Rows:
        """Some of the rows, or these very rows if `index` names all."""
        if len(index) == len(self):
            return self
        weights = None if self.weights is None else self.weights[index]
        projections = None if self.projections is None else self.projections[index]
        return Rows(self.values[index], self.missing, weights, self.axes, projections)

    def along(self, axes: PrincipalAxes) -> Rows:
        """The same rows, searched by projection on these axes."""
        return replace(self, axes=axes, projections=axes.project(self.values))

    def leading(self, n_axes: int) -> Rows:
        """The coordinates of the rows along the first axes, as rows."""
        assert self.projections is not None
        return Rows(self.projections[:, :n_axes], weights=self.weights)

    def spread(self, workers: Workers | None) -> Rows:
        """The same rows, of which each worker has a part; these very rows without workers."""
        if workers is None:
            return self
        index = torch.arange(len(self), device=self.values.device)
        parts = [self.take(part)._on_cpu() for part in index.tensor_split(min(workers.n_workers, len(self)))]
        return replace(self, shards=workers.place(parts))

    def cells(self, codebook: Tensor) -> Tensor:
        """The best matching unit of each row (n_rows,); -1 if all its values are missing."""
        if self.shards is not None:
            return torch.cat(self.shards.map(Rows.cells, codebook.cpu())).to(codebook.device)
        if self.axes is not None and self.projections is not None:
            return nearest_index_by_projection(self.values, codebook, self.projections, self.axes.project(codebook))
        return nearest_index(self.values, codebook, missing=self.missing)

    def two_cells(self, codebook: Tensor) -> Tensor:
        """The two best matching units of each row (n_rows, 2)."""
        return nearest_two(self.values, codebook, missing=self.missing)

    def sums(self, cells: Tensor, n_cells: int) -> Tensor:
        """The weighted sum of the rows of each cell, followed by their total weight: (n_cells, n_features + 1).

        With missing values each feature has its own weight: (n_cells, 2 n_features).
        """
        if self.shards is not None:
            lengths = [len(part) for part in torch.arange(len(self)).tensor_split(self.shards.n_parts)]
            found = self.shards.map(Rows.sums, n_cells, each=cells.cpu().split(lengths))
            return torch.stack(found).sum(0).to(cells.device)
        sums, totals = group_sums(self.values, cells, n_cells, self.weights, missing=self.missing)
        return torch.cat([sums, totals.view(n_cells, -1)], dim=1)

    def on_the_sphere(self) -> Rows:
        """Rows of length 1, missing values counted as the mean square of the others. Zero rows stay zero."""
        known = torch.nan_to_num(self.values)
        length = known.square().sum(1, keepdim=True)
        if self.missing:
            length *= self.values.shape[1] / self.values.isnan().logical_not().sum(1, keepdim=True).clamp(min=1)
        return Rows(self.values / length.sqrt_().clamp_(min=1e-30), self.missing, self.weights)

    def _on_cpu(self) -> Rows:
        """The same rows as a worker takes them: no views, which would be sent with all that they are views of."""
        weights = None if self.weights is None else self.weights.cpu().clone()
        projections = None if self.projections is None else self.projections.cpu().clone()
        axes = None if self.axes is None else self.axes.on_cpu()
        return Rows(self.values.cpu().clone(), self.missing, weights, axes, projections)


def is_worth_projecting(values: Tensor) -> bool:
    """Whether rows (n_rows, n_features) are many and long enough for a search by projection to pay off."""
    return values.shape[1] >= 2 * N_PROJECTED and len(values) >= N_SAMPLE


def principal_axes(rows: Rows, n_axes: int, generator: torch.Generator, seed: int) -> PrincipalAxes:
    """The leading `n_axes` principal axes of a sample of the rows; missing values become the feature's mean."""
    index = torch.randperm(len(rows), generator=generator)[:N_SAMPLE].sort().values.to(rows.values.device)
    sample = rows.take(index)
    weights = torch.ones(len(sample), device=sample.values.device) if sample.weights is None else sample.weights
    weights = (weights / weights.sum())[:, None]
    if sample.missing:
        known = sample.values.isnan().logical_not()
        mean = (sample.values.nan_to_num() * weights).sum(0) / (known * weights).sum(0).clamp(min=1e-30)
        centered = torch.where(known, sample.values - mean, 0.0)
    else:
        mean = (sample.values * weights).sum(0)
        centered = sample.values - mean
    axes = torch.zeros((n_axes, sample.values.shape[1]), device=mean.device)
    deviations = torch.zeros(n_axes, device=mean.device)
    n = min(n_axes, *centered.shape)
    if len(sample) > 1:
        scaled = (centered * (weights * len(sample)).sqrt()).cpu().numpy()
        _, values, vectors = randomized_svd(scaled, n_components=n, n_iter=1, random_state=seed % 2**32)
        axes[:n] = torch.from_numpy(np.ascontiguousarray(vectors)).to(mean.device)
        deviations[:n] = torch.from_numpy(values / math.sqrt(len(sample))).to(mean.device)
    return PrincipalAxes(mean, axes, deviations)
