"""Threads on a machine shared with other programs: how they wait, how many there are, and which cores are free.

An OpenMP loop ends with its last thread. Threads that spin until then occupy the core that the last one needs once
another program wants a core too, and a loop takes ten times as long. Therefore

- threads wait passively: `wait_passively` sets this in the environment before the first OpenMP library is loaded;
  `sharing_cores` does the rest if one was loaded before imatlas;
- linear algebra of small matrices (OpenBLAS, whose threads always spin) gets one thread, which is as fast there;
- libraries that always spin (oneDNN, in the backward pass of convolutions) get only the free cores, which
  `free_threads` measures.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Settings that the OpenMP libraries of GNU, Intel and LLVM read when they are loaded."""

WAIT_SETTINGS = (*PASSIVE, "GOMP_SPINCOUNT")
"""Settings of the user that are left alone."""

MEASURED_SECONDS = 0.05
"""Duration of a measurement: several time slices of the scheduler, of 3 to 10 ms."""

STEADY = 0.05
"""Tolerated loss of cores to background activity, as a fraction of those requested."""

NOTICED = 1.3
"""The slowdown below which nothing is changed, for reproducible results on a quiet machine."""

_lock = threading.Lock()
_entered = 0
_late = False  # an OpenMP library was loaded before `wait_passively`


def wait_passively() -> None:
    """Let OpenMP libraries that are loaded from now on, here and in child processes, wait passively."""
    global _late
    if any(name in os.environ for name in WAIT_SETTINGS):
        return
    os.environ.update(PASSIVE)
    _late = "torch" in sys.modules or "sklearn" in sys.modules


def usable_cores() -> int:
    """The processors that this process may use, by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """The CPU quota of this process's Linux control groups in processors; infinite without a limit."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        root = groups / controllers if controllers else groups
        inside = Path(path.lstrip("/"))
        for group in (root, *(root / part for part in (inside, *inside.parents))):
            least = min(least, _quota_v1(group) if controllers else _quota_v2(group))
    return least


def _quota_v2(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    return math.inf


def _quota_v1(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return math.inf if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    return math.inf


def cores_obtained(n_threads: int, seconds: float = MEASURED_SECONDS) -> float:
    """The number of cores that `n_threads` busy threads of this process get, measured by hashing for `seconds`.

    CPU time over wall time, which accounts for other programs, other virtual machines and quotas. The threads do not
    synchronize, unlike those of a parallel loop.
    """
    content, used = bytes(2**20), []
    began = time.perf_counter()

    def work() -> None:
        before = time.thread_time()
        while time.perf_counter() - began < seconds:
            hashlib.sha256(content)  # with the interpreter's lock released
        used.append(time.thread_time() - before)

    threads = [threading.Thread(target=work, name="imatlas-measuring") for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(used) / (time.perf_counter() - began)


def threads_for(obtained: float, n_threads: int) -> int:
    """The number of threads without competition, given the cores that `n_threads` obtained.

    A core shared with one other program gives half of its time: with h others, `n_threads` - h / 2 are obtained.
    """
    if obtained >= (1 - STEADY) * n_threads:
        return n_threads
    return max(1, min(n_threads, round(2 * obtained - n_threads)))


def free_threads(n_threads: int, now: int | None = None) -> int:
    """How many of `n_threads` have a core to themselves; changes from `now` (or all) only if measured twice."""
    if n_threads <= 1:
        return 1
    now = n_threads if now is None else now
    found = threads_for(cores_obtained(n_threads), n_threads)
    if found == now:
        return found
    again = threads_for(cores_obtained(n_threads), n_threads)
    return max(found, again) if found < now else min(found, again)


def slowdown() -> float:
    """How many times longer one thread takes now than on a core of its own; 1 if less than `NOTICED`."""
    times = 1 / max(0.05, cores_obtained(1))
    return times if times > NOTICED else 1.0


@contextlib.contextmanager
def sharing_cores() -> Iterator[None]:
    """Context (or decorator) in which threads share the cores well with other programs.

    At most one thread per usable core, one for linear algebra, and no spinning. Settings are restored when the last
    such block of the process closes.
    """
    global _entered
    with _lock:
        _entered += 1
        outermost = _entered == 1
        undo = _share() if outermost else None
        if undo is not None:
            _undo.append(undo)
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if _entered == 0:
                _undo.pop().close()


@contextlib.contextmanager
def threads_of_workers(n_workers: int) -> Iterator[Callable[[], None]]:
    """What each of some threads calls first, so that torch shares the cores among them; undone in the end."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(max(1, before // n_workers))
    finally:
        torch.set_num_threads(before)  # threads that begin later take the number that was set last


_undo: list[contextlib.ExitStack] = []


def _share() -> contextlib.ExitStack:
    """Apply all settings; closing the result restores them."""
    import torch

    undo = contextlib.ExitStack()
    before, cores = torch.get_num_threads(), usable_cores()
    if before > cores and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores)
        undo.callback(torch.set_num_threads, before)
    undo.enter_context(_in_own_thread(_limited_blas()))
    if _late:
        n = (os.cpu_count() or 1) - min(before, cores) + 2
        for pool in _pools().select(prefix="libgomp").info():
            undo.enter_context(_in_own_thread(_sleeping_threads(pool["filepath"], n)))
    return undo


@functools.cache
def _pools() -> Any:
    """The thread pools of the loaded libraries."""
    import sklearn.utils  # noqa: F401  # its libraries must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def _limited_blas() -> Iterator[None]:
    """One thread for linear algebra."""
    with _pools().limit(limits=1, user_api="blas"):
        yield


@contextlib.contextmanager
def _sleeping_threads(library: str, n_threads: int) -> Iterator[None]:
    """Keep threads asleep in a GNU OpenMP library, so that it has more threads than cores.

    The others then spin 100 times before they sleep, instead of 300,000 (libgomp manual, GOMP_SPINCOUNT). They belong
    to the thread that enters this, and end with it.
    """
    with contextlib.suppress(OSError, AttributeError):
        openmp = ctypes.CDLL(library)
        nothing = ctypes.cast(openmp.omp_get_num_threads, ctypes.c_void_p)  # a function without effect
        openmp.GOMP_parallel(nothing, None, ctypes.c_uint(n_threads), ctypes.c_uint(0))
    yield


@contextlib.contextmanager
def _in_own_thread(held: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Enter and leave `held` in one thread that lives in between.

    The first and last block may be in different threads, and only the thread that set the number of OpenBLAS threads
    can restore it (threadpoolctl 3.8).
    """
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with held:
                ready.set()
                done.wait()
        finally:
            ready.set()

    helper = threading.Thread(target=hold, name="imatlas-asleep", daemon=True)
    helper.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        helper.join()
