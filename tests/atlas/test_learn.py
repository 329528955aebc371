"""The main job on small real pictures: learn, stop, continue, update, move; and nothing lost in between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.atlas import learn
from imatlas.atlas.manifest import Manifest
from imatlas.errors import ArtifactError, AtlasBusyError, InputError, ParameterError, SourceError
from imatlas.models.layout import Layout

BUDGET = "6s"


def write_patches(folder: Path, n: int, *, start: int = 0) -> Path:
    """Gray patches (28 x 28) of three bundled photographs, so that the own encoder is chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = {"camera": data.camera(), "coins": data.coins(), "brick": data.brick()}
    rng = np.random.default_rng(start)
    for i in range(start, start + n):
        name, photo = list(photos.items())[i % 3]
        top, left = rng.integers(0, np.array(photo.shape) - 56)
        patch = Image.fromarray(photo[top : top + 56, left : left + 56]).resize((28, 28))
        patch.save(folder / f"{name}-{i:04d}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = write_patches(tmp_path_factory.mktemp("source") / "photos", 240)
    (folder / "broken.png").write_bytes((folder / "brick-0002.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    shutil.copy(folder / "camera-0000.png", folder / "copy of camera.png")
    return folder


@pytest.fixture(scope="module")
def learned(photos, tmp_path_factory) -> Path:
    """A finished atlas; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("atlas") / "photos.atlas"
    ia.learn(photos, folder, budget=BUDGET, progress=False)
    return folder


def test_a_folder_becomes_an_atlas_with_everything_in_it(learned):
    atlas = ia.load(learned)
    assert len(atlas) == 241
    assert atlas.store.manifest.finished
    rows = atlas.table().to_pydict()
    learned_columns = {
        "cell",
        "x",
        "y",
        "umap_x",
        "umap_y",
        "cluster",
        "confidence",
        "outlier",
        "p_value",
        "duplicate_of",
        "flags",
    }
    assert set(rows) == {"key", "width", "height", "held_out", *learned_columns}
    assert rows["duplicate_of"][rows["key"].index("copy of camera.png")] == "camera-0000.png"
    assert 0 < sum(rows["held_out"]) < 60
    som = atlas.model("map")
    assert max(rows["cell"]) < len(som.codebook_)
    skipped = (learned / "skipped.csv").read_text()
    assert "broken.png" in skipped
    assert "(1 other file),no images: 1 .txt" in skipped
    html = (learned / "report.html").read_text()
    assert "broken.png" in html
    assert len(html) > 100_000
    assert all(json.loads(line) for line in (learned / "metrics.jsonl").read_text().splitlines())


def test_neighbors_are_of_the_same_photograph(learned):
    found = ia.load(learned).search("brick-0005.png", k=8).to_pylist()
    assert [row["rank"] for row in found] == list(range(1, 9))
    assert sum(row["key"].startswith("brick") for row in found) >= 6
    distances = [row["distance"] for row in found]
    assert distances == sorted(distances)
    assert "brick-0005.png" not in [row["key"] for row in found]


def test_a_picture_from_outside_is_found_too(learned, photos, tmp_path):
    shutil.copy(photos / "coins-0001.png", tmp_path / "query.png")
    found = ia.load(learned).search(tmp_path / "query.png", k=3).to_pylist()
    assert found[0]["key"] == "coins-0001.png"
    assert found[0]["distance"] == pytest.approx(0, abs=1e-3)


def test_several_examples_a_region_and_neighbors_of_all(learned, photos, tmp_path):
    atlas = ia.load(learned)
    keys = ["brick-0005.png", "coins-0001.png"]
    found = atlas.search(keys[0], 12, like=keys[1:], unlike=["camera-0006.png"]).to_pylist()
    assert not {*keys, "camera-0006.png"} & {row["key"] for row in found}
    assert [row["rank"] for row in found] == list(range(1, 13))
    whole = (0, 0, 28, 28)
    by_region = atlas.search(keys[0], 5, region=whole)["key"].to_pylist()
    assert by_region == atlas.search(keys[0], 5)["key"].to_pylist()
    shutil.copy(photos / keys[0], tmp_path / "same.png")
    assert atlas.search(tmp_path / "same.png", 1, region=whole)["key"].to_pylist() == keys[:1]
    with pytest.raises(InputError, match=r"must be inside 'brick-0005\.png', which is 28 x 28 pixels"):
        atlas.search(keys[0], region=(20, 0, 20, 10))
    distances, indices = atlas.kneighbors(k=3)
    assert indices.shape == distances.shape == (241, 3)
    assert (indices != np.arange(241)[:, None]).all()
    row = atlas.keys.index(keys[0])
    assert [atlas.keys[i] for i in indices[row]] == atlas.search(keys[0], 3)["key"].to_pylist()
    np.testing.assert_array_equal(atlas.kneighbors([photos / keys[0]], 1)[1], [[row]])


def test_a_region_without_the_original_is_cropped_from_the_thumbnail_with_a_warning(learned, tmp_path):
    moved = Path(shutil.copytree(learned, tmp_path / "elsewhere.atlas"))
    manifest = Manifest.read(moved)
    manifest.source = "/nowhere/photos"
    manifest.commit(moved)
    with pytest.warns(UserWarning, match="cropped from its thumbnail of 28 x 28"):
        found = ia.load(moved).search("brick-0005.png", 3, region=(0, 0, 20, 20))
    assert len(found) == 3
    with pytest.raises(InputError, match="No original can be used"):
        ia.load(moved).export(tmp_path / "clusters", to="folders")


def test_a_large_atlas_is_searched_by_an_index_that_finds_the_same(learned, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("imatlas.atlas.stages.EXACT", 100)
    indexed = ia.learn(photos, tmp_path / "large.atlas", budget=BUDGET, progress=False)
    assert indexed.store.table.has_index("embedding")
    found = indexed.search("brick-0005.png", 8)
    indexed.store.table.has_index = lambda column: False
    del indexed.store.vectors, indexed.store.spread
    exact = indexed.search("brick-0005.png", 8)
    assert found["key"].to_pylist() == exact["key"].to_pylist()
    np.testing.assert_allclose(found["distance"].to_numpy(), exact["distance"].to_numpy(), rtol=1e-4)


def test_an_atlas_of_before_gains_the_layout_and_keeps_the_rest(learned, photos, tmp_path):
    old = Path(shutil.copytree(learned, tmp_path / "old.atlas"))
    manifest = Manifest.read(old)
    models = {role: name for role, name in manifest.models.items() if role != "layout"}
    del manifest.stages["layout"], manifest.models["layout"]
    manifest.commit(old)
    atlas = ia.learn(photos, old, budget=BUDGET, progress=False)
    assert atlas.store.manifest.finished
    assert {role: atlas.store.manifest.models[role] for role in models} == models
    assert "layout" in atlas.store.manifest.models


def test_samples_are_the_same_for_one_seed_and_differ_among_themselves(learned):
    atlas = ia.load(learned)
    images = atlas.sample(9, random_state=3)
    assert images.shape == (9, 28, 28, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(atlas.sample(4, random_state=3), images[:4])
    assert not np.array_equal(atlas.sample(4, random_state=4), images[:4])
    assert len(np.unique(images.reshape(9, -1), axis=0)) == 9


def test_the_same_again_does_nothing_and_other_settings_stop_with_a_list(learned, photos, capsys):
    before = (learned / "atlas.json").read_bytes()
    ia.learn(photos, learned, budget=BUDGET)
    assert "Nothing has changed" in capsys.readouterr().out
    assert (learned / "atlas.json").read_bytes() == before
    with pytest.raises(ArtifactError, match=r"clusters was None and is now 4; image_size was None and is now 32"):
        ia.learn(photos, learned, budget=BUDGET, clusters=4, image_size=32)


def test_an_atlas_that_was_moved_away_from_its_images_still_works(learned, photos, tmp_path):
    moved = Path(shutil.copytree(learned, tmp_path / "elsewhere.atlas"))
    shutil.rmtree(moved / "cache")
    manifest = Manifest.read(moved)
    manifest.source = "/nowhere/photos"
    manifest.commit(moved)
    atlas = ia.load(moved)
    assert len(atlas.search("coins-0001.png", k=5)) == 5
    assert atlas.sample(2, random_state=0).shape == (2, 28, 28, 1)
    report = atlas.report(tmp_path / "report.html")
    assert report.stat().st_size > 100_000
    assert atlas.score().metrics["kernel_distance"] < 1e6


def test_a_folder_that_grew_is_updated_and_old_images_keep_their_place(learned, photos, tmp_path):
    grown = Path(shutil.copytree(photos, tmp_path / "photos"))
    folder = tmp_path / "photos.atlas"
    ia.learn(grown, folder, budget=BUDGET, progress=False)
    old = {row["key"]: row for row in ia.load(folder).table().to_pylist()}
    encoder_before = Manifest.read(folder).models
    write_patches(grown, 24, start=1000)
    (grown / "brick-0002.png").unlink()
    atlas = ia.learn(grown, folder, budget=BUDGET, progress=False)
    new = {row["key"]: row for row in atlas.table().to_pylist()}
    assert len(new) == len(old) + 24 - 1
    assert "brick-0002.png" not in new
    assert atlas.store.manifest.models == encoder_before
    for key in set(old) & set(new):
        assert (new[key]["cell"], new[key]["x"], new[key]["cluster"], new[key]["held_out"]) == (
            old[key]["cell"], old[key]["x"], old[key]["cluster"], old[key]["held_out"],
        )  # fmt: skip
    moved = [abs(new[key][c] - old[key][c]) for key in set(old) & set(new) for c in ("umap_x", "umap_y")]
    assert max(moved) == 0
    assert np.isfinite(atlas.layout).all()


def test_an_update_costs_the_new_images(photos, tmp_path, monkeypatch, capsys):
    for module in ("table", "growth"):
        monkeypatch.setattr(f"imatlas.atlas.{module}.FRAGMENT", 50)
    grown, folder = Path(shutil.copytree(photos, tmp_path / "photos")), tmp_path / "photos.atlas"
    first = ia.learn(grown, folder, budget=BUDGET, progress=False).store
    old, files, keys = first.rows, first.table.named.fragments, first.keys.to_pylist()
    embedding = first.embedding
    write_patches(grown, 12, start=1000)
    (grown / keys[60]).unlink()
    shutil.copy(grown / keys[0], grown / "another copy.png")
    predicted = []
    for model, verb in (
        (ia.SOM, "predict"),
        (ia.ImageClusterer, "predict"),
        (ia.OutlierDetector, "score_samples"),
        (Layout, "transform"),
    ):
        original = getattr(model, verb)

        def spy(self, X, original=original):
            predicted.append(len(X))
            return original(self, X)

        monkeypatch.setattr(model, verb, spy)
    monkeypatch.setattr(learn, "STAGES", {name: stage for name, stage in learn.STAGES.items() if name != "report"})
    store = ia.learn(grown, folder, budget=BUDGET, progress=False).store
    assert set(predicted) == {13}
    now = store.rows["key"].tolist()
    assert now[:150] == keys[:50] + keys[100:200]
    # One fragment has lost a row, and the last was not full: their rows come behind the others, then the new ones.
    assert now[150:] == [*keys[50:60], *keys[61:100], *keys[200:], *sorted(set(now) - set(keys))]
    kept = [files[0], files[2], files[3]]
    for (_, before), (_, after) in zip(kept, store.table.named.fragments[:3], strict=True):
        assert [before[name] for name in ("key", "thumbnail", "embedding")] == [
            after[name] for name in ("key", "thumbnail", "embedding")
        ]
    row_of = {key: row for row, key in enumerate(keys)}
    stayed = [row for row, key in enumerate(now) if key in row_of]
    for name in (
        "cell",
        "x",
        "y",
        "cluster",
        "confidence",
        "outlier",
        "p_value",
        "umap_x",
        "umap_y",
        "held_out",
        "flags",
        "sha256",
    ):
        values = [old[name][row_of[now[row]]] for row in stayed]
        np.testing.assert_array_equal(store.rows[name][stayed], values)
    np.testing.assert_array_equal(store.embedding[stayed], embedding[[row_of[now[row]] for row in stayed]])
    assert store.rows["duplicate_of"][now.index("another copy.png")] == keys[0]
    for row in (3, 60, 195, 230, len(now) - 1):  # the thumbnail is that of the key
        np.testing.assert_array_equal(store.pixels([row])[0, ..., 0], np.asarray(Image.open(grown / now[row])))
    capsys.readouterr()
    monkeypatch.undo()
    ia.learn(grown, folder, budget=BUDGET)  # the report is still to be written
    assert "7/8" not in capsys.readouterr().out
    ia.learn(grown, folder, budget=BUDGET)
    assert "Nothing has changed" in capsys.readouterr().out
    fewer = set(now[20:30])
    for key in fewer:
        (grown / key).unlink()
    last = ia.learn(grown, folder, budget=BUDGET, progress=False)
    assert sorted(last.keys) == sorted(set(now) - fewer)
    position = {key: row for row, key in enumerate(now)}
    rows = [position[key] for key in last.keys]
    np.testing.assert_array_equal(last.store.rows["umap_x"], store.rows["umap_x"][rows])


def test_the_outlier_detector_is_fitted_again_when_images_have_doubled(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(learn, "STAGES", {name: learn.STAGES[name] for name in list(learn.STAGES)[:5]})
    few, folder = tmp_path / "photos", tmp_path / "photos.atlas"
    few.mkdir()
    files = sorted(photos.iterdir())
    n_fitted = []
    for n in (3, 10, 20, 21):
        for file in files[:n]:
            shutil.copy(file, few / file.name)
        store = ia.learn(few, folder, budget=BUDGET, progress=False).store
        if n == 3:
            assert "outliers" not in store.manifest.models
            assert (store.rows["p_value"] == 1).all()
        else:
            n_fitted.append(len(store.model("outliers").p_values_))
            assert ((store.rows["p_value"] > 0) & (store.rows["p_value"] <= 1)).all()
    assert n_fitted == [10, 10, 21]
    found = ia.load(folder).outliers(false_positive_rate=0.2)
    assert 0 < len(found.rows) <= 4
    np.testing.assert_array_equal(found.outlier_scores, store.rows["outlier"])


def test_cached_features_serve_a_new_atlas(tmp_path, monkeypatch):
    """Forty photographs, too few to compare presets; with other settings none goes through the network again.

    With a budget of seconds a busy machine would take fewer views, and so other features.
    """
    photos, folder = tmp_path / "photos", tmp_path / "photos.atlas"
    photos.mkdir()
    rng, whole = np.random.default_rng(0), (data.chelsea(), data.coffee())
    for i in range(40):
        top, left = rng.integers(0, 200, 2)
        Image.fromarray(whole[i % 2][top : top + 90, left : left + 90]).save(photos / f"{i:02d}.png")
    monkeypatch.setattr(learn, "STAGES", {name: learn.STAGES[name] for name in ("intake", "encoder")})
    first = ia.learn(photos, folder, budget="60s", progress=False)
    embedding = first.embedding  # read now: the folder will hold another atlas
    assert first.store.manifest.stages["encoder"]["preset"] == "objects+texture"
    assert "without a comparison" in first.store.manifest.stages["encoder"]["why"]
    files = {path: path.stat().st_mtime_ns for path in (folder / "cache" / "features").iterdir()}
    assert files
    photos.rename(tmp_path / "moved")
    again = ia.learn(tmp_path / "moved", folder, budget="60s", clusters=2, overwrite=True, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache" / "features").iterdir()} == files
    np.testing.assert_array_equal(again.embedding, embedding)


def test_kill_at_any_moment_then_the_same_command_finishes(photos, tmp_path):
    folder = tmp_path / "killed.atlas"
    command = [sys.executable, "-m", "imatlas", "learn", str(photos), "-o", str(folder), "--budget", "4s"]
    for delay in (2.5, 4.0, 6.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "atlas.json").exists():
            Manifest.read(folder)  # always whole
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    atlas = ia.load(folder)
    assert atlas.store.manifest.finished
    assert len(atlas) == 241
    named = {*atlas.store.manifest.models.values(), "images.lance"}
    left = {p.name for p in folder.iterdir()} - named
    assert left <= {"atlas.json", "cache", "metrics.jsonl", "skipped.csv", "report.html", ".lock"}


def test_a_full_disk_is_told_in_one_line_and_costs_nothing(photos, tmp_path):
    """No file may grow over 60 kB: what a full disk does to the cache, the table or the weights."""
    folder = tmp_path / "full.atlas"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "from imatlas.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["learn", str(photos), "-o", str(folder), "--budget", "3s"]
    full = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in full.stderr
    done = subprocess.run([sys.executable, "-m", "imatlas", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ia.load(folder).store.manifest.finished


def test_a_file_where_the_cache_should_be_is_named(photos, learned, tmp_path):
    folder = Path(shutil.copytree(learned, tmp_path / "photos.atlas"))
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("in the way")
    grown = write_patches(Path(shutil.copytree(photos, tmp_path / "photos")), 3, start=2000)
    manifest = Manifest.read(folder)
    manifest.settings["source"] = str(grown)
    manifest.commit(folder)
    before = (folder / "atlas.json").read_bytes()
    with pytest.raises((OSError, ValueError), match="cache"):
        ia.learn(grown, folder, budget=BUDGET, progress=False)
    assert (folder / "atlas.json").read_bytes() == before
    assert len(ia.load(folder).search("coins-0001.png", k=2)) == 2


def test_a_second_writer_is_refused(photos, tmp_path):
    from imatlas.atlas.manifest import locked

    folder = tmp_path / "busy.atlas"
    folder.mkdir()
    with locked(folder), pytest.raises(AtlasBusyError, match="Another process is writing"), locked(folder):
        pass


def test_eyes_that_learn_here_and_a_generator_beside_them(photos, tmp_path):
    atlas = ia.learn(photos, tmp_path / "a.atlas", encoder="self-supervised", budget=BUDGET, progress=False)
    assert type(atlas.model("encoder")).__name__ == "SelfSupervisedEncoder"
    assert "without labels" in atlas.store.manifest.stages["encoder"]["summary"]
    assert atlas.embedding.shape == (241, 128)
    file = photos / "coins-0001.png"
    np.testing.assert_allclose(
        atlas.embed([file])[0], atlas.embedding[atlas.store.rows["key"] == file.name][0], atol=1e-5
    )
    assert atlas.search(str(file), k=1)["key"].to_pylist() == [file.name]
    assert atlas.sample(2, cell=0).shape == (2, 28, 28, 1)
    assert (tmp_path / "a.atlas" / "report.html").stat().st_size > 50_000


def test_wrong_calls_say_what_to_do(photos, tmp_path):
    with pytest.raises(SourceError):
        ia.learn(tmp_path / "nothing", tmp_path / "a.atlas", progress=False)
    few = write_patches(tmp_path / "few", 1)
    with pytest.raises(InputError, match=r"at least 2 usable images\. Got 1"):
        ia.learn(few, tmp_path / "b.atlas", progress=False)
    with pytest.raises(ParameterError, match="'encoder' of learn must be one of"):
        ia.learn(photos, tmp_path / "c.atlas", encoder="nosuch")
    with pytest.raises(ParameterError, match="budget"):
        ia.learn(photos, tmp_path / "d.atlas", budget="soon")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="is not an atlas"):
        ia.learn(photos, mine, overwrite=True)
    assert (mine / "thesis.tex").read_text() == "years of work"
    with pytest.raises(SourceError, match="no atlas in"):
        ia.Atlas(mine)


def test_an_array_is_a_source_like_any_other(tmp_path, fashion):
    pixels = fashion[0][:300]
    atlas = ia.learn(pixels, tmp_path / "clothes.atlas", budget="5s", clusters=6, progress=False)
    assert len(atlas) == 300
    assert len(set(atlas.table()["cluster"].to_pylist())) == 6
    np.testing.assert_array_equal(atlas.store.pixels([5])[0, :, :, 0], pixels[5])


def test_a_wrong_name_leaves_nothing_behind(photos, tmp_path):
    with pytest.raises(SourceError, match="no file or folder"):
        ia.learn(tmp_path / "nofolder", tmp_path / "x.atlas", budget=1, progress=False)
    assert not (tmp_path / "x.atlas").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError):
        ia.learn(empty, tmp_path / "x.atlas", budget=1, progress=False)
    atlas = ia.learn(photos, tmp_path / "x.atlas", budget=2, progress=False)  # another source and budget
    assert atlas.store.manifest.source == str(photos)


def test_images_that_were_moved_are_found_by_what_they_are_or_by_being_told(photos, tmp_path, capsys):
    first = tmp_path / "first"
    shutil.copytree(photos, first)
    ia.learn(first, tmp_path / "x.atlas", budget=2, progress=False)
    before = ia.Atlas(tmp_path / "x.atlas").store.manifest.models["encoder"]
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(ArtifactError, match="--moved-from"):  # the old place is still there
        ia.learn(tmp_path / "copy", tmp_path / "x.atlas", budget=2, progress=False)
    first.rename(tmp_path / "second")
    atlas = ia.learn(tmp_path / "second", tmp_path / "x.atlas", budget=2)
    told = capsys.readouterr().out
    assert "have moved" in told
    assert "Nothing has changed" in told
    assert atlas.store.originals.path(str(atlas.store.rows["key"][0])).is_file()
    (tmp_path / "second").rename(tmp_path / "third")
    write_patches(tmp_path / "third", 2, start=900)  # others have come meanwhile: only the user can know
    with pytest.raises(ArtifactError, match="--moved-from"):
        ia.learn(tmp_path / "third", tmp_path / "x.atlas", budget=2, progress=False)
    with pytest.raises(ArtifactError, match="other settings"):
        ia.learn(tmp_path / "third", tmp_path / "x.atlas", budget=2, moved_from=tmp_path, progress=False)
    n = len(atlas)
    atlas = ia.learn(tmp_path / "third", tmp_path / "x.atlas", budget=2, moved_from=tmp_path / "second", progress=False)
    assert len(atlas) == n + 2
    assert atlas.store.manifest.models["encoder"] == before
    assert atlas.store.manifest.source == str(tmp_path / "third")
