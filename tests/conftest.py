"""Fixtures for all tests: one seed, the real image sets where they are at hand, threads kept to the machine's."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is first imported

import numpy as np
import pytest
import torch


def data_root() -> Path:
    """The folder with the real image sets: IMATLAS_DATA, or `../shared/data` beside the checkout."""
    named = os.environ.get("IMATLAS_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def need_data(name: str) -> Path:
    """The path of one real set; skips the test with the reason where it is not at hand."""
    path = data_root() / name
    if not path.exists():
        pytest.skip(f"the image set '{name}' is not at hand (looked in {data_root()}; set IMATLAS_DATA)")
    return path


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A suite that was started in the background may inherit a Ctrl-C that is ignored; tests send one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def every_warning() -> None:
    """torch warns once in a process; were that kept, which test fails would depend on the order of the files."""
    torch.set_warn_always(True)


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept for a user (`system.user_folders`) stays out of the home folder of whoever runs the tests."""
    for kind in ("STATE", "CACHE"):
        os.environ[f"XDG_{kind}_HOME"] = str(tmp_path_factory.mktemp(kind.lower()))


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of chance in tests."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def fashion() -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST's test part: pixels (10000, 28, 28) uint8 and labels (10000,)."""
    folder = need_data("fashion_mnist")

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return pixels, read("t10k-labels-idx1-ubyte.gz", 8)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny networks run fastest on one thread, and do not stand still where other work fills the machine."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    """Dark images with the label 3 and bright ones with the label 7: (120, 8, 8, 1) uint8, and (120,)."""
    rng = np.random.default_rng(0)
    y = np.repeat([3, 7], 60)
    level = np.where(y == 3, 50, 200)[:, None, None, None]
    return np.clip(level + rng.normal(0, 12, (120, 8, 8, 1)), 0, 255).astype(np.uint8), y
