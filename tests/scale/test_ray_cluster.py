"""A Ray cluster on this machine: the same answers as one process, also if a worker or the driver is killed."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.errors import InputError, ParameterError, SourceError
from imatlas.images.intake import Plan, RowReader, Skip
from imatlas.images.sources.opening import open_source
from imatlas.models.parts import sharded_embedding
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.models.parts.sharded_embedding import of_pixels
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.scale import ray_cluster
from imatlas.scale.ray_cluster import RayWorkers, connected
from imatlas.system.workers import by_rows
from imatlas.tasks.duplicates.by_hash import near_pairs
from imatlas.tasks.quality_flags import quality_flags

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc"),
]

N = 128


def ray_processes(of: int) -> list[tuple[int, str]]:
    """(process, command) of what Ray runs below a process."""
    found, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue

    def is_below(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == of:
                return True
        return False

    return [(process, command) for process, command in found.items() if "ray" in command and is_below(process)]


@pytest.fixture(scope="module")
def workers() -> Iterator[RayWorkers]:
    with connected("local", n_workers=2) as found:
        assert found.n_workers == 2
        yield found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray forgets the processes that it has ended
        gc.collect()
    deadline = time.monotonic() + 20
    while ray_processes(os.getpid()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_processes(os.getpid())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path / f"{i:03}.png")
    (path / "broken.png").write_bytes(b"no picture")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    return PretrainedEncoder(n_components=8).fit_transform(ia.Images(folder, image_size=32))


def test_workers_decode_and_embed_as_one_process_does(
    workers: RayWorkers, folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    here, there = ia.Images(folder, image_size=32), ia.Images(folder, image_size=32, workers=workers)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert there.skipped == here.skipped
    assert there.fingerprint == here.fingerprint
    found = PretrainedEncoder(n_components=8).fit_transform(there, cache=FeatureCache(tmp_path))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("n_features", [8, 200], ids=["searched directly", "searched by projection"])
def test_map_and_clusters_equal_those_of_one_process(workers: RayWorkers, n_features: int) -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(5000, n_features)) * np.linspace(2, 0.1, n_features)).astype(np.float32)
    weight = rng.random(len(X)).astype(np.float32)
    one, many = ia.SOM(rows=6, cols=8).fit(X), ia.SOM(rows=6, cols=8).fit(X, workers=workers)
    np.testing.assert_allclose(many.codebook_, one.codebook_, atol=1e-4)
    np.testing.assert_array_equal(many.cells_, one.cells_)
    means = [ia.KMeans(n_clusters=9).fit(X, sample_weight=weight, workers=w) for w in (None, workers)]
    np.testing.assert_allclose(means[1].cluster_centers_, means[0].cluster_centers_, atol=1e-4)
    np.testing.assert_array_equal(means[1].labels_, means[0].labels_)


def test_a_map_of_rows_with_missing_values_and_weights(workers: RayWorkers) -> None:
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(2001, 5)).astype(np.float32), rng.random(2001)
    X[rng.random(X.shape) < 0.1] = np.nan
    X[7], weight[:5] = np.nan, 0
    for metric in ("euclidean", "cosine"):
        one, many = (
            ia.SOM(rows=4, cols=5, metric=metric).fit(X, sample_weight=weight, workers=w) for w in (None, workers)
        )
        np.testing.assert_allclose(many.codebook_, one.codebook_, atol=1e-4)
        np.testing.assert_array_equal(many.cells_, one.cells_)


def test_clusters_of_an_embedding(workers: RayWorkers) -> None:
    X = np.concatenate([np.random.default_rng(i).normal(3 * i, 1, (90, 4)) for i in range(4)]).astype(np.float32)
    one, many = (ia.ImageClusterer(n_clusters=4).fit(X, workers=w) for w in (None, workers))
    np.testing.assert_array_equal(many.labels_, one.labels_)


def test_outliers_flags_and_duplicates_equal_those_of_one_process(
    workers: RayWorkers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imatlas.system.workers.PART", 2048)
    X = np.random.default_rng(0).normal(size=(6000, 5)).astype(np.float32)
    one, many = (ia.OutlierDetector().fit(X, workers=w) for w in (None, workers))
    np.testing.assert_allclose(many.outlier_scores_, one.outlier_scores_, rtol=1e-5)
    rows = by_rows(one.score_samples, X, workers)
    assert [len(part) for part in rows] == [2048, 2048, 1904]
    np.testing.assert_allclose(np.concatenate(rows), one.score_samples(X), rtol=1e-5)
    images = ia.Images(folder, image_size=32)
    sizes = images.records["width"], images.records["height"]
    flags = [quality_flags(images.thumbnails, *sizes, workers=w).of for w in (None, workers)]
    assert flags[0] == flags[1]
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 3000, np.uint64) >> np.uint64(48))
    hashes = np.concatenate([hashes, hashes ^ np.uint64(1 << 50)])
    pairs = [near_pairs(hashes, 3, workers=w) for w in (None, workers)]
    assert len(pairs[0]) > len(hashes) // 2
    np.testing.assert_array_equal(*pairs)


def test_an_encoder_that_was_learned_here_embeds_there(workers: RayWorkers, folder: Path) -> None:
    images = ia.Images(folder, image_size=32)
    model = ia.Autoencoder(max_steps=2, latent_dim=4).fit(images)
    expected = of_pixels(model, images)
    images.workers = workers
    np.testing.assert_allclose(of_pixels(model, images), expected, atol=1e-4)
    assert len(of_pixels(model, images[:0])) == 0


def test_a_worker_is_killed(workers: RayWorkers, folder: Path, expected: np.ndarray) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            busy = [process for process, command in ray_processes(os.getpid()) if command.startswith("ray::_run_block")]
            if busy:
                time.sleep(0.3)  # it is within its first shard
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])

    images = ia.Images(folder, image_size=32)
    images.keys  # decode  # noqa: B018
    images.workers, before = workers, workers.n_retried
    killer = threading.Thread(target=kill_one)
    killer.start()
    found = PretrainedEncoder(n_components=8).fit_transform(images)
    killer.join()
    assert killed
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert workers.n_retried > before
    assert "because a worker had died" in workers.in_words()


def ends_its_process(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_kills_every_worker_is_not_tried_forever(workers: RayWorkers, monkeypatch) -> None:
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    with pytest.raises(InputError, match="has ended the process of its worker 2 times"):
        list(workers.map(ends_its_process, [1, 2, 3]))
    assert list(workers.map(ends_its_process, [1, 2])) == [1, 2]


def test_the_process_that_counts_is_killed(workers: RayWorkers) -> None:
    assert list(workers.map(ends_its_process, [1, 2])) == [1, 2]
    counting = [process for process, command in ray_processes(os.getpid()) if command.startswith("ray::_Begun")]
    assert counting
    for process in counting:
        os.kill(process, signal.SIGKILL)
    assert list(workers.map(ends_its_process, [4, 5])) == [4, 5]
    assert workers.n_retried == 0


SCRIPT = """
import sys
import imatlas as ia
from imatlas.models.parts import sharded_embedding
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.scale.ray_cluster import connected
sharded_embedding.AT_ONCE = sharded_embedding.SHARD = 16
with connected("local", n_workers=2) as workers:
    images = ia.Images(sys.argv[1], image_size=32, workers=workers)
    ia.PretrainedEncoder(n_components=8).fit_transform(images, cache=FeatureCache(sys.argv[2]))
"""


def test_the_driver_is_killed(
    workers: RayWorkers, folder: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_embedding, "AT_ONCE", 16)
    monkeypatch.setattr(sharded_embedding, "SHARD", 16)
    cache, alone = tmp_path / "features", {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(cache)], env=alone)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.npy"))) < 2:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    kept = {path.name for path in cache.glob("*.npy")}
    assert len(kept) < N // 16
    images = ia.Images(folder, image_size=32, workers=workers)
    found = PretrainedEncoder(n_components=8).fit_transform(images, cache=FeatureCache(cache))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    files = list(cache.glob("*.npy"))
    assert kept < {path.name for path in files}
    contents = [content for path in files for content in np.load(path)["content"].tolist()]
    assert len(contents) == len(set(contents)) == N  # none was computed again


def test_learn_on_a_cluster(workers: RayWorkers, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = [str(path) for path in sorted(folder.glob("*.png"))[:16]]
    many = ia.learn(few, tmp_path / "many", budget="2s", image_size=32, cluster="local")
    assert "Cluster: 2 workers of Ray" in capsys.readouterr().out
    assert len(many) == 16
    again = ia.learn(few, tmp_path / "many", budget="2s", image_size=32, progress=False)  # without: the same atlas
    np.testing.assert_array_equal(again.embedding, many.embedding)


def test_a_worker_that_cannot_read_the_images_is_told(folder: Path) -> None:
    reader = RowReader(open_source(folder), Plan(32, 32))
    unread = [[Skip(0, "000.png", "No such file or directory")]]
    with pytest.raises(SourceError, match=r"worker .* cannot read '000.png', which this machine can .*same path"):
        reader._confirm([0], unread)
    broken = open_source(folder).keys.index("broken.png")
    reader._confirm([broken], [[Skip(broken, "broken.png", "not a picture")]])  # neither can this machine
    images = ia.Images(folder, image_size=32)
    with pytest.raises(SourceError, match="3 of 128 images"):
        sharded_embedding._confirmed(lambda _: [], images, [], n_unread=3)


def test_errors_of_workers_arrive_as_they_are(workers: RayWorkers) -> None:
    with pytest.raises(SourceError, match="There is no file or folder"):
        list(workers.map(open_source, ["/no/such/folder"]))


@pytest.mark.parametrize("address", ["here", "http://host:1", 3])
def test_wrong_addresses(address: object, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="'local', or the address of a Ray cluster as in 'ray://host:10001'"):
        ia.learn(np.zeros((4, 8, 8), np.uint8), tmp_path / "atlas", cluster=address)  # type: ignore[arg-type]
    assert not (tmp_path / "atlas").exists()
