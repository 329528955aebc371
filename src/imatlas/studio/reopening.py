"""A studio whose atlas another process may learn again: it tells its pages, and opens the new one with the next page.

The rows that a page knows are those of the atlas it was loaded from. So each of its requests names that atlas, and is
refused once the studio has opened another: no decision can hit another image than the one that was shown.
"""

# no postponed annotations: FastAPI evaluates those of the functions below

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from imatlas.errors import ArtifactError, ImatlasError
from imatlas.studio.opened import Studio
from imatlas.studio.security import Scope, answer

NAMED = "x-atlas"
"""Header by which a request names the atlas of its page; addresses of pictures say `?atlas=`."""

LEARNED = "This atlas was learned again; reload the page."
BEING_LEARNED = "Another process is learning this atlas again; what was not loaded yet can be seen when it is done."


def state_routes(api: FastAPI, studio: Studio) -> None:
    """What may change while a page is open; asked often, so it costs little."""
    api.state.studio = studio

    @api.exception_handler(ArtifactError)
    def unreadable(request: Request, error: ArtifactError) -> JSONResponse:
        """The files of an atlas that was learned again are gone; else it is damaged."""
        status, sentence = {"this": (400, str(error)), "unfinished": (503, BEING_LEARNED), "another": (409, LEARNED)}[
            studio.on_disk()
        ]
        return JSONResponse({"error": sentence}, status)

    @api.get("/api/state")
    def get_state() -> dict[str, Any]:
        return studio.identity() | {"revision": studio.views.decisions.state.revision}


class Reopening:
    """An ASGI application that is the studio of an atlas, and after this was learned again that of the new one.

    Parameters
    ----------
    api : FastAPI
        The studio, with `state_routes`.
    again : callable
        Makes the studio of what is in the folder now.
    """

    def __init__(self, api: FastAPI, again: Callable[[], FastAPI]) -> None:
        self._api, self._again = api, again
        self._living, self._lock = contextlib.AsyncExitStack(), asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await receive()
            await self.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/":
            await self._renew()
        if _named(scope) not in ("", self._studio.atlas_id):
            await answer(send, 409, LEARNED)
            return
        await self._api(scope, receive, send)

    @property
    def _studio(self) -> Studio:
        studio: Studio = self._api.state.studio
        return studio

    async def open(self) -> None:
        """Begin what the studio does in the background."""
        await self._living.enter_async_context(self._api.router.lifespan_context(self._api))

    async def close(self) -> None:
        """End it."""
        await self._living.aclose()

    async def _renew(self) -> None:
        """Open the atlas again if it was learned again."""
        async with self._lock:
            if not await asyncio.to_thread(self._studio.learned_again):
                return
            try:
                api = await asyncio.to_thread(self._again)
            except ImatlasError:
                return  # what is open stays; the page goes on to say that there is a newer one
            before, self._living, self._api = self._living, contextlib.AsyncExitStack(), api
            await self.open()
            await before.aclose()


def _named(scope: Scope) -> str:
    """The atlas that a request names, "" for none."""
    headers = [value for name, value in scope["headers"] if name.decode("latin-1").lower() == NAMED]
    if headers:
        return str(headers[0].decode("latin-1"))
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("atlas", [""])[0]
