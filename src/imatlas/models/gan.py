"""GAN: a generator that learns from a discriminator which tells its images from real ones.

Goodfellow et al. 2014, "Generative adversarial nets" (the `minimax` loss, with the generator's loss of section 3 that
does not saturate); Lim, Ye 2017, "Geometric GAN" (`hinge`); Jolicoeur-Martineau 2019, "The relativistic discriminator",
and Huang et al. 2024, "The GAN is dead; long live the GAN! A modern baseline GAN" (`relativistic`: section 2, with its
two zero-centered gradient penalties, R1 on real images and R2 on fake ones, under which it converges).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.optim import Optimizer

from imatlas import seeding
from imatlas.arguments import check_int
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import DEPTHS, WIDTHS, Size
from imatlas.models.learned import Array, OneOf, State, Value
from imatlas.models.onnx import Network, images_out, random_vectors
from imatlas.models.parts import adversarial
from imatlas.models.parts.conditional import Generator
from imatlas.nn.augment import augment_probability
from imatlas.nn.condition import Condition
from imatlas.nn.discriminator import Discriminator
from imatlas.nn.generator import ImageGenerator
from imatlas.nn.losses import GRID, AdversarialLoss, distances, energy_distance, hidden, looks
from imatlas.training.batches import Batch, Data, make_batch

LOW_DIVERSITY = 0.5
"""Samples that vary less than this share of what the images do make the alarm ring."""

FEWEST_STEPS = 500
"""Before so many steps a generator may not have learned to vary yet, which is no collapse."""

N_DIVERSITY = 128
"""Images, and samples, whose variety is compared at the end."""

N_CONDITIONS = 1_000
"""Most conditions of training images that are kept for `sample` without `y`."""


class GANModule(nn.Module):
    """The two players."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent_dim: int,
        conditions: tuple[Condition, Condition],
        width: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.generator = ImageGenerator(shape, latent_dim, conditions[0], width=width, depth=depth)
        self.discriminator = Discriminator(shape, conditions[1], width=width, depth=depth)


@estimator
class GAN(Generator):
    """A generative adversarial network: noise z to images that a discriminator cannot tell from real ones.

    The discriminator lowers its loss plus gamma / 2 * (r1 + r2), where r1 and r2 are the mean squared norms of its
    logit's gradient at real and at fake images. They are taken at one image in four, drawn anew each step, which leaves
    their expectation as it is, and weigh H * W * C / 1024 times as much, because a gradient spreads over the pixels.
    Where images are few the discriminator sees them varied, and the fake ones too (`augment`).

    Conditions, where `fit` gets them, enter the generator beside z and the discriminator by projection. Missing pixels
    (NaN, or `mask`) are shown to the discriminator as mid-gray, at the same places in a fake image as in the real one
    beside it. A logit is no likelihood, so there is no `score_samples`.

    Attributes
    ----------
    diversity_ : float
        How much the samples vary, where 1 is as much as the images: see `diversity`. Below 0.5 a warning says so.
        `history_["diversity"]` has the same for the fake images of each step; `history_["held_out"]` is the energy
        distance between samples and held-out images, made small: the losses of the players do not tell who improves.
    conditions_ : array, or None
        Conditions of up to 1,000 training images, as the network takes them.

    Examples
    --------
    >>> from imatlas import GAN
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> model = GAN(latent_dim=4, max_steps=5, progress=False).fit(images)
    >>> model.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    """

    latent_dim: Annotated[int, Field(ge=1, le=65_536, description="dimensions of the noise z")] = 64
    size: Annotated[Size, Field(description="size of both networks: 'small', 'medium' or 'large'")] = "small"
    loss: Annotated[AdversarialLoss, Field(description="'relativistic', 'minimax' or 'hinge'")] = "relativistic"
    gamma: Annotated[float, Field(ge=0, description="weight of the gradient penalties, for 32 x 32 gray pixels")] = 1.0
    augment: Annotated[
        float | None,
        Field(ge=0, le=0.9, description="share of images that the discriminator sees varied; None: by their number"),
    ] = None
    _half_life = adversarial.HALF_LIFE
    _state: ClassVar[State] = {
        "conditions_": OneOf(
            (Array("int64", "n_conditions", low=0, below="n_classes"), Array("float32", "n_conditions", "cond_dim")),
            optional=True,
        ),
        "diversity_": Value(float),
    }

    def _learn_conditions(self, y: Any, n_images: int) -> np.ndarray | None:
        cond = super()._learn_conditions(y, n_images)
        self.conditions_: np.ndarray | None = None
        if cond is not None:
            self.conditions_ = cond[np.unique(np.linspace(0, n_images - 1, N_CONDITIONS).astype(int))]
        return cond

    def _build(self, spec: ImageSpec) -> GANModule:
        width = WIDTHS[self.size]
        conditions = self._condition(width), self._condition(width)
        return GANModule(spec.shape, self.latent_dim, conditions, width, DEPTHS[self.size])

    def _optimizers(self, module: Any) -> dict[str, Optimizer]:
        return adversarial.optimizers(
            self.learning_rate, discriminator=module.discriminator, generator=module.generator
        )

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        discriminator, y = module.discriminator, batch.y
        z = torch.randn(len(batch.x), self.latent_dim, generator=generator, device=batch.x.device)
        fake = hidden(module.generator(z, y).float(), batch.known)
        real, seen = adversarial.shown(batch.x, fake, batch.known, self._augment_share(batch.n_images), generator)
        d_loss, logs = adversarial.discriminator_step(
            discriminator, real, seen, generator, loss=self.loss, gamma=self.gamma, y=y
        )
        yield "discriminator", d_loss, logs

        g_loss = adversarial.generator_step(discriminator, real, seen, loss=self.loss, y=y)
        yield "generator", g_loss, {"generator": g_loss, "diversity": diversity(fake, batch.x)}
        discriminator.requires_grad_(True)

    def _contradiction(self) -> str:
        return super()._contradiction() or self._condition_mismatch("conditions_")

    def _augment_share(self, n_images: int) -> float:
        """The probability of each change to what the discriminator sees."""
        return augment_probability(n_images) if self.augment is None else self.augment

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        y = batch.y
        z = torch.randn(len(batch.x), self.latent_dim, generator=generator, device=batch.x.device)
        if y is None and self.conditions_ is not None:
            rows = torch.randint(len(self.conditions_), (len(z),), generator=generator, device=z.device)
            y = torch.as_tensor(self.conditions_, device=z.device)[rows]
        fake = hidden(module.generator(z, y).float(), batch.known)
        return energy_distance(looks(fake), looks(batch.x))

    def _finish(self, data: Data) -> None:
        real = make_batch(data.pixels[data.drawn(N_DIVERSITY, self.seed_, "diversity")], self.spec_)
        made = make_batch(self.sample(len(real.x)), self.spec_).x
        self.diversity_ = float(diversity(hidden(made, real.known), real.x))
        if self.diversity_ < LOW_DIVERSITY and self.n_steps_ >= FEWEST_STEPS:
            warnings.warn(
                f"The samples vary only {self.diversity_:.2f} times as much as the images: the generator has collapsed "
                f"onto few of them. Set a learning_rate below {self.learning_rate:.2g} or a gamma above "
                f"{self.gamma:.2g}"
                + ("" if self.loss == "relativistic" else ", or loss='relativistic'")
                + "; where the held-out loss was still falling, train for longer.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _networks(self) -> dict[str, Network]:
        """The generator, as `sample` uses it."""
        y, words = self._onnx_condition()
        contract = {
            "input z": f"float32 (N, {self.latent_dim}): standard normal noise",
            **words,
            "output images": images_out(self.spec_),
        }
        network = Network(
            self.module_,
            lambda module, z, y=None: module.generator(z, self._standardized(y)),
            {"z": random_vectors(self.latent_dim), **y},
            "images",
            contract,
        )
        return {"generator": network}

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """New images: the generator at z drawn from a standard normal.

        Image i is drawn from (random_state, i) alone: asking for more images does not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,), vector (n_features,) or array (n_samples, n_features), optional
            What is asked for, where the model was fitted with conditions; one for all, or one for each. Without it,
            each image gets the condition of a training image drawn at random.
        random_state : int, optional
            The seed; None for that of the fit.

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
        z = seeding.noise(seed, n_samples, self.latent_dim)
        cond = self._conditions(y, n_samples)
        if cond is None and self.conditions_ is not None:
            drawn = [seeding.rng(seed, "condition", i).integers(len(self.conditions_)) for i in range(n_samples)]
            cond = self.conditions_[np.array(drawn, int)]
        if cond is None:
            return self._decode_chunks(lambda module, z: module.generator(z), z)
        has_labels = self.classes_ is not None

        def decode(module: Any, row: Tensor) -> Tensor:
            z, y = row[:, : self.latent_dim], row[:, self.latent_dim :]
            return module.generator(z, y[:, 0].long() if has_labels else y)

        # a label is below 2^24 and goes through a float unchanged
        return self._decode_chunks(decode, np.concatenate([z, cond.reshape(n_samples, -1).astype(np.float32)], axis=1))


def diversity(made: Tensor, real: Tensor) -> Tensor:
    """How much as many made images vary as real ones (N, C, H, W) do: 1 = as much, 0 = all the same.

    The lower of two ratios of distances between small images: the mean over all pairs, which falls where kinds of
    images are missing, and the mean from each to its nearest, which falls where few images come again and again. The
    second counts twice, for it is also lower where only grain is missing.
    """
    with torch.no_grad():
        spreads = [_spreads(adaptive_avg_pool2d(x.float(), GRID).flatten(1)) for x in (made, real)]
        varied = spreads[1] > 1e-6
        pairs, nearest = torch.where(varied, spreads[0] / spreads[1].clamp(min=1e-6), 1.0)
        return torch.minimum(pairs, 2 * nearest)


def _spreads(rows: Tensor) -> Tensor:
    """Mean distance of all pairs of rows (N, D), and from each to its nearest: (2,)."""
    n = len(rows)
    distance = distances(rows, rows)
    pairs = distance.sum() / max(1, n * (n - 1))
    nearest = (distance + torch.diag(torch.full((n,), torch.inf, device=rows.device))).min(1).values
    return torch.stack([pairs, nearest.mean() if n > 1 else pairs])
