"""Work in the background, a long and a short job at a time, whose progress pages follow."""

# no postponed annotations: FastAPI evaluates those of the routes below

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response

from imatlas.errors import ImatlasError
from imatlas.studio.pages import followed
from imatlas.studio.requests import Id

MOST_KEPT = 100
Lane = Literal["long", "short"]
"""Jobs of a lane wait for each other: "long" are those that learn or look at all images, which the others need not."""


class Cancelled(Exception):
    """Nobody waits for a job any more."""


@dataclass
class Job:
    """One piece of work.

    Attributes
    ----------
    state : {"waiting", "running", "done", "failed", "cancelled"}
    line : str
        What it is about, or what is being done.
    progress : float or None
        The share that is done, in [0, 1], if it is known.
    result : dict or None
    error : str or None
        Why it failed.
    """

    id: str
    line: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    progress: float | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def event(self) -> dict[str, Any]:
        """As pages are told."""
        state = "running" if self.state == "waiting" else self.state
        return {
            "state": state, "progress": self.progress, "line": self.line, "result": self.result, "error": self.error
        }  # fmt: skip

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "failed", "cancelled")

    def tell(self, line: str, progress: float | None = None) -> None:
        """Say what is being done.

        Raises
        ------
        Cancelled
            If nobody waits for it any more.
        """
        if self.has_ended:
            raise Cancelled
        self.line, self.progress = line, progress

    def turn(self, state: Any, **values: Any) -> None:
        """Change the state, unless it has ended."""
        with self.lock:
            if not self.has_ended:
                self.state = state
                for name, value in values.items():
                    setattr(self, name, value)


class Jobs:
    """The last jobs; safe to use from several threads."""

    def __init__(self) -> None:
        self._pools: dict[Lane, ThreadPoolExecutor] = {
            "long": ThreadPoolExecutor(1, thread_name_prefix="imatlas-job"),
            "short": ThreadPoolExecutor(1, thread_name_prefix="imatlas-short-job"),
        }
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, line: str, work: Callable[[], dict[str, Any]], lane: Lane = "short") -> Job:
        """Do some work when those before it in its lane have ended."""
        return self.begin(line, lambda _: work(), lane)

    def begin(self, line: str, work: Callable[[Job], dict[str, Any]], lane: Lane = "short") -> Job:
        """As `start`, for work that tells how far it is, and thereby learns that it was cancelled."""
        job = Job(secrets.token_hex(8), line)
        with self._lock:
            self._known[job.id] = job
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        self._pools[lane].submit(self._run, job, work)
        return job

    def find(self, id: str) -> Job | None:
        """The job of an id."""
        return self._known.get(id)

    @staticmethod
    def _run(job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        if job.has_ended:  # cancelled while it waited
            return
        job.turn("running")
        try:
            job.turn("done", result=work(job))
        except Cancelled:
            pass
        except ImatlasError as error:
            job.turn("failed", error=str(error))
        except Exception as error:
            job.turn("failed", error=f"An unexpected error ({type(error).__name__}); please report it.")
            raise

    def close(self) -> None:
        """Begin no further job, and end those that run as soon as they tell something."""
        for job in list(self._known.values()):
            job.turn("cancelled")
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def job_routes(api: FastAPI, jobs: Jobs) -> None:
    """Following and cancelling what takes long."""

    def job_of(id: Id) -> Job:
        job = jobs.find(id)
        if job is None:
            raise HTTPException(404, "This job is no longer known.")
        return job

    @api.get("/api/jobs/{id}/events", response_class=Response)
    async def events(job: Annotated[Job, Depends(job_of)], request: Request) -> Response:
        return followed(request, job.event, lambda: job.has_ended)

    @api.delete("/api/jobs/{id}")
    def cancel(job: Annotated[Job, Depends(job_of)]) -> dict[str, Any]:
        job.turn("cancelled")
        return job.event()
