"""Threads on a machine that other programs use too: how they wait, how many there are, how many cores they get.

A loop of OpenMP ends when its last thread is done. Threads that spin until then keep the core that the last one needs,
once another program wants a core too: a loop of a millisecond takes ten. So

- threads wait asleep: `wait_passively` says so in the environment before the first OpenMP library is loaded, and where
  one was loaded before imatlas, `sharing_cores` does what is left to do;
- linear algebra of small matrices (OpenBLAS, whose threads always spin) gets one thread, which is as fast there;
- what spins whatever it is told (oneDNN, in the backward pass of convolutions) is given the cores that are free:
  `free_threads` measures them.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""What the OpenMP libraries of GNU, Intel and LLVM read when they are loaded. Sleeping costs nothing measurable."""

SPEAK_OF_WAITING = (*PASSIVE, "GOMP_SPINCOUNT")
"""Where the user has set one of these, that holds."""

MEASURED_SECONDS = 0.05
"""How long the cores are watched: several turns of the scheduler, which are 3 to 10 ms."""

STEADY = 0.05
"""Cores lost to what every machine does now and then, as a share of those asked for."""

NOTICED = 1.3
"""How many times as long things take before that changes what is done: a quiet machine always does the same."""

_lock = threading.Lock()
_entered = 0
_late = False  # an OpenMP library was loaded before it could be told how to wait


def wait_passively() -> None:
    """Tell OpenMP libraries that are loaded from now on, here and in processes started from here, to wait asleep."""
    global _late
    if any(name in os.environ for name in SPEAK_OF_WAITING):
        return
    os.environ.update(PASSIVE)
    _late = "torch" in sys.modules or "sklearn" in sys.modules


def usable_cores() -> int:
    """The processors that this process may use: by its affinity, and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """The processors' worth of time that Linux gives the control groups of this process; infinite without a limit."""
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
    """How many cores `n_threads` busy threads of this process get at this moment, by hashing for `seconds`.

    This is the time on processors over the time that passed: it sees other programs, other machines on the same
    hardware and quotas alike, and needs no right to look at them. The threads do not wait for each other: those of a
    parallel loop, which do, seem to get less than a quiet machine gives.
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
    """The threads that meet no other program, where `n_threads` of them obtained so many cores.

    A core that is shared with one other program gives half of itself, so that `n_threads` - h / 2 are obtained with h
    others.
    """
    if obtained >= (1 - STEADY) * n_threads:
        return n_threads
    return max(1, min(n_threads, round(2 * obtained - n_threads)))


def free_threads(n_threads: int, now: int | None = None) -> int:
    """How many of `n_threads` have a core to themselves; another number than `now`, or than all, where seen twice."""
    if n_threads <= 1:
        return 1
    now = n_threads if now is None else now
    seen = threads_for(cores_obtained(n_threads), n_threads)
    if seen == now:
        return seen
    again = threads_for(cores_obtained(n_threads), n_threads)
    return max(seen, again) if seen < now else min(seen, again)


def slowdown() -> float:
    """How many times as long one thread takes now as on a core of its own; 1 where that is less than `NOTICED`."""
    times = 1 / max(0.05, cores_obtained(1))
    return times if times > NOTICED else 1.0


@contextlib.contextmanager
def sharing_cores() -> Iterator[None]:
    """While this is open, threads share the cores well with other programs; also a decorator.

    No more threads than there are usable cores, one for linear algebra, and none that spins. All is as before once
    the last such block of the process has closed.
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


_undo: list[contextlib.ExitStack] = []


def _share() -> contextlib.ExitStack:
    """Set all up; what closes it again."""
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
    """The thread pools of the libraries that are loaded."""
    import sklearn.utils  # noqa: F401  # what it loads must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def _limited_blas() -> Iterator[None]:
    """One thread for linear algebra."""
    with _pools().limit(limits=1, user_api="blas"):
        yield


@contextlib.contextmanager
def _sleeping_threads(library: str, n_threads: int) -> Iterator[None]:
    """Keep threads asleep in a GNU OpenMP library, so that it has more of them than there are cores.

    The others then look for work 100 times before they sleep, instead of 300,000 (the manual of libgomp under
    GOMP_SPINCOUNT). They belong to the thread that enters this, and end with it.
    """
    with contextlib.suppress(OSError, AttributeError):
        openmp = ctypes.CDLL(library)
        nothing = ctypes.cast(openmp.omp_get_num_threads, ctypes.c_void_p)  # a function without an effect
        openmp.GOMP_parallel(nothing, None, ctypes.c_uint(n_threads), ctypes.c_uint(0))
    yield


@contextlib.contextmanager
def _in_own_thread(held: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Enter and leave `held` in one thread that lives in between.

    Whoever opens the first block need not be who closes the last, and threadpoolctl (3.8) lets the thread alone that
    set the threads of OpenBLAS set them back.
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
