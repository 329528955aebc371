"""Rows as a map learns from them: gaps, weights, and the few principal components that hold most of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
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
from imatlas.neighbors import group_sums, nearest_index, nearest_two

MOST = 4e18
"""Largest length of a row: twice its square is a number of float32."""


def checked_rows(
    estimator: Any, X: Any, *, reset: bool = True, missing: bool = False, any_scale: bool = False
) -> np.ndarray:
    """Rows (n_rows, n_features) float32 as an estimator takes them; what a masked array hides is NaN.

    Parameters
    ----------
    reset : bool
        Whether this is the first time: else the number and names of the features must be those of `fit`.
    missing : bool
        Whether NaN is taken.
    any_scale : bool
        Whether values are taken whose squared distances float32 cannot hold.

    Raises
    ------
    InputError, InputTypeError
        If there are such values, or pictures in place of rows.
    ValueError
        If `X` is not a matrix of finite numbers (and NaN where it is taken), or has other features than before.
    """
    if np.ma.is_masked(X):  # scikit-learn would take the values under the mask
        X = np.where(np.ma.getmaskarray(X), np.nan, np.ma.getdata(X).astype(np.float64))
    finite = "allow-nan" if missing else True
    _refuse_pictures(estimator, X)
    X = validate_data(estimator, X, dtype=np.float32, order="C", reset=reset, ensure_all_finite=finite)
    largest = 0.0 if any_scale else float(max(X.max(), -X.min()))
    if largest > MOST / math.sqrt(X.shape[1]):
        raise InputError(
            f"The values of X are as large as {largest:.1g}, too large for squared distances in single precision; "
            "divide them by their standard deviation."
        )
    return X


def _refuse_pictures(estimator: Any, X: Any) -> None:
    """Tell whoever gives pictures in place of rows what comes in between.

    Raises
    ------
    InputTypeError
        For paths, `Images`, pictures, or an array of them.
    """
    first = X[0] if isinstance(X, list | tuple) and len(X) else X
    pictures = isinstance(X, Images) or isinstance(first, os.PathLike | bytes) or hasattr(first, "getbands")
    pictures = pictures or (isinstance(first, str) and has_image_name(first))
    pictures = pictures or getattr(first, "ndim", 0) == (4 if first is X else 3)
    if pictures:
        name = type(estimator).__name__
        raise InputTypeError(
            f"{name} takes rows of numbers (n_samples, n_features). Got pictures ({shown(X)}); an encoder makes rows "
            f"of them: {name}().fit(PretrainedEncoder().fit_transform(images))."
        )


SMALL, LARGE = 1e-10, 1e15
"""Values whose squares are far from the ends of what float32 holds."""


def scale_of(values: Tensor) -> float:
    """What values (n, n_features) are to be divided by so that their squares are numbers: a power of two, so that
    nothing is rounded; 1 where the largest lies between `SMALL` and `LARGE`."""
    largest = 0.0
    for part in values.split(8192):
        top = float(torch.linalg.vector_norm(part, torch.inf))
        largest = max(largest, float(part.nan_to_num(nan=0.0).abs().max()) if math.isnan(top) else top)
    return 1.0 if largest == 0 or SMALL <= largest <= LARGE else 2.0 ** math.floor(math.log2(largest))


CHUNK = 2**20
"""Bytes of rows that are projected at a time: they are read twice, so they should stay in a core's cache."""


@dataclass(frozen=True)
class Rows:
    """Rows to learn from or to place.

    Attributes
    ----------
    values : Tensor (n_rows, n_features) float32
        NaN where a value is not known.
    missing : bool
        Whether any is.
    weights : Tensor (n_rows,), optional
    """

    values: Tensor
    missing: bool = False
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> Rows:
        """Some of the rows, or these very rows where `index` names all."""
        if len(index) == len(self):
            return self
        return Rows(self.values[index], self.missing, None if self.weights is None else self.weights[index])

    def cells(self, codebook: Tensor) -> Tensor:
        """The best matching unit of each row (n_rows,); -1 where nothing is known."""
        return nearest_index(self.values, codebook, missing=self.missing)

    def two_cells(self, codebook: Tensor) -> Tensor:
        """The two best matching units of each row (n_rows, 2)."""
        return nearest_two(self.values, codebook, missing=self.missing)

    def sums(self, cells: Tensor, n_cells: int) -> Tensor:
        """The weighted sum of the rows of each cell, beside it their total weight: (n_cells, n_features + 1).

        Where values are missing the weight is another for each feature: (n_cells, 2 n_features).
        """
        sums, totals = group_sums(self.values, cells, n_cells, self.weights, missing=self.missing)
        return torch.cat([sums, totals.view(n_cells, -1)], dim=1)

    def on_the_sphere(self) -> Rows:
        """Each row at length 1; where values are missing, as if they were like the known ones. Zeros stay zeros."""
        known = torch.nan_to_num(self.values)
        length = known.square().sum(1, keepdim=True)
        if self.missing:
            length *= self.values.shape[1] / self.values.isnan().logical_not().sum(1, keepdim=True).clamp(min=1)
        return Rows(self.values / length.sqrt_().clamp_(min=1e-30), self.missing, self.weights)


@dataclass(frozen=True)
class Plane:
    """Principal axes of a sample of rows.

    Attributes
    ----------
    mean : Tensor (n_features,)
    axes : Tensor (n_axes, n_features)
        Zeros where the rows have fewer dimensions.
    deviations : Tensor (n_axes,)
        Standard deviations along them.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor

    def projections(self, X: Tensor) -> Tensor:
        """Points along the axes, and beside it their distance from the plane (n, n_axes + 1)."""
        n_axes, n_features = self.axes.shape
        thrown = torch.empty((len(X), n_axes + 1), device=self.axes.device)
        centered = torch.empty((max(1, CHUNK // (4 * n_features)), n_features), device=self.axes.device)
        for start in range(0, len(X), len(centered)):
            out = thrown[start : start + len(centered)]
            part = torch.sub(X[start : start + len(centered)], self.mean, out=centered[: len(out)])
            along = part @ self.axes.T
            rest = torch.linalg.vector_norm(part, dim=1).square_() - along.square().sum(1)
            out[:, :-1], out[:, -1] = along, rest.clamp_(min=0).sqrt_()
        return thrown

    def lift(self, projected: Tensor) -> Tensor:
        """Where points along the first axes (n, n_first) lie among the rows (n, n_features)."""
        return torch.addmm(self.mean, projected, self.axes[: projected.shape[1]])

    def of_itself(self, n_first: int) -> Plane:
        """The first axes as points along them have them."""
        eye = torch.eye(n_first, device=self.axes.device)
        return Plane(self.mean.new_zeros(n_first), eye, self.deviations[:n_first])


def principal_axes(rows: Rows, n_axes: int, n_sample: int, generator: torch.Generator, seed: int) -> Plane:
    """The leading `n_axes` principal axes of a sample of `n_sample` rows, gaps filled with the means of the rest."""
    index = torch.randperm(len(rows), generator=generator)[:n_sample].sort().values.to(rows.values.device)
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
    return Plane(mean, axes, deviations)
