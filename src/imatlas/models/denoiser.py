"""Denoising learned from noisy images alone.

Noise that is known can be exchanged for other noise. Add to a noisy image y noise w of our own, and subtract from it
the same noise, filtered:

    input  y + w            target  y - h * w            h = S / (spectrum of w),  S = spectrum of the noise in y

Then the noise of the target and that of the input are independent, so that a network that predicts the target from
the input learns the mean of the *clean* image, as if it were trained on clean targets: Pang et al. 2021, "Recorrupted-
to-Recorrupted: Unsupervised Deep Learning for Image Denoising" (eq. 6), and Moran et al. 2020, "Noisier2Noise".

The target is as noisy as h is large, and that makes learning slow. Half-size images have a quarter of the noise's
variance left; noise is added until the input is as noisy as the images themselves, and the target has a third of their
variance. What is learned there holds at full size as far as images look alike at both scales, as photographs do. Images
too small to be halved are trained on at full size, with w and -w in turn, which cancels most of what w adds to the
gradient.

All this stands on noise that is measured exactly, as white noise is. Where noise is correlated, as that of developed
and compressed photographs, a network learns to tell the measured noise, which it then removes, from the real one, which
it keeps, and Stein's estimate takes the measured noise for the real one, too. There only the mixture is used, which
cannot learn such a difference.

The spectrum and the dependence on brightness are measured on the images (`imatlas.models.parts.noise`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter
from torch import Tensor

from imatlas import seeding
from imatlas.images.dataset import images_of, load_masked, with_mask
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.learned_attributes import FINITE, TEXT, Array, State, Value
from imatlas.models.parts import noisy_patches
from imatlas.models.parts.noise import (
    N_FREQUENCIES,
    Noise,
    downscaled_power,
    measure_noise,
    neighbor_correlation,
    power_of,
    total_power,
)
from imatlas.models.parts.noisy_patches import NoisyPatches
from imatlas.models.parts.originals import originals_of, random_crops, split_crops
from imatlas.models.parts.patch_mixture import smooth_fill
from imatlas.models.parts.tiles import in_tiles
from imatlas.models.restorer import Restoration, check_like_fitted, restore_each
from imatlas.nn.denoising_unet import STEP, DenoisingUNet
from imatlas.system.threads import sharing_cores
from imatlas.training import checkpoints, devices, schedule
from imatlas.training.batches import Batch, Data
from imatlas.training.progress import Callback

CROP, CROPS_EACH, MAX_CROPS = 64, 4, 4096
"""Side of the crops that the network is trained on, in pixels, those that each pixel is in, and how many there are."""
EXTRA = 1 / 3
"""Least noise that is added, as a share of that in the image."""
AT_FULL_SIZE = 1 / 16
"""The same for images that are trained on at full size."""
MAX_EXCESS = 0.02
"""Largest share by which the noise may be stronger, for that, than that of the images themselves."""
NEGLIGIBLE, ROUNDING = 1 / 2000, 0.35
"""Deviation up to which there is no noise, relative to the range of the values; and of integers: rounding has .29."""
SMALL = 2**19
"""Pixels up to which an image is denoised thoroughly, which takes four times as long and is .1 dB better: by all of its
patches instead of some, or by the mean of what the network makes of it and its mirror images."""
AUDIBLE = 0.05
"""Deviation of the noise, where values span 2, up to which rounding to bf16 would add to it."""
TILE, MARGIN = 512, 64
"""Side of the tiles that large images are denoised in, in pixels, and what they see around."""
MIN_EPOCHS, CROPS_AN_EPOCH, FEWEST_STEPS = 20, 16, 4
"""Times that the network sees each crop, if there is time, or one for so many crops if that is more: the noise of many
crops is not soon learned by heart. And steps if it is not to be used, after which all weights have moved."""
HELD_OUT = 128
"""Crops held out, at most."""
N_JUDGED, JUDGED_SIDE = 24, 192
"""Images that the risks are estimated on, and the side of the part of each that is used."""
CAUTION = 0.25
"""Share of what the mixture takes for noise that is kept, for each 1 of its risk: where there is little to gain, a
texture that is taken for noise is the greater loss."""
INDISTINCT = 0.003
"""Deviation of detail that cannot be told from noise, relative to the range of the values: of a correction of noise as
weak as this, half is applied."""
IMPOSSIBLE = -0.1
"""Risk from which on the noise was not understood, below 0 by more than errors of measurement explain."""
UNEVEN, SHARED = 1.25, 0.15
"""Ratio of deviations from which on noise depends on brightness, and correlation from which on it is told."""
PROBE = 0.1
"""Size of the change by which derivatives are estimated, in deviations of the noise."""
N_PROBES, ERROR_WIDTH, CREDIBLE = 8, 2.0, (0.3, 2.0)
"""Random changes that tell the error of each pixel; width of the Gaussian, in pixels, that smooths it; and least and
largest ratio of the error to what the changes tell, as Stein's estimate is uncertain for small images."""


@estimator
class Denoiser(ImageEstimator):
    """Denoiser that learns from noisy images, without clean ones, and leaves images alone that it would not improve.

    Images may have any sizes; each is denoised at its own. Values outside the range of the fitted images are taken as
    they are, and noise that is stronger or weaker than theirs by more than a tenth is measured on each image.

    Attributes
    ----------
    noise_ : Noise
        Standard deviation of the noise by pixel value, and its spectrum.
    risks_ : dict of float
        Mean squared error, estimated without clean images, in units of the variance of the noise: of leaving images
        "unchanged", 1 by definition; of the "mixture" of patches (`imatlas.models.parts.noisy_patches`), which single
        images are enough for; and of the "network", for noise that is about white (Stein's unbiased risk estimate:
        Stein 1981, with the divergence by random probes of Ramani et al. 2008).
    choice_ : str
        What `transform` does: the entry of `risks_` with the smallest risk; "unchanged" where there is no noise.

    Examples
    --------
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(16, size=32, channels=3)
    >>> Denoiser(max_steps=2, progress=False).fit(images).transform(images).shape
    (16, 32, 32, 3)
    """

    width: Annotated[int, Field(ge=8, le=512, description="channels of the finest grid of the network")] = 48
    budget: Annotated[
        float | str | None,
        Field(description="training time: seconds, or a text such as '90s', '5m', '1h'; None for 30 epochs"),
    ] = "4m"
    batch_size: Annotated[int, Field(ge=1, description="crops per training step")] = 16
    error_map: Annotated[
        bool,
        Field(description="whether `restoration` estimates the error of each pixel, too: ten times as slow"),
    ] = False

    _state: ClassVar[State] = {
        "noise_levels_": Array("float64", "n_channels", "n_levels"),
        "noise_deviations_": Array("float64", "n_channels", "n_levels", low=0),
        "mixture_mean_": Array("float32", "n_values"),
        "mixture_whitening_": Array("float32", "n_directions", "n_values"),
        "mixture_coloring_": Array("float32", "n_values", "n_directions"),
        "mixture_covariances_": Array("float32", "n_gaussians", "n_directions", "n_directions"),
        "mixture_weights_": Array("float32", "n_gaussians", low=0, high=1),
        "noise_spectrum_": Array("float64", "n_channels", N_FREQUENCIES, N_FREQUENCIES, low=0),
        "noise_slope_": Value(FINITE),
        "span_": Value(FINITE),
        "center_": Array("float32", "n_channels"),
        "scale_": Value(FINITE),
        "halved_": Value(bool),
        "risks_": Value(dict[TEXT, float]),
        "choice_": Value(TEXT),
    }

    @property
    def noise_(self) -> Noise:
        """The noise of the fitted images."""
        return Noise(self.noise_levels_, self.noise_deviations_, self.noise_spectrum_, self.noise_slope_)

    @sharing_cores()
    def fit(  # type: ignore[override]  # crops are held out, never images
        self,
        images: Any,
        y: Any = None,
        *,
        mask: np.ndarray | None = None,
        checkpoint: str | Path | checkpoints.Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
    ) -> Denoiser:
        """Measure the noise, and learn from the noisy images.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16, or float; at least 8 x 8 pixels each, at their own sizes. NaN is a missing pixel.
        y : None
            Ignored.
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.
        checkpoint, replay, callback
            As for every `ImageEstimator`.

        Raises
        ------
        ParameterError, InputError, TrainingError, ArtifactError, KeyboardInterrupt
            As for every `ImageEstimator`.
        """
        self._check_parameters()
        schedule.parse_budget(self.budget)
        seed = self._seed_to_fit(checkpoint)
        originals, spec = originals_of(images, mask, seed, "A Denoiser")
        colors = [pixels[..., : kind_of(spec).colors] for pixels in originals]
        self.span_ = span = _span(colors)
        noise = measure_noise(colors, 0, span, seed=seed)
        self.noise_levels_, self.noise_deviations_ = noise.levels, noise.deviations
        self.noise_spectrum_, self.noise_slope_ = noise.spectrum, noise.slope
        stable = [self._stable(pixels) for pixels in colors]
        known = [values[np.isfinite(values).all(axis=2)] for values in stable]
        rows = np.concatenate([values[:: max(1, len(values) // 4096)] for values in known])
        low, high = np.percentile(rows, (0.1, 99.9), axis=0)
        self.center_ = ((low + high) / 2).astype(np.float32)
        self.scale_ = float(2 / max(float((high - low).max()), 1e-3))
        is_white = self._loses_noise_by_halving()
        self.halved_ = is_white and min(min(values.shape[:2]) for values in stable) >= CROP
        mixture = NoisyPatches.of(stable, noise.spectrum, seed)
        self.mixture_mean_ = mixture.mean.numpy()
        self.mixture_whitening_, self.mixture_coloring_ = mixture.whitening.numpy(), mixture.coloring.numpy()
        self.mixture_covariances_, self.mixture_weights_ = mixture.covariances.numpy(), mixture.weights.numpy()
        data = self._data(stable, seed)
        epochs = max(MIN_EPOCHS, len(data) // CROPS_AN_EPOCH) if is_white else 0
        self._train(data, epochs, seed, checkpoint=checkpoint, replay=replay, callback=callback)
        self.spec_ = spec
        self.risks_ = self._risks(stable, ["mixture", "network"] if is_white else ["mixture"], seed)
        is_noisy = noise.deviations.max() > max(NEGLIGIBLE * span, 0 if spec.dtype == "float32" else ROUNDING)
        self.choice_ = self._least_risk() if is_noisy else "unchanged"
        return self

    def _least_risk(self) -> str:
        """The entry of `risks_` with the smallest risk that is possible."""
        return min((name for name in self.risks_ if self.risks_[name] > IMPOSSIBLE), key=lambda name: self.risks_[name])

    def _train(self, data: Data, epochs: int, seed: int, **options: Any) -> None:
        """Train the network, no longer than there is something to learn from few crops; without `epochs`, few steps."""
        most = max(FEWEST_STEPS, epochs * len(data) // self.batch_size)
        learner = copy.copy(self)
        learner.progress = self.progress and epochs > 0
        learner.max_steps = most if self.max_steps is None else min(most, self.max_steps)
        learner._fit_data(data, seed, **options)
        for name, value in vars(learner).items():
            if name.endswith("_"):
                setattr(self, name, value)

    @sharing_cores()
    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """Denoised images (N, H, W, C) of the dtype of the fitted ones. Missing pixels are filled.

        Raises
        ------
        InputError
            If depth or channels differ from the fitted images, or the images are not of one size; `restore` takes them
            one by one.
        """
        self._check_fitted()
        images, mask = with_mask(images, mask)
        if mask is not None:
            images, _ = load_masked(images, mask)
        opened = images_of(images)
        if mask is None:
            check_like_fitted("Denoiser", self.spec_, opened.spec)
        return restore_each(self.restore, opened)

    def restore(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """One denoised image (H, W, C) of any size, of the same dtype; alpha is kept, missing pixels are filled."""
        return self.restoration(pixels, spec, error_map=False).pixels

    def restoration(self, pixels: np.ndarray, spec: ImageSpec, *, error_map: bool | None = None) -> Restoration:
        """As `restore`, with the standard deviation of the noise of this image, in the unit of its pixels.

        With `error_map` (None: the parameter), `maps["error"]` (H, W) is the root of the mean squared error, over the
        channels, that is to be expected of each pixel, in the same unit, NaN where it was missing; the fact `error` is
        its quadratic mean.
        """
        self._check_fitted()
        n = kind_of(spec).colors
        colors = pixels[..., :n]
        known = np.asarray(np.isfinite(colors).all(axis=2))
        if not known.any():
            return Restoration(np.nan_to_num(pixels, nan=(spec.low + spec.high) / 2))
        if not known.all():
            colors = smooth_fill(np.where(known, colors.transpose(2, 0, 1), 0), known).transpose(1, 2, 0)
        gain, before = self.noise_.gain(colors), colors
        out = pixels.copy()
        if self.choice_ != "unchanged":
            colors = self._restored(colors, known, gain)
            if pixels.dtype.kind != "f":
                np.rint(colors, out=colors)
                colors.clip(0, np.iinfo(pixels.dtype).max, out=colors)
        facts = {"noise": float(f"{self.noise_.deviation().mean() * gain:.3g}")}
        maps = {}
        if self.error_map if error_map is None else error_map:
            maps["error"] = np.where(known, self._error(before, gain), np.float32(np.nan))
            facts["error"] = float(f"{np.sqrt(np.square(maps['error'][known], dtype=np.float64).mean()):.3g}")
        out[..., :n] = colors
        return Restoration(out, facts, maps)

    def _restored(self, colors: np.ndarray, known: np.ndarray, gain: float) -> np.ndarray:
        """Complete colors (H, W, C) without noise, which has the mean 0: that of the `known` ones (H, W) is kept."""
        noise, mean = self.noise_, _mean(colors, known)
        middle, thorough = noise.stabilize(mean[None, None]), known.size <= SMALL

        def run(tile: np.ndarray) -> np.ndarray:
            stable = _scaled(noise.stabilize(tile.astype(np.float32)), middle, 1 / gain)
            return noise.destabilize(_scaled(self._denoised(stable, self.choice_, thorough), middle, gain))

        restored = in_tiles(run, colors, TILE, noisy_patches.MARGIN if self.choice_ == "mixture" else MARGIN, STEP)
        restored += mean - _mean(restored, known)
        relative = float(self.noise_.deviation().mean()) * gain / self.span_
        share = relative**2 / (relative**2 + INDISTINCT**2)
        if self.choice_ == "mixture":
            share *= 1 - CAUTION * float(np.clip(self.risks_["mixture"], 0, 1))
        restored -= colors  # in place: large images have room for few copies
        restored *= np.float32(share)
        restored += colors
        return restored

    def _error(self, colors: np.ndarray, gain: float) -> np.ndarray:
        """Root (H, W) of the expected squared error of complete colors (H, W, C) once they are denoised.

        If they are denoised in the best way, this is the diagonal of its Jacobian times the covariance of the noise
        (Manor & Michaeli 2024, "On the Posterior Distribution in Denoising"): the mean of b * (Jacobian b) over random
        b like the noise. As ways are not the best, Stein's estimate tells what the mean over the image should be.
        """
        noise, rng = self.noise_, seeding.rng(self.seed_, "errors")
        deviation = gain * noise.deviation_of(colors)
        if self.choice_ == "unchanged":
            return deviation
        middle = noise.stabilize(_mean(colors, np.ones(colors.shape[:2], bool))[None, None])
        by, thorough = self.choice_, colors[..., 0].size <= SMALL

        def run(tile: np.ndarray) -> np.ndarray:
            stable = _scaled(noise.stabilize(tile.astype(np.float32)), middle, 1 / gain)
            made, share = self._denoised(stable, by, thorough), np.zeros(stable.shape[:2], np.float32)
            for _ in range(N_PROBES):
                probe = self._like_noise(stable.shape, rng)
                change = self._denoised(stable + PROBE * probe, by, thorough) - made
                share += (change * probe).mean(axis=2) / (PROBE * N_PROBES)
            return np.stack([share, np.square(made - stable).mean(axis=2)], axis=2)

        share, moved = np.moveaxis(in_tiles(run, colors, TILE, MARGIN, STEP), 2, 0)
        mean = max(float(share.mean()), 1e-6)
        risk = float(moved.mean()) + 2 * mean - total_power(noise.spectrum) / len(noise.spectrum)
        share = gaussian_filter(share, ERROR_WIDTH, mode="nearest") * np.float32(np.clip(risk / mean, *CREDIBLE))
        return np.asarray(deviation * np.sqrt(share.clip(0, 1)))

    def summary(self) -> list[str]:
        """What the noise is like, what is done about it, and why."""
        self._check_fitted()
        span = self.spec_.high - self.spec_.low
        factor, unit = (100 / span, " %") if self.spec_.dtype == "float32" else (1, f" of {_short(span)}")
        usual = factor * float(self.noise_.deviation().mean())
        dark, bright = (factor * float(self.noise_deviations_[:, i].mean()) for i in (0, -1))
        told = f"Noise: standard deviation {_short(usual)}{unit}"
        if max(dark, bright) > UNEVEN * min(dark, bright):
            told += f", {_short(dark)} in dark and {_short(bright)} in bright parts"
        correlation = neighbor_correlation(self.noise_spectrum_)
        told += f"; neighboring pixels share it (correlation {correlation:.1f})." if correlation > SHARED else "."
        errors = {
            name: f"{max(0.0, risk):.0%}" if risk > IMPOSSIBLE else "an unknown part"
            for name, risk in self.risks_.items()
        }
        others = " and ".join(
            f"{errors[name]} by a {name}" for name in self.risks_ if name not in ("unchanged", self.choice_)
        )
        if self.choice_ == "unchanged":
            is_best = self._least_risk() == "unchanged"
            why = f"they would be no better (squared error: {others})" if is_best else "this is no more than rounding"
            return [told, f"Images are left alone: {why}."]
        chosen = f"Denoised by a {self.choice_}: about {errors[self.choice_]} of the squared error stay"
        return [told, f"{chosen} ({others})." if others else f"{chosen}."]

    # -- the network -------------------------------------------------------------------------------------------------

    def _build(self, spec: ImageSpec) -> torch.nn.Module:
        return DenoisingUNet(kind_of(spec).colors, self.width)

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        y, known = batch.x, batch.known
        for axis in (2, 3):
            if torch.rand((), generator=generator, device=generator.device) < 0.5:
                y, known = y.flip(axis), None if known is None else known.flip(axis)
        added, ratio = self._exchange(y.shape[2:], y.device)
        white = torch.fft.rfft2(torch.randn(y.shape, generator=generator, device=generator.device).to(y.device))
        w = self.scale_ * torch.fft.irfft2(white * added, s=y.shape[2:])
        v = self.scale_ * torch.fft.irfft2(white * added * ratio, s=y.shape[2:])
        if self.halved_:
            error = module(y + w) - (y - v)
        else:
            error = module(torch.cat([y + w, y - w])) - torch.cat([y - v, y + v])
            known = None if known is None else known.repeat(2, 1, 1, 1)
        error = error.float() / self.scale_
        loss = error.square().mean() if known is None else error.square()[known].mean()
        yield "adam", loss, {}

    def _exchange(self, size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Amplitudes (C, H, W // 2 + 1) of the noise that is added, and the filter h."""
        want, halved = self._powers((size[0], size[1]))
        have = halved if self.halved_ else want
        added = np.maximum(want - have, (EXTRA if self.halved_ else AT_FULL_SIZE) * have) + 1e-9
        amplitude, ratio = np.sqrt(added), have / added
        return (torch.from_numpy(a).to(device, torch.float32) for a in (amplitude, ratio))  # type: ignore[return-value]

    def _loses_noise_by_halving(self) -> bool:
        """Whether half-size images have less noise than the images themselves at almost all frequencies."""
        want, halved = self._powers((CROP, CROP))
        return float(np.maximum((1 + EXTRA) * halved - want, 0).sum()) <= MAX_EXCESS * float(want.sum())

    def _powers(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Power (C, H, W // 2 + 1) of the noise of images of this size, and of the same when halved to it."""
        spectra = self.noise_spectrum_
        want, halved = ([power(each, size) for each in spectra] for power in (power_of, downscaled_power))
        return np.stack(want), np.stack(halved)

    def _data(self, stable: list[np.ndarray], seed: int) -> Data:
        """Crops of all images, as the network takes them, at places drawn by the seed."""
        factor = 2 if self.halved_ else 1
        side = min(CROP, *(side // factor for values in stable for side in values.shape[:2]))
        area = sum(values.shape[0] * values.shape[1] for values in stable)
        n = int(np.clip(CROPS_EACH * area / (factor * side) ** 2, len(stable), MAX_CROPS))
        rng = seeding.rng(seed, "crops")
        crops = np.empty((n, side, side, stable[0].shape[2]), np.float32)
        for i, crop in enumerate(random_crops(stable, factor * side, n, rng)):
            crops[i] = ((_halved(crop) if self.halved_ else crop) - self.center_) * np.float32(self.scale_)
        spec = ImageSpec(side, side, crops.shape[3], "float32", -1.0, 1.0, alpha=False)
        return split_crops(crops, spec, min(HELD_OUT, n // 10), rng)

    # -- images ------------------------------------------------------------------------------------------------------

    def _stable(self, colors: np.ndarray) -> np.ndarray:
        """Values (H, W, C) of which the noise has unit variance; NaN where any channel is missing."""
        known = np.isfinite(colors).all(axis=2)
        colors = np.where(known[..., None], colors, np.nan).astype(np.float32)
        mean = _mean(colors, known) if known.any() else np.zeros(colors.shape[2], np.float32)
        noise = self.noise_
        return _scaled(noise.stabilize(colors), noise.stabilize(mean[None, None]), 1 / noise.gain(colors))

    @torch.no_grad()
    def _denoised(self, stable: np.ndarray, by: str, thorough: bool = False) -> np.ndarray:
        """Stabilized values (H, W, C) without noise, by an entry of `risks_`; where missing, whatever fits."""
        if by == "mixture":
            stride = 1 if thorough else noisy_patches.STRIDE
            return self._mixture().denoise(np.where(np.isfinite(stable), stable, self.center_), stride)
        module, device = self._ready_module(), devices.pick_device(self.device)
        values = np.nan_to_num((stable - self.center_) * np.float32(self.scale_), nan=0.0, posinf=0.0, neginf=0.0)
        x = torch.from_numpy(values.transpose(2, 0, 1)[None].copy()).to(device)
        mirrored = ((), (2,), (3,), (2, 3)) if thorough else ((),)
        fast = self.scale_ >= AUDIBLE and devices.has_bf16(device)
        with devices.autocast(device, "bf16" if fast else "fp32"):
            made = torch.stack([module(x.flip(axes)).flip(axes)[0].float() for axes in mirrored]).mean(0)
        return made.permute(1, 2, 0).cpu().numpy() / np.float32(self.scale_) + self.center_

    def _mixture(self) -> NoisyPatches:
        names = ("mean", "whitening", "coloring", "covariances", "weights")
        return NoisyPatches(*(torch.from_numpy(getattr(self, f"mixture_{name}_")) for name in names))

    def _like_noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Random values (H, W, C) with the spectrum of the noise."""
        size = (shape[0], shape[1])
        amplitude = np.stack([np.sqrt(power_of(s, size)) for s in self.noise_spectrum_], axis=2)
        white = np.fft.rfft2(rng.standard_normal(shape), axes=(0, 1))
        return np.fft.irfft2(white * amplitude, s=size, axes=(0, 1)).astype(np.float32)

    def _risks(self, stable: list[np.ndarray], ways: list[str], seed: int) -> dict[str, float]:
        """Estimated mean squared errors of ways to denoise, and of leaving images unchanged, over some of them."""
        rng = seeding.rng(seed, "risks")
        totals, n_pixels = dict.fromkeys(ways, 0.0), 0
        variance = total_power(self.noise_spectrum_)
        for k in rng.permutation(len(stable))[:N_JUDGED]:
            values = _center_of(stable[k], JUDGED_SIDE)
            known = np.isfinite(values).all(axis=2)
            n_pixels += int(known.sum())
            probe = self._like_noise(values.shape, rng)
            for by in totals:
                above, below = (self._denoised(values + sign * PROBE * probe, by) for sign in (1, -1))
                change = ((above + below) / 2 - values)[known]
                divergence = ((above - below) * probe)[known].sum(dtype=np.float64) / (2 * PROBE)
                totals[by] += float(np.square(change).sum(dtype=np.float64) + 2 * divergence)
        every = max(1, n_pixels) * variance
        return {"unchanged": 1.0, **{by: total / every - 1 for by, total in totals.items()}}


def _mean(colors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean (C,) of colors (H, W, C) where they are known (H, W)."""
    return np.asarray(colors.mean(axis=(0, 1), where=known[..., None], dtype=np.float64).astype(np.float32))


def _scaled(stable: np.ndarray, middle: np.ndarray, factor: float) -> np.ndarray:
    """Stabilized values (H, W, C) as many times as far from the middle one (1, 1, C)."""
    return stable if factor == 1 else np.asarray(middle + (stable - middle) * np.float32(factor))


def _span(images: list[np.ndarray]) -> float:
    """Range of nearly all values of images (H, W, C), which may be much less than that of their type; at least tiny."""
    some = np.concatenate([pixels[:: max(1, len(pixels) // 64)].ravel() for pixels in images]).astype(np.float64)
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, (0.1, 99.9)) if len(some) else (0.0, 0.0)
    return max(float(high - low), 1e-6)


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def _halved(values: np.ndarray) -> np.ndarray:
    """Means (H // 2, W // 2, C) of 2 x 2 pixels."""
    height, width = (side // 2 * 2 for side in values.shape[:2])
    return values[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean(axis=(1, 3))


def _center_of(values: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, (length - side) // 2) for length in values.shape[:2])
    return values[top : top + side, left : left + side]
