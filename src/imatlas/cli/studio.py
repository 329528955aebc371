"""The commands that open the studio, or serve an atlas to programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from imatlas.cli.shared import AtlasFolder, app, suggested_name

PORT, SERVICE_PORT = 8420, 8421
TOKEN = "IMATLAS_TOKEN"
"""The environment variable with the token: a command line can be read by all users of a machine."""


@app.command(epilog="Example: imatlas studio photos.atlas")
def studio(
    atlas: Annotated[
        str,
        typer.Argument(metavar="ATLAS", help="an atlas, the address of one, or a folder of images to learn one from"),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="the atlas of a folder of images", show_default="FOLDER.atlas, here"),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 for any that is free")] = PORT,
    host: Annotated[
        str, typer.Option("--host", help="the address to listen on; any but this machine's own needs a token")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="only print the address")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="show, but change nothing")] = False,
) -> None:
    """Look at an atlas in the browser: walk the map, search, sort, label and create. Nothing leaves this machine."""
    from imatlas.arguments import is_address
    from imatlas.atlas.manifest import Manifest
    from imatlas.studio.serving import serve
    from imatlas.system.inventory import is_atlas

    if is_address(atlas):
        serve(atlas, host=host, port=port, browser=not no_browser, read_only=True)
        return
    folder, images = Path(atlas), None
    if not is_atlas(folder) and folder.exists():
        folder, images = output or Path(suggested_name([atlas])), atlas
        images = None if is_atlas(folder) and Manifest.read(folder).finished else images
    serve(folder, images, host=host, port=port, browser=not no_browser, read_only=read_only)


@app.command(epilog="Example: imatlas serve photos.atlas --port 8421")
def serve(
    atlas: AtlasFolder,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0 for any that is free")] = SERVICE_PORT,
    host: Annotated[
        str,
        typer.Option("--host", help=f"the address to listen on; any but this machine's own needs a token ({TOKEN})"),
    ] = "127.0.0.1",
) -> None:
    """Serve an atlas to programs: features, similar images, cluster, label and outlier score of an image sent to it."""
    from imatlas.studio.serving import serve_programs

    serve_programs(atlas, host=host, port=port, token=os.environ.get(TOKEN, ""))
