"""Flow matching: a velocity field that transports noise to images along nearly straight paths.

Lipman, Chen, Ben-Hamu, Nickel, Le 2023, "Flow matching for generative modeling" (eq. 21 to 23 with sigma_min = 0):

    x_t = (1 - t) x_0 + t x_1            x_0 standard normal noise, x_1 data, t in [0, 1]
    v(x_t, t) = E[x_1 - x_0 | x_t]       learned by least squares
    dx / dt = v(x, t)                    from t = 0 to 1: noise to data; from 1 to 0: data to noise

Over the vectors of an autoencoder a small network suffices, as in Rombach et al. 2022, "High-resolution image
synthesis with latent diffusion models".

- Times are logit-normal: Esser et al. 2024, "Scaling rectified flow transformers" (section 3.1); closer to 1/2 over
  vectors.
- Minibatch optimal transport pairs noise and data so that paths cross less: Tong et al. 2024, "Improving and
  generalizing flow-based generative models with minibatch optimal transport" (algorithm 3).
- Few steps: the network also gets the length d of the step, and learns that one step of 2d equals two of d: Frans,
  Hafner, Levine, Abbeel 2024, "One step diffusion via shortcut models" (eq. 4 and 5).
- Guidance: Ho & Salimans 2022, "Classifier-free diffusion guidance" (eq. 6), on velocities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import clone
from torch import Tensor

from imatlas import seeding
from imatlas.arguments import check_int, check_number
from imatlas.errors import ParameterError
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.base import estimator
from imatlas.models.image_estimator import Size, replay_of
from imatlas.models.learned_attributes import Array, Fitted, State, Value
from imatlas.models.onnx import N_CHECKED, Network, images_in, images_out, random_images, random_vectors
from imatlas.models.parts.conditional import Generator, interpolate
from imatlas.models.parts.latent import LatentModel
from imatlas.models.parts.principal_axes import principal_axes, to_points
from imatlas.nn import solvers
from imatlas.nn.losses import masked_mean
from imatlas.nn.mlp import ConditionalMLP
from imatlas.nn.unet import UNet
from imatlas.nn.velocity import VelocityNetwork, optimal_coupling, shortcut_times, two_step_velocity
from imatlas.training import devices, schedule
from imatlas.training.batches import Batch, Data
from imatlas.training.checkpoints import Checkpoint

MLP_SIZES: dict[str, tuple[int, int]] = {"small": (256, 3), "medium": (512, 4), "large": (1024, 6)}
"""(width, depth) of the network over an autoencoder's vectors."""

UNET_SIZES: dict[str, tuple[int, int]] = {"small": (64, 1), "medium": (128, 1), "large": (256, 2)}
"""(channels of the coarsest grid, residual blocks per grid) of the network over pixels."""

COND_WIDTH = 128
"""Length of the embedding of times and conditions."""

AUTOENCODER_SHARE = 0.6
"""Fraction of the budget for an autoencoder that is not fitted yet."""

COND_DROPOUT = 0.15
"""Fraction of images trained without their condition, for guidance."""

VECTOR_TIMES, PIXEL_TIMES = 0.5, 1.0
"""Standard deviation of logit(t) in training, over vectors and over pixels."""

Solver = Literal["euler", "heun", "adaptive", "shortcut"]


@estimator
class FlowMatching(Generator):
    """Generative model that samples along a learned flow from noise to an autoencoder's vectors, or to pixels.

    The loss is the mean squared error of the velocity at logit-normal times; with solver='shortcut' a quarter of each
    batch learns shortcuts instead. Missing pixels (NaN, or `mask`) are left out of the loss. Without `max_steps`,
    training ends early once the held-out loss is getting worse: a flow over few vectors would memorize them.

    Attributes
    ----------
    autoencoder_ : Autoencoder or VAE, or None in pixels
        Whose vectors the flow generates.
    latent_mean_, latent_axes_, latent_deviations_ : arrays (latent_dim,), (latent_dim, latent_dim), (latent_dim,)
        float32, or None in pixels. Mean and principal axes of the training vectors. The flow runs over points p with
        z = mean + p · axes; along axis i their standard deviation is latent_deviations_[i], and their mean variance
        over all axes is 1.
    has_shortcuts_ : bool
        Whether the flow has learned shortcuts.

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
            description="model whose vectors the flow generates: a fitted one is used as it is; an unfitted one, or a "
            "name such as 'autoencoder' or 'vae', is fitted first; None for pixels"
        ),
    ] = "autoencoder"
    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "small"
    coupling: Annotated[
        Literal["independent", "optimal"],
        Field(description="pairs of noise and images in a batch: random, or nearest by optimal transport"),
    ] = "independent"
    solver: Annotated[
        Solver,
        Field(
            description="ODE solver of samples: 'heun', 'euler', 'adaptive', or 'shortcut' for 1 to 16 steps, which is "
            "learned only if it is chosen before the fit"
        ),
    ] = "heun"
    n_steps: Annotated[int, Field(ge=1, le=1000, description="solver steps per sample; 'adaptive' chooses its own")] = (
        15
    )
    guidance: Annotated[float, Field(ge=0, description="strength of the condition in samples; 1 is as learned")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="images per training step")] = 256
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the run")] = 1e-3
    _stops_early: ClassVar[bool] = True
    _state: ClassVar[State] = {
        "autoencoder_": Fitted(("LatentModel",), optional=True),
        "latent_mean_": Array("float32", "autoencoder_.latent_dim", optional=True),
        "latent_axes_": Array("float32", "autoencoder_.latent_dim", "autoencoder_.latent_dim", optional=True),
        "latent_deviations_": Array("float32", "autoencoder_.latent_dim", low=0, optional=True),
        "has_shortcuts_": Value(bool),
    }

    # -- training ------------------------------------------------------------------------------------------------

    def _prepare(self, data: Data, seed: int, **options: Any) -> tuple[Data, dict[str, Any]]:
        """The points of the images, as images of one pixel."""
        self.has_shortcuts_ = self.solver == "shortcut"
        self.autoencoder_: Any = None
        self.latent_mean_: np.ndarray | None = None
        self.latent_axes_: np.ndarray | None = None
        self.latent_deviations_: np.ndarray | None = None
        if self.autoencoder is None:
            return data, {}
        model, parts = self._autoencoder_to_use(), {}
        if not model.__sklearn_is_fitted__():
            parts["autoencoder"] = self._fit_autoencoder(model, data, seed, **options)
        z, held_out = (model._vectors(pixels, data.spec) for pixels in (data.pixels, data.held_out))
        self.autoencoder_ = model
        training = z if data.rows is None else z[data.rows]
        self.latent_mean_, self.latent_axes_, self.latent_deviations_ = principal_axes(training)
        p, held_out = self._to_points(z), self._to_points(held_out)
        spec = ImageSpec(1, 1, p.shape[1], "float32", -1.0, 1.0)
        return Data(p[:, None, None], spec, held_out[:, None, None], data.y, data.held_out_y, data.rows), parts

    def _autoencoder_to_use(self) -> Any:
        """The given model if it is fitted, otherwise a clone to fit.

        Raises
        ------
        ParameterError
            If it is not a model between images and vectors.
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

    @staticmethod
    def _fit_autoencoder(
        model: Any, data: Data, seed: int, *, checkpoint: Any = None, replay: Any = None, callback: Any = None
    ) -> Any:
        """Fit an autoencoder to the same images, with a checkpoint folder of its own."""
        whole = Checkpoint.at(checkpoint)
        part = None if whole is None else whole.below("autoencoder")
        model._learn_conditions(None, len(data))
        data, own = replace(data, y=None, held_out_y=None), replay_of("autoencoder", replay)
        return model._fit_data(data, seed, checkpoint=part, replay=own, callback=callback)

    def _contradiction(self) -> str:
        parts = (self.autoencoder_, self.latent_mean_, self.latent_axes_, self.latent_deviations_)
        if any(part is None for part in parts) and any(part is not None for part in parts):
            return "'autoencoder_', 'latent_mean_', 'latent_axes_' and 'latent_deviations_' belong together"
        if self.autoencoder_ is not None and self.autoencoder_.spec_ != self.spec_:
            return "'autoencoder_' was fitted to other images"
        return super()._contradiction()

    def _build(self, spec: ImageSpec) -> VelocityNetwork:
        condition = self._condition(COND_WIDTH)
        if self.latent_deviations_ is not None:
            width, depth = MLP_SIZES[self.size]
            mlp = ConditionalMLP(len(self.latent_deviations_), width, depth, COND_WIDTH)
            return VelocityNetwork(condition, mlp, COND_WIDTH, torch.from_numpy(self.latent_deviations_))
        width, depth = UNET_SIZES[self.size]
        return VelocityNetwork(condition, UNet(spec.shape, width, depth, COND_WIDTH), COND_WIDTH)

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x_1, n = batch.x, len(batch.x)
        x_0 = torch.randn(x_1.shape, generator=generator, device=x_1.device)
        if self.coupling == "optimal":
            x_0 = x_0[optimal_coupling(x_0, x_1)]
        t = (self._time_spread * torch.randn(n, generator=generator, device=x_1.device)).sigmoid()
        d = torch.zeros_like(t)
        dropped = torch.rand(n, generator=generator, device=x_1.device) < COND_DROPOUT
        n_short = n // 4 if self.has_shortcuts_ else 0
        short = slice(n_short)  # these learn shortcuts
        t[short], d[short] = shortcut_times(n_short, generator, t.device)
        x_t = _between(x_0, x_1, t)
        target = x_1 - x_0
        if n_short:
            y = None if batch.y is None else batch.y[short]
            mean_v = two_step_velocity(module, x_t[short], t[short], d[short] / 2, y, dropped[short])
            target = torch.cat([mean_v.to(target.dtype), target[n_short:]])
        v = module(x_t, t, d, batch.y, dropped)
        error = (v.float() - target).square()
        if batch.known is not None:
            yield "adam", masked_mean(error, batch.known), {}
            return
        error = error.flatten(1).mean(1)
        logs = {"velocity": error[n_short:].mean()}
        if self.has_shortcuts_:
            logs["shortcuts"] = error[short].sum() / max(1, n_short)
        yield "adam", error.mean(), logs

    @property
    def _time_spread(self) -> float:
        return PIXEL_TIMES if self.latent_mean_ is None else VECTOR_TIMES

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """The error of the velocity at evenly spaced quantiles of the training times, with fixed noise."""
        x_1, n = batch.x, len(batch.x)
        x_0 = torch.randn(x_1.shape, generator=generator, device=x_1.device)
        t = (self._time_spread * torch.special.ndtri((torch.arange(n, device=x_1.device) + 0.5) / n)).sigmoid()
        v = module(_between(x_0, x_1, t), t, torch.zeros_like(t), batch.y)
        return masked_mean((v.float() - (x_1 - x_0)).square(), batch.known)

    # -- sampling ------------------------------------------------------------------------------------------------

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
        """Generate images from standard normal noise.

        Image i is drawn from (random_state, i) alone: more samples do not change the first ones.

        Parameters
        ----------
        n_samples : int
        y : int, array (n_samples,) or (n_samples, n_features), optional
            Conditions as in `fit`; one label or vector applies to all. None: unconditional.
        solver, n_steps, guidance
            In place of the model's parameters. 'shortcut' takes 1, 2, 4, 8 or 16 steps (default 4).
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_samples, H, W, C) of the fitted dtype
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
        """Images from noise: the flow from t = 0 to 1.

        Parameters
        ----------
        Z : array (N, n_noise)
            As returned by `transform`.
        y, solver, n_steps, guidance
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype
        """
        noise = self._check_codes(Z, self.n_noise)
        return self._images(self._flow(noise, 0.0, 1.0, y, solver, n_steps, guidance))

    def transform(self, images: Any, *, y: Any = None, mask: np.ndarray | None = None) -> np.ndarray:
        """Noise from images: the flow from t = 1 to 0.

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
        self,
        images: Any,
        *,
        strength: float = 0.5,
        y: Any = None,
        solver: Solver | None = None,
        n_steps: int | None = None,
        guidance: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Variations of images: noise is added, and the flow removes it.

        Meng et al. 2022, "SDEdit: guided image synthesis and editing with stochastic differential equations".

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        strength : float in [0, 1]
            0 returns the reconstructions of the images, 1 new images.
        y, solver, n_steps, guidance, random_state
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype
        """
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        x_1 = self._points(images)
        x_0 = seeding.noise(self._seed_of(random_state), len(x_1), x_1.shape[1])
        t = 1.0 - strength
        x_t = ((1 - t) * x_0 + t * x_1).astype(np.float32)
        return self._images(x_t if strength == 0 else self._flow(x_t, t, 1.0, y, solver, n_steps, guidance))

    def morph(self, n_frames: int, *, images: Any = None, y: Any = None, random_state: int | None = None) -> np.ndarray:
        """Frames of a path through images, or through conditions.

        Parameters
        ----------
        n_frames : int
        images : Images, array (n_keys, H, W[, C]) or any source that `Images` takes, optional
            Key images of the path. None: new images, one for each of `y`, from the same noise.
        y : array (n_keys, n_features), optional
            Conditions of the key images.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (n_frames, H, W, C) of the fitted dtype
        """
        n_frames = check_int(n_frames, "n_frames", type(self).__name__, low=1)
        cond = None if y is None else interpolate(np.asarray(y, np.float32), n_frames)
        if images is None:
            noise = seeding.noise(self._seed_of(random_state), 1, self.n_noise)
            return self.inverse_transform(np.repeat(noise, n_frames, axis=0), y=cond)
        return self.inverse_transform(interpolate(self.transform(images, y=y), n_frames, spherical=True), y=cond)

    @property
    def n_noise(self) -> int:
        """Length of the noise vectors: the autoencoder's `latent_dim`, or the number of values of an image."""
        self._check_fitted()
        return int(np.prod(self.spec_.shape)) if self.latent_mean_ is None else len(self.latent_mean_)

    @property
    def reconstructor(self) -> Any:
        """The autoencoder, or None in pixels."""
        return self.autoencoder_

    def _networks(self) -> dict[str, Network]:
        """The velocity, and with an autoencoder the decoder from a point to an image."""
        cond, cond_contract = self._onnx_condition()
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
            "input d": "float32 (N,): 0"
            + (", or the length of a shortcut step: 1, 1/2, 1/4, 1/8, 1/16" if self.has_shortcuts_ else ""),
            **cond_contract,
            "output v": "float32, as x: the velocity; a step of length h goes from x at time t to x + h v at t + h",
        }
        inputs = {"x": x, "t": times, "d": torch.zeros(N_CHECKED), **cond}
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
        """Images as points x_1 (N, n_noise): vectors in their principal axes, or pixels."""
        pixels = self._load_like_fitted(images, mask)
        if self.autoencoder_ is not None:
            return self._to_points(self.autoencoder_._vectors(pixels, self.spec_))
        return self._encode_chunks(lambda _, batch: batch.x.flatten(1), pixels)

    def _to_points(self, z: np.ndarray) -> np.ndarray:
        """Vectors (N, latent_dim) as points in their principal axes."""
        assert self.latent_mean_ is not None
        assert self.latent_axes_ is not None
        mean, axes = self.latent_mean_, self.latent_axes_
        # In chunks of one size: the rounding of a matrix product depends on its number of rows.
        return self.autoencoder_._in_chunks(lambda part: to_points(part, mean, axes), z)

    def _images(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, C) of points x_1."""
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
        """Points (N, n_noise) transported from time `start` to `stop`."""
        solver, guidance = solver or self.solver, self.guidance if guidance is None else guidance
        if n_steps is None:
            n_steps = self.n_steps if solver != "shortcut" else 4
        n_steps = check_int(n_steps, "n_steps", type(self).__name__, low=1)
        guidance = check_number(guidance, "guidance", type(self).__name__)
        if solver not in ("euler", "heun", "adaptive", "shortcut"):
            raise ParameterError(
                f"The 'solver' must be 'euler', 'heun', 'adaptive' or 'shortcut'. Got {solver!r} instead."
            )
        if solver == "shortcut" and not self.has_shortcuts_:
            raise ParameterError(
                "The 'shortcut' solver needs a flow that learned shortcuts. This one did not; fit it with "
                "solver='shortcut'."
            )
        if solver == "shortcut" and n_steps not in (1, 2, 4, 8, 16):
            raise ParameterError(f"The 'shortcut' solver takes 1, 2, 4, 8 or 16 steps. Got n_steps={n_steps} instead.")
        cond = self._conditions(y, len(points))
        if not len(points):
            return points
        if self.latent_mean_ is None:
            height, width, channels = self.spec_.shape
        else:
            height, width, channels = 1, 1, points.shape[1]
        module, device = self._ready_module(), devices.pick_device(self.device)

        def run(rows: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(points[rows]).to(device).view(-1, channels, height, width)
            c = None if cond is None else torch.from_numpy(cond[rows]).to(device)

            def velocity(x: Tensor, t: Tensor) -> Tensor:
                d = torch.full_like(t, abs(stop - start) / n_steps if solver == "shortcut" else 0.0)
                v = module(x, t, d, c)
                return v if c is None or guidance == 1 else v + (guidance - 1) * (v - module(x, t, d))

            if solver == "adaptive":
                return solvers.adaptive(velocity, x, start, stop).flatten(1).cpu().numpy()
            solve = solvers.heun if solver == "heun" else solvers.euler
            return solve(velocity, x, start, stop, n_steps).flatten(1).cpu().numpy()

        return self._in_chunks(run, np.arange(len(points)))


def _between(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t x_1, for times t (N,)."""
    t = t.view(-1, 1, 1, 1)
    return (1 - t) * x_0 + t * x_1
