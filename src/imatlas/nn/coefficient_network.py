"""A network that predicts wavelet coefficients, from coarse to fine.

Each level of details is predicted from what is coarser, and in passes from what is already known of the level itself:
first the three bands of the first plane, then those of the others; of each, first the fields of one color of a
chessboard, then the rest (He et al. 2021, "Checkerboard context model for efficient learned image compression").
Prediction across scales by a network follows Ma et al. 2020, "End-to-end optimized versatile image compression with
wavelet-like transform". A prediction is a mean and the binary logarithm of a scale, in units of the quantization step;
or, of pixels that are to be kept without loss, those of `N_COMPONENTS` distributions, and the logarithms of their
weights.

The walk through levels and passes is the same for training, encoding and decoding, which differ in the
`Visitor`. A copy by `imatlas.nn.exact.exact_copy` predicts the same, bit for bit, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imatlas.nn.exact import MOST, UNIT, Convolution, log2_of, snap
from imatlas.nn.wavelet import CDF97, INTERPOLATING, band_sizes, sizes_of

N_PLANES = 3
N_BANDS = 3 * N_PLANES
WIDTHS, HIDDEN = (32, 48, 48, 48), 48
"""Channels of the levels from fine to coarse, of which the last is used for all coarser ones, and of the passes."""
BRIGHTNESS = 64.0
"""The first plane is divided by this where the network is told its values."""
DETAIL = 8.0
"""Details are divided by this where the network is told them as they are."""
N_COMPONENTS = 3
"""Distributions that the prediction of a pixel is mixed of."""


Adapt = Literal["little", "much", "all"]
"""How much of a network is trained."""
N_FINE = 2
"""Levels that are trained with "much"."""


class Place(NamedTuple):
    """Coefficients that are predicted together: bands (of 9) of a level, and on its grid the first row and column, and
    the numbers of rows and columns, of which every second one is meant."""

    level: int
    bands: tuple[int, ...]
    top: int
    left: int


PASSES = (
    *(((band,), color) for band in range(3) for color in (0, 1)),
    *((tuple(range(3 * plane, 3 * plane + 3)), color) for plane in range(1, N_PLANES) for color in (0, 1)),
)
"""Bands, and the color of the fields of the chessboard."""
FIELDS = (((0, 0), (1, 1)), ((0, 1), (1, 0)))
"""First row and column of the two grids, of every second row and column, that make up one color of a chessboard."""


class Visitor(Protocol):
    """What is done with predictions to get at the coefficients."""

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """Whether any coefficient of a pass is other than 0. If not, none of its places is visited."""
        ...

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """Coefficients (N, bands, h, w) at a place, given their prediction (N, 2 or 3 * components, bands, h, w): means
        and binary logarithms of scales; and of several components, those of their weights."""
        ...


class _Pass(nn.Module):
    def __init__(self, width: int, hidden: int, n_bands: int, *, is_first: bool, lossless: bool) -> None:
        super().__init__()
        self.is_first = is_first  # then nothing of the level is known
        self.n_outputs = 3 * N_COMPONENTS if lossless else 2
        if not is_first:
            self.known = Convolution(n_features(lossless) * N_BANDS, hidden, 3, stride=2)
        self.coarse = Convolution(width, hidden, 1)
        self.mix = Convolution(hidden, hidden, 1, rectified=True)
        self.out = Convolution(hidden, self.n_outputs * n_bands, 1, is_last=True)
        bias = torch.zeros(self.n_outputs, n_bands)
        if lossless:  # components begin apart
            bias[:N_COMPONENTS] = torch.linspace(-1, 1, N_COMPONENTS)[:, None]
            bias[N_COMPONENTS : 2 * N_COMPONENTS] = torch.linspace(-1, 2, N_COMPONENTS)[:, None]
        self.out.bias = nn.Parameter(bias.flatten())

    def forward(self, known: Tensor, features: Tensor) -> Tensor:
        """Predictions at every second row and column, around which `known` has one more on each side."""
        x = self.coarse(features)
        x = self.mix(F.relu(x if self.is_first else x + self.known(known)).clamp_max(self.mix.most))
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.out(x.float())
            return out.unflatten(1, (self.n_outputs, -1))


class _Level(nn.Module):
    def __init__(self, width: int, coarser: int, hidden: int, *, is_finest: bool, lossless: bool) -> None:
        super().__init__()
        self.lossless = lossless
        self.n_features = n_features(lossless)
        self.enter = Convolution(self.n_features * N_PLANES + coarser + 1, width, 3, rectified=True)
        self.first = Convolution(width, width, 3, rectified=True)
        self.second = Convolution(width, width, 3, rectified=True)
        self.passes = nn.ModuleList(
            _Pass(width, hidden, len(bands), is_first=number == 0, lossless=lossless)
            for number, (bands, _) in enumerate(PASSES)
        )
        if not is_finest:
            self.leave = Convolution(width + self.n_features * N_BANDS, width, 3, rectified=True)

    def features(self, image: Tensor, coarser: Tensor, log_step: Tensor) -> Tensor:
        """What is known from coarser levels: their features, and the image (N, 3, h, w) that they make up."""
        details = image - _blurred(image)
        if self.lossless:
            about = (image[:, :1] / BRIGHTNESS).clamp(-MOST / UNIT, MOST / UNIT)
        else:
            about = log_step.expand(-1, 1, *image.shape[-2:])
        x = self.enter(torch.cat([self.features_of(details), coarser, self.inputs(about)], 1))
        return (self.second(self.first(x)) + x).clamp_max(self.second.most)

    def features_of(self, values: Tensor) -> Tensor:
        """Values (N, C, h, w) as the network takes them (N, features * C, h, w): sign and size on a logarithmic scale;
        and without loss also as they are, since noise is not predicted from logarithms."""
        size = log2_of(values)
        found = [torch.sign(values) * size, size]
        if self.lossless:
            found.append((values / DETAIL).clamp(-MOST / UNIT, MOST / UNIT))
        return self.inputs(torch.cat(found, 1))

    def inputs(self, x: Tensor) -> Tensor:
        """Values as the network takes them."""
        return (x * UNIT).round_().float() if self.enter.exact else x


class CoefficientNetwork(nn.Module):
    """Predictions of the wavelet coefficients of images of up to three planes; with `lossless`, of the `INTERPOLATING`
    transform of integers."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN, *, lossless: bool = False) -> None:
        super().__init__()
        self.widths, self.wavelet = widths, INTERPOLATING if lossless else CDF97
        coarser = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            _Level(width, width_of_coarser, hidden, is_finest=number == 0, lossless=lossless)
            for number, (width, width_of_coarser) in enumerate(zip(widths, coarser, strict=True))
        )

    def train_for(self, n_planes: int, size: tuple[int, int], adapt: Adapt) -> None:
        """Train only what predicts images of some planes and a size, and of this a part, so that what is learned takes
        few bytes: with "little" the last layers of each pass, and all biases; with "much" all of the `N_FINE` finest
        levels, too, which most bits belong to."""
        n_levels = len(sizes_of(*size)) - 1
        for number, level in enumerate(self.levels):
            for name, parameter in level.named_parameters():
                part, _, rest = name.removeprefix("passes.").partition(".")
                is_needed = number < n_levels and not (
                    rest and part.isdigit() and PASSES[int(part)][0][0] >= 3 * n_planes
                )
                is_small = name.endswith("bias") or ".mix." in name or ".out." in name
                is_chosen = is_small or adapt == "all" or (adapt == "much" and number < N_FINE)
                parameter.requires_grad_(is_needed and is_chosen)

    def walk(self, image: Tensor, log_step: Tensor, size: tuple[int, int], n_planes: int, visitor: Visitor) -> Tensor:
        """Visit all coefficients of images, from coarse to fine.

        Parameters
        ----------
        image : Tensor (N, 3, at most 2, at most 2)
            The coarsest version, in units of the quantization step, of the type to compute in; unused planes are 0.
        log_step : Tensor (N, 1, 1, 1)
            What the network is told of the quantization step: `log_step_of`. Without loss, it is not used.
        size : (int, int)
            Height and width of the images.
        n_planes : int
            Only the first planes are visited; the others are 0.
        visitor : Visitor

        Returns
        -------
        Tensor (N, 3, H, W)
            The images that the coefficients make up, in units of the quantization step.
        """
        sizes = sizes_of(*size)
        coarser = torch.zeros(len(image), self.widths[-1], *image.shape[-2:], device=image.device)
        for level in range(len(sizes) - 1, 0, -1):
            net: _Level = self.levels[min(level, len(self.levels)) - 1]  # type: ignore[assignment]
            features = net.features(image, coarser, log_step)
            shapes = band_sizes(*sizes[level - 1])
            bands, known = self._level(net, level, features, shapes, n_planes, visitor)
            image = self.wavelet.synthesize(image, bands_of(bands, shapes))
            if level > 1:
                coarser = net.leave(torch.cat([features, known], 1))
                coarser = coarser.repeat_interleave(2, 2).repeat_interleave(2, 3)
                coarser = coarser[..., : image.shape[2], : image.shape[3]]
        return image

    def _level(
        self,
        net: _Level,
        level: int,
        features: Tensor,
        shapes: Sequence[tuple[int, int]],
        n_planes: int,
        visitor: Visitor,
    ) -> tuple[Tensor, Tensor]:
        """The coefficients (N, 9, h, w) of a level, and their features."""
        n, _, height, width = features.shape
        unit = 1.0
        bands = features.new_zeros(n, N_BANDS, height, width, dtype=torch.float32)
        if net.enter.exact:
            unit, bands = UNIT, bands.double()
        known = features.new_zeros(n, net.n_features * N_BANDS, height + 2, width + 2)
        fields = {(top, left): features[:, :, top::2, left::2] for top in (0, 1) for left in (0, 1)}
        for number, (chosen, color) in enumerate(PASSES):
            if chosen[0] >= 3 * n_planes:
                break
            if not visitor.begin(level, chosen, color):
                continue
            found = []
            for top, left in FIELDS[color]:
                place = Place(level, chosen, top, left)
                rows, columns = map(max, zip(*sizes_at(place, shapes), strict=True))
                if rows and columns:
                    around = known[:, :, top : top + 2 * rows + 1, left : left + 2 * columns + 1]
                    at = fields[top, left][:, :, :rows, :columns]
                    prediction = net.passes[number](around, at).to(bands.dtype) / unit
                    found.append((place, visitor.visit(place, prediction)))
            known = known.clone() if torch.is_grad_enabled() else known
            for place, values in found:
                put(bands, place, values)
                inner = known[:, :, 1:-1, 1:-1]
                for number_of_feature, feature in enumerate(net.features_of(values).chunk(net.n_features, 1)):
                    put(inner[:, number_of_feature * N_BANDS :], place, feature)
        return bands, known[:, :, 1:-1, 1:-1]


def log_step_of(step: Tensor) -> Tensor:
    """What the network is told of quantization steps, where pixels span 255: half their logarithm, in 1/64."""
    return torch.round(torch.log2(step / 16) * 32) / 64


def sizes_at(place: Place, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rows and columns at a place, for each of its bands."""
    used = (shapes[band % 3] for band in place.bands)
    return [(max(0, height - place.top + 1) // 2, max(0, width - place.left + 1) // 2) for height, width in used]


def at_place(bands: Tensor, place: Place, size: tuple[int, int]) -> Tensor:
    """The values (N, bands, h, w) at a place of the bands (N, 9, H, W) of its level."""
    rows, columns = size
    first, last = place.bands[0], place.bands[-1] + 1
    return bands[:, first:last, place.top : place.top + 2 * rows : 2, place.left : place.left + 2 * columns : 2]


def put(bands: Tensor, place: Place, values: Tensor) -> None:
    """Put values (N, bands, h, w) at a place of the bands (N, 9, H, W) of its level."""
    at_place(bands, place, (values.shape[-2], values.shape[-1])).copy_(values)


def bands_of(bands: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The three bands (N, 3, h, w) of all planes, each of its size."""
    parts = bands.unflatten(1, (N_PLANES, 3))
    along_width, along_height, both = (parts[:, :, k, :h, :w] for k, (h, w) in enumerate(shapes))
    return along_width, along_height, both


def n_features(lossless: bool) -> int:
    """Inputs of the network for each value."""
    return 3 if lossless else 2


def _blurred(image: Tensor) -> Tensor:
    """Means of the 5 x 5 values around each, with binomial weights."""
    for axis in (2, 3):
        n = image.shape[axis]
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, n - 1, 1)
        wide = torch.cat([first, first, image, last, last], axis)
        parts = [wide.narrow(axis, k, n) for k in range(5)]
        image = snap((parts[0] + parts[4] + 4 * (parts[1] + parts[3]) + 6 * parts[2]) / 16)
    return image
