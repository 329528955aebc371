"""Threads: the wait policy is set before torch is loaded, their number follows the cores, settings are restored."""

import math
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

import imatlas as ia
from imatlas.models.autoencoder import Autoencoder
from imatlas.system import threads
from imatlas.testing import synthetic_images
from imatlas.training import loop


def python(script: str, **environment: str | None) -> list[str]:
    """The output of a fresh interpreter without the wait settings of this one."""
    given = {**os.environ, **environment}
    for name in threads.WAIT_SETTINGS:
        if name not in environment:
            given.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, env=given
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_wait_policy_is_set_before_torch_is_loaded_and_inherited():
    printed = python(
        """
        import os, subprocess, sys
        import imatlas
        from imatlas.system import threads
        child = "import os; print(os.environ['OMP_WAIT_POLICY'])"
        print("torch" in sys.modules, threads._late, os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"])
        print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
        """
    )
    assert printed == ["False", "False", "PASSIVE", "0", "PASSIVE"]


def test_the_command_line_sets_the_wait_policy_before_torch_is_loaded(tmp_path):
    """A stand-in for torch, first on the path, prints the environment at its import."""
    (tmp_path / "torch.py").write_text(
        "import os, sys\nprint(os.environ.get('OMP_WAIT_POLICY'))\nsys.stdout.flush()\nos._exit(0)\n"
    )
    source = str(Path(ia.__file__).parents[1])
    printed = python(
        "import runpy, sys; sys.argv[1:] = ['check', 'nowhere']; runpy.run_module('imatlas', run_name='__main__')",
        PYTHONPATH=os.pathsep.join([str(tmp_path), source]),
    )
    assert printed[0] == "PASSIVE"


@pytest.mark.parametrize("name", threads.WAIT_SETTINGS)
def test_wait_settings_of_the_user_are_kept(name):
    script = """
        import os
        import imatlas
        from imatlas.system import threads
        print({name: os.environ[name] for name in threads.WAIT_SETTINGS if name in os.environ}, threads._late)
        """
    assert python(script, **{name: "5"}) == [f"{{'{name}':", "'5'}", "False"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP is torch's on Linux alone")
def test_sleeping_threads_stop_spinning_if_torch_was_loaded_first():
    printed = python(
        """
        import threading, torch
        import imatlas
        from imatlas.system import threads
        print(threads._late)
        for _ in range(2):
            with threads.sharing_cores():
                print(sum(t.name == "imatlas-asleep" for t in threading.enumerate()) > 0)
            print(sum(t.name == "imatlas-asleep" for t in threading.enumerate()))
        """
    )
    assert printed == ["True", "True", "0", "True", "0"]


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_sharing_cores_restores_settings_after_an_error(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)
    kept, before = torch.get_num_threads(), blas_threads()
    torch.set_num_threads(5)
    try:
        with threads.sharing_cores():
            assert torch.get_num_threads() == 3
            assert set(blas_threads()) <= {1}
            with pytest.raises(ZeroDivisionError), threads.sharing_cores():
                1 / 0  # noqa: B018
            assert torch.get_num_threads() == 3  # an inner block changes nothing
        assert torch.get_num_threads() == 5
        assert blas_threads() == before
    finally:
        torch.set_num_threads(kept)


def test_overlapping_blocks_restore_the_first_settings():
    before = blas_threads()
    meet = threading.Barrier(4)

    def work() -> None:
        for _ in range(20):
            with threads.sharing_cores():
                meet.wait()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert blas_threads() == before


def test_blocks_may_close_in_another_thread():
    """threadpoolctl lets only the thread that limited OpenBLAS restore it, while that thread lives."""
    before = blas_threads()
    opened, may_close, closed, may_end = (threading.Event() for _ in range(4))

    def first() -> None:
        with threads.sharing_cores():
            opened.set()
            may_close.wait()
        closed.set()
        may_end.wait()

    worker = threading.Thread(target=first, daemon=True)
    worker.start()
    opened.wait()
    with threads.sharing_cores():
        may_close.set()
        closed.wait()
        within = blas_threads()
    after = blas_threads()
    may_end.set()
    worker.join()
    assert set(within) <= {1}
    assert after == before


def test_fit_restores_the_thread_settings_of_its_caller(rng):
    before = torch.get_num_threads(), blas_threads()
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    ia.KMeans(n_clusters=3).fit(rows)
    ia.SOM(rows=3, cols=3).fit(rows)
    with pytest.raises(ValueError, match="n_clusters"):
        ia.KMeans(n_clusters=100).fit(rows)
    assert (torch.get_num_threads(), blas_threads()) == before


@pytest.mark.parametrize(
    ("obtained", "n_threads", "expected"),
    [
        (2.0, 2, 2),  # a quiet machine
        (1.93, 2, 2),
        (1.5, 2, 1),  # one other program
        (1.0, 2, 1),  # one on each core
        (0.4, 2, 1),
        (15.8, 16, 16),
        (14.0, 16, 12),  # four others
        (8.0, 16, 1),  # one on each core
        (1.0, 1, 1),
        (2.2, 2, 2),  # a clock that is off
    ],
)
def test_threads_for(obtained, n_threads, expected):
    assert threads.threads_for(obtained, n_threads) == expected


def test_a_change_of_threads_must_be_measured_twice(monkeypatch):
    seen = iter([1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0])
    monkeypatch.setattr(threads, "cores_obtained", lambda n: next(seen))
    assert threads.free_threads(2, now=2) == 2  # the second look saw no one
    assert threads.free_threads(2, now=2) == 1
    assert threads.free_threads(2, now=1) == 2
    assert threads.free_threads(2, now=1) == 1
    assert threads.free_threads(1) == 1  # looks at nothing
    seen = iter([1.0, 2.0, 1.0, 1.0])
    assert threads.free_threads(2) == 2  # a moment is no sign of a busy machine at the start, either
    assert threads.free_threads(2) == 1


def test_cores_obtained_ends_its_threads():
    before = torch.get_num_threads()
    assert 0 < threads.cores_obtained(2, seconds=0.02) < 2.5
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        ("3:cpu,cpuacct:/x\n1:memory:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1"}, math.inf),
        (
            "3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            4.0,
        ),
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_cpu_quota_of_a_container(tmp_path, cgroup, files, expected):
    (tmp_path / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert threads.cpu_quota(tmp_path / "cgroup", tmp_path / "fs") == expected


def test_usable_cores_are_whole_and_at_least_one(monkeypatch):
    monkeypatch.setattr(threads, "cpu_quota", lambda: 0.2)
    assert threads.usable_cores() == 1
    monkeypatch.setattr(threads, "cpu_quota", lambda: math.inf)
    assert threads.usable_cores() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def small(**changes) -> Autoencoder:
    given = {"latent_dim": 3, "size": "small", "batch_size": 16, "progress": False, "precision": "fp32"}
    return Autoencoder(**{**given, **changes})


def test_training_with_a_budget_yields_shared_cores_and_replays_exactly(monkeypatch, two_threads):
    """Load appears at once and ends after the fourth measurement; the run is logged and replayed exactly."""
    looks = iter([1, 1, 1, 1])
    monkeypatch.setattr(loop, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(threads, "free_threads", lambda n, now: next(looks, 2))
    images = synthetic_images(32, size=8, random_state=1)
    events = []
    model = small(max_steps=60, budget=600).fit(images, callback=events.append)
    changes = [(e["step"], e["threads"]) for e in model.decisions_ if e["decision"] == "threads"]
    assert changes == [(0, 1), (loop.WARM_UP + 3, 2)]
    assert torch.get_num_threads() == 2
    assert next(e for e in events if e["event"] == "start")["threads"] == 2
    assert sum("Other programs use this machine" in str(e.get("message")) for e in events) == 1

    monkeypatch.setattr(threads, "free_threads", lambda n, now: pytest.fail("a replay looks at nothing"))
    again = small(max_steps=60, budget=600).fit(images, replay=model.decisions_)
    assert again.decisions_ == model.decisions_
    for a, b in zip(model.module_.parameters(), again.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.get_num_threads() == 2


def test_training_without_a_budget_never_changes_its_threads(monkeypatch, two_threads):
    monkeypatch.setattr(threads, "free_threads", lambda n, now: pytest.fail("the clock and the load have no say"))
    model = small(max_steps=4).fit(synthetic_images(32, size=8, random_state=1))
    assert model.decisions_ == []
