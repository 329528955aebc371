"""Restored copies of the images of a folder."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from imatlas.errors import ArtifactError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.sources.opening import open_source
from imatlas.models.inpainter import Inpainter
from imatlas.models.restorer import Restoration
from imatlas.report import render
from imatlas.tasks.mask_files import MaskFiles
from imatlas.tasks.restore import layout_of, restore_file, restore_files
from imatlas.tasks.restored_names import name_like
from imatlas.tasks.unfinished_folder import UnfinishedFolder


class Blur:
    """A restorer that blurs, counts, and tells a fact."""

    def __init__(self):
        self.n = 0

    def restore(self, pixels, spec):
        return self.restoration(pixels, spec).pixels

    def restoration(self, pixels, spec):
        self.n += 1
        made = gaussian_filter(pixels.astype(np.float32), (1, 1, 0)).astype(pixels.dtype)
        spread = np.full(pixels.shape[:2], 0.25)
        return Restoration(made, {"mean": float(made.mean())}, {"spread": spread}, (made,))


class Doubled:
    def restore(self, pixels, spec):
        return pixels.repeat(2, 0).repeat(2, 1)


def scene(dtype=np.uint8, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 10, (24, 40, channels)).clip(0, 255)
    image[6:18, 10:30] += 120
    return (image * (257 if dtype == np.uint16 else 1)).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.fromarray(scene()).save(photos / "a b.png")
    Image.fromarray(scene(channels=1)[..., 0]).save(photos / "more" / "a b.png")
    Image.fromarray(scene(np.uint16, 1)[..., 0]).save(photos / "deep.png")
    Image.fromarray(scene(channels=4)).save(photos / "alpha.png")
    Image.fromarray(scene()).save(photos / "photo.JPG", quality=90)
    Image.fromarray(scene()).save(photos / "alpha.bmp")
    Image.new("RGB", (1, 30), "red").save(photos / "thin.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    return photos


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def report(result, path):
    render([result], title=result.title, path=path)


def test_every_image_is_written_like_its_original(folder, tmp_path):
    out = tmp_path / "out"
    result = restore_files(folder, out, Blur(), command="denoise", preview=True, write_report=report)
    assert result.metrics == {"n_images": 7}
    rows = {row["key"]: row for row in rows_of(out / "images.csv")}
    assert {row["file"] for row in rows.values()} == {
        "images/a b.png", "images/more/a b.png", "images/deep.png", "images/alpha.png", "images/photo.JPG",
        "images/alpha.bmp.png", "images/thin.png",
    }  # fmt: skip
    for key, row in rows.items():
        before, after = (read_picture(path.read_bytes()) for path in (folder / key, out / row["file"]))
        assert before.kind == after.kind
        blurred = gaussian_filter(before.pixels().astype(np.float32), (1, 1, 0)).astype(before.kind.dtype)
        assert np.abs(after.pixels().astype(int) - blurred).max() <= (8 if key == "photo.JPG" else 0)
        assert float(row["mean"]) == pytest.approx(blurred.mean(), rel=1e-4)
        assert float(row["psnr_to_original"] or np.inf) > 15
    assert rows["alpha.bmp"]["notes"] == "BMP written as PNG"
    assert [row["key"] for row in rows_of(out / "skipped.csv")] == ["broken.jpg"]
    with Image.open(out / "preview.png") as image:
        assert image.mode == "RGB"
    page = (out / "report.html").read_text()
    assert page.count('type="range"') == 14
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "").replace("http%3A//www.w3", "")
    spread = read_picture((out / "maps" / "a b.png-spread.tif").read_bytes()).pixels()
    assert spread.dtype == np.float32
    assert (spread == 0.25).all()
    assert (out / "samples" / "more" / "a b.png-2.png").is_file()


def test_the_output_is_a_source_of_its_images_only(folder, tmp_path):
    restore_files(folder, tmp_path / "out", Blur(), command="denoise", preview=True)
    assert set(open_source(str(tmp_path / "out")).keys) == {
        "a b.png", "alpha.bmp.png", "alpha.png", "deep.png", "more/a b.png", "photo.JPG", "thin.png"
    }  # fmt: skip
    restore_files(tmp_path, tmp_path / "again", Blur(), command="denoise")
    assert not any(row["key"].startswith("out") for row in rows_of(tmp_path / "again" / "images.csv"))


def test_a_killed_run_is_continued(folder, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    add = UnfinishedFolder.add

    def stop(run, line):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(line.key)
        add(run, line)

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedFolder, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            restore_files(folder, out, Blur(), command="denoise")
    assert not out.exists()
    with pytest.raises(ArtifactError, match="command: denoise, now enhance"):
        restore_files(folder, out, Blur(), command="enhance")
    changed = folder / done[0]
    Image.fromarray(scene(seed=1)).save(changed)
    rest = Blur()
    restore_files(folder, out, rest, command="denoise")
    assert rest.n == 5  # four that were left, and the one that changed
    whole = tmp_path / "whole"
    restore_files(folder, whole, Blur(), command="denoise")
    for path in sorted((whole / "images").rglob("*.*")):
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert len(list((out / "images").rglob("*.*"))) == 7


def test_an_output_is_replaced_only_with_overwrite_and_only_if_it_is_ours(folder, tmp_path):
    out = tmp_path / "out"
    restore_files(folder, out, Blur(), command="denoise")
    with pytest.raises(ArtifactError, match="already exists"):
        restore_files(folder, out, Blur(), command="denoise")
    (folder / "thin.png").unlink()
    restore_files(folder, out, Blur(), command="denoise", overwrite=True)
    assert not (out / "images" / "thin.png").exists()
    (out / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ArtifactError, match=r"mine\.png"):
        restore_files(folder, out, Blur(), command="denoise", overwrite=True)
    with pytest.raises(ArtifactError, match="not a folder that 'imatlas denoise' wrote"):
        restore_files(folder, folder, Blur(), command="denoise", overwrite=True)


def test_names_from_a_hostile_archive_stay_inside(tmp_path):
    names = ["../../out.png", "/etc/x.png", "a.png", "A.png", "a.png/b.png", "..\\..\\w.png", "con.png", ".hidden.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            with archive.open(name, "w") as file:
                Image.fromarray(scene()).save(file, "PNG")
    out = tmp_path / "deep" / "er" / "out"
    restore_files(tmp_path / "a.zip", out, Blur(), command="denoise")
    files = [row["file"] for row in rows_of(out / "images.csv")]
    assert len({name.lower() for name in files}) == len(names)
    assert all((out / name).is_file() and name.startswith("images/") and ".." not in name for name in files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "deep"]


def test_names():
    assert name_like("b.bmp", "PNG", {"b.bmp"}, (), ()) == "images/b.png"
    assert name_like("b.png", "PNG", {"b.png"}, {"images/b.png"}, ()) == "images/b.png.png"
    assert name_like("x" * 300 + ".jpg", "JPEG", (), (), ()).endswith("x.jpg")
    assert name_like("a/..", "PNG", (), (), ()) == "images/a.png"
    assert name_like("..", "PNG", (), (), ()) == "images/image.png"
    assert name_like("stack.npy#3", "TIFF", (), (), ()) == "images/stack.npy#3.tif"
    for key in ("a\nb.png", "a:b.png", "COM1.png", "a/ .png", "-rf.png", "é.png", "😀/x.png"):
        assert layout_of("denoise").own_files.fullmatch(name_like(key, "PNG", (), (), ())), key


def test_arrays_become_pictures(tmp_path):
    restore_files(np.stack([scene(np.uint16), scene(np.uint16, seed=1)]), tmp_path / "out", Blur(), command="denoise")
    found = read_picture((tmp_path / "out" / "images" / "000001.png").read_bytes()).pixels()
    np.testing.assert_array_equal(
        found, gaussian_filter(scene(np.uint16, seed=1).astype(np.float32), (1, 1, 0)).astype(np.uint16)
    )


def test_larger_images_are_compared_at_the_same_size(folder, tmp_path):
    out = tmp_path / "out"
    restore_files(folder, out, Doubled(), command="upscale", preview=True, write_report=report)
    row = next(row for row in rows_of(out / "images.csv") if row["key"] == "a b.png")
    assert (row["width"], row["height"]) == ("80", "48")
    assert "psnr_to_original" not in row


def test_one_image_becomes_one_file(folder, tmp_path):
    result = restore_file(folder / "deep.png", tmp_path / "clean.tif", Blur(), command="denoise")
    assert result.data["files"] == [str(tmp_path / "clean.tif")]
    found = read_picture((tmp_path / "clean.tif").read_bytes())
    assert (found.format, found.kind.dtype) == ("TIFF", "uint16")
    with pytest.raises(InputError, match=r"A JPEG file cannot hold 1 channels of uint16; end 'clean.jpg' in \.png"):
        restore_file(folder / "deep.png", tmp_path / "clean.jpg", Blur(), command="denoise")
    with pytest.raises(InputError, match="8 items"):
        restore_file(folder, tmp_path / "clean.png", Blur(), command="denoise")


def test_nothing_is_left_if_no_image_can_be_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="No image of"):
        restore_files(tmp_path / "in", tmp_path / "out", Blur(), command="denoise")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_masks_are_white_or_transparent(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    see_through = np.dstack([np.full((4, 6, 3), 255, np.uint8), 255 - mask])
    Image.fromarray(see_through).save(tmp_path / "b.png")
    for masks, key in ((MaskFiles(tmp_path / "a.png"), "x.jpg"), (MaskFiles(tmp_path), "sub/b.jpg")):
        np.testing.assert_array_equal(masks.of(key, (4, 6)), mask > 0)
    assert not MaskFiles(tmp_path).of("c.jpg", (4, 6)).any()
    with pytest.raises(InputError, match="its mask has its size, 5 x 4; got 6 x 4"):
        MaskFiles(tmp_path).of("a.jpg", (4, 5))
    with pytest.raises(InputError, match="neither"):
        MaskFiles(tmp_path / "none")
    assert MaskFiles(tmp_path).stamp() != MaskFiles(tmp_path / "a.png").stamp()
    assert Path(MaskFiles(tmp_path).path) == tmp_path


def test_what_masks_hide_is_not_learned_and_is_filled(folder, tmp_path):
    hidden = np.zeros((24, 40), np.uint8)
    hidden[:, 10:13] = 255
    (tmp_path / "masks").mkdir()
    for path in folder.glob("*.png"):
        Image.fromarray(hidden).save(tmp_path / "masks" / path.name)
    images, seen = folder.parent / "hidden", []
    images.mkdir()
    Image.fromarray(np.where(hidden[..., None] > 0, np.uint8(255), scene())).save(images / "a b.png")
    Image.fromarray(scene(seed=1)).save(images / "deep.png")

    class Spy(Inpainter):
        def _losses(self, module, batch, generator):
            seen.append(float((batch.x * (1 if batch.known is None else batch.known)).max()))
            return super()._losses(module, batch, generator)

    model = Spy(max_steps=3, width=8, progress=False)
    restore_files(images, tmp_path / "out", model, command="inpaint", masks=tmp_path / "masks")
    assert max(seen) < 1
    row = rows_of(tmp_path / "out" / "images.csv")[0]
    assert float(row["missing"]) == pytest.approx(3 / 40, abs=1e-4)
    made = read_picture((tmp_path / "out" / row["file"]).read_bytes()).pixels()
    np.testing.assert_array_equal(made[hidden == 0], scene()[hidden == 0])
    assert (made[hidden > 0] < 250).all()
