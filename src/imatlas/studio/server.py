"""The server of the studio: the verbs of an atlas over HTTP.

Every path on disk comes from the atlas or this package, none from a request.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import FastAPI

from imatlas import __version__
from imatlas.atlas.atlas import Atlas
from imatlas.studio.create import create_routes
from imatlas.studio.decide import decision_routes, review_routes
from imatlas.studio.export import export_routes
from imatlas.studio.jobs import job_routes
from imatlas.studio.look import image_routes, map_routes
from imatlas.studio.opened import Studio
from imatlas.studio.pages import serve_pages
from imatlas.studio.reopening import Reopening, state_routes
from imatlas.studio.search import search_routes
from imatlas.studio.security import Guard
from imatlas.studio.work import work_routes

N_THREADS = 8
"""Requests that are worked on at once; each thread keeps memory of its own."""


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
    return Guard(reopening(atlas, read_only=read_only), hosts, token, frames)


def reopening(atlas: Atlas, *, read_only: bool = False) -> Reopening:
    """The studio of an atlas, also after this was learned again, for whoever asks."""
    place, read_only = atlas.store.place, read_only or bool(atlas.store.address)
    return Reopening(studio_api(atlas, read_only=read_only), lambda: studio_api(Atlas(place), read_only=read_only))


def studio_api(atlas: Atlas, *, read_only: bool = False) -> FastAPI:
    """The pages and verbs of an atlas, for whoever asks."""
    studio = Studio(atlas, read_only=read_only)

    @contextlib.asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = N_THREADS
        warming = threading.Thread(target=studio.views.warm_up, daemon=True, name="imatlas-warm-up")
        warming.start()
        yield
        studio.jobs.close()
        studio.views.close()
        await anyio.to_thread.run_sync(warming.join)

    api = FastAPI(title="imatlas studio", version=__version__, docs_url=None, redoc_url=None, lifespan=living)
    serve_pages(api, "index.html")
    shown = (map_routes, image_routes, search_routes, export_routes)
    done = (decision_routes, review_routes, create_routes, work_routes, state_routes)
    for routes in (*shown, *done):
        routes(api, studio)
    job_routes(api, studio.jobs)
    return api
