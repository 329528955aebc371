"""Serving the studio, or the service for programs, on a port."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imatlas.atlas.atlas import Atlas
from imatlas.errors import InputError, MissingExtraError
from imatlas.studio.security import LOOPBACK, Guard, hosts_of, in_address
from imatlas.system.memory import resident_mb
from imatlas.system.terminal import say

if TYPE_CHECKING:
    from imatlas.studio.reopening import Reopening


def serve(
    atlas: str | Path,
    images: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8420,
    browser: bool = True,
    read_only: bool = False,
) -> None:
    """Serve the studio of an atlas until it is interrupted.

    Parameters
    ----------
    atlas : path
        If there is none, its page first learns it from `images`.
    images : str, optional
        Folder of images.
    host : str
        Where to listen. On any other than this machine's own addresses, a token is asked for, which is printed.
    port : int
        0 for any that is free.
    browser : bool
        Open the page.
    read_only : bool
        Refuse decisions.

    Raises
    ------
    MissingExtraError
        If FastAPI or uvicorn are not installed.
    InputError
        If the port cannot be used, or the atlas is not learned far enough.
    """
    say(f"Opening {images if images is not None else atlas} …", error=True)
    _need_server()
    from imatlas.studio.learning import Learning, Opening
    from imatlas.studio.server import reopening

    def studio() -> Reopening:
        opened = Atlas(atlas)
        for role in ("map", "clusters", "layout"):
            opened.store.require(role, role in opened.store.manifest.models)
        return reopening(opened, read_only=read_only)

    app: Any = Opening(Learning(images, Path(atlas)), studio) if images is not None else studio()
    listening = listening_on(host, port)
    port = int(listening.getsockname()[1])
    token = "" if host in LOOPBACK else secrets.token_urlsafe(24)
    address = f"http://{in_address(host)}:{port}/" + (f"?token={token}" if token else "")
    say(f"The studio is open at {address}")
    if browser:
        threading.Thread(target=_open_page, args=(address,), daemon=True).start()
    _run(Guard(app, hosts_of(host, port), token), listening)


def serve_programs(atlas: str | Path, *, host: str = "127.0.0.1", port: int = 8421, token: str = "") -> None:
    """Serve an atlas to programs (`imatlas.studio.service`) until it is interrupted.

    Parameters
    ----------
    atlas : path
    host : str
        Where to listen.
    port : int
        0 for any that is free.
    token : str
        What each request must name; by default, none on this machine's own addresses, and a new one on any other,
        which is printed.

    Raises
    ------
    MissingExtraError
        If FastAPI or uvicorn are not installed.
    InputError
        If the port cannot be used.
    """
    say(f"Opening {atlas} …", error=True)
    _need_server()
    from imatlas.studio.service import service_api

    app: Any = service_api(Atlas(atlas))
    listening = listening_on(host, port)
    port, is_here = int(listening.getsockname()[1]), host in LOOPBACK
    needed = token or ("" if is_here else secrets.token_urlsafe(24))
    say(f"Serving {atlas} at http://{in_address(host)}:{port}; it takes {resident_mb():.0f} MB of memory.")
    if needed:
        say(
            "Requests need the header"
            + (" 'Authorization: Bearer …'." if token else f": Authorization: Bearer {needed}")
        )
    # A page of another site cannot know the token; without one, only names of this machine count.
    _run(Guard(app, hosts_of(host, port) if is_here and not needed else None, needed), listening)


def _need_server() -> None:
    """Refuse to go on without the libraries of the server."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"A server needs {error.name}, which is not installed: pip install 'imatlas[studio]'."
        ) from None


def _run(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    say("Press Ctrl-C to close it.")
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {host}, port {port} ({error.strerror or error}); choose another --port."
        ) from None
    return made


def _open_page(address: str) -> None:
    with suppress(webbrowser.Error):
        webbrowser.open(address)
