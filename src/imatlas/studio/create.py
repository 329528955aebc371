"""New images, made from a place on the map."""

# no postponed annotations: FastAPI evaluates those of the functions below

from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import Field

from imatlas.studio.opened import Studio
from imatlas.studio.pictures import as_png
from imatlas.studio.requests import Body, Id, Row
from imatlas.studio.views import Views

LONG = "private, max-age=31536000, immutable"
"""How long pictures may be kept that never change; others are asked for again."""


class Creating(Body):
    """New images of the place of a row, or of a cell of the map."""

    row: Row | None = None
    cell: Row | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 8
    novelty: Annotated[float, Field(ge=0, le=1)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def create_routes(api: FastAPI, studio: Studio) -> None:
    """Making images, and those that were made."""
    views = studio.views

    @api.post("/api/create")
    def create(asked: Creating) -> dict[str, Any]:
        if asked.row is not None:
            studio.one(asked.row)
        asked_for = asked.model_dump(exclude_none=True)

        def work() -> dict[str, Any]:
            pictures, sources = created(views, asked)
            addresses = [f"/api/made/{studio.made.keep(content)}" for content in pictures]
            return {"images": addresses, "sources": sources, "recipe": {"atlas": views.atlas.name, **asked_for}}

        return {"job": studio.jobs.start(f"Making {asked.n} images", work).id}

    @api.get("/api/made/{id}", response_class=Response)
    def get_made(id: Id) -> Response:
        return Response(studio.made.find(id), media_type="image/png", headers={"cache-control": LONG})


def created(views: Views, asked: Creating) -> tuple[list[bytes], list[Any]]:
    """New images as PNG, and for each the images that it is composed of, if the generator knows."""
    place = int(views.columns["cell"][asked.row]) if asked.row is not None else asked.cell
    has_sources = hasattr(views.store.model("generator"), "panorama")
    options: dict[str, Any] = {"cell": place, "random_state": asked.seed}
    if has_sources:
        options |= {"novelty": asked.novelty, "return_provenance": True}
    elif asked.row is not None and asked.strength is not None and asked.strength < 1:
        options = {"like": views.keys[asked.row], "strength": asked.strength, "random_state": asked.seed}
    made = views.atlas.sample(asked.n, **options)
    pixels, found = made if has_sources else (made, None)
    sources = [
        [{"row": views.row_of.get(key), "key": key, "share": share} for key, share in list(each.items())[:8]]
        for each in (found.sources if found is not None else [{}] * asked.n)
    ]
    return [as_png(each) for each in pixels], sources
