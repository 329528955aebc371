"""What models between images and short vectors share: the way there, the way back, and how well both fit."""

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
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import decisions_of, replay_of
from imatlas.models.learned import FINITE, HISTORY, Array, OneOf, State, Value
from imatlas.models.onnx import Network, images_in, images_out, random_images, random_vectors
from imatlas.models.parts.conditional import Generator, along
from imatlas.models.parts.mixture import Mixture, fit_mixture
from imatlas.models.parts.sharpening import Sharpener
from imatlas.training import devices
from imatlas.training.batches import Batch, Data, make_batch
from imatlas.training.checkpoints import Checkpoint
from imatlas.training.progress import Callback

MIXTURE_IMAGES = 60_000
"""Most training images whose vectors the mixture is fitted to."""


@estimator
class LatentModel(Generator):
    """The base of models that turn an image into `latent_dim` numbers and back, and make new images.

    New images are drawn from a `Mixture` over the vectors of the training images. Conditions
    given to `fit` do not enter the network: they partition the mixture, which can then be sampled by condition.

    A model declares the field `latent_dim` and gives, besides what `ImageEstimator` asks for, `_encode(module, batch)`,
    `_decode(module, z)` and `_score(module, batch)`.

    Attributes
    ----------
    sharpening_ : dict of lists, or None
        The history of `sharpen`, once it was called.
    mixture_weights_, mixture_means_, mixture_factors_, mixture_conditions_, mixture_spread_
        See `imatlas.models.parts.mixture.Mixture`.
    """

    n_components: Annotated[
        int | None,
        Field(ge=1, description="Gaussians in the mixture that samples come from; None: one for every 60 images"),
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
    latent_dim = 0  # every model declares the field, with its own default

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        """The vectors (N, latent_dim) of a batch."""
        raise NotImplementedError

    def _seen(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch as it is learned from: changed at random where the model does that."""
        return batch

    def _code(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """The vectors (N, latent_dim) that the decoder learns from."""
        return self._encode(module, batch)

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        """The images (N, C, H, W), in [-1, 1], of vectors (N, latent_dim)."""
        raise NotImplementedError

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """How usual each image of a batch is, (N,)."""
        raise NotImplementedError

    # -- learning ------------------------------------------------------------------------------------------------

    def _finish(self, data: Data) -> None:
        """Fit the mixture to the vectors of at most `MIXTURE_IMAGES` training images."""
        self.sharpening_: dict[str, list[Any]] | None = None
        rows = data.drawn(MIXTURE_IMAGES, self.seed_, "mixture")
        self._fit_prior(data.pixels, rows, None if data.y is None else data.y[rows])

    def fit_prior(self, images: Any, y: Any = None) -> Any:
        """Learn anew what samples are drawn from, and what they can be asked for; the network stays as it is.

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
        weight: float = 0.05,
        mask: np.ndarray | None = None,
        validation: Any = None,
        budget: float | str | None = None,
        max_steps: int | None = None,
        checkpoint: str | Path | Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
    ) -> Any:
        """Let the decoder learn on from a discriminator, to leave no blur; the encoder stays as it is.

        Of fewer than 2,000 images a discriminator knows too little, and makes a pattern of dots of them.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            Those of `fit`.
        weight : float, at least 0
            Of the discriminator's judgement beside the squared error: 0.05 leaves little blur and few inventions.
        budget : seconds, or such as '90s', '5m', optional
            Time to learn. A third of that of `fit` is well spent.
        max_steps : int, optional
            By default a third of the steps of `fit` where there is no budget.
        mask, validation, checkpoint, replay, callback
            As in `fit`; `decisions_` tells the decisions of both.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            Before `fit`.
        InputError
            If the images are not like those of `fit`.
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
        sharpener._fit_data(data, self.seed_, checkpoint=checkpoint, replay=own, callback=callback)
        module: Any = sharpener.module_
        self.module_ = module.autoencoder
        self.sharpening_ = sharpener.history_
        fit = [entry for entry in self.decisions_ if entry.get("of", "").partition("/")[0] != "sharpening"]
        self.decisions_ = [*fit, *decisions_of("sharpening", sharpener)]
        self.seconds_ += sharpener.seconds_
        self.interrupted_ = sharpener.interrupted_
        return self

    def _fit_prior(self, pixels: np.ndarray, rows: np.ndarray, cond: np.ndarray | None) -> None:
        """Fit the mixture to some rows of the pixels, of which no copy is made, and to their conditions."""
        module, device = self._ready_module(), devices.pick_device(self.device)
        generator = torch.Generator(device=device)
        generator.manual_seed(seeding.seed_of(self.seed_, "mixture"))

        def run(part: np.ndarray) -> np.ndarray:
            batch = make_batch(pixels[part], self.spec_, device)
            return self._code(module, batch, generator).float().cpu().numpy()

        z = self._in_chunks(run, rows)
        found = fit_mixture(z, cond, self.seed_, n_components=self.n_components)
        self.mixture_weights_, self.mixture_means_, self.mixture_factors_ = found.weights, found.means, found.factors
        self.mixture_conditions_, self.mixture_spread_ = found.cond, found.spread

    def _contradiction(self) -> str:
        return super()._contradiction() or self._condition_mismatch("mixture_conditions_")

    @property
    def _mixture(self) -> Mixture:
        return Mixture(
            self.mixture_weights_,
            self.mixture_means_,
            self.mixture_factors_,
            self.mixture_conditions_,
            self.mixture_spread_,
        )

    # -- what it gives -------------------------------------------------------------------------------------------

    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """The vectors of images like those of `fit`.

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

    def _vectors(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """The vectors (N, latent_dim) of pixels (N, H, W, C) that are loaded already.

        Raises
        ------
        InputError
            If they are not of the kind that the model was fitted on.
        """
        self._check_fitted()
        if (spec.shape, spec.dtype) != (self.spec_.shape, self.spec_.dtype):
            raise InputError(
                f"This {type(self).__name__} learned from images of shape {self.spec_.shape}, {self.spec_.dtype}. "
                f"Got {spec.shape}, {spec.dtype} instead; give images like those."
            )
        return self._encode_chunks(self._encode, pixels) if len(pixels) else np.zeros((0, self.latent_dim), np.float32)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The images of vectors.

        Parameters
        ----------
        Z : array (N, latent_dim)

        Returns
        -------
        array (N, H, W, C) of the dtype that was fitted
        """
        return self._decode_chunks(self._decode, self._check_codes(Z, self.latent_dim))

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """New images, from the mixture over the training vectors.

        Image i is drawn from (random_state, i) alone: asking for more images does not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,), vector (n_features,) or array (n_samples, n_features), optional
            What to make, as in `fit`; one label or vector serves all. None: anything.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_samples, H, W, C) of the dtype that was fitted

        Raises
        ------
        InputError
            If `y` is not of the kind that the model was fitted with.
        """
        self._check_fitted()
        n_samples = check_int(n_samples, "n_samples", type(self).__name__, low=0)
        seed = self._seed_of(random_state)
        level = np.array([seeding.rng(seed, "component", i).random() for i in range(n_samples)])
        noise = seeding.noise(seed, n_samples, self.latent_dim)
        return self._decode_chunks(self._decode, self._draw(noise, level, self._conditions(y, n_samples)))

    def _draw(self, noise: np.ndarray, level: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Vectors (n, latent_dim) of new images, from noise (n, latent_dim) and uniform levels (n,)."""
        return self._mixture.draw(noise, level, cond) if len(noise) else noise

    def vary(self, images: Any, *, strength: float = 0.5, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Variations of images: their vectors moved within the nearest Gaussian of the mixture.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        strength : float in [0, 1]
            0 gives the images back as they are rebuilt, 1 new ones of their neighborhood.
        y, random_state
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the dtype that was fitted
        """
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        z = self.transform(images)
        noise = seeding.noise(self._seed_of(random_state), len(z), self.latent_dim)
        return self.inverse_transform(self._mixture.vary(z, strength, noise, self._conditions(y, len(z))))

    def morph(self, n_frames: int, *, images: Any = None, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """The frames of a way through images, or through new ones of what is asked for.

        Parameters
        ----------
        n_frames : int
        images : Images, array (n_keys, H, W[, C]) or any source that `Images` takes, optional
            What the way leads through. None: new images, one for each of `y`, all of the same noise.
        y : array (n_keys,) or (n_keys, n_features), optional
            As in `sample`.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_frames, H, W, C) of the dtype that was fitted
        """
        n_frames = check_int(n_frames, "n_frames", type(self).__name__, low=1)
        if images is not None:
            keys = self.transform(images)
        else:
            noise = seeding.noise(self._seed_of(random_state), 1, self.latent_dim)
            n = len(np.asarray(y))
            keys = self._draw(np.repeat(noise, n, axis=0), np.zeros(n), self._conditions(y, n))
        return self.inverse_transform(along(keys, n_frames))

    def sliders(self, image: Any = None, *, n_directions: int = 8, n_steps: int = 9, reach: float = 2.5) -> np.ndarray:
        """What changes along the directions in which the images differ most, found without labels.

        The principal axes of the vectors, as Härkönen et al. 2020, "GANSpace: discovering interpretable GAN controls",
        take those of a generator's features. Along each, the image's vector is set to places from -`reach` to `reach`
        deviations; what lies along the other axes stays.

        Parameters
        ----------
        image : Images, array (1, H, W[, C]) or any source of one image that `Images` takes, optional
            Where to start from. None: the mean of all.
        n_directions, n_steps : int
            Directions, the longest first, and images along each.
        reach : float
            In deviations.

        Returns
        -------
        array (n_directions, n_steps, H, W, C) of the dtype that was fitted
        """
        self._check_fitted()
        n_directions = check_int(n_directions, "n_directions", type(self).__name__, low=1)
        n_steps = check_int(n_steps, "n_steps", type(self).__name__, low=1)
        reach = check_number(reach, "reach", type(self).__name__, low=0, above=True)
        mean, axes = self._mixture.axes()
        axes = axes[: min(n_directions, len(axes))]
        start = mean if image is None else self.transform(image)[0]
        own = (axes @ (start - mean)) / np.maximum((axes**2).sum(1), 1e-12)  # where it lies along each, in deviations
        places = np.linspace(-reach, reach, n_steps)
        z = start + (places[None, :, None] - own[:, None, None]) * axes[:, None]
        made = self.inverse_transform(z.reshape(-1, self.latent_dim))
        return made.reshape(len(axes), n_steps, *made.shape[1:])

    def score_samples(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """How usual each image is, by the measure that the model names.

        Returns
        -------
        array (N,) float32; higher is more like the images that were learned
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
            {"input images": images_in(self.spec_), "output z": z + "the vectors that transform gives"},
        )
        decoder = Network(
            self.module_,
            self._decode,
            {"z": random_vectors(self.latent_dim)},
            "images",
            {"input z": z + "vectors such as transform gives", "output images": images_out(self.spec_)},
        )
        return {"encoder": encoder, "decoder": decoder}
