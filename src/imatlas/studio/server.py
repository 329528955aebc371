"""The server of the studio: the verbs of an atlas over HTTP.

Every path on disk comes from the atlas or this package, none from a request.
"""

# no postponed annotations: FastAPI evaluates those of the functions below, which name what is local

import asyncio
import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Literal

import anyio.to_thread
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from imatlas import __version__
from imatlas.atlas.atlas import Atlas
from imatlas.errors import InputError
from imatlas.studio.jobs import Job, Jobs
from imatlas.studio.pages import followed, picture, serve_pages
from imatlas.studio.requests import (
    Creating,
    Exporting,
    Finding,
    Id,
    Labeling,
    LeavingOut,
    Listed,
    Moving,
    Naming,
    Propagating,
    Searched,
    listed_by,
)
from imatlas.studio.security import Guard
from imatlas.studio.views import MOST_SIDE, Views, as_webp, upload_size
from imatlas.system.csv_files import csv_bytes

LONG = "private, max-age=31536000, immutable"
"""How long pictures may be kept whose address changes with the atlas; others are asked for again."""
MOST_UPLOADS, MOST_MADE = 32, 512
N_THREADS = 8
"""Requests that are worked on at once; each thread keeps memory of its own."""


class _Kept(OrderedDict[str, Any]):
    """The last things that were made, by a random id."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, value: Any) -> str:
        id = secrets.token_hex(8)
        self[id] = value
        while len(self) > self.most:
            self.popitem(last=False)
        return id


def create_app(
    atlas: Atlas, *, hosts: tuple[str, ...], token: str = "", read_only: bool = False, frames: tuple[str, ...] = ()
) -> Guard:
    """The studio of an atlas as an ASGI application, of which only its own pages may ask anything.

    Parameters
    ----------
    atlas : Atlas
    hosts : tuple of str
        Names and ports by which browsers may call this server.
    token : str
        What a request must know; "" for nothing.
    read_only : bool
        Refuse decisions.
    frames : tuple of str
        Origins of other pages that may show the studio in a frame.
    """
    return Guard(studio_api(atlas, read_only=read_only), hosts, token, frames)


def studio_api(atlas: Atlas, *, read_only: bool = False) -> FastAPI:
    """The pages and verbs of an atlas, for whoever asks."""
    views, jobs = Views(atlas), Jobs()

    @contextlib.asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = N_THREADS
        threading.Thread(target=views.warm_up, daemon=True, name="imatlas-warm-up").start()
        yield
        jobs.close()

    api = FastAPI(title="imatlas studio", version=__version__, docs_url=None, redoc_url=None, lifespan=living)
    serve_pages(api, "index.html")
    _map_routes(api, views, read_only)
    _image_routes(api, views)
    _search_routes(api, views)
    _decision_routes(api, views, read_only)
    _job_routes(api, views, jobs)
    return api


def _known(views: Views, rows: Iterable[int]) -> list[int]:
    """Rows, if there are such images."""
    rows, n = list(rows), len(views.keys)
    for row in rows:
        if not 0 <= row < n:
            raise HTTPException(404, f"There is no image {row}; the last one is {n - 1}.")
    return rows


def _map_routes(api: FastAPI, views: Views, read_only: bool) -> None:
    """The atlas as a whole: what it holds, where the images are, and pictures of that."""

    @api.get("/api/atlas")
    def get_atlas() -> dict[str, Any]:
        return views.overview(read_only=read_only)

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


def _image_routes(api: FastAPI, views: Views) -> None:
    """Lists of images, single ones, and tables of them."""

    def listed(query: Annotated[Listed, Depends(listed_by)]) -> np.ndarray:
        _known(views, query.rows or ())
        return views.listed(query)

    def known(row: int) -> int:
        return _known(views, [row])[0]

    OneRow = Annotated[int, Depends(known)]

    @api.get("/api/images")
    def get_images(
        rows: Annotated[np.ndarray, Depends(listed)],
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        return {"total": len(rows), "images": views.images(rows[offset : offset + limit])}

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

    @api.get("/api/export", response_class=Response)
    def export(rows: Annotated[np.ndarray, Depends(listed)], format: Literal["csv", "list"] = "csv") -> Response:
        return _exported(views, rows, format)

    @api.post("/api/export", response_class=Response)
    def export_some(asked: Exporting) -> Response:
        return _exported(views, _known(views, asked.rows), asked.format)


def _search_routes(api: FastAPI, views: Views) -> None:
    """Search by images of the atlas and others, and by regions of them."""
    uploads = _Kept(MOST_UPLOADS)

    @api.post("/api/search")
    def search(query: Searched) -> dict[str, Any]:
        if (query.row is None) == (query.upload is None):
            if query.row is not None or not query.like:
                raise InputError("Give either a row or an upload, or examples.")
            query.row, query.like = query.like[0], query.like[1:]
        if query.upload is not None and query.upload not in uploads:
            raise HTTPException(404, "This upload is no longer known; send the image again.")
        given = uploads[str(query.upload)] if query.row is None else _known(views, [query.row])[0]
        examples = {
            name: [views.keys[row] for row in _known(views, getattr(query, name))] for name in ("like", "unlike")
        }
        return {"results": views.search(given, query.k, region=query.region, **examples)}

    @api.post("/api/uploads", openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}})
    async def upload(request: Request) -> dict[str, Any]:
        content = await request.body()
        width, height = await asyncio.to_thread(upload_size, content)
        return {"id": uploads.keep(content), "width": width, "height": height}

    @api.get("/api/uploads/{id}", response_class=Response)
    def get_upload(id: Id) -> Response:
        if id not in uploads:
            raise HTTPException(404, "This upload is no longer known.")
        return picture(as_webp(uploads[id], 1600))


def _decision_routes(api: FastAPI, views: Views, read_only: bool) -> None:
    """Decisions, and what helps with them."""

    def overview() -> dict[str, Any]:
        return views.overview(read_only=read_only)

    def writable() -> None:
        if read_only:
            raise HTTPException(403, "The studio was opened with --read-only.")

    @api.post("/api/decisions", dependencies=[Depends(writable)])
    def decide(decision: Annotated[Labeling | LeavingOut | Naming, Field(discriminator="kind")]) -> dict[str, Any]:
        if isinstance(decision, Naming):
            if decision.cluster >= len(views.medoids):
                raise HTTPException(404, "There is no such cluster.")
            views.decisions.name_cluster(views.keys[views.medoids[decision.cluster]], decision.value)
            return overview()
        keys = [views.keys[row] for row in _known(views, decision.rows)]
        if not keys:
            raise InputError("Select at least one image.")
        if isinstance(decision, Labeling):
            views.decisions.label(keys, decision.value)
        else:
            views.decisions.leave_out(keys, decision.value)
        return overview()

    @api.post("/api/undo", dependencies=[Depends(writable)])
    def undo() -> dict[str, Any]:
        views.decisions.undo()
        return overview()

    @api.post("/api/redo", dependencies=[Depends(writable)])
    def redo() -> dict[str, Any]:
        views.decisions.redo()
        return overview()

    @api.post("/api/propagate")
    def propagate(asked: Propagating) -> dict[str, Any]:
        return views.propagated(asked.n_next)

    @api.post("/api/duplicates/move", dependencies=[Depends(writable)])
    def move_away(asked: Moving) -> dict[str, Any]:
        return views.move_away(_known(views, asked.rows))

    @api.post("/api/duplicates/undo", dependencies=[Depends(writable)])
    def bring_back() -> dict[str, Any]:
        return views.bring_back()

    @api.get("/api/outliers")
    def get_outliers(
        rate: Annotated[float, Query(gt=0, le=0.5)] = 0.01, limit: Annotated[int, Query(ge=1, le=5000)] = 500
    ) -> dict[str, Any]:
        return views.outliers(rate, limit)


def _job_routes(api: FastAPI, views: Views, jobs: Jobs) -> None:
    """What takes long: started, followed and cancelled as jobs."""
    made = _Kept(MOST_MADE)

    def job_of(id: Id) -> Job:
        job = jobs.find(id)
        if job is None:
            raise HTTPException(404, "This job is no longer known.")
        return job

    @api.get("/api/duplicates")
    def get_duplicates() -> dict[str, Any]:
        return {"job": jobs.start("Looking for near-duplicates", views.duplicates).id}

    @api.get("/api/words")
    def get_words() -> dict[str, Any]:
        return {"job": jobs.start("Looking for names", views.proposed_names).id}

    @api.post("/api/find")
    def find(asked: Finding) -> dict[str, Any]:
        job = jobs.start(f"Looking for '{asked.word}'", lambda: views.found(asked.word, asked.k))
        return {"job": job.id}

    @api.post("/api/create")
    def create(asked: Creating) -> dict[str, Any]:
        if asked.row is not None:
            _known(views, [asked.row])
        asked_for = asked.model_dump(exclude_none=True)

        def work() -> dict[str, Any]:
            pictures, sources = views.created(**asked.model_dump())
            addresses = [f"/api/made/{made.keep(content)}" for content in pictures]
            return {"images": addresses, "sources": sources, "recipe": {"atlas": views.atlas.name, **asked_for}}

        return {"job": jobs.start(f"Making {asked.n} images", work).id}

    @api.get("/api/made/{id}", response_class=Response)
    def get_made(id: Id) -> Response:
        if id not in made:
            raise HTTPException(404, "This picture is no longer known; make it again from its recipe.")
        return Response(made[id], media_type="image/png", headers={"cache-control": LONG})

    @api.get("/api/jobs/{id}/events", response_class=Response)
    async def events(job: Annotated[Job, Depends(job_of)], request: Request) -> Response:
        return followed(request, job.event, lambda: job.has_ended)

    @api.delete("/api/jobs/{id}")
    def cancel(job: Annotated[Job, Depends(job_of)]) -> dict[str, Any]:
        job.turn("cancelled")
        return job.event()


def _exported(views: Views, rows: Iterable[int], format: str) -> Response:
    content = _csv(views, rows) if format == "csv" else _list(views, rows)
    name = "images.csv" if format == "csv" else "images.txt"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="text/plain; charset=utf-8", headers=headers)


def _list(views: Views, rows: Iterable[int]) -> bytes:
    """The keys of images, one in each line."""
    return "".join(f"{views.keys[row]}\n" for row in rows).encode()


def _csv(views: Views, rows: Iterable[int]) -> bytes:
    """A table of images."""
    names = views.cluster_names(views.decisions.state)
    columns = ("key", "label", "left_out", "cluster", "outlier", "confidence", "width", "height")
    found = ({**image, "cluster": names[image["cluster"]]} for image in views.images(rows))
    return csv_bytes(columns, ([image[name] for name in columns] for image in found))
