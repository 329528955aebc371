"""A real server that speaks S3, on loopback: buckets are folders, objects are files, signatures are checked.

nanio ignores conditions of writes (If-Match, If-None-Match); `build_app` is nanio with them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEY, SECRET = "imatlas-test", "a-secret-that-must-not-leak"


class Server:
    """Serves a folder; it may be stopped and started again at the same address.

    Parameters
    ----------
    folder : path
    conditions : bool
        Honor conditions of writes, as S3 does.
    """

    def __init__(self, folder: Path, *, conditions: bool = True) -> None:
        self.folder, self.conditions = folder, conditions
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        environment = {**os.environ, "NANIO_ACCESS_KEY": KEY, "NANIO_SECRET_KEY": SECRET}
        environment["NANIO_DATA_DIR"] = str(self.folder)
        app = f"{__name__}:build_app" if self.conditions else "nanio.app:build_app"
        command = [sys.executable, "-m", "uvicorn", "--factory", app, "--app-dir", str(Path(__file__).parents[1])]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error", "--no-access-log"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError("the S3 server does not listen")

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def environment(self, secret: str = SECRET) -> dict[str, str]:
        """What the client libraries need to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


def build_app() -> Any:
    """nanio with conditions of writes; requests for one object wait for each other."""
    from nanio.app import build_app as nanio_app
    from nanio.errors import S3Error
    from starlette.middleware import Middleware

    app = nanio_app()
    app.user_middleware.append(Middleware(_Conditions, storage=app.state.storage, absent=S3Error))
    return app


class _Conditions:
    """The innermost layer, behind the check of signatures: 412 where a condition is not met."""

    def __init__(self, app: Any, storage: Any, absent: type[Exception]) -> None:
        self._app, self._storage, self._absent = app, storage, absent
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        wanted, none = headers.get(b"if-match"), headers.get(b"if-none-match")
        if scope["type"] != "http" or scope["method"] not in ("PUT", "POST") or not (wanted or none):
            await self._app(scope, receive, send)
            return
        async with self._lock:
            bucket, _, key = scope["path"].lstrip("/").partition("/")
            try:
                etag = self._storage.head_object(bucket, key).etag
            except self._absent:
                etag = None
            if (none and etag is not None) or (wanted and etag is not None and etag != wanted.decode()):
                await _answer(send, 412, "PreconditionFailed")
            elif wanted and etag is None:
                await _answer(send, 404, "NoSuchKey")
            else:
                await self._app(scope, receive, send)


async def _answer(send: Any, status: int, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>The condition is not met.</Message></Error>".encode()
    headers = [(b"content-type", b"application/xml"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
