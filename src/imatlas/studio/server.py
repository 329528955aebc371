"""The server of the studio: the verbs of an atlas over HTTP, and its pages. Every path on disk comes from the atlas or
this package, none from a request."""

# no postponed annotations: FastAPI evaluates those of the functions below, which name what is local to `create_app`
import asyncio
import contextlib
import csv
import io
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

import anyio.to_thread
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteError

from imatlas import __version__
from imatlas.atlas.atlas import Atlas
from imatlas.atlas.decisions import MOST_LETTERS
from imatlas.errors import ImatlasError, InputError
from imatlas.studio.jobs import Jobs
from imatlas.studio.security import Guard
from imatlas.studio.views import MOST_SIDE, Views, as_webp, upload_size

KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
LONG = "private, max-age=31536000, immutable"
"""How long pictures may be kept whose address changes with the atlas; others are asked for again."""
MOST_UPLOADS, MOST_MADE = 32, 512
SSE_SECONDS = 0.25
N_THREADS = 8
"""Requests that are worked on at once; each thread keeps memory of its own."""

Row = Annotated[int, Field(ge=0, lt=2**31)]
Rows = Annotated[list[Row], Field(max_length=2_000_000)]
Label = Annotated[str, Field(max_length=MOST_LETTERS)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Labeling(_Body):
    """Give images a label; null takes it away."""

    kind: Literal["label"]
    rows: Rows
    value: Label | None


class LeavingOut(_Body):
    """Mark images to be left out, or not."""

    kind: Literal["leave_out"]
    rows: Rows
    value: bool


class Naming(_Body):
    """Name a cluster; an empty name takes it away."""

    kind: Literal["name"]
    cluster: Row
    value: Label


class Searched(_Body):
    """What is searched for: a row or an upload, or a region of it in pixels; and further examples."""

    row: Row | None = None
    upload: Id | None = None
    region: tuple[int, int, int, int] | None = None
    like: Annotated[list[Row], Field(max_length=100)] = []
    unlike: Annotated[list[Row], Field(max_length=100)] = []
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Propagating(_Body):
    """Spread the labels over all images."""

    n_next: Annotated[int, Field(ge=0, le=1000)] = 24


class Exporting(_Body):
    """A table of some images, or a list of their keys."""

    rows: Rows
    format: Literal["csv", "list"] = "csv"


class Finding(_Body):
    """Images by a word."""

    word: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
    k: Annotated[int, Field(ge=1, le=1000)] = 60


class Creating(_Body):
    """New images of the place of a row, or of a cell of the map."""

    row: Row | None = None
    cell: Row | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 8
    novelty: Annotated[float, Field(ge=0, le=1)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Listed(BaseModel):
    """Which images, and in which order."""

    sort: Literal["key", "cluster", "outlier", "confidence", "width", "height"] = "key"
    descending: bool = False
    cluster: int | None = None
    label: Label | None = None
    flag: Label | None = None
    text: Label | None = None
    left_out: bool | None = None
    rows: list[int] | None = None


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
    uploads, made = _Kept(MOST_UPLOADS), _Kept(MOST_MADE)
    n_images = len(views.keys)

    def known(row: int) -> int:
        if not 0 <= row < n_images:
            raise HTTPException(404, f"There is no image {row}; the last one is {n_images - 1}.")
        return row

    def known_all(rows: list[int]) -> list[int]:
        return [known(row) for row in rows]

    def overview() -> dict[str, Any]:
        return views.overview(read_only=read_only)

    def listed(query: Annotated[Listed, Depends(_listed)]) -> np.ndarray:
        if query.rows is not None:
            known_all(query.rows)
        return views.listed(query)

    def writable() -> None:
        if read_only:
            raise HTTPException(403, "The studio was opened with --read-only.")

    serve_pages(api, "index.html")

    @api.get("/api/atlas")
    def get_atlas() -> dict[str, Any]:
        return overview()

    @api.get("/api/layouts/{name}", response_class=Response)
    def get_layout(name: Literal["map", "similarity"]) -> Response:
        tiles = views.layouts[name]
        rows = np.arange(n_images, dtype="<u4")
        content = np.uint32(n_images).tobytes() + rows.tobytes() + tiles.centers().astype("<f4").tobytes()
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

    @api.get("/api/images")
    def get_images(
        rows: Annotated[np.ndarray, Depends(listed)],
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        return {"total": len(rows), "images": views.images(rows[offset : offset + limit])}

    @api.get("/api/images/{row}")
    def get_image(row: int) -> dict[str, Any]:
        return views.image(known(row))

    @api.get("/api/images/{row}/why", response_class=Response)
    def get_why(row: int) -> Response:
        content = views.why(known(row))
        if content is None:
            raise HTTPException(404, "Nothing in particular decides the cluster of this image.")
        return _picture(content)

    @api.get("/api/thumbnails/{row}", response_class=Response)
    def get_thumbnail(row: int) -> Response:
        return _picture(as_webp(views.thumbnail(known(row)), 256))

    @api.get("/api/pictures/{row}", response_class=Response)
    def get_picture(row: int, side: Annotated[int, Query(ge=16, le=MOST_SIDE)] = 1600) -> Response:
        content, is_original = views.picture(known(row), side)
        return _picture(content, {"x-original": "yes" if is_original else "no"})

    @api.post("/api/search")
    def search(query: Searched) -> dict[str, Any]:
        if (query.row is None) == (query.upload is None):
            if query.row is not None or not query.like:
                raise InputError("Give either a row or an upload, or examples.")
            query.row, query.like = query.like[0], query.like[1:]
        if query.upload is not None and query.upload not in uploads:
            raise HTTPException(404, "This upload is no longer known; send the image again.")
        given = known(query.row) if query.row is not None else uploads[str(query.upload)]
        examples = {name: [views.keys[row] for row in known_all(getattr(query, name))] for name in ("like", "unlike")}
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
        return _picture(as_webp(uploads[id], 1600))

    @api.post("/api/decisions", dependencies=[Depends(writable)])
    def decide(decision: Annotated[Labeling | LeavingOut | Naming, Field(discriminator="kind")]) -> dict[str, Any]:
        if isinstance(decision, Naming):
            if decision.cluster >= len(views.medoids):
                raise HTTPException(404, "There is no such cluster.")
            views.decisions.name_cluster(views.keys[views.medoids[decision.cluster]], decision.value)
            return overview()
        keys = [views.keys[row] for row in known_all(decision.rows)]
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

    @api.get("/api/outliers")
    def get_outliers(
        rate: Annotated[float, Query(gt=0, le=0.5)] = 0.01, limit: Annotated[int, Query(ge=1, le=5000)] = 500
    ) -> dict[str, Any]:
        return views.outliers(rate, limit)

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
            known(asked.row)
        asked_for = asked.model_dump(exclude_none=True)

        def work() -> dict[str, Any]:
            pictures, sources = views.created(**asked.model_dump())
            addresses = [f"/api/made/{made.keep(content)}" for content in pictures]
            return {"images": addresses, "sources": sources, "recipe": {"atlas": atlas.name, **asked_for}}

        return {"job": jobs.start(f"Making {asked.n} images", work).id}

    @api.get("/api/made/{id}", response_class=Response)
    def get_made(id: Id) -> Response:
        if id not in made:
            raise HTTPException(404, "This picture is no longer known; make it again from its recipe.")
        return Response(made[id], media_type="image/png", headers={"cache-control": LONG})

    @api.get("/api/jobs/{id}/events", response_class=Response)
    async def events(id: Id, request: Request) -> Response:
        job = jobs.find(id)
        if job is None:
            raise HTTPException(404, "This job is no longer known.")

        async def told() -> AsyncIterator[str]:
            last = ""
            while not await request.is_disconnected():
                now = json.dumps(job.event())
                if now != last:
                    last = now
                    yield f"data: {now}\n\n"
                if job.has_ended:
                    return
                await asyncio.sleep(SSE_SECONDS)

        return StreamingResponse(told(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @api.delete("/api/jobs/{id}")
    def cancel(id: Id) -> dict[str, Any]:
        job = jobs.find(id)
        if job is None:
            raise HTTPException(404, "This job is no longer known.")
        job.turn("cancelled")
        return job.event()

    @api.get("/api/export", response_class=Response)
    def export(rows: Annotated[np.ndarray, Depends(listed)], format: Literal["csv", "list"] = "csv") -> Response:
        return _exported(views, rows, format)

    @api.post("/api/export", response_class=Response)
    def export_some(asked: Exporting) -> Response:
        return _exported(views, known_all(asked.rows), asked.format)

    return api


def _listed(
    sort: Literal["key", "cluster", "outlier", "confidence", "width", "height"] = "key",
    descending: bool = False,
    cluster: int | None = None,
    label: Label | None = None,
    flag: Label | None = None,
    text: Label | None = None,
    left_out: bool | None = None,
    rows: Annotated[str | None, Query(pattern=r"^\d{1,9}(,\d{1,9})*$", description="numbers of images")] = None,
) -> Listed:
    """The query of a list, of which `rows` is a text of numbers."""
    numbers = None if rows is None else [int(row) for row in rows.split(",")]
    return Listed(
        sort=sort, descending=descending, cluster=cluster, label=label, flag=flag, text=text, left_out=left_out,
        rows=numbers,
    )  # fmt: skip


def _exported(views: Views, rows: Iterable[int], format: str) -> Response:
    content = _csv(views, rows) if format == "csv" else "".join(f"{views.keys[row]}\n" for row in rows)
    name = "images.csv" if format == "csv" else "images.txt"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="text/plain; charset=utf-8", headers=headers)


def _csv(views: Views, rows: Iterable[int]) -> str:
    """A table of images."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = views.cluster_names(views.decisions.state)
    columns = ("key", "label", "left_out", "cluster", "outlier", "confidence", "width", "height")
    writer.writerow(columns)
    for image in views.images(rows):
        writer.writerow([names[image["cluster"]] if name == "cluster" else image[name] for name in columns])
    return out.getvalue()


def _picture(content: bytes, headers: dict[str, str] | None = None) -> Response:
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/webp"
    kind = "image/jpeg" if content.startswith(b"\xff\xd8") else kind
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=3600", **(headers or {})})


def serve_pages(api: FastAPI, first: str) -> None:
    """Serve the files of the pages, of which one is at the root; and tell of errors in a sentence."""
    files = _static_files()

    @api.get("/", include_in_schema=False)
    def page() -> Response:
        content = files[first].read_bytes()
        return Response(content, media_type=KINDS["html"], headers={"cache-control": "no-cache"})

    @api.get("/static/{name:path}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "There is no such file.")
        kind = KINDS.get(name.rpartition(".")[2], "text/plain; charset=utf-8")
        return Response(files[name].read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    @api.exception_handler(ImatlasError)
    def refused(request: Request, error: ImatlasError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @api.exception_handler(StarletteError)
    def http_error(request: Request, error: StarletteError) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        where = ".".join(str(part)[:40] for part in found["loc"][1:])
        return JSONResponse({"error": f"{where}: {found['msg']}"}, 422)


def _static_files() -> dict[str, Traversable]:
    """The files of the pages, by their path below `static`."""
    found: dict[str, Traversable] = {}
    folders = [("", resources.files("imatlas.studio").joinpath("static"))]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            else:
                found[prefix + entry.name] = entry
    return found
