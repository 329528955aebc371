"""Flow matching: a velocity field that carries noise to images along nearly straight paths.

Lipman, Chen, Ben-Hamu, Nickel, Le 2023, "Flow matching for generative modeling": with x_t = (1 - t) x_0 + t x_1, x_0
noise and x_1 data, a network learns v(x_t, t) = E[x_1 - x_0 | x_t] by least squares (their eq. 21 to 23 with
sigma_min = 0), and dx/dt = v(x, t) from t = 0 to 1 turns noise into data. Run backwards it turns an image into the
noise that it comes from. Over the vectors of an autoencoder a small network does, as in Rombach et al. 2022,
"High-resolution image synthesis with latent diffusion models".

- Times are logit-normal: Esser et al. 2024, "Scaling rectified flow transformers" (section 3.1).
- Minibatch optimal transport pairs noise and data so that paths cross less: Tong et al. 2024, "Improving and
  generalizing flow-based generative models with minibatch optimal transport" (algorithm 3).
- Few steps: the network is also told the length d of the step it is for, and learns that one step of 2d equals two of
  d: Frans, Hafner, Levine, Abbeel 2024, "One step diffusion via shortcut models" (eq. 4 and 5).
- Guidance: Ho & Salimans 2022, "Classifier-free diffusion guidance" (eq. 6), on velocities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from torch import Tensor, nn

from imatlas import seeding
from imatlas.arguments import check_int, check_number
from imatlas.errors import ParameterError
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.base import estimator
from imatlas.models.image_estimator import Size, replay_of
from imatlas.models.learned import Array, Fitted, State
from imatlas.models.onnx import N_CHECKED, Network, images_in, images_out, random_images, random_vectors
from imatlas.models.parts.conditional import Generator, along
from imatlas.models.parts.latent import LatentModel
from imatlas.nn import solvers
from imatlas.nn.losses import masked_mean
from imatlas.nn.mlp import ConditionalMLP
from imatlas.nn.time_embedding import sinusoidal
from imatlas.nn.unet import UNet
from imatlas.training import devices, schedule
from imatlas.training.batches import Batch, Data
from imatlas.training.checkpoints import Checkpoint

MLP_SIZES: dict[str, tuple[int, int]] = {"small": (256, 3), "medium": (512, 4), "large": (1024, 6)}
"""(width, depth) of the network over an autoencoder's vectors."""

UNET_SIZES: dict[str, tuple[int, int]] = {"small": (64, 1), "medium": (128, 1), "large": (256, 2)}
"""(channels of the coarsest grid, residual blocks a grid) of the network over pixels."""

N_CONDITION = 128
"""Length of the vector that times and conditions become."""

AUTOENCODER_SHARE = 0.6
"""Share of the budget in which an autoencoder is learned that is not fitted yet."""

SHORTEST = 1 / 16
"""The shortest step that shortcuts are learned for; their targets are made of steps of half that length or longer."""

COND_DROPOUT = 0.15
"""Share of images of which the condition is kept back, so that the network also learns to go without."""

MAX_EPOCHS = 60.0
"""Epochs that a flow takes at most where `max_steps` does not say more, for it learns few vectors by heart: of 950
photographs it made copies after 780 epochs (93 % of its samples lay nearer to a training vector than 99 % of held-out
ones) and none after 86; the held-out loss rose from 60 on."""

Solver = Literal["euler", "heun", "adaptive", "shortcut"]


class FlowModule(nn.Module):
    """The velocity v(x, t, d | y) of a step of length d."""

    def __init__(self, condition: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.times = nn.Sequential(nn.Linear(2 * N_CONDITION, N_CONDITION), nn.SiLU())
        self.condition = condition
        self.mix = nn.Sequential(nn.Linear(N_CONDITION, N_CONDITION), nn.SiLU())
        self.body = body

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, y: Tensor | None = None, dropped: Tensor | None = None
    ) -> Tensor:
        """(N, C, H, W) at times (N,), for steps of lengths (N,), under conditions y -> (N, C, H, W)."""
        times = torch.cat([sinusoidal(t, N_CONDITION), sinusoidal(d, N_CONDITION)], dim=1)
        steering = self.mix(self.times(times) + self.condition(y, x.shape[0], dropped))
        if isinstance(self.body, ConditionalMLP):
            return self.body(x.flatten(1), steering).view_as(x) + gaussian_velocity(x, t, d)
        return self.body(x, t, steering)


def gaussian_velocity(x: Tensor, t: Tensor, d: Tensor) -> Tensor:
    """The mean velocity from t to t + d that carries standard normal noise to standard normal data.

    x_t then has the deviation s(t) = sqrt(t² + (1 - t)²) and keeps its direction, so x_(t+d) = x_t s(t + d) / s(t).
    White vectors are near enough to normal that the network is left with what makes them images and not noise.
    """
    here, there = ((u.square() + (1 - u).square()).sqrt() for u in (t, t + d))
    rate = torch.where(d > 0, (there / here - 1) / d.clamp(min=1e-6), (2 * t - 1) / here.square())
    return rate.view(-1, 1, 1, 1) * x


@estimator
class FlowMatching(Generator):
    """New images by following a learned flow from noise, over an autoencoder's vectors or in pixels.

    The loss is the mean squared error of the velocity, at times drawn from a logit-normal; a quarter of each batch
    learns shortcuts instead. Pixels that are missing (NaN, or `mask`) count in no loss.

    Attributes
    ----------
    autoencoder_ : Autoencoder or VAE, or None in pixels
        Whose vectors the flow is over.
    latent_mean_, latent_axes_ : arrays (latent_dim,), (latent_dim, latent_dim) float32, or None in pixels
        Mean and principal axes, each as long as the deviation along it, of the training vectors: z = mean + p · axes
        for points p that are white (mean 0, covariance 1), which is what the flow is over.

    Examples
    --------
    >>> from imatlas import Autoencoder, FlowMatching
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> ae = Autoencoder(latent_dim=4, max_steps=5, progress=False)
    >>> flow = FlowMatching(autoencoder=ae, size="small", max_steps=5, progress=False).fit(images)
    >>> flow.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    """

    autoencoder: Annotated[
        Any,
        Field(
            description="whose vectors the flow is over: a fitted model is used as it is, one that is not, or a name "
            "such as 'autoencoder' or 'vae', is learned first; None for pixels"
        ),
    ] = "autoencoder"
    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "small"
    coupling: Annotated[
        Literal["independent", "optimal"],
        Field(description="which noise goes to which image of a batch: any, or the nearest by optimal transport"),
    ] = "independent"
    solver: Annotated[
        Solver, Field(description="how samples are made: 'heun', 'euler', 'adaptive', or 'shortcut' for 1 to 16 steps")
    ] = "heun"
    n_steps: Annotated[int, Field(ge=1, le=1000, description="steps of a sample; 'adaptive' chooses its own")] = 15
    guidance: Annotated[
        float, Field(ge=0, description="how far samples are pushed towards their condition; 1 is as learned")
    ] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="images in a training step")] = 256
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the run")] = 1e-3
    _max_epochs: ClassVar[float | None] = MAX_EPOCHS
    _state: ClassVar[State] = {
        "autoencoder_": Fitted(("LatentModel",), optional=True),
        "latent_mean_": Array("float32", "autoencoder_.latent_dim", optional=True),
        "latent_axes_": Array("float32", "autoencoder_.latent_dim", "autoencoder_.latent_dim", optional=True),
    }

    # -- learning ------------------------------------------------------------------------------------------------

    def _prepare(self, data: Data, seed: int, **options: Any) -> tuple[Data, dict[str, Any]]:
        """The vectors of the images, white, as images of one pixel."""
        self.autoencoder_: Any = None
        self.latent_mean_: np.ndarray | None = None
        self.latent_axes_: np.ndarray | None = None
        if self.autoencoder is None:
            return data, {}
        model, learned = self._autoencoder_to_use(), {}
        if not model.__sklearn_is_fitted__():
            learned["autoencoder"] = _fit_part(model, replace(data, y=None, held_out_y=None), seed, **options)
        z, held_out = (model._vectors(pixels, data.spec) for pixels in (data.pixels, data.held_out))
        own = z if data.rows is None else z[data.rows]
        self.autoencoder_ = model
        self.latent_mean_, self.latent_axes_ = whitening_axes(own)
        z, held_out = self._whitened(z), self._whitened(held_out)
        spec = ImageSpec(1, 1, z.shape[1], "float32", -1.0, 1.0)
        ready = Data(z[:, None, None], spec, held_out[:, None, None], data.y, data.held_out_y, data.rows)
        return ready, learned

    def _autoencoder_to_use(self) -> Any:
        """The model whose vectors are used: as given where it is fitted, else a new one.

        Raises
        ------
        ParameterError
            If it is no model between images and vectors.
        """
        from imatlas import models

        given = self.autoencoder
        if isinstance(given, str) and given in models.MODELS:
            given = models.model_class(given)()
        if not isinstance(given, LatentModel):
            raise ParameterError(
                "The 'autoencoder' parameter of FlowMatching must be an Autoencoder, a VAE, the name of one, or None. "
                f"Got {self.autoencoder!r} instead."
            )
        if given.__sklearn_is_fitted__():
            return given
        model = clone(given).set_params(device=self.device, precision=self.precision, progress=self.progress)
        if isinstance(self.autoencoder, str):
            model.set_params(max_steps=self.max_steps)
        budget = schedule.parse_budget(self.budget)
        if budget is not None and model.budget is None:
            model.set_params(budget=AUTOENCODER_SHARE * budget)
        return model

    def _contradiction(self) -> str:
        parts = (self.autoencoder_, self.latent_mean_, self.latent_axes_)
        if any(part is None for part in parts) and any(part is not None for part in parts):
            return "'autoencoder_', 'latent_mean_' and 'latent_axes_' belong together"
        if self.autoencoder_ is not None and self.autoencoder_.spec_ != self.spec_:
            return "'autoencoder_' is of other images"
        return super()._contradiction()

    def _build(self, spec: ImageSpec) -> FlowModule:
        condition = self._condition(N_CONDITION)
        if self.latent_mean_ is not None:
            width, depth = MLP_SIZES[self.size]
            return FlowModule(condition, ConditionalMLP(len(self.latent_mean_), width, depth, N_CONDITION))
        width, depth = UNET_SIZES[self.size]
        return FlowModule(condition, UNet(spec.shape, width, depth, N_CONDITION))

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x1, n = batch.x, len(batch.x)
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device)
        if self.coupling == "optimal":
            x0 = x0[optimal_coupling(x0, x1)]
        t = torch.randn(n, generator=generator, device=x1.device).sigmoid()
        dropped = torch.rand(n, generator=generator, device=x1.device) < COND_DROPOUT
        n_short = n // 4
        d = torch.zeros_like(t)
        target = x1 - x0
        if n_short:
            # lengths 2d of 1, 1/2, …, each from a start at a multiple of itself
            halvings = torch.randint(0, round(-np.log2(SHORTEST)) + 1, (n_short,), generator=generator, device=t.device)
            double = 0.5**halvings
            places = torch.rand(n_short, generator=generator, device=t.device)
            t[:n_short], d[:n_short] = (places / double).floor() * double, double
        way = t.view(-1, 1, 1, 1)
        x = (1 - way) * x0 + way * x1
        if n_short:
            y = None if batch.y is None else batch.y[:n_short]
            two_steps = self._two_steps(module, x[:n_short], t[:n_short], d[:n_short] / 2, y, dropped[:n_short])
            target = torch.cat([two_steps.to(target.dtype), target[n_short:]])
        v = module(x, t, d, batch.y, dropped)
        errors = (v.float() - target).square()
        if batch.known is not None:
            loss = masked_mean(errors, batch.known)
            yield "adam", loss, {}
            return
        each = errors.flatten(1).mean(1)
        logs = {"velocity": each[n_short:].mean(), "shortcuts": each[:n_short].sum() / max(1, n_short)}
        yield "adam", each.mean(), logs

    @staticmethod
    def _two_steps(module: Any, x: Tensor, t: Tensor, d: Tensor, y: Tensor | None, dropped: Tensor) -> Tensor:
        """The mean velocity of two steps of length d; the shortest are of the flow itself."""
        told = torch.where(d < SHORTEST, 0.0, d)
        with torch.no_grad():
            first = module(x, t, told, y, dropped)
            between = x + d.view(-1, 1, 1, 1) * first
            return (first + module(between, t + d, told, y, dropped)) / 2

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """The error of the velocity at times spread evenly, with noise that the generator fixes."""
        x1, n = batch.x, len(batch.x)
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device)
        t = (torch.arange(n, device=x1.device) + 0.5) / n
        way = t.view(-1, 1, 1, 1)
        v = module((1 - way) * x0 + way * x1, t, torch.zeros_like(t), batch.y)
        return masked_mean((v.float() - (x1 - x0)).square(), batch.known)

    # -- what it makes -------------------------------------------------------------------------------------------

    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        solver: Solver | None = None,
        n_steps: int | None = None,
        guidance: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """New images, from noise drawn from a standard normal.

        Image i is drawn from (random_state, i) alone: asking for more images does not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,) or (n_samples, n_features), optional
            What to make, as in `fit`; one label or vector serves all. None: anything.
        solver, n_steps, guidance
            In place of those of the model. The 'shortcut' takes 1, 2, 4, 8 or 16 steps.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_samples, H, W, C) of the dtype that was fitted
        """
        self._check_fitted()
        n_samples = check_int(n_samples, "n_samples", type(self).__name__, low=0)
        noise = seeding.noise(self._seed_of(random_state), n_samples, self.n_noise)
        return self.inverse_transform(noise, y=y, solver=solver, n_steps=n_steps, guidance=guidance)

    def inverse_transform(
        self,
        Z: Any,
        *,
        y: Any = None,
        solver: Solver | None = None,
        n_steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """The images that noise flows to.

        Parameters
        ----------
        Z : array (N, n_noise)
            As `transform` gives it: as many numbers as the autoencoder's vectors have, or as an image.
        y, solver, n_steps, guidance
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the dtype that was fitted
        """
        noise = self._check_codes(Z, self.n_noise)
        return self._images(self._flow(noise, 0.0, 1.0, y, solver, n_steps, guidance))

    def transform(self, images: Any, *, y: Any = None, mask: np.ndarray | None = None) -> np.ndarray:
        """The noise that images come from: the flow run backwards, from t = 1 to 0.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        y : as in `sample`, optional
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.

        Returns
        -------
        array (N, n_noise) float32
        """
        return self._flow(self._points(images, mask), 1.0, 0.0, y, "heun", None, None)

    def vary(
        self, images: Any, *, strength: float = 0.5, y: Any = None, random_state: int | None = None, **options: Any
    ) -> np.ndarray:
        """Variations of images: noise is mixed in, and the flow removes it.

        Meng et al. 2022, "SDEdit: guided image synthesis and editing with stochastic differential equations".

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        strength : float in [0, 1]
            0 gives the images back as the autoencoder rebuilds them, 1 new ones.
        y, solver, n_steps, guidance, random_state
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the dtype that was fitted
        """
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        points = self._points(images)
        noise = seeding.noise(self._seed_of(random_state), len(points), points.shape[1])
        start = 1.0 - strength
        mixed = ((1 - start) * noise + start * points).astype(np.float32)
        asked = [options.pop(name, None) for name in ("solver", "n_steps", "guidance")]
        if options:
            raise TypeError(f"vary() takes no {', '.join(options)}.")
        return self._images(mixed if strength == 0 else self._flow(mixed, start, 1.0, y, *asked))

    def morph(self, n_frames: int, *, images: Any = None, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """The frames of a way through images, or through new ones of what is asked for.

        Parameters
        ----------
        n_frames : int
        images : Images, array (n_keys, H, W[, C]) or any source that `Images` takes, optional
            What the way leads through. None: new images, one for each of `y`, all of the same noise.
        y : array (n_keys, n_features), optional
            What each of them is told.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_frames, H, W, C) of the dtype that was fitted
        """
        n_frames = check_int(n_frames, "n_frames", type(self).__name__, low=1)
        told = None if y is None else along(np.asarray(y, np.float32), n_frames)
        if images is None:
            noise = seeding.noise(self._seed_of(random_state), 1, self.n_noise)
            return self.inverse_transform(np.repeat(noise, n_frames, axis=0), y=told)
        return self.inverse_transform(along(self.transform(images, y=y), n_frames, on_sphere=True), y=told)

    @property
    def n_noise(self) -> int:
        """Numbers that an image is drawn from: those of the autoencoder's vectors, or of an image."""
        self._check_fitted()
        return int(np.prod(self.spec_.shape)) if self.latent_mean_ is None else len(self.latent_mean_)

    def _networks(self) -> dict[str, Network]:
        """The velocity, and over an autoencoder the way from a point at time 1 to an image."""
        told, words = self._onnx_condition()
        in_pixels = self.latent_mean_ is None
        x = random_images(self.spec_) if in_pixels else random_vectors(self.n_noise)
        times = torch.linspace(0, 1, N_CHECKED)
        of_x = images_in(self.spec_) if in_pixels else f"float32 (N, {self.n_noise})"

        def call(module: Any, x: Tensor, t: Tensor, d: Tensor, y: Tensor | None = None) -> Tensor:
            v = module(x if in_pixels else x[:, :, None, None], t, d, self._standardized(y))
            return v if in_pixels else v.flatten(1)

        contract = {
            "input x": f"{of_x}; at t = 0 standard normal noise, at t = 1 "
            + ("images" if in_pixels else "points for the decoder"),
            "input t": "float32 (N,): time, from 0 to 1",
            "input d": "float32 (N,): 0, or the length of the step that a shortcut takes: 1, 1/2, 1/4, 1/8, 1/16",
            **words,
            "output v": "float32, as x: the velocity; a step of length h goes from x at time t to x + h v at t + h",
        }
        inputs = {"x": x, "t": times, "d": torch.zeros(N_CHECKED), **told}
        velocity = Network(self.module_, call, inputs, "v", contract)
        if in_pixels:
            return {"velocity": velocity}
        inner = self.autoencoder_
        mean, axes = torch.from_numpy(self.latent_mean_), torch.from_numpy(self.latent_axes_)
        decoder = Network(
            inner.module_,
            lambda module, x: inner._decode(module, mean + x @ axes),
            {"x": random_vectors(self.n_noise)},
            "images",
            {"input x": f"float32 (N, {self.n_noise}): x at time 1", "output images": images_out(self.spec_)},
        )
        return {"velocity": velocity, "decoder": decoder}

    def _points(self, images: Any, mask: np.ndarray | None = None) -> np.ndarray:
        """Images as points at time 1, (N, n_noise)."""
        pixels = self._load_like_fitted(images, mask)
        if self.autoencoder_ is not None:
            return self._whitened(self.autoencoder_._vectors(pixels, self.spec_))
        return self._encode_chunks(lambda _, batch: batch.x.flatten(1), pixels)

    def _whitened(self, z: np.ndarray) -> np.ndarray:
        """Vectors (N, latent_dim) as white points."""
        assert self.latent_mean_ is not None
        assert self.latent_axes_ is not None
        mean, axes = self.latent_mean_, self.latent_axes_
        # In chunks of one size: a product of matrices rounds by its number of rows.
        return self.autoencoder_._in_chunks(
            lambda part: np.linalg.solve(axes.T, (part - mean).T).T.astype(np.float32), z
        )

    def _images(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, C) of points at time 1."""
        if self.autoencoder_ is not None:
            assert self.latent_mean_ is not None
            mean, axes = self.latent_mean_, self.latent_axes_
            return self.autoencoder_.inverse_transform(
                self.autoencoder_._in_chunks(lambda part: mean + part @ axes, points)
            )
        height, width, channels = self.spec_.shape
        return to_pixels(torch.from_numpy(points).view(-1, channels, height, width), self.spec_)

    def _flow(
        self,
        points: np.ndarray,
        start: float,
        stop: float,
        y: Any,
        solver: Solver | None,
        n_steps: int | None,
        guidance: float | None,
    ) -> np.ndarray:
        """Points (N, n_noise) at time `start` carried to time `stop`."""
        solver, guidance = solver or self.solver, self.guidance if guidance is None else guidance
        if n_steps is None:
            n_steps = self.n_steps if solver != "shortcut" else 4
        n_steps = check_int(n_steps, "n_steps", type(self).__name__, low=1)
        guidance = check_number(guidance, "guidance", type(self).__name__)
        if solver not in ("euler", "heun", "adaptive", "shortcut"):
            raise ParameterError(f"The 'solver' must be 'euler', 'heun', 'adaptive' or 'shortcut'. Got {solver!r}.")
        if solver == "shortcut" and n_steps not in (1, 2, 4, 8, 16):
            raise ParameterError(f"A 'shortcut' takes 1, 2, 4, 8 or 16 steps. Got n_steps={n_steps} instead.")
        told = self._conditions(y, len(points))
        if not len(points):
            return points
        if self.latent_mean_ is None:
            height, width, channels = self.spec_.shape
        else:
            height, width, channels = 1, 1, points.shape[1]
        module, device = self._ready_module(), devices.pick_device(self.device)

        def run(rows: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(points[rows]).to(device).view(-1, channels, height, width)
            c = None if told is None else torch.from_numpy(told[rows]).to(device)

            def velocity(x: Tensor, t: Tensor) -> Tensor:
                d = torch.full_like(t, abs(stop - start) / n_steps if solver == "shortcut" else 0.0)
                v = module(x, t, d, c)
                return v if c is None or guidance == 1 else v + (guidance - 1) * (v - module(x, t, d))

            if solver == "adaptive":
                return solvers.adaptive(velocity, x, start, stop).flatten(1).cpu().numpy()
            solve = solvers.heun if solver == "heun" else solvers.euler
            return solve(velocity, x, start, stop, n_steps).flatten(1).cpu().numpy()

        return self._in_chunks(run, np.arange(len(points)))


def _fit_part(
    model: Any, data: Data, seed: int, checkpoint: Any = None, replay: Any = None, callback: Any = None
) -> Any:
    """Fit an autoencoder to the same images, its checkpoint in a folder of its own."""
    whole = Checkpoint.at(checkpoint)
    part = None if whole is None else whole.below("autoencoder")
    model._learn_conditions(None, len(data))
    return model._fit_data(data, seed, checkpoint=part, replay=replay_of("autoencoder", replay), callback=callback)


def whitening_axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and principal axes (D, D) of vectors (N, D), each as long as the deviation along it.

    Deviations under a thousandth of the largest are taken as that: there is nothing to learn from rounding.
    """
    mean = z.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(z.T.astype(np.float64), bias=True).reshape(z.shape[1], z.shape[1]))
    deviations = np.sqrt(np.clip(values, 0, None))
    deviations = np.maximum(deviations, 1e-3 * deviations.max() + 1e-12)
    return mean.astype(np.float32), (deviations[:, None] * vectors.T).astype(np.float32)


def optimal_coupling(x0: Tensor, x1: Tensor) -> Tensor:
    """The order (N,) of noise x0 in which it lies nearest to data x1 (N, …): least summed squared distance."""
    cost = torch.cdist(x0.flatten(1).float(), x1.flatten(1).float()).square()
    return torch.from_numpy(linear_sum_assignment(cost.T.cpu().numpy())[1]).to(x0.device)
