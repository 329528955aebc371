"""The files of the pages, and answers that pages get."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException as StarletteError

from imatlas.errors import ImatlasError

EVERY = 0.25
"""Seconds between two looks at what pages follow."""
KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def serve_pages(api: FastAPI, first: str) -> None:
    """Serve the files of the pages, of which one is at the root; and tell of errors."""
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

    tell_errors(api)


def tell_errors(api: FastAPI) -> None:
    """Answer with a sentence what is wrong."""

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


def picture(content: bytes, headers: dict[str, str] | None = None) -> Response:
    """A picture for a page."""
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/webp"
    kind = "image/jpeg" if content.startswith(b"\xff\xd8") else kind
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=3600", **(headers or {})})


def followed(request: Request, event: Callable[[], Any], has_ended: Callable[[], bool] = lambda: False) -> Response:
    """Server-sent events: what `event` returns, whenever that has changed, until it has ended or the page is closed."""

    async def told() -> AsyncIterator[str]:
        last = ""
        while not await request.is_disconnected():
            ended, now = has_ended(), json.dumps(event())
            if now != last:
                last = now
                yield f"data: {now}\n\n"
            if ended:
                return
            await asyncio.sleep(EVERY)

    return StreamingResponse(told(), media_type="text/event-stream", headers={"cache-control": "no-store"})


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
