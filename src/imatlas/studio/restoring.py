"""Restoring one picture: models that learn from it or from the images of the atlas, and what they tell."""

# no postponed annotations: FastAPI evaluates those of the request

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from imatlas.arguments import counted
from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.images.encode_like import SUFFIXES
from imatlas.images.pixels import kind_of
from imatlas.models import model_class
from imatlas.models.parts.originals import MAX_FIT_IMAGES
from imatlas.studio.jobs import Job
from imatlas.studio.requests import Body
from imatlas.studio.views import Views
from imatlas.studio.workpiece import KINDS, Workpiece
from imatlas.tasks.restore import restored
from imatlas.training.progress import duration
from imatlas.training.schedule import parse_budget

MODELS = {"denoise": "denoiser", "upscale": "super_resolver", "enhance": "enhancer"}
DOING = {"denoise": "Denoising", "upscale": "Upscaling", "enhance": "Enhancing"}
DONE = {"denoise": "denoised", "upscale": "upscaled", "enhance": "enhanced"}
MOST_RESULT = 2**24
"""Pixels of an upscaled picture."""
MOST_FITTED = 6
"""Models that are kept."""
FEW_IMAGES = 8
"""Images from which on they tell what is typical of themselves, as on the command line."""


class Restoring(Body):
    """Restore the picture."""

    kind: Literal["denoise", "upscale", "enhance"]
    learn_from: Literal["image", "atlas"] = "image"
    budget: Annotated[str, Field(pattern=r"^[1-9]\d{0,3}[smh]$")] = "1m"
    scale: Annotated[int, Field(ge=2, le=4)] = 2
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    white_balance: bool = True


class Restorers:
    """Models that have learned, of which the last are kept; used by one job at a time."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._fitted: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def model(self, piece: Workpiece, asked: Restoring, job: Job) -> Any:
        """The model that was asked for, which learns if it has not yet.

        Raises
        ------
        ImatlasError
            If it cannot learn from these images.
        Cancelled
            If nobody waits any more.
        """
        own = asked.kind != "enhance" and asked.learn_from == "image"
        key: tuple[Any, ...] = (asked.kind, piece if own else asked.learn_from)
        if asked.kind != "enhance":
            key += (asked.budget,)
        if asked.kind == "upscale":
            key += (asked.scale,)
        if key not in self._fitted:
            self._fitted[key] = self._learned(piece, asked, job)
        self._fitted.move_to_end(key)
        while len(self._fitted) > MOST_FITTED:
            self._fitted.popitem(last=False)
        model = self._fitted[key]
        if asked.kind == "enhance":
            model.set_params(strength=asked.strength, white_balance=asked.white_balance)
        return model

    def _learned(self, piece: Workpiece, asked: Restoring, job: Job) -> Any:
        """A new model that has learned."""
        cls = model_class(MODELS[asked.kind])
        images = self._images() if asked.learn_from == "atlas" else _alone(piece)
        if asked.kind == "enhance":
            typical = "images" if len(images) >= FEW_IMAGES else "photographs"
            job.tell("Looking at what is typical")
            return cls(reference=typical).fit(images)
        options = {"scale": asked.scale} if asked.kind == "upscale" else {}
        line = f"Learning from {counted(len(images), 'image')}"
        job.tell(f"{line}, at most {duration(parse_budget(asked.budget) or 0)}")
        model = cls(budget=asked.budget, progress=False, **options)
        return model.fit(images, callback=_telling(job, line, parse_budget(asked.budget) or 1))

    def _images(self) -> Images:
        """The originals of the atlas that are not left out, or a sample of them."""
        rows = np.flatnonzero(~self._views.left_out(self._views.decisions.state))
        if len(rows) > MAX_FIT_IMAGES:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_FIT_IMAGES])
        return Images(self._views.store.originals_of(rows))


def _alone(piece: Workpiece) -> Images:
    """The colors of one picture as a set; models keep its alpha as it is."""
    return Images(np.ascontiguousarray(piece.pixels[None, ..., : kind_of(piece.spec).colors]))


def _telling(job: Job, line: str, budget: float) -> Callable[[dict[str, Any]], None]:
    """Tells a job how far a model has learned."""

    def tell(event: dict[str, Any]) -> None:
        seconds = event.get("seconds", 0.0)
        job.tell(f"{line}: {duration(seconds)} of at most {duration(budget)}", min(1.0, seconds / budget))

    return tell


def restored_piece(
    piece: Workpiece, asked: Restoring, restorers: Restorers, keep: Callable[[bytes, str], str], job: Job
) -> dict[str, Any]:
    """The picture restored: the addresses of pictures before and after and of the file, and what is told.

    Parameters
    ----------
    piece : Workpiece
    asked : Restoring
    restorers : Restorers
    keep : callable
        Bytes and their media type to an address.
    job : Job

    Raises
    ------
    InputError
        If the result would be too large, or the picture is of another kind than the model takes.
    """
    height, width = piece.pixels.shape[:2]
    factor = asked.scale if asked.kind == "upscale" else 1
    if height * width * factor**2 > MOST_RESULT:
        raise InputError(
            f"{factor} times as large, this picture would have {height * width * factor**2 / 1e6:.0f} megapixels, and "
            f"the studio makes at most {MOST_RESULT / 1e6:.0f}; choose a smaller factor, or use 'imatlas upscale'."
        )
    model = restorers.model(piece, asked, job)
    job.tell(DOING[asked.kind])
    made, spec = restored(piece.item, model, None)
    changed = factor > 1 or not np.array_equal(made.pixels, piece.pixels, equal_nan=piece.pixels.dtype.kind == "f")
    sentences = model.summary()
    if asked.kind == "enhance":
        sentences = [*_judged(model.correction(piece.pixels, spec), changed, asked), *sentences]
    elif not changed:
        sentences = ["This picture is left alone, value by value.", *sentences]
    elif asked.kind == "denoise":
        sentences = sentences[::-1]  # what was done, then what the noise is like
    else:
        sentences = [*sentences, f"{width} x {height} pixels became {width * factor} x {height * factor}."]
    before = piece.view
    if factor > 1:
        before = np.asarray(Image.fromarray(before).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    content, format, notes = piece.written(made.pixels)
    return {
        "kind": asked.kind,
        "changed": changed,
        "sentences": sentences,
        "notes": notes,
        "width": width * factor,
        "height": height * factor,
        "before": keep(piece.shown(before), "image/png"),
        "after": keep(piece.shown(piece.viewed(made.pixels)), "image/png"),
        "file": keep(content, KINDS.get(format, "application/octet-stream")),
        "suffix": f"-{DONE[asked.kind]}{SUFFIXES[format][0]}",
        "bytes": len(content),
    }


def _judged(correction: Any, changed: bool, asked: Restoring) -> list[str]:
    """What an enhancer thinks of one picture."""
    found = f"the probability that exposure and contrast have no fault is {correction.p_sound_tone:.0%}"
    if asked.white_balance and correction.p_sound_color < 1:
        found += f", that there is no color cast {correction.p_sound_color:.0%}"
    if changed:
        return [f"Corrected: {found}."]
    if asked.strength == 0 and correction.curves is not None:
        return [f"Left alone, as the strength is 0: {found}."]
    return [f"This picture is left alone, value by value: {found}."]
