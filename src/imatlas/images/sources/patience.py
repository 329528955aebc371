"""Waiting for a server that does not answer, and telling apart what an error of one means."""

from __future__ import annotations

import errno
import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

from imatlas.errors import DecodeError, SourceError
from imatlas.images.sources.base import reason_of
from imatlas.system.interrupts import struck
from imatlas.system.terminal import say

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0)
"""Seconds between attempts: a server may be away for three minutes, besides what each attempt takes."""

MAX_REFUSED = 20
"""Objects in a row that may be refused before all access counts as lost."""

T = TypeVar("T")
Meaning = Literal["gone", "refused", "away", "other"]

_BUSY = {errno.EBUSY, errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ETIMEDOUT} | {
    getattr(errno, "EREMOTEIO", errno.EIO),
    errno.EIO,
}
_OF_NETWORK = re.compile("Connect|Timeout|Disconnected|Payload|Protocol|Incomplete|HTTPClientError|NetworkError")
_QUERY = re.compile(r"(?<=[^\s'\"<>?])\?[^\s'\"<>?]*(?:=|%3D)[^\s'\"<>]*")
_LIBRARIES = frozenset({"aiohttp", "botocore", "aiobotocore", "urllib3", "requests", "httpx", "httpcore", "azure"})


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The causes of an error, the first one first, and the error itself last."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__
    return reversed(found)


def why(error: BaseException) -> str:
    """The reason of an error of a store, without query strings: a server may have redirected to a signed URL.

    fsspec replaces the errors of web servers by the address, so the first cause counts.
    """
    text = reason_of(next(_chain(error)) if isinstance(error, FileNotFoundError) else error)
    return _QUERY.sub("?...", text)


def _status(error: BaseException) -> int | None:
    """The status of the HTTP response that an error stands for."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        code = getattr(response, "status_code", None)
    for value in (code, getattr(error, "status", None), getattr(error, "status_code", None)):
        if isinstance(value, int):
            return value
    return None


def has_status(error: BaseException, status: int) -> bool:
    """Whether an error stands for an HTTP response of this status."""
    return any(_status(cause) == status for cause in _chain(error))


def meaning_of(error: BaseException) -> Meaning:
    """What an error of a store means: the object is gone, access is refused, the server is away for now, or other."""
    for cause in _chain(error):
        kind = type(cause).__name__
        status = _status(cause)
        if status in (404, 410):
            return "gone"
        if status in (401, 403) or isinstance(cause, PermissionError) or re.search("Credential|TokenRetrieval", kind):
            return "refused"
        if status in (408, 425, 429) or (status is not None and status >= 500 and status != 501):
            return "away"
        if isinstance(cause, ssl.SSLCertVerificationError) or "Certificate" in kind:
            return "other"
        if isinstance(cause, ConnectionError | TimeoutError | http.client.HTTPException):
            return "away"
        if isinstance(cause, FileNotFoundError):
            return "gone"
        if type(cause).__module__.partition(".")[0] in _LIBRARIES and _OF_NETWORK.search(kind):
            return "away"
        if isinstance(cause, OSError) and (cause.errno in _BUSY or kind == "gaierror"):
            return "away"
    return "other"


class Patience:
    """Calls a server again until it answers; shared by the threads that read from it.

    Parameters
    ----------
    name : str
        The address in messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._gave_up = threading.Event()
        self._waiting = False
        self._n_refused = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is repeated with growing pauses while the server does not answer.

        Raises
        ------
        SourceError
            If the server has not answered in the end.
        Exception
            Other errors of `work`, at once.
        """
        for pause in (*PAUSES, None):
            try:
                result = work()
            except Exception as error:
                if meaning_of(error) != "away":
                    self._has_answered()
                    raise
                if pause is None or self._gave_up.is_set():
                    self._gave_up.set()
                    raise SourceError(
                        f"'{self._name}' does not answer ({why(error)}); try again when it does."
                    ) from error
                self._tell(error)
                self._pause(pause)
            else:
                self._has_answered()
                return result
        raise AssertionError  # the last pause is None

    def _pause(self, seconds: float) -> None:
        """Wait, unless another thread has given up or the user has stopped the program."""
        for _ in range(max(1, round(2 * seconds))):
            if self._gave_up.wait(min(0.5, seconds)):
                return
            if struck:
                raise SourceError(f"Stopped while waiting for '{self._name}'.")

    def _tell(self, error: BaseException) -> None:
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        minutes = sum(PAUSES) / 60
        say(
            f"'{self._name}' does not answer ({why(error)}); waiting for it, up to {minutes:.0f} minutes.",
            error=True,
        )

    def _has_answered(self) -> None:
        with self._lock:
            waited, self._waiting = self._waiting, False
            self._gave_up.clear()
        if waited:
            say(f"'{self._name}' answers again.", error=True)

    def read(self, work: Callable[[], T]) -> T:
        """As `call`, for reading one object: what concerns it alone is a DecodeError, with the reason.

        Raises
        ------
        DecodeError
            If the object is gone, refused or cannot be read for a reason of its own.
        SourceError
            If the server has not answered in the end, or refuses one object after the other.
        """
        try:
            result = self.call(work)
        except (SourceError, DecodeError):
            raise
        except Exception as error:
            meaning = meaning_of(error)
            if meaning == "refused":
                with self._lock:
                    self._n_refused += 1
                    if self._n_refused >= MAX_REFUSED:
                        raise SourceError(no_access(self._name, error)) from None
                raise DecodeError(f"access is refused ({why(error)})") from None
            if meaning == "gone":
                raise DecodeError("is no longer there; it was deleted after the set was listed") from None
            raise DecodeError(f"cannot be read ({why(error)})") from None
        self._n_refused = 0
        return result


def no_access(name: str, error: BaseException) -> str:
    """The message for an address that may not be read."""
    return (
        f"Access to '{name}' is refused ({why(error)}); check the credentials, which are found by the usual ways "
        "of the library (docs/sources.md)."
    )
