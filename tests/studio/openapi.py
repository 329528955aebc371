"""Requests made from an OpenAPI document, good and bad, and asked of an application in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote, urlencode

from hypothesis import strategies as st
from PIL import Image

MOST_ITEMS = 6
JSON = "application/json"
KINDS = (JSON, JSON, "application/octet-stream", "text/plain", "application/json; charset=utf-7")


@dataclass(frozen=True)
class Known:
    """One of the ids that answers have told; which, is known when the request is sent."""

    number: int


@dataclass(frozen=True)
class Request:
    """What is asked."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    kind: str = JSON


@dataclass(frozen=True)
class Template:
    """What is asked, as values that are not written out yet."""

    method: str
    path: str
    places: dict[str, Any]
    query: dict[str, Any]
    body: Any
    kind: str


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Its values; None if it is no JSON."""
        return json.loads(self.content) if self.headers.get("content-type", "").startswith(JSON) else None


class Client:
    """Asks an ASGI application without a network.

    Parameters
    ----------
    app : ASGI application
    host : str
        As which it is asked.
    """

    def __init__(self, app: Any, host: str = "127.0.0.1:8420") -> None:
        self.app, self.host = app, host
        self.loop = asyncio.new_event_loop()
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._lifespan: asyncio.Task[None] | None = None

    def __enter__(self) -> Client:
        self.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 300) -> Any:
        """The result of a coroutine."""
        return self.loop.run_until_complete(asyncio.wait_for(work, seconds))

    async def _begin(self) -> None:
        started = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            started.set()

        await self._messages.put({"type": "lifespan.startup"})
        self._lifespan = asyncio.create_task(self.app({"type": "lifespan"}, self._messages.get, send))
        await started.wait()

    async def _end(self) -> None:
        assert self._lifespan is not None
        await self._messages.put({"type": "lifespan.shutdown"})
        await self._lifespan

    def ask(self, request: Request, *, patience: float = 0.0) -> Answer:
        """The answer; the connection is lost after some seconds of patience, as streams may never end."""
        return self.run(self._asked(request, patience))  # type: ignore[no-any-return]

    def get(self, path: str, **options: Any) -> Answer:
        """The answer to a simple request."""
        return self.ask(Request("GET", path), **options)

    async def _asked(self, request: Request, patience: float) -> Answer:
        waiting, parts, started = [request.body], [], {}

        async def receive() -> dict[str, Any]:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(), "more_body": False}
            await asyncio.sleep(patience)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            started.update(message if message["type"] == "http.response.start" else {})
            parts.append(message.get("body", b""))

        headers = {"host": self.host, "content-type": request.kind, "content-length": str(len(request.body))}
        await self.app(
            {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
                "method": request.method, "scheme": "http", "path": unquote(request.path),
                "raw_path": request.path.encode(), "query_string": request.query.encode(), "root_path": "",
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
                "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8420),
            },
            receive,
            send,
        )  # fmt: skip
        named = {name.decode().lower(): value.decode() for name, value in started.get("headers", [])}
        return Answer(started.get("status", 0), named, b"".join(parts))


# -- values ------------------------------------------------------------------------------------------------------------

CHARACTERS = st.characters(exclude_categories=())  # also halves of surrogate pairs, and what no terminal shows
STRANGE = ("../../etc/passwd", "..%2f..%2fsecret.txt", "/etc/passwd", "a\0b", "\ud800", "<script>", "", "-1", "1e999")
TEXT = st.sampled_from(STRANGE) | st.text(CHARACTERS, max_size=20)
NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**40, float("nan"), float("inf")])
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def _png(mode: str, size: tuple[int, int]) -> bytes:
    out = BytesIO()
    Image.new(mode, size, 100 if mode in ("L", "I;16") else (200, 100, 0, 50)[: len(mode)]).save(out, "PNG")
    return out.getvalue()


IMAGES = st.sampled_from([_png("RGB", (40, 30)), _png("L", (1, 1)), _png("I;16", (30, 300)), _png("RGBA", (33, 32))])
RAW = (
    IMAGES
    | st.binary(max_size=40)
    | st.sampled_from(
        [
            b"",
            b"{",
            b"[" * 20_000,
            b'{"rows": [1e999]}',
            b"\xff\xfe",
            b"null",
            b'"\\ud800"',
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
        ]
    )
)


class Document:
    """Requests of one OpenAPI document.

    Parameters
    ----------
    values : dict
        The document.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.operations = [
            (path, method.upper(), operation)
            for path, methods in sorted(values["paths"].items())
            for method, operation in sorted(methods.items())
        ]

    def good(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Values of a schema."""
        schema = self._resolved(schema)
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return st.one_of([self.good(each) for each in schema[several]])
        made = getattr(self, f"_{schema.get('type')}", None)
        return made(schema) if made else ANYTHING

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found = self.values
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _null(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        return st.none()

    def _boolean(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        return st.booleans()

    def _integer(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        low, high = schema.get("minimum"), schema.get("maximum")
        low = schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else low
        high = schema["exclusiveMaximum"] - 1 if "exclusiveMaximum" in schema else high
        first = 0 if low is None else low
        small = st.integers(first, min(first + 70, first + 70 if high is None else high))
        return st.one_of(*[small] * 9, st.integers(low, high))

    def _number(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        low, high = (schema.get(f"exclusive{end}", schema.get(end.lower())) for end in ("Minimum", "Maximum"))
        return st.floats(
            low,
            high,
            allow_nan=False,
            exclude_min="exclusiveMinimum" in schema,
            exclude_max="exclusiveMaximum" in schema,
        )

    def _string(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True) | st.integers(0, 99).map(Known)
        most = min(20, schema.get("maxLength", 20))
        return st.text(CHARACTERS, min_size=schema.get("minLength", 0), max_size=most)

    def _array(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "prefixItems" in schema:
            return st.tuples(*map(self.good, schema["prefixItems"])).map(list)
        least = schema.get("minItems", 0)
        most = max(least, min(MOST_ITEMS, schema.get("maxItems", MOST_ITEMS)))
        return st.lists(self.good(schema.get("items", {})), min_size=least, max_size=most)

    def _object(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "properties" not in schema:
            return st.dictionaries(st.text(max_size=8), self.good(schema.get("additionalProperties") or {}), max_size=4)
        made = {name: self.good(each) for name, each in schema["properties"].items()}
        required = {name: made[name] for name in schema.get("required", ())}
        return st.fixed_dictionaries(
            required, optional={name: made[name] for name in made if name not in required}
        ).map(lambda values: {name: value for name, value in values.items() if value is not None or name in required})

    def bad(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Values that are not, or hardly, of a schema."""
        return ANYTHING | self.good(schema).flatmap(_spoiled)

    # -- requests ------------------------------------------------------------------------------------------------------

    def requests(self, path: str, method: str, operation: dict[str, Any]) -> st.SearchStrategy[Template]:
        """Requests of an operation: about half of them good."""

        @st.composite
        def made(draw: Any) -> Template:
            is_good = draw(st.booleans())
            places: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
            for parameter in operation.get("parameters", ()):
                if parameter["in"] not in places or (not parameter.get("required") and draw(st.booleans())):
                    continue
                schema = parameter["schema"]
                value = draw(self.good(schema) if is_good or draw(st.booleans()) else self.bad(schema))
                places[parameter["in"]][parameter["name"]] = value
            if not is_good and draw(st.integers(0, 3)) == 0:
                places["query"][draw(st.text(max_size=6))] = draw(TEXT)
            body, kind = draw(self._bodies(operation, is_good))
            return Template(method, path, places["path"], places["query"], body, kind)

        return made()

    def _bodies(self, operation: dict[str, Any], is_good: bool) -> st.SearchStrategy[tuple[Any, str]]:
        """Bodies, as values or bytes, and their types."""
        contents = operation.get("requestBody", {}).get("content", {})
        kind = next(iter(contents), JSON)
        schema = contents.get(kind, {}).get("schema", {})
        if kind != JSON:
            return st.tuples(RAW, st.just(kind))
        if is_good:
            return st.tuples(self.good(schema) if contents else st.just({}), st.just(kind))
        return st.tuples(RAW, st.sampled_from(KINDS)) | st.tuples(self.bad(schema), st.just(kind))


@st.composite
def _spoiled(draw: Any, value: Any) -> Any:
    """A value with one part of it exchanged, left out or added."""
    if isinstance(value, dict):
        name = draw(st.sampled_from(sorted(value))) if value and draw(st.booleans()) else draw(st.text(max_size=8))
        rest = {key: each for key, each in value.items() if key != name}
        return rest if draw(st.booleans()) else rest | {name: draw(ANYTHING)}
    if isinstance(value, list) and value:
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(ANYTHING), *value[place + 1 :]]
    return draw(ANYTHING)


def written(template: Template, ids: list[str]) -> Request:
    """A request with its values written out, and known ids in their places."""
    places, query, body = _known([template.places, template.query, template.body], ids)
    path = template.path
    for name, value in places.items():
        path = path.replace("{" + name + "}", quote(_as_text(value), safe="", errors="surrogatepass"))
    pairs = [(name, _as_text(value)) for name, value in query.items()]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(template.method, path, urlencode(pairs, errors="surrogatepass"), content, template.kind)


def _known(value: Any, ids: list[str]) -> Any:
    if isinstance(value, Known):
        return ids[value.number % len(ids)] if ids else "0" * 16
    if isinstance(value, dict):
        return {key: _known(each, ids) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each, ids) for each in value]
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)
