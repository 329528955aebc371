"""Workers of a Ray cluster: blocks of tasks, and functions of shards, as Ray tasks.

This process is the driver. It alone writes; workers compute functions of what they were sent and send back the result.
A worker that dies is replaced, and Ray computes its task again. (Not Ray Data: it cannot be driven by a client,
"ray://…", and takes seconds to begin.)
"""

from __future__ import annotations

import os
import secrets
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from imatlas import __version__
from imatlas.arguments import counted, refused
from imatlas.errors import ImatlasError, InputError, MissingExtraError, ParameterError
from imatlas.system.threads import usable_cores

LOCAL = "local"
"""Address of a cluster that is started for one run, on this machine alone."""

BLOCKS, TASKS, MAX_BLOCKS = 16, 8, 2000
"""Blocks of tasks per worker, tasks per block if that makes more of them, and most blocks of a stage. A block is what
is computed again if its worker dies."""

RETRIES = 8
"""How often work is begun again because its worker died. An image that ends every process that decodes it must not be
tried forever."""

AHEAD = 3
"""Blocks per worker that are computed ahead of what was asked for."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Ray for any cluster, unless the user has set them."""

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Settings of Ray for a local cluster: it listens on the loopback address alone."""


def check_address(cluster: Any, owner: str) -> None:
    """Refuse what is no address of a cluster.

    Raises
    ------
    ParameterError
    """
    if not isinstance(cluster, str) or not (cluster == LOCAL or cluster.startswith("ray://")):
        raise refused("cluster", owner, "'local', or the address of a Ray cluster as in 'ray://host:10001'", cluster)


@contextmanager
def connected(cluster: str, *, n_workers: int | None = None) -> Iterator[RayWorkers]:
    """The workers of a cluster while the block lasts.

    Parameters
    ----------
    cluster : str
        'local' starts one on this machine, with a worker per usable core, and ends it; 'ray://host:10001' uses one.
        A cluster that this process has connected to already is used as it is, and stays connected.
    n_workers : int, optional
        Number of workers of a local cluster.

    Raises
    ------
    ParameterError
        If the address is none, or nothing answers there.
    MissingExtraError
        If Ray is not installed.
    InputError
        If the workers have another version of imatlas, or none.
    """
    check_address(cluster, "connected")
    ray = _ray(cluster)
    started = not ray.is_initialized()
    if started:
        _start(ray, cluster, n_workers)
    try:
        workers = RayWorkers(ray)
        workers.check()
        yield workers
    finally:
        if started:
            ray.shutdown()


def _ray(cluster: str) -> Any:
    """The package, with its settings, most of which it reads when it is imported."""
    for name, value in {**QUIET, **(ALONE if cluster == LOCAL else {})}.items():
        os.environ.setdefault(name, value)
    if "ray" in sys.modules:  # imported by the user: who may call is as Ray has it by default
        if cluster == LOCAL and os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0":
            sys.modules["ray"]._private.ray_constants.ENABLE_RAY_CLUSTER = False
    elif cluster == LOCAL:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif (Path.home() / ".ray" / "auth_token").exists():  # a cluster that has tokens does not answer without one
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            f"cluster='{cluster}' needs Ray, which is not installed ({error}); run: pip install 'imatlas[ray]'."
        ) from None
    return ray


def _start(ray: Any, cluster: str, n_workers: int | None) -> None:
    """Start a local cluster, or connect to one."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if cluster == LOCAL:
        options |= {"address": LOCAL, "num_cpus": n_workers or usable_cores(), "include_dashboard": False}
    else:
        options["address"] = cluster
    try:
        with warnings.catch_warnings():
            # Ray forks only to start programs of its own.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            ray.init(**options)
    except (ConnectionError, RuntimeError, OSError, TimeoutError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ParameterError(
            f"The Ray cluster '{cluster}' cannot be used ({reason}); check that it runs, with the same versions of Ray "
            "and Python as here, that its address and port are those of the Ray client server, and that its token (if "
            "it has one) is in ~/.ray/auth_token."
        ) from error
    if hasattr(ray._private.worker, "_worker_logs_enabled"):
        # Else Ray prints its messages about dead workers to standard output, where results are printed.
        ray._private.worker._worker_logs_enabled = False


class RayWorkers:
    """The workers of the Ray cluster that this process is connected to; see `imatlas.system.workers.Workers`."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._begun = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Begun).remote()
        self._number = 0  # of the stage

    @property
    def n_workers(self) -> int:
        """Processors of the cluster: each runs one task at a time, in one thread."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    @property
    def n_retried(self) -> int:
        """How often work was begun again because its worker had died."""
        return int(self._ray.get(self._begun.n_again.remote()))

    def in_words(self) -> str:
        """The number of workers, and of what was computed again."""
        again = self.n_retried
        retried = f"; {counted(again, 'task')} computed again, because a worker had died" if again else ""
        return f"{counted(self.n_workers, 'worker')} of Ray{retried}"

    def check(self) -> None:
        """Refuse workers that have not this version of imatlas."""
        try:
            version = self._ray.get(self._ray.remote(num_cpus=0)(_version).remote())
        except Exception as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise InputError(
                f"The workers of the cluster cannot run imatlas ({reason}); install imatlas {__version__} on each of "
                "its machines."
            ) from error
        if version != __version__:
            raise InputError(
                f"The workers of the cluster have imatlas {version}, and this is {__version__}; install the same "
                "version on each of its machines."
            )

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        """`work(task)` of each task, in order, some blocks of tasks ahead; see `Workers.map`."""
        if not len(tasks):
            return
        self._number += 1
        run, sent = self._ray.remote(num_cpus=1, max_retries=RETRIES)(_run_block), self._sent(work)
        n_blocks = min(len(tasks), max(BLOCKS * self.n_workers, min(MAX_BLOCKS, len(tasks) // TASKS)))
        running: deque[Any] = deque()
        for number, part in enumerate(np.array_split(np.arange(len(tasks)), n_blocks)):
            block = [tasks[i] for i in part]
            running.append(run.remote(_Kept(sent), block, self._begun, (self._number, number)))
            if len(running) > AHEAD * self.n_workers:
                yield from _result(self._got(running.popleft()))
        while running:
            yield from _result(self._got(running.popleft()))

    def place(self, parts: Sequence[Any]) -> RayShards:
        """Parts in the object store of the cluster; see `Workers.place`."""
        return RayShards(self, [self._sent(part) for part in parts])

    def _got(self, running: Any) -> Any:
        """What a task or several have returned."""
        try:
            return self._ray.get(running)
        except self._ray.exceptions.WorkerCrashedError as error:
            raise InputError(
                f"The same part of the work has ended the process of its worker {RETRIES + 1} times; an image may end "
                "it, or the workers have too little memory. Run the same command without a cluster to find the image, "
                "or give the workers more memory."
            ) from error

    def _sent(self, value: Any) -> Any:
        """A reference to a value in the object store."""
        try:
            return self._ray.put(value)
        except (TypeError, AttributeError, ValueError) as error:  # as pickling fails
            raise InputError(
                f"This cannot be sent to the workers of a cluster ({type(error).__name__}: {error}); give images as a "
                "folder, an archive, a table or an address."
            ) from error


class RayShards:
    """Parts in the object store of a Ray cluster; see `imatlas.system.workers.Shards`."""

    def __init__(self, workers: RayWorkers, parts: list[Any]) -> None:
        self._workers, self._parts = workers, parts
        self._run = workers._ray.remote(num_cpus=1, max_retries=RETRIES)(_run_part)

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return len(self._parts)

    def map(self, work: Callable[..., Any], *common: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """`work` of each part, see `Shards.map`."""
        workers = self._workers
        workers._number += 1
        common_ref = workers._sent(common)
        own = [()] * len(self._parts) if each is None else [(value,) for value in each]
        running = [
            self._run.remote(work, part, value, common_ref, workers._begun, (workers._number, number))
            for number, (part, value) in enumerate(zip(self._parts, own, strict=True))
        ]
        return [_result(found) for found in workers._got(running)]


class _Begun:
    """An actor that counts how often each task was begun; one that dies begins to count again."""

    def __init__(self) -> None:
        self._times: dict[tuple[int, int], int] = {}

    def begin(self, name: tuple[int, int]) -> None:
        self._times[name] = self._times.get(name, 0) + 1

    def n_again(self) -> int:
        return sum(times - 1 for times in self._times.values())


class _Kept:
    """A reference to a value that a worker keeps from one task to the next; as an argument it is not fetched anew."""

    last: ClassVar[tuple[str, Any]] = ("", None)

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def value(self) -> Any:
        import ray

        name = self._reference.hex()
        if _Kept.last[0] != name:
            _Kept.last = name, ray.get(self._reference)
        return _Kept.last[1]


class _Failed:
    """An error of imatlas on its way to the driver."""

    def __init__(self, error: ImatlasError) -> None:
        self.error = error


def _version() -> str:
    """The version of imatlas on a worker."""
    return __version__


def _run_block(kept: _Kept, block: Sequence[Any], begun: Any, name: tuple[int, int]) -> list[Any] | _Failed:
    """The results of a block of tasks, on a worker."""
    import ray

    ray.get(begun.begin.remote(name))
    work = kept.value()
    return _attempt(lambda: [work(task) for task in block])


def _run_part(
    work: Callable[..., Any], part: Any, value: tuple[Any, ...], common: Any, begun: Any, name: tuple[int, int]
) -> Any:
    """The result of one part, on a worker."""
    import ray

    ray.get(begun.begin.remote(name))
    return _attempt(work, part, *value, *common)


def _attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function, or its error if that is for the user; in one thread, as each core has a worker."""
    import torch

    torch.set_num_threads(1)
    try:
        return work(*arguments)
    except ImatlasError as error:
        return _Failed(error)


def _result(found: Any) -> Any:
    """A result as it was computed; the error of a worker is raised."""
    if isinstance(found, _Failed):
        raise found.error
    return found
