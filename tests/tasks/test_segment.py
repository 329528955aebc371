"""Segments of the images of a folder."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from pyarrow import parquet

import imatlas as ia
from imatlas.errors import ArtifactError, AtlasBusyError, InputError, ParameterError
from imatlas.images.sources.opening import open_source
from imatlas.tasks.region_files import measure_regions
from imatlas.tasks.segment import segment_files


def scene(dtype=np.uint8, channels=3):
    """A bright square on a dark background, with a little noise."""
    rng = np.random.default_rng(0)
    image = rng.normal(60, 2, (48, 64, channels))
    image[12:36, 20:44] += 120
    return (image * (257 if dtype == np.uint16 else 1)).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.fromarray(scene()).save(photos / "a b.png")
    Image.fromarray(scene(channels=1)[..., 0]).save(photos / "more" / "gray.png")
    Image.fromarray(scene(np.uint16, 1)[..., 0]).save(photos / "deep.png")
    Image.fromarray(scene(channels=4)).save(photos / "alpha.png")
    np.save(photos / "seven.npy", scene(np.float32, 7))
    Image.new("RGB", (1, 30), "red").save(photos / "thin.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    return photos


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_images_of_every_kind_are_split_where_they_differ(folder, tmp_path):
    out = tmp_path / "out"
    result = segment_files(folder, out, n_segments=2, with_coco=True, with_cut_outs=True)
    files = {row["key"]: row for row in rows_of(out / "images.csv")}
    assert sorted(files) == ["a b.png", "alpha.png", "deep.png", "more/gray.png", "seven.npy", "thin.png"]
    assert [key for key, _ in result.data["skipped"]] == ["broken.jpg"]
    square = np.zeros((48, 64), bool)
    square[12:36, 20:44] = True
    for key in ("a b.png", "deep.png", "more/gray.png", "seven.npy"):
        labels = pixels_of(out / files[key]["labels"])
        assert sorted(np.unique(labels)) == [1, 2]
        inside = labels == labels[24, 32]
        assert (inside & square).sum() / (inside | square).sum() > 0.9
        assert pixels_of(out / files[key]["overlay"]).shape == (48, 64, 3)
    assert files["thin.png"]["segments"] == "1"
    assert json.loads((out / "coco.json").read_text())["images"][0]["file_name"] == "a b.png"
    assert list((out / "cut-outs").glob("00001-a-b-*.png"))


def test_the_table_has_a_row_for_each_segment(folder, tmp_path):
    segment_files(folder, tmp_path / "out", n_segments=2, pixel_size=0.5)
    rows = rows_of(tmp_path / "out" / "regions.csv")
    assert len(rows) == 5 * 2 + 1
    of_first = [row for row in rows if row["key"] == "a b.png"]
    assert sum(float(row["area"]) for row in of_first) == 48 * 64 / 4
    assert {row["label"] for row in of_first} == {"1", "2"}
    assert parquet.read_table(tmp_path / "out" / "regions.parquet").num_rows == len(rows)


def test_levels_go_from_fine_to_coarse(folder, tmp_path):
    counts = []
    for level in (0.0, 0.5, 1.0):
        result = segment_files(folder / "a b.png", tmp_path / str(level), level=level)
        counts.append(result.metrics["n_segments"])
    assert counts[0] > counts[1] >= counts[2] == 1


def test_more_segments_than_there_are_parts_is_told(folder, tmp_path):
    result = segment_files(folder, tmp_path / "out", n_segments=3000)
    assert "6 images of 6 cannot be split into 3,000 segments." in result.sentences


def test_superpixels_have_a_number_and_no_level(folder, tmp_path):
    segment_files(folder, tmp_path / "out", method="superpixels", n_segments=40)
    files = {row["key"]: row["segments"] for row in rows_of(tmp_path / "out" / "images.csv")}
    assert files.pop("thin.png") == "30"  # as many as pixels
    assert set(files.values()) == {"40"}
    result = segment_files(folder / "a b.png", tmp_path / "default", method="superpixels")
    assert result.metrics["n_segments"] == 200
    with pytest.raises(InputError, match="Only a hierarchy has levels"):
        segment_files(folder, tmp_path / "more", method="superpixels", level=0.5)
    with pytest.raises(ParameterError, match="method"):
        segment_files(folder, tmp_path / "more", method="slic")


def test_objects_are_cut_out_with_their_boxes(folder, tmp_path):
    out = tmp_path / "out"
    segment_files(folder, out, with_objects=True)
    files = {row["key"]: row for row in rows_of(out / "images.csv")}
    for key in ("a b.png", "deep.png", "more/gray.png", "seven.npy"):
        box = [int(files[key][name]) for name in ("top", "left", "bottom", "right")]
        np.testing.assert_allclose(box, [12, 20, 36, 44], atol=2)
        cut = pixels_of(out / files[key]["object"])
        assert cut.shape[2] == 4
        assert cut[10, 10, 3] == 255
    assert files["thin.png"]["object"] == files["thin.png"]["top"] == ""  # one color


def test_strokes_become_segments_with_their_labels(folder, tmp_path):
    strokes = tmp_path / "strokes"
    strokes.mkdir()
    labels = np.zeros((48, 64), np.uint8)
    labels[20:24, 30], labels[2, 5:50] = 7, 3
    Image.fromarray(labels).save(strokes / "a b.png")
    Image.fromarray(labels[:-1]).save(strokes / "gray.png")
    out = tmp_path / "out"
    result = segment_files(folder, out, scribbles=strokes)
    assert result.metrics["n_segments"] == 2
    found = pixels_of(out / rows_of(out / "images.csv")[0]["labels"])
    assert (found[labels > 0] == labels[labels > 0]).all()
    assert (found[14:34, 22:42] == 7).all()
    assert {row["label"] for row in rows_of(out / "regions.csv")} == {"3", "7"}
    reasons = dict(result.data["skipped"])
    assert "48x64x1; got 47x64x1" in reasons["more/gray.png"]
    assert "no strokes" in reasons["deep.png"]
    assert {row["key"]: row["reason"] for row in rows_of(out / "skipped.csv")} == reasons
    Image.fromarray(labels).save(strokes / "of nothing.png")
    result = segment_files(folder, out, scribbles=strokes, overwrite=True)
    assert "'of nothing'" in result.sentences[-1]


def test_points_in_a_table(folder, tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("key,label,y,x\nmore/gray.png,2,20,30\nmore/gray.png,1,2,2\na b.png,1,99,0\n")
    out = tmp_path / "out"
    result = segment_files(folder, out, scribbles=table)
    (row,) = rows_of(out / "images.csv")
    assert row["key"] == "more/gray.png"
    assert pixels_of(out / row["labels"])[24, 32] == 2
    assert "within 48 x 64" in dict(result.data["skipped"])["a b.png"]
    table.write_text("key,y,x\n")
    table.write_text("key,label,y,x\ngray,2,20,30\n")
    with pytest.raises(InputError, match="1 key belong to no image, such as 'gray'"):
        segment_files(folder, tmp_path / "more", scribbles=table)
    table.write_text("key,y,x\n")
    with pytest.raises(InputError, match="columns"):
        segment_files(folder, tmp_path / "more", scribbles=table)
    table.write_text("key,y,x,label\na b.png,1,2,sky\n")
    with pytest.raises(InputError, match="Line 2"):
        segment_files(folder, tmp_path / "more", scribbles=table)
    with pytest.raises(InputError, match="which is none"):
        segment_files(folder, tmp_path / "more", scribbles=tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="Strokes decide"):
        segment_files(folder, tmp_path / "more", scribbles=table, n_segments=3)


def two_textures(folder):
    """Six images, each of stripes on one side and of noise on the other, on the left or the right."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = np.arange(96)[None]
    for i in range(6):
        noise, stripes = 128 + 5 * rng.standard_normal((96, 96)), 128 + 60 * np.sin(x / 1.5)
        left = np.broadcast_to(x < 40 + 3 * i, (96, 96))
        Image.fromarray(np.where(left == (i % 2 == 0), noise, stripes).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_classes_are_the_same_in_all_images_of_a_collection(folder, tmp_path):
    textures = two_textures(tmp_path / "textures")
    out = tmp_path / "out"
    segment_files(textures, out, method="collection", n_segments=2)
    labels = [pixels_of(out / row["labels"]) for row in rows_of(out / "images.csv")]
    assert all(set(np.unique(each)) == {1, 2} for each in labels)
    first = labels[0][48, 5]
    for i, each in enumerate(labels):
        left = first if i % 2 == 0 else 3 - first
        assert (each[:, :36] == left).mean() > 0.95
        assert (each[:, 60:] == 3 - left).mean() > 0.95
    model = ia.load(out / "model")
    assert model.n_classes_ == 2
    segment_files(textures, out, method="collection", n_segments=1, overwrite=True)
    assert all(row["segments"] == "1" for row in rows_of(out / "images.csv"))
    mixed = tmp_path / "mixed"
    result = segment_files(folder, mixed, method="collection", n_segments=2, with_coco=True)  # of all kinds
    assert len(rows_of(mixed / "images.csv")) == 6
    coco = json.loads((mixed / "coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["class 1", "class 2"]
    assert all(region["label"] == region["category_id"] for region in coco["annotations"])
    assert "there are 2" in result.sentences[1]
    assert {Path(name).name for name, _ in result.panels[0].files} >= {"coco.json", "model", "skipped.csv"}
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="None of 1 file"):
        segment_files(empty, tmp_path / "nothing", method="collection")
    assert not (tmp_path / "nothing.unfinished").exists()


def test_a_killed_run_continues_with_its_classes(tmp_path):
    textures, out = two_textures(tmp_path / "textures"), tmp_path / "out"

    class Killed(BaseException):
        pass

    def stop(run, done):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imatlas.tasks.segment.UnfinishedFolder.add", stop)
        with pytest.raises(Killed):
            segment_files(textures, out, method="collection", n_segments=2)
    saved = (tmp_path / "out.unfinished" / "model" / "weights.safetensors").read_bytes()
    for i in range(5):
        (textures / f"{i}.png").unlink()  # classes learned from the rest would be others
    segment_files(textures, out, method="collection", n_segments=2)
    assert (out / "model" / "weights.safetensors").read_bytes() == saved


def test_refusals(folder, tmp_path):
    with pytest.raises(InputError, match="not both"):
        segment_files(folder, tmp_path / "out", level=0.5, n_segments=3)
    with pytest.raises(ParameterError):
        segment_files(folder, tmp_path / "out", level=2)
    with pytest.raises(ParameterError, match="pixel_size"):
        segment_files(folder, tmp_path / "out", pixel_size=0)
    assert not (tmp_path / "out.unfinished").exists()
    with pytest.raises(InputError, match="No image"):
        segment_files(folder / "broken.jpg", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ArtifactError):
        segment_files(folder, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


RUN = "import sys; from imatlas.tasks.segment import segment_files; segment_files(*sys.argv[1:3], n_segments=3)"


def content_of(folder):
    """Every file of a folder, without the times that some formats contain."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for_lines(path, n, process):
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1].decode())


def test_a_killed_run_continues_to_the_same_result(folder, tmp_path):
    for i in range(12):
        Image.fromarray(np.roll(scene(), 3 * i, axis=0)).save(folder / f"z{i}.png")
    segment_files(folder, tmp_path / "whole", n_segments=3)
    out, aside = tmp_path / "out", tmp_path / "out.unfinished"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(out)], stderr=subprocess.PIPE)
    wait_for_lines(aside / "done.jsonl", 3, process)
    process.kill()
    process.communicate()
    assert not out.exists()
    with open(aside / "done.jsonl", "ab") as file:
        file.write(b'{"key": "z9')  # killed while it wrote a line
    (aside / "labels" / ".00009-z9.png.0123456789abcdef.new").write_bytes(b"half a file")
    (aside / "labels" / "00099-orphan.png").write_bytes(b"of no line")
    written = (aside / "labels" / "00001-a-b.png").stat().st_mtime_ns
    result = segment_files(folder, out, n_segments=3)
    assert result.metrics["n_images"] == 18
    assert (out / "labels" / "00001-a-b.png").stat().st_mtime_ns == written
    assert not aside.exists()
    assert content_of(out) == content_of(tmp_path / "whole")


@pytest.fixture
def stopped(folder, tmp_path, monkeypatch):
    """The output of a run that was stopped after two images."""
    from imatlas.tasks import segment

    calls = iter(range(3))

    def measure(*arguments, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measure_regions(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(segment, "measure_regions", measure)
        with pytest.raises(KeyboardInterrupt):
            segment_files(folder, tmp_path / "out", n_segments=3)
    assert (tmp_path / "out.unfinished" / "done.jsonl").read_bytes().count(b"\n") == 2
    return tmp_path / "out"


def test_images_that_changed_meanwhile_are_done_anew(folder, stopped, tmp_path):
    Image.fromarray(255 - scene()[:30]).save(folder / "a b.png")
    (folder / "alpha.png").unlink()
    segment_files(folder, stopped, n_segments=3, with_cut_outs=False)
    files = {row["key"]: row for row in rows_of(stopped / "images.csv")}
    assert sorted(files) == ["a b.png", "deep.png", "more/gray.png", "seven.npy", "thin.png"]
    assert pixels_of(stopped / files["a b.png"]["labels"]).shape == (30, 64)
    named = {row[kind] for row in files.values() for kind in ("labels", "overlay")}
    assert named == {name for name in content_of(stopped) if "/" in name}
    assert {row["key"] for row in rows_of(stopped / "regions.csv")} == set(files)


def test_other_settings_stop_and_are_listed(folder, stopped):
    with pytest.raises(ArtifactError, match="n_segments: 3, now None"):
        segment_files(folder, stopped, level=0.3)
    segment_files(folder, stopped, n_segments=1, overwrite=True)
    assert {row["segments"] for row in rows_of(stopped / "images.csv")} == {"1"}
    assert not (stopped.parent / "out.unfinished").exists()


def test_files_of_others_stay(folder, stopped):
    (stopped.parent / "out.unfinished" / "mine.txt").write_text("kept")
    with pytest.raises(ArtifactError, match=r"mine\.txt"):
        segment_files(folder, stopped, n_segments=1, overwrite=True)
    assert (stopped.parent / "out.unfinished" / "mine.txt").read_text() == "kept"


def test_two_writers_are_refused(folder, stopped):
    with FileLock(str(stopped.parent / "out.unfinished" / ".lock")), pytest.raises(AtlasBusyError):
        segment_files(folder, stopped, n_segments=3)


def test_a_line_that_names_other_files_is_refused(folder, stopped):
    lines = stopped.parent / "out.unfinished" / "done.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"labels/", b"../../labels/"))
    with pytest.raises(ArtifactError, match="damaged"):
        segment_files(folder, stopped, n_segments=3)


def test_overwriting_replaces_only_an_earlier_output(folder, tmp_path):
    out = tmp_path / "out"
    segment_files(folder, out, n_segments=3, with_cut_outs=True)
    with pytest.raises(ArtifactError, match="already exists"):
        segment_files(folder, out, n_segments=2)
    segment_files(folder / "a b.png", out, n_segments=2, overwrite=True)
    assert sorted(content_of(out)) == [
        *("images.csv", "labels/00001-a-b.png", "overlays/00001-a-b.png", "regions.csv", "regions.parquet"),
        "segments.json",
    ]
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ArtifactError, match=r"mine\.txt"):
        segment_files(folder, out, overwrite=True)
    with pytest.raises(ArtifactError, match="not a folder that"):
        segment_files(folder / "a b.png", folder, overwrite=True)


def test_arrays_in_memory_continue_too(tmp_path, monkeypatch):
    images = np.stack([scene(), np.roll(scene(), 8, axis=1)])
    segment_files(images, tmp_path / "out", n_segments=2)
    assert [row["segments"] for row in rows_of(tmp_path / "out" / "images.csv")] == ["2", "2"]


def test_segments_are_no_source_of_images(folder):
    segment_files(folder, folder / "segments", n_segments=2)
    assert not [key for key in open_source(folder).keys if key.startswith("segments")]
