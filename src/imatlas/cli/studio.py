"""The command that opens the studio."""

from __future__ import annotations

from typing import Annotated

import typer

from imatlas.cli.shared import AtlasFolder, app

PORT = 8420


@app.command(epilog="Example: imatlas studio photos.atlas")
def studio(
    atlas: AtlasFolder,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 for any that is free")] = PORT,
    host: Annotated[
        str, typer.Option("--host", help="the address to listen on; any but this machine's own needs a token")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="only print the address")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="show, but change nothing")] = False,
) -> None:
    """Look at an atlas in the browser: walk the map, search, sort, label and create. Nothing leaves this machine."""
    from imatlas.atlas.atlas import Atlas
    from imatlas.studio.serving import serve

    serve(Atlas(atlas), host=host, port=port, browser=not no_browser, read_only=read_only)
