"""Working on one picture: segments, strokes, restoring, compressing; over HTTP and for images of every kind."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from imatlas.errors import InputError
from imatlas.images.decode import read_picture
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.hierarchy import hierarchy_of
from imatlas.studio.compressing import Compressing, compressed_piece
from imatlas.studio.jobs import Cancelled, Job, Jobs
from imatlas.studio.restoring import Restorers, Restoring, restored_piece
from imatlas.studio.work import Stroke, cut_out_object, packed_regions, rasterized
from imatlas.studio.workpiece import MOST_PIXELS, Workpiece
from imatlas.tasks.decompress import decompress_images
from imatlas.testing import synthetic_images
from tests.studio.conftest import Studio
from tests.studio.test_server import last_event, picture, result

RAW = {"content-type": "application/octet-stream"}


def file_of(pixels: np.ndarray, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format)
    return out.getvalue()


def opened_upload(studio: Studio, content: bytes, name: str = "mine.png") -> Any:
    sent = json.loads(studio.ask("/api/uploads", content, headers=RAW)[1])
    return studio.json("/api/work", {"upload": sent["id"], "name": name})


def pixels_at(studio: Studio, address: str) -> np.ndarray:
    status, content, _ = studio.ask(address)
    assert status == 200, content
    return np.asarray(picture(content))


def test_an_image_and_an_upload_are_opened(studio: Studio, folder: Path) -> None:
    piece = studio.json("/api/work", {"row": 7})
    assert (piece["name"], piece["width"], piece["height"], piece["full"]) == ("07.png", 90, 96, None)
    assert piece["bytes"] == (folder / "07.png").stat().st_size
    assert np.array_equal(pixels_at(studio, piece["picture"]), np.asarray(Image.open(folder / "07.png")))
    large = opened_upload(studio, file_of(np.resize(data.coffee(), (1500, 2000, 3)), "JPEG"), "large.jpg")
    assert large["full"] == [2000, 1500]
    assert 0.98 * MOST_PIXELS < large["width"] * large["height"] <= MOST_PIXELS
    assert abs(large["width"] / large["height"] - 4 / 3) < 0.01
    for wrong in ({}, {"row": 1, "upload": "0123456789abcdef"}, {"row": 1, "name": ""}, {"row": True, "path": "/"}):
        assert studio.ask("/api/work", wrong)[0] in (400, 422)
    assert studio.ask("/api/work", {"row": 60})[0] == 404
    assert studio.ask("/api/work", {"upload": "0123456789abcdef"})[0] == 404
    assert studio.ask("/api/work/0123456789abcdef/labels?level=0.5")[0] == 404


def test_an_original_that_is_gone_is_told(opened: Callable[..., Studio], folder: Path) -> None:
    studio, path = opened(), folder / "08.png"
    content = path.read_bytes()
    try:
        path.unlink()
        status, told, _ = studio.ask("/api/work", {"row": 8})
    finally:
        path.write_bytes(content)
    assert status == 400
    assert "The original of '08.png' cannot be read" in json.loads(told)["error"]


def test_levels_are_those_of_the_hierarchy(studio: Studio, folder: Path) -> None:
    id = studio.json("/api/work", {"row": 7})["id"]
    n = result(studio, studio.json(f"/api/work/{id}/segments", {})["job"])["n_regions"]
    piece = Workpiece("07.png", (folder / "07.png").read_bytes())
    tree = hierarchy_of(piece.pixels, piece.spec)
    assert n == tree.n_regions > 2
    content = studio.ask(f"/api/work/{id}/regions")[1]
    assert content == packed_regions(piece)
    assert np.frombuffer(content[:12], "<u4").tolist() == [n, 90, 96]
    levels, rest = content[16 : 16 + 8 * (2 * n - 1)], content[16 + 12 * (2 * n - 1) :]
    assert np.array_equal(np.frombuffer(levels, "<f8"), tree.levels)
    assert np.array_equal(np.frombuffer(rest, "<u2").reshape(96, 90), tree.regions)
    for level in (0, 0.3, 1):
        assert np.array_equal(pixels_at(studio, f"/api/work/{id}/labels?level={level}"), tree.cut(level) + 1)
    assert studio.ask(f"/api/work/{id}/labels?level=1.5")[0] == 422


def test_strokes_are_continued_and_erased(studio: Studio) -> None:
    halves = np.full((60, 80, 3), (200, 60, 40), np.uint8)
    halves[:, 40:] = (30, 90, 180)
    id = opened_upload(studio, file_of(halves))["id"]
    left = {"label": 3, "width": 4, "points": [[10, 10], [12, 40]]}
    right = {"label": 5, "width": 4, "points": [[70, 10]]}
    labels = np.asarray(picture(studio.ask(f"/api/work/{id}/strokes", {"strokes": [left, right]})[1]))
    assert (labels[:, :40] == 3).all()
    assert (labels[:, 40:] == 5).all()
    erasing = {"label": 0, "width": 20, "points": [[70, 10]]}
    assert studio.ask(f"/api/work/{id}/strokes", {"strokes": [left, right, erasing]})[0] == 204
    assert studio.ask(f"/api/work/{id}/strokes", {"strokes": []})[0] == 204
    for wrong in ({"label": 300}, {"points": []}, {"points": [[1e9, 0]]}, {"width": 0}):
        assert studio.ask(f"/api/work/{id}/strokes", {"strokes": [left | wrong]})[0] == 422
    outside = rasterized([Stroke(label=1, width=3, points=[(-50, -50), (500, 300)])], (60, 80))
    assert 0 < (outside == 1).sum() < 1000


def test_the_object_is_cut_out(studio: Studio) -> None:
    scene = np.full((80, 100, 3), (90, 140, 60), np.uint8)
    scene += np.random.default_rng(0).integers(0, 12, scene.shape, np.uint8)
    y, x = np.mgrid[:80, :100]
    inside = (y - 40) ** 2 + (x - 50) ** 2 < 20**2
    scene[inside] = (220, 40, 40)
    id = opened_upload(studio, file_of(scene))["id"]
    alpha = pixels_at(studio, f"/api/work/{id}/object")[..., 3] > 127
    assert (alpha & inside).sum() / (alpha | inside).sum() > 0.9
    id = opened_upload(studio, file_of(np.full((40, 40), 90, np.uint8)))["id"]
    status, told, _ = studio.ask(f"/api/work/{id}/object")
    assert (status, "Nothing stands out" in json.loads(told)["error"]) == (400, True)


def restored(studio: Studio, id: str, **asked: Any) -> Any:
    return result(studio, studio.json(f"/api/work/{id}/restore", asked)["job"])


def test_noise_is_removed_and_what_has_none_is_left_alone(studio: Studio) -> None:
    clean = data.camera()[100:228, 160:320]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 25, clean.shape), 0, 255).astype(np.uint8)
    id = opened_upload(studio, file_of(noisy, "PNG"))["id"]
    made = restored(studio, id, kind="denoise", budget="3s")
    assert made["changed"]
    assert any("standard deviation" in sentence for sentence in made["sentences"])
    after = pixels_at(studio, made["file"])
    assert made["suffix"] == "-denoised.png"
    assert psnr(clean[None], after[None], span=255) > psnr(clean[None], noisy[None], span=255) + 4
    assert np.array_equal(pixels_at(studio, made["after"])[..., 0], after)
    assert np.array_equal(pixels_at(studio, made["before"])[..., 0], noisy)
    drawing = np.zeros((64, 64, 3), np.uint8)
    drawing[20:40, 10:50] = 200
    made = restored(studio, opened_upload(studio, file_of(drawing))["id"], kind="denoise", budget="1s")
    assert not made["changed"]
    assert "left alone" in made["sentences"][0]
    assert np.array_equal(pixels_at(studio, made["file"]), drawing)


def test_a_dark_picture_is_corrected_and_a_good_one_left_alone(studio: Studio, folder: Path) -> None:
    good = data.coffee()
    id = opened_upload(studio, file_of(good))["id"]
    made = restored(studio, id, kind="enhance")
    assert not made["changed"]
    assert "left alone" in made["sentences"][0]
    id = opened_upload(studio, file_of((good * 0.2).astype(np.uint8)))["id"]
    made = restored(studio, id, kind="enhance")
    assert made["changed"]
    assert made["sentences"][0].startswith("Corrected")
    assert pixels_at(studio, made["file"]).mean() > 60
    half = restored(studio, id, kind="enhance", strength=0.5)
    assert pixels_at(studio, half["file"]).mean() < pixels_at(studio, made["file"]).mean()
    none = restored(studio, id, kind="enhance", strength=0)
    assert (none["changed"], "strength is 0" in none["sentences"][0]) == (False, True)
    by_atlas = restored(studio, id, kind="enhance", learn_from="atlas")
    assert any("Learned from 60 images" in sentence for sentence in by_atlas["sentences"])


def test_a_picture_is_upscaled_from_itself_and_from_the_atlas(studio: Studio, folder: Path) -> None:
    id = studio.json("/api/work", {"row": 7})["id"]
    for learn_from in ("image", "atlas"):
        made = restored(studio, id, kind="upscale", scale=3, budget="2s", learn_from=learn_from)
        assert (made["width"], made["height"]) == (270, 288)
        large = pixels_at(studio, made["file"])
        assert large.shape == pixels_at(studio, made["before"]).shape == (288, 270, 3)
        small = np.asarray(Image.fromarray(large).resize((90, 96), Image.Resampling.BICUBIC))
        assert psnr(np.asarray(Image.open(folder / "07.png"))[None], small[None], span=255) > 40
    id = opened_upload(studio, file_of(np.resize(data.coffee(), (1200, 1600, 3)), "JPEG"))["id"]
    job = studio.json(f"/api/work/{id}/restore", {"kind": "upscale", "scale": 4})["job"]
    assert "choose a smaller factor" in last_event(studio, job)["error"]
    assert studio.ask(f"/api/work/{id}/restore", {"kind": "upscale", "scale": 9})[0] == 422


def test_learning_is_cancelled(studio: Studio) -> None:
    id = studio.json("/api/work", {"row": 7})["id"]
    job = studio.json(f"/api/work/{id}/restore", {"kind": "upscale", "budget": "30m", "learn_from": "atlas"})["job"]
    waiting = studio.json(f"/api/work/{id}/segments", {})["job"]
    time.sleep(3)
    began = time.monotonic()
    assert studio.json(f"/api/jobs/{job}", method="DELETE")["state"] == "cancelled"
    assert result(studio, waiting)["n_regions"]
    assert time.monotonic() - began < 300  # and not half an hour


def test_a_job_tells_how_far_it_is_until_nobody_waits() -> None:
    jobs, seen = Jobs(), list[Any]()

    def work(job: Job) -> dict[str, Any]:
        job.tell("half", 0.5)
        seen.append(job.event())
        job.turn("cancelled")
        with pytest.raises(Cancelled):
            job.tell("more")
        job.tell("more")
        raise AssertionError

    job = jobs.begin("all", work)
    jobs.start("last", dict)
    for pool in jobs._pools.values():
        pool.shutdown(wait=True)
    assert (seen[0]["line"], seen[0]["progress"]) == ("half", 0.5)
    assert (job.state, job.error) == ("cancelled", None)


def test_a_picture_is_compressed_to_a_file_that_comes_back(studio: Studio, folder: Path, tmp_path: Path) -> None:
    original = np.asarray(Image.open(folder / "07.png"))
    id = studio.json("/api/work", {"row": 7})["id"]
    sizes = []
    for asked in ({"quality": 20}, {"quality": 80}, {"lossless": True}):
        made = result(studio, studio.json(f"/api/work/{id}/compress", asked)["job"])
        own, *others = made["rows"]
        content = studio.ask(made["file"])[1]
        assert own["bytes"] == len(content)
        sizes.append(len(content))
        path = tmp_path / f"{len(sizes)}.imc"
        path.write_bytes(content)
        decompress_images(path, tmp_path / f"{len(sizes)}.png")
        again = np.asarray(Image.open(tmp_path / f"{len(sizes)}.png"))
        assert np.array_equal(again, pixels_at(studio, made["after"]))
        level = psnr(original[None], again[None], span=255)
        assert own["psnr"] is None if "lossless" in asked else abs(own["psnr"] - level) < 0.01
        named = {other["name"]: other for other in others}
        assert named["original"]["bytes"] == (folder / "07.png").stat().st_size
        if "lossless" in asked:
            assert np.array_equal(again, original)
            assert named["WebP"]["psnr"] is None
        else:
            assert named["WebP"]["psnr"] is None or named["WebP"]["psnr"] >= level
    assert sizes == sorted(sizes)
    assert studio.ask(f"/api/work/{id}/compress", {"quality": 0})[0] == 422


KINDS = [
    {"channels": 1}, {"channels": 2}, {"channels": 4}, {"channels": 7}, {"channels": 3, "dtype": "uint16"},
    {"channels": 1, "dtype": "uint16"}, {"channels": 3, "dtype": "float32"},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_kind_is_worked_on(kind: dict[str, Any], one_thread: None) -> None:
    pixels = synthetic_images(1, size=48, **kind)[0]
    out = io.BytesIO()
    options: dict[str, Any] = {"photometric": "rgb" if pixels.shape[2] in (3, 4) else "minisblack"}
    if pixels.shape[2] > 1:
        options |= {"planarconfig": "contig"}
    tifffile.imwrite(out, pixels.squeeze(), **options)
    for content in (out.getvalue(), pixels):
        piece = Workpiece("a.tif", content)
        assert piece.pixels.shape == pixels.shape
        assert piece.view.shape == (48, 48, 3)
        assert piece.graph.hierarchy.n_regions >= 1
    assert cut_out_object(piece).shape == (48, 48, 4)
    piece, kept, job = Workpiece("a.tif", out.getvalue()), dict[str, bytes](), Job("", "")

    def keep(content: bytes, kind: str) -> str:
        kept[str(len(kept))] = content
        return str(len(kept) - 1)

    restorers = Restorers(None)  # type: ignore[arg-type]
    for task in ("denoise", "upscale", "enhance"):
        asked = Restoring(kind=task, budget="1s")  # type: ignore[arg-type]
        made = restored_piece(piece, asked, restorers, keep, job)
        side = 96 if task == "upscale" else 48
        again = read_picture(kept[made["file"]], own_colors=True, background=None).pixels()
        assert (again.shape, again.dtype) == ((side, side, pixels.shape[2]), pixels.dtype)
        assert picture(kept[made["after"]]).size == picture(kept[made["before"]]).size == (side, side)
    for lossless in (False, True):
        made = compressed_piece(piece, Compressing(quality=90, lossless=lossless), keep, job)
        assert made["rows"][0]["bytes"] == len(kept[made["file"]])
        assert made["rows"][0]["psnr"] is None if lossless else made["rows"][0]["psnr"] > 25


def test_what_is_no_picture_or_cannot_be_kept_exactly_is_told() -> None:
    with pytest.raises(InputError, match=r"'a.txt' cannot be read .* choose another picture"):
        Workpiece("a.txt", b"no picture")
    out = io.BytesIO()
    tifffile.imwrite(out, np.random.default_rng(0).random((20, 20)))
    with pytest.raises(InputError, match="rounded when read; compress it with loss"):
        compressed_piece(Workpiece("a.tif", out.getvalue()), Compressing(lossless=True), str, Job("", ""))  # type: ignore[arg-type]
