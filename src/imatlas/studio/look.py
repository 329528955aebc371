"""Looking at an atlas: the map, lists of images, and single ones."""

# no postponed annotations: FastAPI evaluates those of the functions below, which name what is local

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Path, Query
from fastapi.responses import Response
from pydantic import Field

from imatlas.studio.opened import Studio
from imatlas.studio.pages import picture
from imatlas.studio.pictures import MOST_SIDE, as_webp
from imatlas.studio.requests import Listed


class Paged(Listed):
    """A part of a list."""

    offset: Annotated[int, Field(ge=0, lt=2**31)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def map_routes(api: FastAPI, studio: Studio) -> None:
    """The atlas as a whole: what it holds, where the images are, and pictures of that."""
    views = studio.views

    @api.get("/api/atlas")
    def get_atlas() -> dict[str, Any]:
        return studio.overview()

    @api.get("/api/layouts/{name}", response_class=Response)
    def get_layout(name: Literal["map", "similarity"]) -> Response:
        tiles = views.layouts[name]
        rows = np.arange(len(views.keys), dtype="<u4")
        content = np.uint32(len(rows)).tobytes() + rows.tobytes() + tiles.centers().astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream", headers={"cache-control": "no-cache"})

    @api.get("/api/columns/{name}", response_class=Response)
    def get_column(name: Annotated[str, Path(max_length=40)]) -> Response:
        values = views.column(name)
        if values is None:
            raise HTTPException(404, "There is no such column.")
        content = values.astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    @api.get("/api/tiles/{layout}/{z}/{x}/{y}", response_class=Response)
    def get_tile(layout: Literal["map", "similarity"], z: int, x: int, y: int) -> Response:
        tiles = views.layouts[layout]
        if not (0 <= z <= tiles.max_level and 0 <= x < 2**z and 0 <= y < 2**z):
            raise HTTPException(404, "There is no such tile.")
        content = tiles.asked(z, x, y)
        headers = {"cache-control": "private, max-age=3600"}
        return Response(content, status_code=200 if content else 204, media_type="image/webp", headers=headers)


def image_routes(api: FastAPI, studio: Studio) -> None:
    """Lists of images, and single ones."""
    views = studio.views

    OneRow = Annotated[int, Depends(studio.one)]

    @api.get("/api/images")
    def get_images(query: Annotated[Paged, Query()]) -> dict[str, Any]:
        rows = studio.listed(query)
        return {"total": len(rows), "images": views.images(rows[query.offset : query.offset + query.limit])}

    @api.get("/api/images/{row}")
    def get_image(row: OneRow) -> dict[str, Any]:
        return views.image(row)

    @api.get("/api/images/{row}/why", response_class=Response)
    def get_why(row: OneRow) -> Response:
        content = views.why(row)
        if content is None:
            raise HTTPException(404, "Nothing in particular decides the cluster of this image.")
        return picture(content)

    @api.get("/api/thumbnails/{row}", response_class=Response)
    def get_thumbnail(row: OneRow) -> Response:
        return picture(as_webp(views.thumbnail(row), 256))

    @api.get("/api/pictures/{row}", response_class=Response)
    def get_picture(row: OneRow, side: Annotated[int, Query(ge=16, le=MOST_SIDE)] = 1600) -> Response:
        content, is_original = views.picture(row, side)
        return picture(content, {"x-original": "yes" if is_original else "no"})
