"""New images: making them by a recipe, and everything that was made before."""

# no postponed annotations: FastAPI evaluates those of the functions below

import base64
import json
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import Response
from pydantic import Field

from imatlas import __version__
from imatlas.atlas.creations import Creation, Creations, Keeping, Remembered
from imatlas.atlas.recipes import Made, Recipe, Sliding, cannot, generator_of, make
from imatlas.images.encode import encode
from imatlas.images.pixels import display_view
from imatlas.images.tensors import to_view
from imatlas.images.video import write_video
from imatlas.studio.opened import Studio
from imatlas.studio.pictures import as_webp
from imatlas.studio.requests import Body, Id

MOST_BYTES = 2**28
"""Of made images that are kept in memory."""
N_SOURCES, NO_SOURCE = 64, 255
N_SMALL, SMALL_SIDE, KEPT_SIDE = 4, 48, 96
SECONDS_OF_MORPH = 4.0
FRESH = {"cache-control": "no-store"}
LASTING = {"cache-control": "private, max-age=31536000, immutable"}
"""Of images that never change: their address names the generator, too."""


class KeepingAsked(Body):
    """Whether an image of a creation is kept."""

    id: Id
    image: Annotated[int, Field(ge=0, lt=2**16)]
    kept: bool


@dataclass(frozen=True)
class Shown:
    """A creation whose images are at hand.

    Attributes
    ----------
    images : array (n, H, W, C) uint8
        As picture files hold them.
    source_of : array (n, H, W) uint8, or None
        At each pixel the number of its source; `NO_SOURCE` for an image that left the atlas.
    sources : list of lists of dict
        For each image, the row, key and share of its sources; an image that left the atlas has no row.
    """

    creation: Creation
    images: np.ndarray
    source_of: np.ndarray | None
    sources: list[list[dict[str, Any]]]

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return self.images.nbytes + (0 if self.source_of is None else self.source_of.nbytes)


class Workshop:
    """What can be made of an atlas, and what was made."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.views = studio, studio.views
        self.atlas, self.store = self.views.atlas, self.views.store
        self.creations = Creations(self.atlas.folder, read_only=studio.read_only)
        self._shown: OrderedDict[str, Shown] = OrderedDict()

    @cached_property
    def generator(self) -> str:
        """A hash of the generator."""
        return generator_of(self.store)

    def about(self) -> dict[str, Any]:
        """What the generator can make, and what it cannot, with the reasons."""
        model, spec = self.store.model("generator"), self.store.spec
        return {
            "name": type(model).__name__,
            "width": spec.width,
            "height": spec.height,
            "novelty": getattr(model, "novelty_", None),
            "cannot": cannot(self.store),
        }

    def image(self, row: int) -> bytes:
        """An image as the generator takes it, as PNG."""
        return encode(display_view(to_view(self.store.pixels([row]), self.store.spec), self.store.spec)[0])

    def start(self, recipe: Any) -> str:
        """The id of a job that makes images by a recipe."""
        jobs = self.studio.jobs
        return jobs.begin(_line(recipe), lambda job: self.made(recipe, lambda: job.has_ended)).id

    def made(self, recipe: Any, is_cancelled: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Make images by a recipe, and remember it unless it was cancelled."""
        images = make(self.atlas, recipe)
        if is_cancelled():
            return {}
        creation = Creation(id=secrets.token_hex(8), recipe=recipe, generator=self.generator)
        shown = self._show(creation, images)
        some = np.unique(np.linspace(0, len(shown.images) - 1, N_SMALL).astype(int))
        small = [self._small(shown, int(i), SMALL_SIDE) for i in some]
        unwritten = self.creations.add(creation.model_copy(update={"pictures": small}))
        return self.told(shown, "" if self.studio.read_only else unwritten)

    def made_again(self, found: Remembered) -> dict[str, Any]:
        """What was made earlier, from memory or by its recipe."""
        known = self._shown.get(found.creation.id)
        return self.told(known or self._show(found.creation, make(self.atlas, found.creation.recipe)))

    def find(self, id: str) -> Remembered:
        """A creation.

        Raises
        ------
        HTTPException
            404, if there is none of this id.
        """
        found = self.creations.all().get(id)
        if found is None:
            raise HTTPException(404, "This creation is no longer known.")
        return found

    def shown(self, id: str, image: int = 0) -> Shown:
        """A creation whose images are at hand.

        Raises
        ------
        HTTPException
            404, if they are not, or there are fewer.
        """
        found = self._shown.get(id)
        if found is None or image >= len(found.images):
            raise HTTPException(404, "This image is not at hand; choose its creation again.")
        return found

    def is_shown(self, id: str) -> bool:
        """Whether the images of a creation are at hand."""
        return id in self._shown

    def told(self, shown: Shown, note: str = "") -> dict[str, Any]:
        """A creation as pages get it."""
        remembered = self.creations.all().get(shown.creation.id)
        return {
            **self.in_short(remembered or Remembered(shown.creation)),
            "n": len(shown.images),
            "width": shown.images.shape[2],
            "height": shown.images.shape[1],
            "version": self.generator,
            "sources": shown.sources,
            "note": note and f"This is remembered only until the studio ends: {note}",
        }

    def in_short(self, found: Remembered) -> dict[str, Any]:
        """A creation without its images."""
        creation = found.creation
        return {
            "id": creation.id,
            "recipe": creation.recipe.model_dump(),
            "rows": [self.views.row_of.get(key) for key in creation.recipe.images],
            "time": creation.time,
            "pictures": creation.pictures,
            "kept": sorted(found.kept),
            "same_generator": creation.generator == self.generator,
        }

    def keep(self, id: str, image: int, kept: bool) -> dict[str, Any]:
        """Keep an image, or no longer."""
        self.find(id)
        picture = self._small(self.shown(id, image), image, KEPT_SIDE) if kept else ""
        unwritten = self.creations.add(Keeping(id=id, image=image, kept=kept, picture=picture))
        return {"note": "" if self.studio.read_only else unwritten}

    def file(self, id: str, image: int) -> bytes:
        """An image as PNG, with its recipe in the text chunk "imatlas"."""
        shown = self.shown(id, image)
        return encode(shown.images[image], text={"imatlas": json.dumps(self._recipe(shown, image))})

    def video(self, id: str) -> bytes:
        """All images as an animated WebP, with their recipe."""
        shown = self.shown(id)
        with tempfile.TemporaryDirectory() as aside:
            path = Path(aside, "morph.webp")
            fps = len(shown.images) / SECONDS_OF_MORPH
            write_video(path, shown.images, fps=fps, text=json.dumps(self._recipe(shown, None)))
            return path.read_bytes()

    def _recipe(self, shown: Shown, image: int | None) -> dict[str, Any]:
        """What makes an image again."""
        recipe = {
            "atlas": self.atlas.name,
            "generator": shown.creation.generator,
            "imatlas": __version__,
            "recipe": shown.creation.recipe.model_dump(),
        }
        if image is None:
            return recipe
        sources = {each["key"]: round(each["share"], 4) for each in shown.sources[image]} if shown.sources else {}
        return {**recipe, "image": image, **({"sources": sources} if sources else {})}

    def _show(self, creation: Creation, made: Made) -> Shown:
        """Keep images at hand, and those before them as long as there is room."""
        sources, source_of = self._sources(made)
        shown = Shown(creation, display_view(made.images, self.store.spec), source_of, sources)
        self._shown[creation.id] = shown
        while len(self._shown) > 1 and sum(each.n_bytes for each in self._shown.values()) > MOST_BYTES:
            self._shown.popitem(last=False)
        return shown

    def _sources(self, made: Made) -> tuple[list[list[dict[str, Any]]], np.ndarray | None]:
        """The sources of each image, and their number at each pixel."""
        if made.rows is None:
            return [], None
        numbers, told = np.full(made.rows.shape, NO_SOURCE, np.uint8), []
        for i, sources in enumerate(made.sources):
            present = set(np.unique(made.rows[i]).tolist())
            listed = []
            for n, (key, share) in enumerate(list(sources.items())[:N_SOURCES]):
                row = self.views.row_of.get(key)
                row = row if row in present else None  # another image has the key of one that left the atlas
                if row is not None:
                    numbers[i][made.rows[i] == row] = n
                listed.append({"row": row, "key": key, "share": share})
            told.append(listed)
        return told, numbers

    def _small(self, shown: Shown, image: int, side: int) -> str:
        """An image in small, as WebP in base 64."""
        return base64.b64encode(as_webp(encode(shown.images[image]), side)).decode()


def create_routes(api: FastAPI, studio: Studio) -> None:
    """Making images, and those that were made."""
    workshop = Workshop(studio)

    @api.get("/api/generator")
    def generator() -> dict[str, Any]:
        return workshop.about()

    @api.get("/api/generator/images/{row}", response_class=Response)
    def get_input(row: Annotated[int, Depends(studio.one)]) -> Response:
        return Response(workshop.image(row), media_type="image/png", headers=FRESH)

    @api.post("/api/create")
    def create(recipe: Recipe) -> dict[str, Any]:
        return {"job": workshop.start(recipe)}

    @api.get("/api/creations")
    def get_creations(limit: Annotated[int, Query(ge=1, le=2000)] = 40) -> dict[str, Any]:
        found = list(workshop.creations.all().values())[::-1]
        kept = [
            {**workshop.in_short(one), "image": image, "picture": picture, "pictures": []}
            for one in found
            for image, picture in one.kept.items()
        ]
        return {"total": len(found), "creations": [workshop.in_short(one) for one in found[:limit]], "kept": kept}

    @api.post("/api/creations/{id}")
    def recall(id: Id, asked: Body) -> dict[str, Any]:
        found = workshop.find(id)
        if workshop.is_shown(id):
            return {"result": workshop.made_again(found)}
        return {"job": studio.jobs.start(_line(found.creation.recipe), lambda: workshop.made_again(found)).id}

    @api.post("/api/keep")
    def keep(asked: KeepingAsked) -> dict[str, Any]:
        return workshop.keep(asked.id, asked.image, asked.kept)

    @api.get("/api/creations/{id}/video", response_class=Response)
    def get_video(id: Id) -> Response:
        return Response(workshop.video(id), media_type="image/webp", headers=LASTING)

    @api.get("/api/creations/{id}/{image}", response_class=Response)
    def get_made(id: Id, image: Annotated[int, Field(ge=0)]) -> Response:
        return Response(workshop.file(id, image), media_type="image/png", headers=LASTING)

    @api.get("/api/creations/{id}/{image}/sources", response_class=Response)
    def get_sources(id: Id, image: Annotated[int, Field(ge=0)]) -> Response:
        numbers = workshop.shown(id, image).source_of
        if numbers is None:
            raise HTTPException(404, "It is not known which images these pixels come from.")
        return Response(numbers[image].tobytes(), media_type="application/octet-stream", headers=FRESH)


def _line(recipe: Any) -> str:
    """What is being made, in words."""
    n = recipe.directions * recipe.steps if isinstance(recipe, Sliding) else getattr(recipe, "frames", None) or recipe.n
    return f"Making {n} {'image' if n == 1 else 'images'}"
