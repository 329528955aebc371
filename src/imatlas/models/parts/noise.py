"""The noise of images, measured on the images themselves: its level by brightness, and its spectrum.

Images have blocks without detail, and what varies there is noise. In each block of 8 x 8 pixels, the discrete cosine
transform separates frequencies; blocks with the least energy at low frequencies tell the noise at high ones, and blocks
with the least energy at middle frequencies that at low ones, so that what a block is chosen by is not what is measured
on it. Ponomarenko et al. 2007, "An automatic approach to lossy compression of AVIRIS images", measure white noise like
this; Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", its
dependence on brightness.

Noise of known level is made Gaussian with unit variance by the integral f of 1 / deviation. Its inverse is that of the
mean of f under the noise, so that averages stay right: Mäkitalo & Foi 2013, "Optimal inversion of the generalized
Anscombe transformation for Poisson-Gaussian noise".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE = 8
"""Side of the blocks, in pixels."""
MAX_BLOCKS = 200_000
"""Blocks that noise is measured on, of all images together."""
MAX_LEVELS, BLOCKS_PER_LEVEL = 12, 8000
FEW_LEVELS, LEAST_PER_LEVEL = 3, 1500
"""Levels of brightness: with fewer blocks each, textures count as noise; some levels are needed all the same."""
QUIET, MIN_QUIET = 0.01, 100
"""Share of the blocks of a level, and least number, that count as being without detail."""
TEXTURED = 3.0
"""How much more energy the quietest blocks have at low frequencies, relative to that at high ones, where they have
texture, compared with those that have none: then texture counts as noise at high frequencies, too."""
MAX_TEXTURED = 2.0
"""Ratio of variances up to which stronger noise than elsewhere is believed where there is texture."""
MAX_RISE = 1.5
"""Largest ratio of the noise of the mean of a block to that of the frequency beside it."""
KEPT, OF_KEPT = 0.9, 0.623
"""Share of the lowest squares that are averaged, and what that is of a squared unit normal. A median would be 0 where
JPEG has removed most coefficients."""
LOW_QUANTILE, OF_LOW = 0.3, 0.1485
"""A lower quantile, and what it is of a squared unit normal: low frequencies have some detail in every block."""
GRID, NODES = 2048, 9
"""Steps of the integral, and of the mean under the noise."""
ALIKE, MAX_GAIN = 0.1, 8.0
"""Logarithm of a ratio of deviations up to which they count as equal, and largest ratio."""

N_FREQUENCIES = SIDE + 1
"""Frequencies from 0 to half a cycle per pixel, at which power is given."""
LEAST_POWER = 3e-3
"""Least power: images without any noise at a frequency are taken to have some."""
NEARLY_WHITE = 0.2
"""Standard deviation of the logarithm of a spectrum up to which noise counts as white: from one image, that of white
noise has .1. The mixture of one image is .13 dB better for it."""
STEPS, SMOOTHING, LEAST = 20, 0.8, 1e-3
"""Steps of the deconvolution of a spectrum, smoothing of its logarithm, and the least power relative to the mean."""

_FREQUENCY = np.add.outer(np.arange(SIDE), np.arange(SIDE))
_LOW, _MIDDLE = (_FREQUENCY >= 1) & (_FREQUENCY <= 3), (_FREQUENCY >= 4) & (_FREQUENCY <= 7)
_HIGH, _FINEST = _FREQUENCY >= 4, _FREQUENCY >= 10

OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [0.5, -1, 0.5]]) / np.sqrt(np.array([[3.0], [2.0], [1.5]]))
"""Orthonormal axes of RGB: lightness and two differences, which noise in photographs is about independent along."""


@dataclass(frozen=True)
class Noise:
    """Noise of images with C channels.

    Attributes
    ----------
    levels : ndarray (C, L) float64
        Pixel values, ascending.
    deviations : ndarray (C, L) float64
        Standard deviation of the noise at these, more than 0.
    spectrum : ndarray (C, 9, 9) float64
        Power of the noise after `stabilize`, at 0, 1/16, ..., 8/16 cycles per pixel down and across: all 1 for white
        noise. Of RGB images, the channels are those of `OPPONENT`.
    slope : float
        Energy at low frequencies of the quietest blocks, relative to that at high ones.
    """

    levels: np.ndarray
    deviations: np.ndarray
    spectrum: np.ndarray
    slope: float = 1.0

    def stabilize(self, pixels: np.ndarray) -> np.ndarray:
        """Values (H, W, C) float32 with noise of about unit variance; of RGB images along the axes of `OPPONENT`."""
        curves, out = [self._curve(c)[:2] for c in range(len(self.levels))], np.empty(pixels.shape, np.float32)
        for rows in _bands_of(pixels):
            values = np.stack([_on_even(pixels[rows, ..., c], *curve) for c, curve in enumerate(curves)], axis=-1)
            out[rows] = values @ OPPONENT.T if values.shape[-1] == 3 else values
        return out

    def destabilize(self, values: np.ndarray) -> np.ndarray:
        """Pixels (H, W, C) float32 whose stabilized noisy versions have these means."""
        curves, out = [self._curve(c) for c in range(len(self.levels))], np.empty(values.shape, np.float32)
        for rows in _bands_of(values):
            part = values[rows].astype(np.float64)
            part = part @ OPPONENT if part.shape[-1] == 3 else part
            for c, (x, _, mean) in enumerate(curves):
                out[rows, ..., c] = _interpolated(part[..., c], mean, x)
        return out

    def deviation(self) -> np.ndarray:
        """Standard deviation (C,) at the middle of the levels of each channel."""
        return np.exp(np.log(self.deviations).mean(axis=1))

    def deviation_of(self, pixels: np.ndarray) -> np.ndarray:
        """Standard deviation (H, W) float32 of the noise of pixels (H, W, C), as the quadratic mean of the channels."""
        total = np.zeros(pixels.shape[:2])
        for c, (levels, deviations) in enumerate(zip(self.levels, self.deviations, strict=True)):
            total += np.square(np.interp(pixels[..., c], levels, deviations)) / len(self.levels)
        return np.sqrt(total).astype(np.float32)

    def gain(self, pixels: np.ndarray) -> float:
        """Deviation of the noise of an image (H, W, C) relative to this noise; 1 if they are alike.

        From few blocks the deviation is known to some percent only, so that differences up to `ALIKE` are taken as
        none. Of images that are texture all over, only the finest details count, and not without limit.
        """
        return self.gain_of_blocks(_blocks(pixels, MAX_BLOCKS // 10, np.random.default_rng(0)))

    def gain_of_blocks(self, blocks: np.ndarray) -> float:
        """The same from blocks (m, 8, 8, C)."""
        if len(blocks) < MIN_QUIET:
            return 1.0
        stable = self.stabilize(blocks)
        found = np.stack(_spectra(stable))
        gain = found.mean() * len(found) / total_power(self.spectrum)
        if gain > 1 and _slope(stable) > TEXTURED * self.slope:
            expected = np.mean([(_bands() @ power @ _bands().T)[_FINEST] for power in self.spectrum])
            gain = max(1.0, min(gain, found[:, _FINEST].mean() / expected, MAX_TEXTURED))
        gain = float(np.sqrt(gain))
        return 1.0 if abs(np.log(max(gain, 1e-3))) < ALIKE else float(np.clip(gain, 1 / MAX_GAIN, MAX_GAIN))

    def _curve(self, channel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel values x, the integral f(x), and the mean of f under the noise, which rises with x."""
        levels, deviations = self.levels[channel], self.deviations[channel]
        reach = 6 * deviations.max()
        x = np.linspace(levels[0] - reach, levels[-1] + reach, GRID)
        deviation = np.interp(x, levels, deviations)
        steps = np.diff(x) * (1 / deviation[1:] + 1 / deviation[:-1]) / 2
        f = np.concatenate([[0.0], np.cumsum(steps)])
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        noisy = x[:, None] + deviation[:, None] * nodes
        mean = _on_even(noisy, x, f) @ (weights / weights.sum())
        return x, f, np.maximum.accumulate(mean + np.arange(GRID) * 1e-12)


def measure_noise(images: Iterable[np.ndarray], low: float, high: float, *, seed: int = 0) -> Noise:
    """The noise that images (H, W, C) of any sizes have in common; what is not finite is left out.

    `low` and `high` are the values that a channel usually spans. Noise below a 4000th of this, about the rounding of
    8-bit pixels, is not told from none.
    """
    rng = np.random.default_rng(seed)
    several = [pixels.astype(np.float32) for pixels in images]
    per_image = max(200, MAX_BLOCKS // max(1, len(several)))
    blocks = [_blocks(pixels, per_image, rng) for pixels in several]
    floor = (high - low) / 4000
    noise = _common_noise(blocks, np.ones(len(several)), floor)
    gains = np.array([noise.gain_of_blocks(part) for part in blocks])
    if not (gains == 1).all():  # else the images with the least noise would tell that of all
        noise = _common_noise(blocks, gains / np.median(gains), floor)
    return noise


def _common_noise(blocks: list[np.ndarray], gains: np.ndarray, floor: float) -> Noise:
    """The noise of images with gain 1, from blocks (m, 8, 8, C) of images whose noise has these gains."""
    n_channels = blocks[0].shape[-1]
    together, each = np.concatenate(blocks), np.repeat(gains, [len(part) for part in blocks])
    found = [_levels(together[..., c], each, floor) for c in range(n_channels)]
    width = max(len(levels) for levels, _ in found)
    levels, deviations = (np.stack([_stretched(pair[i], width) for pair in found]) for i in (0, 1))
    noise = Noise(levels, deviations, np.ones((n_channels, N_FREQUENCIES, N_FREQUENCIES)))
    stable = noise.stabilize(together) / each[:, None, None, None].astype(np.float32)
    spectrum = np.maximum(np.stack([_power(variances) for variances in _spectra(stable)]), LEAST_POWER)
    for power in spectrum:
        if np.log(power).std() < NEARLY_WHITE:
            power[:] = total_power(power[None])
    return Noise(levels, deviations, spectrum, _slope(stable))


def _blocks(pixels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Finite blocks (m, 8, 8, C) at most n, at random places; images smaller than a block are enlarged by mirroring."""
    short = [max(0, SIDE - side) for side in pixels.shape[:2]]
    if any(short):
        pixels = np.pad(pixels, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    views = sliding_window_view(pixels, (SIDE, SIDE), axis=(0, 1))
    height, width = views.shape[:2]
    n = min(n, max(1, height * width // 4))
    rows, columns = rng.integers(height, size=n), rng.integers(width, size=n)
    blocks = views[rows, columns].transpose(0, 2, 3, 1)
    return blocks[np.isfinite(blocks).all(axis=(1, 2, 3))]


def _transformed(blocks: np.ndarray) -> np.ndarray:
    """Squared coefficients (m, 8, 8) of the cosine transform of blocks (m, 8, 8)."""
    return np.square(dctn(blocks, axes=(1, 2), norm="ortho"))


def _levels(blocks: np.ndarray, gains: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel values (L,) and the standard deviations (L,) of noise of gain 1 at these, from blocks (m, 8, 8)."""
    if not len(blocks):
        return np.zeros(1), np.full(1, floor)
    means, squares = blocks.mean(axis=(1, 2)), _transformed(blocks) / np.square(gains)[:, None, None]
    few = int(np.clip(len(blocks) // LEAST_PER_LEVEL, 1, FEW_LEVELS))
    n_levels = int(np.clip(len(blocks) // BLOCKS_PER_LEVEL, few, MAX_LEVELS))
    groups = np.array_split(np.argsort(means, kind="stable"), n_levels)
    quiet = [group[_quietest(squares[group], _LOW)] for group in groups]
    levels, slopes = np.array([(means[rows].mean(), _slope_of(squares[rows])) for rows in quiet]).T
    spectra = np.stack([_spectrum(squares[group]) for group in groups])
    variances = _without_texture(levels, spectra, slopes <= TEXTURED * slopes.min())
    distinct = np.concatenate([[True], np.diff(levels) > 4 * floor])
    return levels[distinct], np.sqrt(np.maximum(_smoothed(variances[distinct]), floor**2))


def _without_texture(levels: np.ndarray, spectra: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Variances (L,) of noise from spectra (L, 8, 8) at levels (L,); at those that are not trusted, less any texture.

    These have at least what lies between the others, at most a multiple of it, and in these bounds what their finest
    details tell, where texture is weakest.
    """
    variances, finest = spectra.mean(axis=(1, 2)), spectra[:, _FINEST].mean(axis=1)
    between = np.interp(levels, levels[trusted], variances[trusted])
    ratio = variances[trusted].sum() / max(finest[trusted].sum(), 1e-12)
    return np.asarray(np.minimum(variances, np.clip(ratio * finest, between, MAX_TEXTURED * between)))


def _smoothed(variances: np.ndarray) -> np.ndarray:
    """Variances (L,), each averaged with its neighbors, but no higher than twice the lower one of these."""
    if len(variances) < 3:
        return variances
    padded = np.pad(variances, 1, mode="edge")
    lower = np.minimum(padded[:-2], padded[2:])
    bounded = np.pad(np.minimum(variances, 2 * lower), 1, mode="edge")
    return (bounded[:-2] + 2 * bounded[1:-1] + bounded[2:]) / 4


def _spectra(stable: np.ndarray) -> list[np.ndarray]:
    """Variances (8, 8) of the noise of each channel of stabilized blocks (m, 8, 8, C).

    Which blocks of RGB have no detail is seen in their lightness: blocks without any variation of color are not those
    without detail, but those where JPEG has removed it.
    """
    squares = [_transformed(stable[..., c]) for c in range(stable.shape[-1])]
    return [_spectrum(own, squares[0] if len(squares) == 3 else own) for own in squares]


def _spectrum(squares: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """Variances (8, 8) of the noise from squared coefficients (m, 8, 8) of blocks that are about as bright.

    `shown` (m, 8, 8) are those that show which blocks have no detail, by default the same.
    """
    shown = squares if shown is None else shown
    if not len(squares):
        return np.zeros((SIDE, SIDE))
    by_low, by_middle = (squares[_quietest(shown, where)] for where in (_LOW, _MIDDLE))
    high = np.sort(by_low, axis=0)[: max(1, int(KEPT * len(by_low)))].mean(axis=0) / OF_KEPT
    low = np.quantile(by_middle, LOW_QUANTILE, axis=0) / OF_LOW
    found = np.where(_HIGH, high, np.minimum(low, _continued(high)))
    beside = (found[0, 1] + found[1, 0]) / 2  # a block without detail still has a brightness
    found[0, 0] = np.clip(found[0, 1] * found[1, 0] / max(found[1, 1], 1e-12), beside, MAX_RISE * beside)
    return found


def _slope(stable: np.ndarray) -> float:
    """Energy at low frequencies relative to that at high ones, of the quietest of stabilized blocks (m, 8, 8, C)."""
    if not len(stable):
        return 1.0
    squares = _transformed(stable[..., 0] if stable.shape[-1] == 3 else stable.mean(axis=-1))
    return _slope_of(squares[_quietest(squares, _LOW)])


def _slope_of(quiet: np.ndarray) -> float:
    """The same from squared coefficients (m, 8, 8) of the quietest blocks."""
    return float((quiet[:, _LOW].mean() + 1e-12) / (quiet[:, _HIGH].mean() + 1e-12))


def _quietest(squares: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The blocks (m, 8, 8) with the least energy at some frequencies (8, 8)."""
    n = min(len(squares), max(MIN_QUIET, int(QUIET * len(squares))))
    return np.argpartition(squares[:, where].sum(axis=1), n - 1)[:n]


def _power(variances: np.ndarray) -> np.ndarray:
    """Power (9, 9) by frequency, such that coefficients of the cosine transform have these variances (8, 8).

    Each coefficient sees a band of frequencies. Deconvolution by Richardson 1972 and Lucy 1974, which stays positive.
    """
    band = _bands()
    variances = np.maximum(variances, LEAST * max(variances.mean(), 1e-12))
    smooth = np.exp(gaussian_filter(np.log(variances), SMOOTHING, mode="nearest"))
    variances = smooth * (variances.mean() / smooth.mean())
    power = np.full((N_FREQUENCIES, N_FREQUENCIES), variances.mean())
    reach = band.sum(axis=0)
    for _ in range(STEPS):
        power = power * (band.T @ (variances / (band @ power @ band.T)) @ band) / np.outer(reach, reach)
    return power


@functools.cache
def _bands() -> np.ndarray:
    """Share (8, 9) of the power at each frequency, linear between them, in each coefficient of the cosine transform."""
    n = 512
    f = (np.arange(n) + 0.5) / (2 * n)
    waves = dctn(np.eye(SIDE), axes=(0,), norm="ortho")
    gain = np.abs(waves @ np.exp(-2j * np.pi * np.outer(np.arange(SIDE), f))) ** 2  # (8, n), mean 1 over f
    hats = np.maximum(0, 1 - np.abs(2 * SIDE * f[:, None] - np.arange(N_FREQUENCIES)))
    return np.asarray(gain @ hats / n)


def total_power(spectrum: np.ndarray) -> float:
    """Variance of a pixel, summed over channels, from the power (C, 9, 9)."""
    weights = np.ones(N_FREQUENCIES)
    weights[[0, -1]] = 0.5
    return float((spectrum @ weights @ weights).sum() / SIDE**2)


def neighbor_correlation(spectrum: np.ndarray) -> float:
    """Correlation of the noise of pixels beside each other, from the power (C, 9, 9); of RGB images, in lightness."""
    covariance = covariance_of(spectrum[:1], 2)
    return float((covariance[0, 1] + covariance[0, 2]) / (2 * covariance[0, 0]))


def _continued(high: np.ndarray) -> np.ndarray:
    """Most noise (8, 8) at low frequencies: that at middle ones, continued by a straight line of its logarithm."""
    middle = high[_MIDDLE]
    line = np.polynomial.Polynomial.fit(_FREQUENCY[_MIDDLE], np.log(middle + 1e-3 * middle.mean() + 1e-12), 1)
    return np.asarray(np.exp(line(_FREQUENCY.astype(float))))


def _stretched(values: np.ndarray, n: int) -> np.ndarray:
    """Values (n,) that interpolate fewer ones."""
    return np.interp(np.linspace(0, len(values) - 1, n), np.arange(len(values)), values)


def _bands_of(values: np.ndarray) -> Iterator[slice]:
    """Parts of the first axis that hold about a million values, so that large images need little more memory."""
    step = max(1, 2**20 // max(1, values[:1].size))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _on_even(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As `_interpolated`, for x at even distances, which is several times as fast."""
    places = (at - x[0]) * (1 / (x[1] - x[0]))
    left = np.clip(np.nan_to_num(places), 0, len(x) - 2).astype(np.int32)
    return np.asarray(y[left] + (places - left) * np.diff(y)[left])


def _interpolated(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y at some values, with straight lines beyond the ends of x."""
    inside = np.interp(at, x, y)
    below, above = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / max(x[-1] - x[-2], 1e-12)
    return inside + np.minimum(at - x[0], 0) * below + np.maximum(at - x[-1], 0) * above


def power_of(spectrum: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Power (H, W // 2 + 1) of noise at the frequencies of `rfft2` of an image of this size, from that at (9, 9)."""
    return _at(spectrum, np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]))


def downscaled_power(spectrum: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same for images of this size that are means of 2 x 2 pixels with that noise."""
    total = np.zeros((size[0], size[1] // 2 + 1))
    down, across = np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1])
    for i in (0, 1):
        for j in (0, 1):  # frequencies that cannot be told apart after taking every second mean
            y, x = (down + i) / 2, (across + j) / 2
            passed = np.multiply.outer(np.cos(np.pi * y) ** 2, np.cos(np.pi * x) ** 2)
            total += _at(spectrum, y, x) * passed / 4
    return total


def _at(spectrum: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Power (9, 9) between its frequencies, at some per pixel: those above 1/2 are mirrored."""
    places = [2 * SIDE * np.abs((f + 0.5) % 1 - 0.5) for f in (down, across)]
    grid = np.meshgrid(*places, indexing="ij")
    return np.asarray(map_coordinates(spectrum, grid, order=1, mode="nearest"))


def covariance_of(spectrum: np.ndarray, side: int) -> np.ndarray:
    """Covariance (D, D) of the noise of patches, D = C side side channel by channel, from its power (C, 9, 9)."""
    size = 8 * SIDE
    lags = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    blocks = []
    for power in spectrum:
        by_lag = np.fft.irfft2(power_of(power, (size, size)), s=(size, size))
        block = by_lag[lags[:, None, :, None], lags[None, :, None, :]]  # of the rows and columns of two pixels
        blocks.append(block.reshape(side * side, side * side))
    out = np.zeros((len(blocks) * side * side,) * 2)
    for c, block in enumerate(blocks):
        part = slice(c * side * side, (c + 1) * side * side)
        out[part, part] = block + 1e-3 * block[0, 0] * np.eye(side * side)
    return out
