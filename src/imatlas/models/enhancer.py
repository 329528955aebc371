"""Enhancement of exposure, contrast and color without references, by what is typical of the images of a set.

    image -> quantiles of its values, estimates of the color of its light
    -> how probable are they among the images of the set: as they are, or after undoing a fault (too little light, low
       contrast, a wrong gamma, a color cast)?
    -> perhaps no fault: unchanged, bit by bit; else the expected curve, one per channel

The curve is a Bayes estimate, as in Brainard and Freeman 1997, "Bayesian color constancy", with a hypothesis for
"leave it alone". Guo et al. 2020, "Zero-reference deep curve estimation" (Zero-DCE), train a network that moves every
image toward one exposure and to gray; that changes good images, too. One monotone curve for the whole image makes no
halos and no seams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from imatlas.arguments import counted
from imatlas.errors import InputError
from imatlas.images.dataset import images_of
from imatlas.images.pixels import kind_of, range_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import COUNT, Array, Spec, State, Value
from imatlas.models.parts.color_casts import N_CHROMAS, balanced, built_in_color, cast_hypotheses, chromas
from imatlas.models.parts.fault_hypotheses import Density
from imatlas.models.parts.tone_curves import (
    MIN_SPAN,
    N_QUANTILES,
    built_in_tone,
    mean_curve,
    tone_hypotheses,
    tone_quantiles,
)
from imatlas.models.restorer import Restoration, restore_each
from imatlas.system.threads import sharing_cores

MAX_FIT_IMAGES = 200
"""Images that the densities are learned from, at most."""
N_SAMPLED = 2**16
"""Pixels of an image that it is judged by, about."""
KNOTS = np.linspace(0, 1, 1025)
BAND = 2**20
"""Pixels of float images that are converted together."""
DOUBT = 0.2
"""Probability of no fault above which an image is left alone: harm is worse than a fault that stays."""
DARK, FLAT = 0.3, 0.8
"""Typical median value, and span of values, below which a set is told to be dark or flat."""


@dataclass(frozen=True, eq=False)
class Correction:
    """What an `Enhancer` does to one image."""

    curves: np.ndarray | None
    """(C, 1025): new values at evenly spaced old values, both in [0, 1], for each channel without alpha; None to leave
    the image alone."""
    p_sound_tone: float
    """Probability that exposure and contrast have no fault."""
    p_sound_color: float
    """Probability that there is no color cast; 1 for images without color."""
    cast: tuple[float, float]
    """Removed cast: log R / G and log B / G in linear light."""


@estimator
class Enhancer(Estimator):
    """Exposure, contrast and white balance without references, learned from the images of a set.

    The images of a set tell what their exposure, contrast and colors are like. An image that may be typical of them is
    left alone; else it is corrected by the curve that probably undoes its fault. Where most images of a set have the
    same fault, it is typical; `reference="photographs"` then compares with photographs in general. Other channels than
    gray and RGB are measurements: they all get the same curve, and no white balance.

    Noise in the dark is amplified as the values are, at most 8 times; denoise first. What was clipped stays clipped.

    Attributes
    ----------
    spec_ : ImageSpec
        Depth and value range of the fitted images; values outside are moved, never squeezed.
    tone_mean_ : ndarray (11,) float64
    tone_scatter_ : ndarray (11, 11) float64
        Quantiles of values, 0.1 % to 99.9 %, of images without fault.
    color_mean_ : ndarray (8,) float64
    color_scatter_ : ndarray (8, 8) float64
        Estimates of the color of the light, of images without fault.
    n_images_ : int
        Images that these were learned from: at most 200, drawn at random from larger sets.

    Examples
    --------
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(8, size=48, channels=3)
    >>> Enhancer().fit(images).transform(images).shape
    (8, 48, 48, 3)
    """

    strength: Annotated[
        float, Field(ge=0, le=1, description="0 leaves images alone, 1 corrects fully, values between mix the two")
    ] = 1.0
    white_balance: Annotated[bool, Field(description="remove color casts, too")] = True
    reference: Annotated[
        Literal["images", "photographs"],
        Field(description="what is typical: the fitted images, or photographs in general"),
    ] = "images"
    random_state: Seed = 0
    input = "images"
    any_kind: ClassVar[bool] = True

    _state: ClassVar[State] = {
        "spec_": Spec(),
        "n_images_": Value(COUNT),
        "tone_mean_": Array("float64", N_QUANTILES),
        "tone_scatter_": Array("float64", N_QUANTILES, N_QUANTILES),
        "color_mean_": Array("float64", N_CHROMAS),
        "color_scatter_": Array("float64", N_CHROMAS, N_CHROMAS),
    }

    @sharing_cores()
    def fit(self, images: Any, y: Any = None) -> Enhancer:
        """Learn what is typical.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            uint8, uint16 or float; files are read at their own size. Any of them may have faults.
        y : None
            Ignored.

        Raises
        ------
        ParameterError, InputError, InputTypeError
            If a parameter is invalid, or the images cannot be read.
        """
        self._check_parameters()
        opened = images_of(images)
        spec = opened.spec
        tone, color = built_in_tone(), built_in_color()
        n = 0
        if self.reference == "images":
            rows = np.sort(np.random.default_rng(self._seed()).permutation(len(opened))[:MAX_FIT_IMAGES])
            samples = [_sample(opened[int(row)], spec, _range(spec)) for row in rows]
            samples = [sample for sample in samples if _has_contrast(sample)]
            n = len(samples)
            tone = tone.fitted([tone_hypotheses(tone_quantiles(_known(sample)))[0] for sample in samples])
            if n and samples[0].shape[2] == 3:
                toned = [_after(_tone_curve(sample, tone)[0], sample) for sample in samples]
                color = color.fitted([cast_hypotheses(chromas(sample))[0] for sample in toned])
        self.spec_, self.n_images_ = spec, n
        self.tone_mean_, self.tone_scatter_ = tone.mean, tone.scatter
        self.color_mean_, self.color_scatter_ = color.mean, color.scatter
        return self

    @sharing_cores()
    def transform(self, images: Any) -> np.ndarray:
        """The images enhanced (N, H, W, C), in their dtype.

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
                f"This Enhancer was fitted on {self.spec_.dtype} images. Got {opened.spec.dtype} instead; give images "
                "of the same depth."
            )
        return restore_each(self.restore, opened)

    def restore(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """One image (H, W, C) of any size, depth and number of channels, enhanced, in its dtype.

        Alpha and missing pixels (NaN) are kept. The value range of `spec` counts where the depth is not the fitted one.
        """
        return self._corrected(pixels, self.correction(pixels, spec), spec)

    def restoration(self, pixels: np.ndarray, spec: ImageSpec) -> Restoration:
        """As `restore`, with whether the image was changed, its mean value before and after, and the gains of colors.

        Values are in [0, 1]; `red_gain` and `blue_gain` are those of the white balance, in linear light, relative to
        green.
        """
        correction = self.correction(pixels, spec)
        restored = self._corrected(pixels, correction, spec)
        span = self._range_of(spec)
        before, after = (_known(_sample(image, spec, span)) for image in (pixels, restored))
        red, blue = np.exp(-self.strength * np.array(correction.cast))
        facts = {
            "changed": not np.array_equal(restored, pixels, equal_nan=pixels.dtype.kind == "f"),
            "mean_before": round(float(before.mean()), 4) if len(before) else None,
            "mean_after": round(float(after.mean()), 4) if len(after) else None,
            "red_gain": round(float(red), 3),
            "blue_gain": round(float(blue), 3),
        }
        return Restoration(restored, facts)

    def summary(self) -> list[str]:
        """What is typical, in sentences."""
        self._check_fitted()
        if not self.n_images_:
            return ["Compared with photographs in general."]
        low, middle, high = (float(self.tone_mean_[i]) for i in (0, N_QUANTILES // 2, -1))
        told = [
            f"Learned from {counted(self.n_images_, 'image')}: half of their values are below {middle:.0%} of the "
            f"range, and nearly all between {low:.0%} and {high:.0%}."
        ]
        if middle < DARK or high - low < FLAT:
            told.append(
                f"They are {'darker' if middle < DARK else 'of lower contrast'} than photographs usually are. If that "
                "is a fault, compare them with photographs (reference 'photographs')."
            )
        return told

    def _corrected(self, pixels: np.ndarray, correction: Correction, spec: ImageSpec) -> np.ndarray:
        if correction.curves is None or self.strength == 0:
            return pixels.copy()
        return _applied(pixels, KNOTS + self.strength * (correction.curves - KNOTS), self._range_of(spec))

    def correction(self, pixels: np.ndarray, spec: ImageSpec) -> Correction:
        """What is done to an image (H, W, C) at full strength, and why."""
        self._check_fitted()
        sample = _sample(pixels, spec, self._range_of(spec))
        if not _has_contrast(sample):
            return Correction(None, 1.0, 1.0, (0.0, 0.0))
        curve, p_tone = _tone_curve(sample, Density(self.tone_mean_, self.tone_scatter_))
        channels = sample.shape[2]
        p_color, cast = 1.0, np.zeros(2)
        if channels == 3 and self.white_balance:
            hypotheses, casts = cast_hypotheses(chromas(_after(curve, sample)))
            weights = Density(self.color_mean_, self.color_scatter_).weights(hypotheses)
            p_color, cast = float(weights[0]), weights @ casts
        if p_color > DOUBT:
            curves = None if curve is None else np.tile(curve, (channels, 1))
            return Correction(curves, p_tone, p_color, (0.0, 0.0))
        brightest = np.nanquantile(_after(curve, sample), 0.999, axis=(0, 1))
        curves = balanced(KNOTS if curve is None else curve, cast, brightest)
        return Correction(curves, p_tone, p_color, (float(cast[0]), float(cast[1])))

    def _range_of(self, spec: ImageSpec) -> tuple[float, float]:
        return _range(self.spec_ if spec.dtype == self.spec_.dtype else spec)


def _range(spec: ImageSpec) -> tuple[float, float]:
    """The values that are black and white."""
    return range_of(kind_of(spec), spec.low, spec.high)


def _sample(pixels: np.ndarray, spec: ImageSpec, span: tuple[float, float]) -> np.ndarray:
    """Every n-th row and column (h, w, C) of an image without alpha, in [0, 1]; NaN where missing or transparent."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / N_SAMPLED) ** 0.5))
    some = pixels[::step, ::step]
    values = (some[..., : kind_of(spec).colors].astype(np.float64) - span[0]) / (span[1] - span[0])
    values[~np.isfinite(values)] = np.nan
    if spec.has_alpha:
        values[some[..., -1] == 0] = np.nan
    return np.clip(values, 0, 1)


def _known(sample: np.ndarray) -> np.ndarray:
    return sample[np.isfinite(sample)]


def _has_contrast(sample: np.ndarray) -> bool:
    """Whether there is anything to judge an image by."""
    known = sample[np.isfinite(sample).all(axis=2)]
    return len(known) > 0 and bool(np.subtract(*np.quantile(known, (0.999, 0.001))) >= MIN_SPAN)


def _tone_curve(sample: np.ndarray, density: Density) -> tuple[np.ndarray | None, float]:
    """The curve (1025,) for an image, None for none, and the probability that it needs none."""
    hypotheses, curves = tone_hypotheses(tone_quantiles(_known(sample)))
    weights = density.weights(hypotheses)
    sound = float(weights[0])
    return (None if sound > DOUBT else mean_curve(weights, curves, KNOTS)), sound


def _after(curve: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    return values if curve is None else np.interp(values, KNOTS, curve)


def _applied(pixels: np.ndarray, curves: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """An image with a curve (n,) applied to each of the first channels; values outside the range are shifted."""
    low, high = span
    out = pixels.copy()
    if pixels.dtype.kind == "u":
        top = np.iinfo(pixels.dtype).max
        levels = (np.arange(top + 1) - low) / (high - low)
        for channel, curve in enumerate(curves):
            table = np.rint(_extended(levels, curve) * (high - low) + low)
            out[..., channel] = np.clip(table, 0, top).astype(pixels.dtype)[pixels[..., channel]]
        return out
    rows = max(1, BAND // max(1, pixels.shape[1]))
    for start in range(0, len(pixels), rows):
        for channel, curve in enumerate(curves):
            levels = (pixels[start : start + rows, :, channel].astype(np.float64) - low) / (high - low)
            out[start : start + rows, :, channel] = _extended(levels, curve) * (high - low) + low
    return out


def _extended(levels: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """A curve in [0, 1], continued with slope 1 beyond."""
    inside = np.clip(levels, 0, 1)
    beyond = np.where(np.isfinite(levels), levels - inside, levels)
    return np.interp(inside, KNOTS, curve) + np.where(levels == inside, 0, beyond)
