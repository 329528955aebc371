"""Who may talk to the studio: pages of its own, on this machine; others need the token.

A server on the loopback interface is reached by every page that the browser has open. A page of another site may send
it requests (cross-site posts), or give its own name the address 127.0.0.1 (DNS rebinding). So the host that a request
names must be one of ours, its origin too, and whatever changes something must be of a type that no form can send.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses of this machine that no other reaches."""
COOKIE = "imatlas-studio"
MOST_BYTES = 2**26
"""Of the body of a request."""
BODIES = ("application/json", "application/octet-stream")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses what does not come from a page of the studio, and adds `HEADERS` to all answers.

    Parameters
    ----------
    app : ASGI application
    hosts : tuple of str, optional
        Names of this server, with the port, as a browser sends them. None: any, where a token decides.
    token : str
        "" if none is needed. Given once as `?token=…`, it is kept as a cookie; programs send it as a bearer token.
    frames : tuple of str
        Origins of other pages that may show this one in a frame.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] | None, token: str = "", frames: tuple[str, ...] = ()) -> None:
        if hosts is None and not token:
            raise ValueError("Without a token, 'hosts' must name this server.")
        self.app, self.hosts, self.token = app, hosts, token
        self.headers = dict(HEADERS)
        if frames:
            self.headers["content-security-policy"] += " " + " ".join(frames)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, reason = self._refusal(scope, headers)
        added = dict(self.headers)
        if self.token and not status and not self._has_cookie(headers):
            added["set-cookie"] = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in added.items() if n.encode() not in known]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        if status:
            await answer(guarded, status, reason)
            return
        await self.app(scope, _limited(receive), guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str]:
        """Status and reason of a refusal; 0 if there is none."""
        host = headers.get("host", "").lower()
        if self.hosts is not None and host not in self.hosts:
            return 421, "This is not the name of this server; use the address that it printed."
        if self.token and not self._knows_token(scope, headers):
            return 401, "Use the address with the token that the server printed."
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "This request comes from a page of another site."
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            is_opening = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
            if not is_opening:
                return 403, "This request comes from a page of another site."
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if scope["method"] != "DELETE" and kind not in BODIES:
                return 415, f"The type of the content must be one of {', '.join(BODIES)}."
            if (
                not headers.get("content-length", "0").isdecimal()
                or int(headers.get("content-length", "0")) > MOST_BYTES
            ):
                return 413, f"At most {MOST_BYTES >> 20} MB can be sent."
        return 0, ""

    def _knows_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self.token.encode()) or self._has_cookie(headers)

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.token.encode())


def hosts_of(host: str, port: int) -> tuple[str, ...]:
    """The names that a browser may send for a server on a host."""
    hosts = LOOPBACK if host in LOOPBACK else (*LOOPBACK, host.lower())
    names = tuple(in_address(name) for name in hosts)
    return tuple(f"{name}:{port}" for name in names) + (names if port == 80 else ())


def in_address(host: str) -> str:
    """A host as an address names it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _limited(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Reading that ends where a body without a length becomes too long."""
    n_read = 0

    async def limited() -> Any:
        nonlocal n_read
        message = await receive()
        n_read += len(message.get("body", b""))
        return message if n_read <= MOST_BYTES else {"type": "http.disconnect"}

    return limited


async def answer(send: Callable[[Any], Awaitable[None]], status: int, reason: str) -> None:
    """Answer with a sentence why a request is refused."""
    content = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
