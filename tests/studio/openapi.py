"""Requests made from an OpenAPI document, good and bad, and asked of an application in this process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import Any
from urllib.parse import quote, unquote, urlencode

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

MOST_ITEMS = 6
JSON = "application/json"
KINDS = (JSON, JSON, "application/octet-stream", "text/plain", "application/json; charset=utf-7")


@dataclass(frozen=True)
class Known:
    """One of the texts that answers have told and that a pattern allows; which, is known when the request is sent."""

    number: int
    pattern: str


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

STRANGE = ("../../etc/passwd", "..%2f..%2fsecret.txt", "/etc/passwd", "a\0b", "\ud800", "<script>", "", "-1", "1e999")
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*STRANGE, 2**31, 2**63, -(2**63) - 1, 10**40])
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def examples(strategy: st.SearchStrategy[Any], n: int) -> list[Any]:
    """Values of a strategy, always the same ones."""
    found: list[Any] = []

    @settings(
        max_examples=n, deadline=None, database=None, derandomize=True, suppress_health_check=HealthCheck,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(strategy)
    def look(value: Any) -> None:
        found.append(value)

    look()
    return found


def _png(mode: str, size: tuple[int, int]) -> bytes:
    out = BytesIO()
    Image.new(mode, size, 100 if mode in ("L", "I;16") else (200, 100, 0, 50)[: len(mode)]).save(out, "PNG")
    return out.getvalue()


IMAGES = [_png("RGB", (40, 30)), _png("L", (1, 1)), _png("I;16", (30, 300)), _png("RGBA", (33, 32))]
RAW = [
    *IMAGES, b"", b"{", b"[" * 20_000, b'{"rows": [1e999]}', b"\xff\xfe", b"null", b'"\\ud800"', b"\x89PNG\r\n\x1a\n",
    b"GIF89a", b"NaN", b'{"kind": "label", "kind": 7}',
]  # fmt: skip


class Document:
    """Requests of one OpenAPI document, drawn at random.

    Parameters
    ----------
    values : dict
        The document.
    seed : int
    """

    def __init__(self, values: dict[str, Any], seed: int = 0) -> None:
        self.values, self.random = values, Random(seed)
        self.operations = [
            (path, method.upper(), operation)
            for path, methods in sorted(values["paths"].items())
            for method, operation in sorted(methods.items())
        ]
        self._strange = examples(ANYTHING, 1000)
        self._of_pattern: dict[str, list[str]] = {}

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def anything(self) -> Any:
        """Any value."""
        return self.random.choice(self._strange)

    def good(self, schema: dict[str, Any]) -> Any:
        """A value of a schema."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.good(self.random.choice(schema[several]))
        made = getattr(self, f"_{schema.get('type')}", None)
        return made(schema) if made else self.anything()

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found = self.values
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _null(self, schema: dict[str, Any]) -> None:
        return None

    def _boolean(self, schema: dict[str, Any]) -> bool:
        return self._chance(0.5)

    def _integer(self, schema: dict[str, Any]) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", 2**62) - 1)
        low, high = int(low), int(high)
        return (
            self.random.choice([low, high])
            if self._chance(0.05)
            else self.random.randint(low, min(high, low + self.random.choice([2, 59])))
        )

    def _number(self, schema: dict[str, Any]) -> float:
        low, high = (schema.get(end.lower(), schema.get(f"exclusive{end}")) for end in ("Minimum", "Maximum"))
        low = (0.0 if high is None else high - 1) if low is None else low
        high = low + 1 if high is None else high
        return low + (high - low) * self.random.uniform(0.001, 0.999)  # type: ignore[no-any-return]

    def _string(self, schema: dict[str, Any]) -> Any:
        pattern = schema.get("pattern")
        if pattern is None and self._chance(0.3):
            return Known(self.random.randrange(100), r"\w{1,20}")
        if pattern is None:
            letters = [self.random.choice("abc 0Ü漢\u200d.,/") for _ in range(self.random.randint(0, 12))]
            least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
            return "".join(letters).ljust(least, "x")[:most]
        if pattern not in self._of_pattern:
            self._of_pattern[pattern] = examples(st.from_regex(pattern, fullmatch=True), 40)
        known = Known(self.random.randrange(100), pattern)
        return known if self._chance(0.7) else self.random.choice(self._of_pattern[pattern])

    def _array(self, schema: dict[str, Any]) -> list[Any]:
        if "prefixItems" in schema:
            return [self.good(each) for each in schema["prefixItems"]]
        least = schema.get("minItems", 0)
        n = self.random.randint(least, max(least, min(MOST_ITEMS, schema.get("maxItems", MOST_ITEMS))))
        return [self.good(schema.get("items", {})) for _ in range(n)]

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        made = {
            name: self.good(each)
            for name, each in schema.get("properties", {}).items()
            if name in required or self._chance(0.5)
        }
        return {name: value for name, value in made.items() if value is not None or name in required}

    def bad(self, schema: dict[str, Any]) -> Any:
        """A value that is not, or hardly, of a schema."""
        return self.anything() if self._chance(0.3) else self._spoiled(self.good(schema))

    def _spoiled(self, value: Any) -> Any:
        """A value with one part of it exchanged, left out or added."""
        if isinstance(value, dict):
            name = self.random.choice([*value, "more"])
            rest = {key: each for key, each in value.items() if key != name}
            return rest if self._chance(0.3) else rest | {name: self.anything()}
        if isinstance(value, list) and value:
            place = self.random.randrange(len(value))
            return [*value[:place], self.anything(), *value[place + 1 :]]
        return self.anything()

    def request(self, path: str, method: str, operation: dict[str, Any]) -> Template:
        """A request of an operation, more often good than not."""
        is_good = self._chance(0.6)
        places: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for parameter in operation.get("parameters", ()):
            if parameter["in"] not in places or (not parameter.get("required") and self._chance(0.5)):
                continue
            schema = parameter["schema"]
            value = self.good(schema) if is_good or self._chance(0.5) else self.bad(schema)
            if value is not None or not is_good:
                places[parameter["in"]][parameter["name"]] = value
        if not is_good and self._chance(0.2):
            places["query"]["more"] = self.anything()
        body, kind = self._body(operation, is_good)
        return Template(method, path, places["path"], places["query"], body, kind)

    def _body(self, operation: dict[str, Any], is_good: bool) -> tuple[Any, str]:
        """A body, as a value or bytes, and its type."""
        contents = operation.get("requestBody", {}).get("content", {})
        kind = next(iter(contents), JSON)
        if kind != JSON:
            return self.random.choice(IMAGES if is_good else RAW), kind
        if not contents:
            return {}, kind
        if is_good:
            return self.good(contents[kind]["schema"]), kind
        if self._chance(0.3):
            return self.random.choice(RAW), self.random.choice(KINDS)
        return self.bad(contents[kind]["schema"]), kind


def written(template: Template, told: dict[str, str]) -> Request:
    """A request with its values written out, and texts that answers have told in their places.

    Parameters
    ----------
    template : Template
    told : dict
        Text -> the path that told it. Those of the same collection, as all below `/api/work`, are preferred.
    """
    same = [text for text, path in told.items() if _collection(path) == _collection(template.path)]
    places, query, body = _known([template.places, template.query, template.body], same, list(told))
    path = template.path
    for name, value in places.items():
        path = path.replace("{" + name + "}", quote(_as_text(value), safe="", errors="surrogatepass"))
    pairs = [(name, _as_text(value)) for name, value in query.items()]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(template.method, path, urlencode(pairs, errors="surrogatepass"), content, template.kind)


def _collection(path: str) -> str:
    return "/".join(path.split("/")[:3])


def _known(value: Any, *several: list[str]) -> Any:
    """A value with what is known in its places, from the first list that has something fitting."""
    if isinstance(value, Known):
        for known in several:
            fitting = [text for text in known if re.fullmatch(value.pattern, text)]
            if fitting:
                return fitting[value.number % len(fitting)]
        return "0" * 16
    if isinstance(value, dict):
        return {key: _known(each, *several) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each, *several) for each in value]
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, and the parts of addresses."""
    if isinstance(value, str):
        yield from value.split("/")
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)
