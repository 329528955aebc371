"""The studio inside a notebook: a frame on a server that runs in this process, or the report where none may run."""

from __future__ import annotations

import base64
import html
import tempfile
import threading
from pathlib import Path

from imatlas.atlas.atlas import Atlas
from imatlas.errors import ImatlasError

NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*")
"""Pages that may show the studio in a frame."""
MOST_BYTES = 2**25
"""Of a report that is put into a notebook."""


class Shown:
    """What a notebook displays.

    Attributes
    ----------
    address : str or None
        Of the server; None where the report is shown instead.
    """

    def __init__(self, content: str, address: str | None) -> None:
        self.content, self.address = content, address

    def _repr_html_(self) -> str:
        return self.content


def show(atlas: Atlas, *, height: int = 720) -> Shown:
    """The studio of an atlas in a frame; the server ends with this process.

    Parameters
    ----------
    atlas : Atlas
    height : int
        Of the frame, in pixels.
    """
    try:
        import uvicorn

        from imatlas.studio.security import hosts_of
        from imatlas.studio.server import create_app
        from imatlas.studio.serving import listening_on

        listening = listening_on("127.0.0.1", 0)
    except (ImportError, ImatlasError):
        return _report(atlas, height)
    port = int(listening.getsockname()[1])
    app = create_app(atlas, hosts=hosts_of("127.0.0.1", port), frames=NOTEBOOKS)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    address = f"http://localhost:{port}/"  # the same site as a notebook on this machine, whatever its port
    return Shown(_frame(f'src="{address}"', height), address)


def _report(atlas: Atlas, height: int) -> Shown:
    """The report in a frame."""
    with tempfile.TemporaryDirectory() as folder:
        content = atlas.report(Path(folder, "report.html")).read_bytes()
    if len(content) > MOST_BYTES:
        return Shown(f"<p>The report is too large for a notebook; open {html.escape(str(atlas.folder))}.</p>", None)
    data = base64.b64encode(content).decode()
    return Shown(_frame(f'src="data:text/html;base64,{data}"', height), None)


def _frame(source: str, height: int) -> str:
    return f'<iframe {source} width="100%" height="{height}" style="border: 0" title="imatlas studio"></iframe>'
