"""Base class of autoencoders: images to latent vectors and back, and samples from a mixture over the vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from imatlas import seeding
from imatlas.arguments import check_int, check_number
from imatlas.errors import InputError
from imatlas.images.pixel_rows import PixelRows
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.base import estimator
from imatlas.models.image_estimator import decisions_of, replay_of
from imatlas.models.learned_attributes import FINITE, HISTORY, Array, OneOf, State, Value
from imatlas.models.onnx import Network, images_in, images_out, random_images, random_vectors
from imatlas.models.parts.conditional import Generator, interpolate
from imatlas.models.parts.mixture import Mixture, fit_mixture
from imatlas.models.parts.sharpening import Sharpener
from imatlas.training import devices
from imatlas.training.batches import Batch, Data, make_batch
from imatlas.training.checkpoints import Checkpoint
from imatlas.training.preview import Show
from imatlas.training.progress import Callback

MIXTURE_IMAGES = 60_000
"""Most training images to whose vectors the mixture is fitted."""

PREVIEWED_FROM, N_PREVIEWED = 256, 8
"""Training images to whose vectors the Gaussian of a preview is fitted, and images of a preview."""


@estimator
class LatentModel(Generator):
    """Base class of models that encode an image in `latent_dim` numbers, decode it, and generate new images.

    Samples are drawn from a `Mixture` over the vectors of the training images. Conditions
    given to `fit` do not enter the network: they partition the mixture, which can then be sampled by condition.

    A model declares the parameter `latent_dim` and implements, besides the hooks of `ImageEstimator`,
    `_encode(module, batch)`, `_decode(module, z)` and `_score(module, batch)`.

    Attributes
    ----------
    sharpening_ : dict of lists, or None
        The history of `sharpen`, after it was called.
    mixture_weights_, mixture_means_, mixture_factors_, mixture_conditions_, mixture_spread_
        See `imatlas.models.parts.mixture.Mixture`.
    """

    n_components: Annotated[
        int | None,
        Field(ge=1, description="Gaussians in the mixture that samples are drawn from; None: one per 60 images"),
    ] = None
    _state: ClassVar[State] = {
        "mixture_weights_": Array("float32", "n_gaussians", low=0, high=1.001),
        "mixture_means_": Array("float32", "n_gaussians", "latent_dim"),
        "mixture_factors_": Array("float32", "n_gaussians", "latent_dim", "latent_dim"),
        "mixture_conditions_": OneOf(
            (Array("int64", "n_gaussians", low=0, below="n_classes"), Array("float32", "n_gaussians", "cond_dim")),
            optional=True,
        ),
        "mixture_spread_": Value(FINITE),
        "sharpening_": Value(HISTORY, optional=True),
    }
    latent_dim = 0  # every subclass declares the parameter, with its own default

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        """Vectors (N, latent_dim) of a batch."""
        raise NotImplementedError

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch to train on, augmented if the model does so."""
        return batch

    def _sample_code(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """Vectors (N, latent_dim) as the decoder gets them in training."""
        return self._encode(module, batch)

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of vectors (N, latent_dim)."""
        raise NotImplementedError

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """Score (N,) of each image of a batch; higher is more typical."""
        raise NotImplementedError

    # -- training ------------------------------------------------------------------------------------------------

    def _finish(self, data: Data) -> None:
        """Fit the mixture to the vectors of at most `MIXTURE_IMAGES` training images."""
        self.sharpening_: dict[str, list[Any]] | None = None
        rows = data.draw_rows(MIXTURE_IMAGES, self.seed_, "mixture")
        self._fit_prior(data.pixels, rows, None if data.y is None else data.y[rows])

    def _preview(self, module: torch.nn.Module, data: Data, device: torch.device) -> np.ndarray | None:
        """New images from one Gaussian over the vectors of some training images, of the same noise every time."""
        seed = 0
        rows = data.draw_rows(PREVIEWED_FROM, seed, "preview")
        parts = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        vectors = [self._encode(module, make_batch(data.pixels[part], data.spec, device)) for part in parts]
        z = torch.cat(vectors).float().cpu().numpy()
        gaussian = fit_mixture(z, None, seed, n_components=1)
        drawn = gaussian.draw(seeding.noise(seed, N_PREVIEWED, z.shape[1]), np.zeros(N_PREVIEWED))
        return to_pixels(self._decode(module, torch.from_numpy(drawn.astype(np.float32)).to(device)), data.spec)

    def fit_prior(self, images: Any, y: Any = None) -> Any:
        """Fit the mixture and its conditions again; the network stays unchanged.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        y : array (N,) of int, str or float, or (N, n_features), optional
            As in `fit`.

        Returns
        -------
        self
        """
        pixels = self._load_like_fitted(images)
        self._fit_prior(pixels, np.arange(len(pixels)), self._learn_conditions(y, len(pixels)))
        return self

    def sharpen(
        self,
        images: Any,
        *,
        weight: float = 0.1,
        mask: np.ndarray | None = None,
        validation: Any = None,
        budget: float | str | None = None,
        max_steps: int | None = None,
        checkpoint: str | Path | Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
        preview: Show | None = None,
    ) -> Any:
        """Train the decoder further, to give its images the textures of the real ones: they become sharper.

        The encoder stays unchanged. The squared error of reconstructions grows: textures are not where they were.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            The images given to `fit`.
        weight : float, at least 0
            Of the distance of textures beside the squared error.
        budget : seconds, or such as '90s', '5m', optional
            Training time; a third of that of `fit` is a good value.
        max_steps : int, optional
            Without a budget, a third of the steps of `fit` by default.
        mask, validation, checkpoint, replay, callback, preview
            As in `fit`; `decisions_` then holds the decisions of both.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If the images differ in shape or depth from those of `fit`.
        """
        pixels = self._load_like_fitted(images, mask)
        data = self._hold_out(pixels, self.spec_, validation, self.seed_, None, None)
        sharpener = Sharpener(
            model=self,
            sharpness=check_number(weight, "weight", "sharpen", low=0),
            budget=budget,
            max_steps=max(1, self.n_steps_ // 3) if budget is None and max_steps is None else max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate / 2,
            device=self.device,
            precision=self.precision,
            progress=self.progress,
        )
        sharpener._check_parameters()
        own = replay_of("sharpening", replay)
        sharpener._fit_data(data, self.seed_, checkpoint=checkpoint, replay=own, callback=callback, preview=preview)
        self.module_ = sharpener.module_
        self.sharpening_ = sharpener.history_
        of_fit = [decision for decision in self.decisions_ if decision.get("of") != "sharpening"]
        self.decisions_ = [*of_fit, *decisions_of({"sharpening": sharpener})]
        self.seconds_ += sharpener.seconds_
        self.interrupted_ = sharpener.interrupted_
        return self

    def _fit_prior(self, pixels: np.ndarray | PixelRows, rows: np.ndarray, cond: np.ndarray | None) -> None:
        """Fit the mixture to rows of the pixels, which are not copied, and their conditions."""
        module, device = self._ready_module(), devices.pick_device(self.device)
        generator = torch.Generator(device=device)
        generator.manual_seed(seeding.seed_of(self.seed_, "mixture"))

        def run(part: np.ndarray) -> np.ndarray:
            batch = make_batch(pixels[part], self.spec_, device)
            return self._sample_code(module, batch, generator).float().cpu().numpy()

        z = self._in_chunks(run, rows)
        mixture = fit_mixture(z, cond, self.seed_, n_components=self.n_components)
        self.mixture_weights_, self.mixture_means_, self.mixture_factors_ = (
            mixture.weights,
            mixture.means,
            mixture.factors,
        )
        self.mixture_conditions_, self.mixture_spread_ = mixture.cond, mixture.spread

    def _contradiction(self) -> str:
        return super()._contradiction() or self._condition_mismatch("mixture_conditions_")

    @property
    def reconstructor(self) -> Any:
        """This model itself."""
        return self

    @property
    def _mixture(self) -> Mixture:
        return Mixture(
            self.mixture_weights_,
            self.mixture_means_,
            self.mixture_factors_,
            self.mixture_conditions_,
            self.mixture_spread_,
        )

    # -- inference -----------------------------------------------------------------------------------------------

    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """Encode images as vectors.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.

        Returns
        -------
        array (N, latent_dim) float32
        """
        return self._encode_chunks(self._encode, self._load_like_fitted(images, mask))

    def _vectors(self, pixels: np.ndarray | PixelRows, spec: ImageSpec) -> np.ndarray:
        """Vectors (N, latent_dim) of pixels (N, H, W, C) that are already loaded.

        Raises
        ------
        InputError
            If they differ in shape or depth from the images of `fit`.
        """
        self._check_fitted()
        if (spec.shape, spec.dtype) != (self.spec_.shape, self.spec_.dtype):
            raise InputError(
                f"This {type(self).__name__} was fitted to images of shape {self.spec_.shape}, {self.spec_.dtype}. "
                f"Got {spec.shape}, {spec.dtype} instead; give images like those."
            )
        return self._encode_chunks(self._encode, pixels) if len(pixels) else np.zeros((0, self.latent_dim), np.float32)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Decode vectors to images.

        Parameters
        ----------
        Z : array (N, latent_dim)

        Returns
        -------
        array (N, H, W, C) of the fitted dtype
        """
        return self._decode_chunks(self._decode, self._check_codes(Z, self.latent_dim))

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Generate images from the mixture over the training vectors.

        Image i is drawn from (random_state, i) alone: more samples do not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,), vector (n_features,) or array (n_samples, n_features), optional
            Conditions as in `fit`; one label or vector applies to all. None: unconditional.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_samples, H, W, C) of the fitted dtype

        Raises
        ------
        InputError
            If `y` is not the kind of condition that the model was fitted with.
        """
        self._check_fitted()
        n_samples = check_int(n_samples, "n_samples", type(self).__name__, low=0)
        seed = self._seed_of(random_state)
        level = np.array([seeding.rng(seed, "component", i).random() for i in range(n_samples)])
        noise = seeding.noise(seed, n_samples, self.latent_dim)
        return self._decode_chunks(self._decode, self._draw(noise, level, self._conditions(y, n_samples)))

    def _draw(self, noise: np.ndarray, level: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Vectors (n, latent_dim) of samples, from noise (n, latent_dim) and uniform levels (n,)."""
        return self._mixture.draw(noise, level, cond) if len(noise) else noise

    def vary(self, images: Any, *, strength: float = 0.5, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Variations of images: their vectors moved within the nearest Gaussian of the mixture.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        strength : float in [0, 1]
            0 returns the reconstructions of the images, 1 new draws from their Gaussians.
        y, random_state
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype
        """
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        z = self.transform(images)
        noise = seeding.noise(self._seed_of(random_state), len(z), self.latent_dim)
        return self.inverse_transform(self._mixture.vary(z, strength, noise, self._conditions(y, len(z))))

    def morph(self, n_frames: int, *, images: Any = None, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Frames of a path through images, or through conditions.

        Parameters
        ----------
        n_frames : int
        images : Images, array (n_keys, H, W[, C]) or any source that `Images` takes, optional
            Key images of the path. None: new images, one for each of `y`, from the same noise.
        y : array (n_keys,) or (n_keys, n_features), optional
            As in `sample`.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_frames, H, W, C) of the fitted dtype
        """
        n_frames = check_int(n_frames, "n_frames", type(self).__name__, low=1)
        if images is not None:
            keys = self.transform(images)
        else:
            noise = seeding.noise(self._seed_of(random_state), 1, self.latent_dim)
            n = len(np.asarray(y))
            keys = self._draw(np.repeat(noise, n, axis=0), np.zeros(n), self._conditions(y, n))
        return self.inverse_transform(interpolate(keys, n_frames))

    def sliders(self, image: Any = None, *, n_directions: int = 8, n_steps: int = 9, reach: float = 2.5) -> np.ndarray:
        """Edits of an image along the principal axes of the vectors.

        Härkönen et al. 2020, "GANSpace: discovering interpretable GAN controls", for latent vectors. Along each axis,
        the coordinate of the image's vector takes values from -`reach` to `reach` standard deviations; the others stay.

        Parameters
        ----------
        image : Images, array (1, H, W[, C]) or any source of one image that `Images` takes, optional
            The image to edit. None: the mean of all.
        n_directions, n_steps : int
            Number of axes, largest variance first, and of images along each.
        reach : float
            In standard deviations.

        Returns
        -------
        array (n_directions, n_steps, H, W, C) of the fitted dtype
        """
        self._check_fitted()
        n_directions = check_int(n_directions, "n_directions", type(self).__name__, low=1)
        n_steps = check_int(n_steps, "n_steps", type(self).__name__, low=1)
        reach = check_number(reach, "reach", type(self).__name__, low=0, above=True)
        mean, axes = self._mixture.axes()
        axes = axes[: min(n_directions, len(axes))]
        start = mean if image is None else self.transform(image)[0]
        own = (axes @ (start - mean)) / np.maximum((axes**2).sum(1), 1e-12)  # its coordinates, in standard deviations
        steps = np.linspace(-reach, reach, n_steps)
        z = start + (steps[None, :, None] - own[:, None, None]) * axes[:, None]
        images = self.inverse_transform(z.reshape(-1, self.latent_dim))
        return images.reshape(len(axes), n_steps, *images.shape[1:])

    def score_samples(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """Score of each image, as the model defines it.

        Returns
        -------
        array (N,) float32; higher is more like the training images
        """
        return self._encode_chunks(self._score, self._load_like_fitted(images, mask))

    def _networks(self) -> dict[str, Network]:
        """Encoder and decoder, as `transform` and `inverse_transform` use them."""
        z = f"float32 (N, {self.latent_dim}): "
        encoder = Network(
            self.module_,
            lambda module, x: self._encode(module, Batch(x)),
            {"images": random_images(self.spec_)},
            "z",
            {"input images": images_in(self.spec_), "output z": z + "vectors, as transform returns them"},
        )
        decoder = Network(
            self.module_,
            self._decode,
            {"z": random_vectors(self.latent_dim)},
            "images",
            {"input z": z + "vectors, as transform returns them", "output images": images_out(self.spec_)},
        )
        return {"encoder": encoder, "decoder": decoder}
