"""Deciding and exporting over HTTP: merges, images that are gone, heat maps, downloads, an atlas learned again."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.testing import synthetic_images
from tests.studio.conftest import Studio


def sizes(atlas: Any) -> dict[int, int]:
    return {cluster["id"]: cluster["size"] for cluster in atlas["clusters"] if cluster["size"]}


def error(studio: Studio, path: str, body: Any = None) -> str:
    status, content, _ = studio.ask(path, body)
    assert status == 400, content
    return str(json.loads(content)["error"])


def test_clusters_are_merged_named_filtered_and_split(studio: Studio) -> None:
    before = studio.json("/api/atlas")
    first, second, *_ = ids = sorted(sizes(before))
    studio.json("/api/decisions", {"kind": "name", "cluster": second, "value": "both"})
    after = studio.json("/api/decisions", {"kind": "merge", "clusters": [second, first]})
    assert after["undo"] == "merge 2 clusters"
    assert sizes(after)[first] == sizes(before)[first] + sizes(before)[second]
    assert second not in sizes(after)
    merged = after["clusters"][first]
    assert (merged["name"], merged["parts"]) == ("both", [first, second])
    column = np.frombuffer(studio.ask("/api/columns/cluster")[1], "<f4")
    assert set(column.astype(int).tolist()) == set(ids) - {second}
    assert studio.json(f"/api/images?cluster={first}")["total"] == sizes(after)[first]
    confident = np.frombuffer(studio.ask("/api/columns/confidence")[1], "<f4")
    assert np.allclose(confident, ia.Atlas(studio.folder).clusters().confidence, atol=1e-6)
    lines = studio.ask("/api/export?format=csv")[1].decode("utf-8-sig").splitlines()
    assert sum(",both," in line for line in lines) == sizes(after)[first]
    assert error(studio, "/api/decisions", {"kind": "merge", "clusters": [first, second]}).startswith("At least two")
    assert sizes(studio.json("/api/decisions", {"kind": "split", "cluster": first})) == sizes(before)
    assert "not a merged one" in error(studio, "/api/decisions", {"kind": "split", "cluster": first})
    assert studio.json("/api/undo", {})["clusters"][first]["parts"] == [first, second]
    assert sizes(studio.json("/api/undo", {})) == sizes(before)
    for body in ({"kind": "merge", "clusters": [0, 999]}, {"kind": "name", "cluster": 999, "value": "x"}):
        assert "999" in error(studio, "/api/decisions", body)
    assert studio.ask("/api/decisions", {"kind": "merge", "clusters": [0]})[0] == 422


def test_names_of_clusters_become_labels_in_one_decision(studio: Studio) -> None:
    assert "name a cluster first" in error(studio, "/api/decisions", {"kind": "label_by_names"})
    before = studio.json("/api/atlas")["clusters"]
    first, second, *_ = (one for one in before if one["size"])
    for cluster in (first, second):
        assert len(set(cluster["typical"])) == min(6, cluster["size"])
        assert cluster["typical"][0] == cluster["medoid"]
        assert {studio.json(f"/api/images/{row}")["cluster"] for row in cluster["typical"]} == {cluster["id"]}
        studio.json("/api/decisions", {"kind": "name", "cluster": cluster["id"], "value": f"name {cluster['id']}"})
    studio.json("/api/decisions", {"kind": "label", "rows": [first["medoid"]], "value": "mine"})
    after = studio.json("/api/decisions", {"kind": "label_by_names"})
    n = first["size"] + second["size"] - 1
    assert after["undo"] == f"label {n} images with 2 labels"
    assert {each["label"]: each["count"] for each in after["labels"]} == {
        "mine": 1,
        f"name {first['id']}": first["size"] - 1,
        f"name {second['id']}": second["size"],
    }
    assert ia.Atlas(studio.folder).decisions.state.labels[f"{first['medoid']:02d}.png"] == "mine"
    assert [one["label"] for one in studio.json("/api/undo", {})["labels"]] == ["mine"]
    merged = studio.json("/api/decisions", {"kind": "merge", "clusters": [first["id"], second["id"]]})
    assert merged["clusters"][first["id"]]["typical"][:2] == [first["medoid"], second["medoid"]]


def test_images_that_are_gone_are_brought_back(opened: Callable[..., Studio], folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder, tmp_path / "photos")
    learned = tmp_path / "mine.atlas"
    options: dict[str, Any] = {"progress": False, "budget": "15s", "image_size": 32, "clusters": 3}
    ia.learn(source, learned, **options)
    studio = opened(learned)
    studio.json("/api/decisions", {"kind": "leave_out", "rows": [5, 6, 7], "value": True})
    assert studio.json("/api/left_out") == {"rows": [5, 6, 7], "total": 0, "gone": []}
    ia.learn(source, learned, **options)
    (source / "06.png").unlink()
    assert studio.json("/api/state")["learned_again"]
    assert studio.ask("/")[0] == 200  # opens the new one
    gone = [{"key": f"0{i}.png", "is_there": i != 6} for i in (5, 6, 7)]
    assert studio.json("/api/left_out") == {"rows": [], "total": 3, "gone": gone}
    assert studio.json("/api/left_out?limit=1")["gone"] == gone[:1]
    assert "not left out" in error(studio, "/api/decisions", {"kind": "keep", "keys": ["05.png", "../secret"]})
    studio.json("/api/decisions", {"kind": "keep", "keys": ["05.png"]})
    assert studio.json("/api/left_out")["total"] == 2
    assert "05.png" in ia.learn(source, learned, **options).keys


def test_an_atlas_that_was_learned_again_is_told_and_opened(
    opened: Callable[..., Studio], folder: Path, tmp_path: Path
) -> None:
    source, learned = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "mine.atlas"
    options: dict[str, Any] = {"progress": False, "budget": "15s", "image_size": 32, "clusters": 3}
    ia.learn(source, learned, **options)
    studio = opened(learned)
    before = studio.json("/api/atlas")
    assert (before["n_images"], before["learned_again"]) == (60, False)
    page = {"x-atlas": before["atlas"]}
    Image.fromarray(np.asarray(Image.open(source / "00.png"))[::-1]).save(source / "0.png")
    ia.learn(source, learned, **options)
    after = studio.json("/api/decisions", {"kind": "label", "rows": [0], "value": "x"}, headers=page)
    assert after["learned_again"]
    for path in ("/api/thumbnails/5", "/api/images/5"):  # the files of the old one are gone
        status, content, _ = studio.ask(path)
        assert (status, "learned again" in json.loads(content)["error"]) == (409, True)
    assert ia.Atlas(learned).decisions.state.labels == {"00.png": "x"}  # what the page showed
    assert studio.ask("/")[0] == 200
    now = studio.json("/api/atlas")
    assert (now["n_images"], now["learned_again"]) == (61, False)
    assert now["atlas"] != before["atlas"]
    for path, body, headers in (
        ("/api/decisions", {"kind": "label", "rows": [0], "value": "y"}, page),
        ("/api/images/0", None, page),
        (f"/api/thumbnails/0?atlas={before['atlas']}", None, {}),
    ):
        status, content, _ = studio.ask(path, body, headers=headers)
        assert status == 409
        assert "learned again" in json.loads(content)["error"]
    assert studio.json("/api/images/60", headers={"x-atlas": now["atlas"]})["key"] == "0.png"  # behind those of before
    listed = studio.json("/api/images?limit=61")["images"]
    assert [each["key"] for each in listed] == sorted(each["key"] for each in listed)
    assert [listed[0]["row"], listed[1]["row"]] == [60, 0]
    assert studio.json("/api/images?label=x")["images"][0]["key"] == "00.png"


def test_an_outlier_has_a_heat_map(studio: Studio) -> None:
    row = studio.json("/api/outliers?rate=0.5")["images"][0]["row"]
    status, content, _ = studio.ask(f"/api/outliers/{row}/heat")
    assert status == 200
    heat, plain = (
        np.asarray(Image.open(io.BytesIO(each)).convert("RGB").resize((32, 32)), float)
        for each in (content, studio.ask(f"/api/thumbnails/{row}")[1])
    )
    assert np.abs(heat - plain).mean() > 5
    assert studio.ask("/api/outliers/60/heat")[0] == 404


def downloaded(studio: Studio, **asked: Any) -> tuple[bytes, dict[str, str]]:
    """What the page downloads in two steps."""
    status, content, headers = studio.ask(f"/api/export/{studio.json('/api/export', asked)['id']}")
    assert status == 200
    return content, headers


def test_labels_are_exported_as_coco(studio: Studio) -> None:
    assert "None of these images has a label" in error(studio, "/api/export", {"rows": [0], "format": "coco"})
    studio.json("/api/decisions", {"kind": "label", "rows": [0, 2], "value": 'cat "<&'})
    content, headers = downloaded(studio, rows=[2, 1, 0], format="coco")
    assert headers["content-disposition"] == 'attachment; filename="photos0-labels.json"'
    found = json.loads(content)
    assert [image["file_name"] for image in found["images"]] == ["02.png", "01.png", "00.png"]
    assert [each["image_id"] for each in found["annotations"]] == [1, 3]
    assert found["categories"] == [{"id": 1, "name": 'cat "<&', "supercategory": ""}]
    listed = json.loads(downloaded(studio, filters={"label": 'cat "<&'}, format="coco")[0])
    assert len(listed["images"]) == 2
    assert "no images to export" in error(studio, "/api/export", {"filters": {"text": "nothing"}})
    assert studio.ask("/api/export", {"rows": [60]})[0] == 404
    assert studio.ask("/api/export", {"filters": {"rows": "900"}})[0] == 404
    assert studio.ask("/api/export/0123456789abcdef")[0] == 404


def test_files_are_exported_as_an_archive(opened: Callable[..., Studio], learned: Path, tmp_path: Path) -> None:
    source = shutil.copytree(learned.with_name("photos"), tmp_path / "photos")
    copy = Path(shutil.copytree(learned, tmp_path / "mine.atlas"))
    ia.learn(source, copy, progress=False, budget="25s", image_size=32, moved_from=learned.with_name("photos"))
    studio = opened(copy)
    studio.json("/api/decisions", {"kind": "label", "rows": [1], "value": "coffee"})
    (source / "02.png").write_bytes(b"changed")
    (source / "03.png").unlink()
    listing = sorted(path.name for path in copy.iterdir())
    content, headers = downloaded(studio, rows=[1, 2, 3, 0], format="zip")
    assert headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["images/01.png", "images/00.png", "images.csv", "labels.json"]
        assert archive.read("images/01.png") == (source / "01.png").read_bytes()
        table = archive.read("images.csv").decode("utf-8-sig").splitlines()
        assert [line.rpartition(",")[2] for line in table[1:]] == ["images/01.png", "", "", "images/00.png"]
        assert json.loads(archive.read("labels.json"))["categories"][0]["name"] == "coffee"
    assert sorted(path.name for path in copy.iterdir()) == listing  # nothing was written
    shutil.rmtree(source)
    assert studio.ask("/")[0] == 200
    assert "original images" in error(opened(copy), "/api/export", {"rows": [1], "format": "zip"})


def test_a_read_only_studio_exports_and_shows_but_decides_nothing(opened: Callable[..., Studio]) -> None:
    studio = opened(read_only=True)
    for body in (
        {"kind": "merge", "clusters": [0, 1]},
        {"kind": "split", "cluster": 0},
        {"kind": "keep", "keys": ["a"]},
    ):
        assert studio.ask("/api/decisions", body)[0] == 403
    assert downloaded(studio, rows=[0], format="list")[0] == b"00.png\n"
    assert studio.json("/api/left_out")["total"] == 0


@pytest.mark.parametrize(
    ("n", "channels", "dtype"), [(3, 1, "uint8"), (24, 7, "uint8"), (24, 1, "uint16"), (24, 2, "uint8")]
)
def test_tiny_and_strange_sets(
    opened: Callable[..., Studio], tmp_path: Path, n: int, channels: int, dtype: str
) -> None:
    images = synthetic_images(n, size=16, channels=channels, dtype=dtype, random_state=1)
    ia.learn(images, tmp_path / "a.atlas", progress=False, budget="4s", encoder="own")
    studio = opened(tmp_path / "a.atlas")
    assert studio.ask("/api/outliers")[0] == (200 if n > 3 else 400)
    assert studio.ask("/api/outliers/0/heat")[0] == 200
    assert "original images" in error(studio, "/api/export", {"rows": [0], "format": "zip"})
    assert downloaded(studio, rows=[0], format="csv")[0]
    present = sorted(sizes(studio.json("/api/atlas")))
    if len(present) > 1:
        assert len(sizes(studio.json("/api/decisions", {"kind": "merge", "clusters": present}))) == 1
        assert studio.ask("/api/images/0/why")[0] == 400  # a single cluster has nothing to be compared with
    assert studio.json("/api/images/0")["cluster"] == 0
