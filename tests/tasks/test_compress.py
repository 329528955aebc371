"""Files of compressed images: folders of every kind, resumption, targets, metadata and damage."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from imatlas.errors import ArtifactError, InputError
from imatlas.images.dataset import Images
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.models.parts.coded_image import varint
from imatlas.tasks import coded_file
from imatlas.tasks.coded_file import CodedFile, OtherFile
from imatlas.tasks.compress import Target, coded_to, compress_images
from imatlas.tasks.decompress import decompress_images, describe_compressed
from imatlas.testing import synthetic_images

STEP = Target(step=24)


@pytest.fixture(scope="module")
def codec() -> ImageCodec:
    return ImageCodec.general()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of many kinds, and files that are none."""
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    for i, pixels in enumerate(synthetic_images(5, size=(24, 32), channels=3)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    Image.fromarray(synthetic_images(1, size=40)[0, ..., 0]).save(folder / "inner" / "gray.jpg", quality=95)
    Image.fromarray(synthetic_images(1, size=32, channels=4)[0]).save(folder / "alpha.png")
    tifffile.imwrite(folder / "deep.tif", synthetic_images(1, size=32, dtype="uint16")[0, ..., 0])
    seven = synthetic_images(1, size=24, channels=7)[0]
    tifffile.imwrite(folder / "seven.tif", seven, photometric="minisblack", planarconfig="contig")
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a maker", 6
    Image.fromarray(synthetic_images(1, size=(20, 30), channels=3)[0]).save(
        folder / "rotated.jpg", exif=exif, quality=95
    )
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_comes_back(codec: ImageCodec, folder: Path, tmp_path: Path) -> None:
    result = compress_images(folder, tmp_path / "all.imc", codec, STEP)
    assert result.metrics["n_images"] == 10
    assert result.metrics["bytes"] == (tmp_path / "all.imc").stat().st_size < result.metrics["file_bytes"] / 2
    assert any("broken.png" in sentence for sentence in result.sentences)
    assert sorted(os.listdir(tmp_path)) == ["all.imc", "in"]
    decompress_images(tmp_path / "all.imc", tmp_path / "out", codec)
    out = tmp_path / "out" / "images"
    for name in ("0.png", "4.png", "alpha.png"):
        before, after = (pixels_of(root / name) for root in (folder, out))
        assert psnr(before[None], after[None], span=255) > 32
    assert pixels_of(out / "inner" / "gray.png").shape == (40, 40)
    deep = pixels_of(out / "deep.png")
    assert np.abs(deep.astype(float) - tifffile.imread(folder / "deep.tif")).max() < 3000
    assert tifffile.imread(out / "seven.tif").shape[-1] == 7
    with Image.open(out / "rotated.png") as rotated:
        assert rotated.size == (20, 30)  # upright
        assert (rotated.getexif()[0x010F], rotated.getexif()[0x0112]) == ("a maker", 1)


def test_one_image_is_found_without_decoding_the_others(codec: ImageCodec, folder: Path, tmp_path: Path) -> None:
    compress_images(folder, tmp_path / "all.imc", codec, STEP)
    decompress_images(tmp_path / "all.imc", tmp_path / "one.png", codec, keys=["3.png"])
    decompress_images(tmp_path / "all.imc", tmp_path / "all", codec)
    one, same = (pixels_of(path) for path in (tmp_path / "one.png", tmp_path / "all" / "images" / "3.png"))
    assert np.array_equal(one, same)
    with pytest.raises(InputError, match=r"no image 'x\.png'"):
        decompress_images(tmp_path / "all.imc", tmp_path / "two.png", codec, keys=["x.png"])
    with pytest.raises(InputError, match="output is a folder"):
        decompress_images(tmp_path / "all.imc", tmp_path / "two.png", codec)


def test_a_killed_run_is_continued(
    codec: ImageCodec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress_images(folder, tmp_path / "whole.imc", codec, STEP)
    original = ImageCodec.coded_and_decoded

    def killed(self: ImageCodec, pixels: np.ndarray, *args: object) -> object:
        if pixels.shape[3] == 7:  # of the last image
            raise KeyboardInterrupt
        return original(self, pixels, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageCodec, "coded_and_decoded", killed)
    with pytest.raises(KeyboardInterrupt):
        compress_images(folder, tmp_path / "some.imc", codec, STEP)
    monkeypatch.undo()
    unfinished = tmp_path / "some.imc.unfinished"
    begun = CodedFile.open(unfinished).entries
    assert begun
    with unfinished.open("ab") as file:
        file.write(b"I\xff\x01half a record")  # the power fails while the next is written
    with pytest.raises(ArtifactError, match="other settings"):
        compress_images(folder, tmp_path / "some.imc", codec, Target(step=30))
    compress_images(folder, tmp_path / "some.imc", codec, STEP)
    assert CodedFile.open(tmp_path / "some.imc").entries[: len(begun)] == begun
    assert not unfinished.exists()
    keys = [{entry.key for entry in CodedFile.open(tmp_path / f"{name}.imc").entries} for name in ("whole", "some")]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("target", [Target(psnr=36.0), Target(bits_per_pixel=1.5), Target(max_bytes=200)])
def test_targets_are_met_closely(codec: ImageCodec, target: Target, rng: np.random.Generator) -> None:
    noisy = synthetic_images(1, size=48, channels=3).astype(float) + rng.normal(0, 12, (1, 48, 48, 3))
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    spec = ImageSpec(48, 48, 3)
    coded, decoded = coded_to(codec, image, spec, target)
    finer, _ = codec.coded_and_decoded(image, spec, coded.step - 1)
    coarser = codec.coded_and_decoded(image, spec, coded.step + 1)[1]
    if target.psnr:
        assert psnr(image, decoded, span=255) >= target.psnr > psnr(image, coarser, span=255)
    else:
        assert len(coded.to_bytes()) <= target.most_bytes(image) < len(finer.to_bytes())


def test_a_learned_model_travels_with_the_file(folder: Path, tmp_path: Path) -> None:
    def learn(packed: bytes) -> ImageCodec:
        if packed:
            return ImageCodec.from_weights(packed)
        return ImageCodec(max_steps=3, learning_rate=0.03, progress=False, random_state=0).fit(
            synthetic_images(6, size=32, channels=3)
        )

    compress_images(folder / "0.png", tmp_path / "own.imc", learn, STEP, learned={"learn": "3 steps"})
    with pytest.raises(InputError, match="another model"):
        decompress_images(tmp_path / "own.imc", tmp_path / "x.png", ImageCodec.general())
    decompress_images(tmp_path / "own.imc", tmp_path / "x.png")
    assert pixels_of(tmp_path / "x.png").shape == (24, 32, 3)


def test_without_loss_every_value_comes_back(folder: Path, tmp_path: Path) -> None:
    """Also of pixels that are missing, which a codec with loss refuses."""
    tifffile.imwrite(folder / "holes.tif", np.where(np.eye(16) > 0, np.nan, np.linspace(-3, 5, 16)).astype(np.float32))
    result = compress_images(folder, tmp_path / "all.imc", LosslessCodec.general(), Target())
    assert result.metrics["psnr"] is None
    assert result.metrics["bytes"] < result.metrics["file_bytes"]
    assert any("without loss" in sentence for sentence in result.sentences)
    assert CodedFile.open(tmp_path / "all.imc").is_lossless
    decompress_images(tmp_path / "all.imc", tmp_path / "out")
    for name in ("0.png", "alpha.png"):
        assert np.array_equal(*(pixels_of(root / name) for root in (folder, tmp_path / "out" / "images")))
    for name in ("seven.tif", "holes.tif"):
        before, after = (tifffile.imread(root / name) for root in (folder, tmp_path / "out" / "images"))
        assert np.array_equal(before, after, equal_nan=name == "holes.tif")
    with pytest.raises(InputError, match="another model"):
        decompress_images(tmp_path / "all.imc", tmp_path / "again", ImageCodec.general())


def test_nothing_else_is_replaced(codec: ImageCodec, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.imc").write_text("mine")
    with pytest.raises(ArtifactError, match="already exists"):
        compress_images(folder, tmp_path / "mine.imc", codec, STEP)
    with pytest.raises(ArtifactError, match="not a file that 'imatlas compress' wrote"):
        compress_images(folder, tmp_path / "mine.imc", codec, STEP, overwrite=True)
    assert (tmp_path / "mine.imc").read_text() == "mine"
    with pytest.raises(InputError, match="nothing was written"):
        compress_images(folder / "broken.png", tmp_path / "none.imc", codec, STEP)
    assert sorted(os.listdir(tmp_path)) == ["in", "mine.imc"]


def test_damaged_files_are_refused(codec: ImageCodec, folder: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """Whatever byte is changed: a clear error, and never another picture."""
    compress_images([folder / "0.png", folder / "1.png"], tmp_path / "two.imc", codec, STEP)
    data = (tmp_path / "two.imc").read_bytes()
    damaged = tmp_path / "damaged.imc"
    for place in rng.choice(len(data), 250, replace=False).tolist():
        damaged.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        assert not _is_read(damaged, codec)
    for length in rng.integers(0, len(data), 40).tolist():
        damaged.write_bytes(data[:length])
        assert not _is_read(damaged, codec)


def _is_read(path: Path, codec: ImageCodec) -> bool:
    """Whether a file is read to its end; images before a part that is cut off may be."""
    with contextlib.suppress(InputError):
        file = CodedFile.open(path)
        for entry in file.entries:
            codec.decoded(file.images(entry.place)[2])
        return file.is_complete and file.model == codec.identity()
    return False


def test_the_smaller_format_is_kept(codec: ImageCodec, tmp_path: Path, rng: np.random.Generator) -> None:
    """Flat shapes are smaller as WebP without loss; a noisy picture is not."""
    folder = tmp_path / "in"
    folder.mkdir()
    flat = np.full((96, 128, 3), 250, np.uint8)
    flat[20:60, 30:90] = 200, 30, 60
    flat[40:50, 10:120:7] = 0
    noisy = synthetic_images(1, size=(96, 128), channels=3)[0] + rng.normal(0, 9, (96, 128, 3))
    for name, pixels in {"flat": flat, "noisy": noisy.clip(0, 255).astype(np.uint8)}.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(flat[..., 0]).save(folder / "gray.png")
    Image.fromarray(np.dstack([flat, flat[..., :1]])).save(folder / "alpha.png")
    plain = compress_images(folder, tmp_path / "plain.imc", codec, STEP)
    assert any("as other formats at the same quality" in sentence for sentence in plain.sentences)
    result = compress_images(folder, tmp_path / "best.imc", codec, STEP, best=True)
    assert result.metrics["bytes"] < plain.metrics["bytes"]
    assert any("in other formats" in sentence for sentence in result.sentences)
    assert result.metrics["psnr"] >= plain.metrics["psnr"]
    assert [
        type(CodedFile.open(tmp_path / "best.imc").images(entry.place)[2])
        for entry in CodedFile.open(tmp_path / "best.imc").entries
    ].count(OtherFile) == 3
    decompress_images(tmp_path / "best.imc", tmp_path / "out")
    for name in ("flat", "gray", "alpha"):
        before, after = (pixels_of(root / f"{name}.png") for root in (folder, tmp_path / "out" / "images"))
        assert psnr(before[None], after[None], span=255) > 34
    described = describe_compressed(tmp_path / "best.imc")
    assert described.metrics["n_images"] == 4
    assert any("3 images of these are in other formats" in sentence for sentence in described.sentences)


def test_files_whose_values_would_be_rounded_are_skipped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", np.random.default_rng(0).random((20, 20)))
    tifffile.imwrite(tmp_path / "short.tif", np.arange(-200, 200, dtype=np.int16).reshape(20, 20))
    result = compress_images(tmp_path, tmp_path / "all.imc", LosslessCodec.general(), Target())
    assert result.data["skipped"][0][0] == "deep.tif"
    assert "float64" in result.data["skipped"][0][1]
    decompress_images(tmp_path / "all.imc", tmp_path / "one.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "one.tif"), tifffile.imread(tmp_path / "short.tif"))


def test_a_compressed_file_is_a_source_of_images(folder: Path, tmp_path: Path) -> None:
    compress_images(folder, tmp_path / "all.imc", LosslessCodec.general(), Target())
    opened, before = Images(tmp_path / "all.imc", image_size=24), Images(folder, image_size=24)
    assert opened.keys == before.keys
    for again, pixels in zip(opened, before, strict=True):
        assert np.array_equal(again, pixels)
    assert Images(tmp_path / "all.imc", image_size=24).fingerprint == opened.fingerprint
    again = pickle.loads(pickle.dumps(open_source(tmp_path / "all.imc")))
    assert again.read(0) == open_source(tmp_path / "all.imc").read(0)


def test_the_readable_part_of_a_cut_file_is_a_source_and_a_damaged_one_is_none(
    codec: ImageCodec, folder: Path, tmp_path: Path
) -> None:
    compress_images([folder / f"{i}.png" for i in (0, 1)] + [folder / "deep.tif"], tmp_path / "all.imc", codec, STEP)
    data = (tmp_path / "all.imc").read_bytes()
    (tmp_path / "cut.imc").write_bytes(data[:-30])
    cut = open_source(tmp_path / "cut.imc")
    assert cut.keys == ["0.png", "1.png"]
    assert "cut off" in cut.skipped[0][1]
    (tmp_path / "damaged.imc").write_bytes(data[:100] + b"x" + data[101:])
    with pytest.raises(InputError, match="damaged"):
        open_source(tmp_path / "damaged.imc")


def test_strange_names_in_a_compressed_file_lead_nowhere(codec: ImageCodec, tmp_path: Path) -> None:
    coded = codec.coded(synthetic_images(3, size=16), ImageSpec(16, 16, 1), 24)
    start = coded_file.MAGIC + coded_file.head_record(codec.identity(), bytes(8))
    images = coded_file.images_record(["../../a.png", "a.png", "/etc/b.png"], [coded_file.About()] * 3, coded)
    (tmp_path / "odd.imc").write_bytes(start + images + coded_file.end_record(3))
    assert open_source(tmp_path / "odd.imc").keys == ["a.png", "a.png (2)", "etc/b.png"]


def test_images_are_appended(codec: ImageCodec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a copy, which replaces the file when all are written; also after a kill; and only with the same model."""
    output = tmp_path / "all.imc"
    compress_images([folder / "0.png", folder / "1.png"], output, codec, STEP)
    before = output.read_bytes()
    original = ImageCodec.coded_and_decoded

    def killed(self: ImageCodec, pixels: np.ndarray, *args: object) -> object:
        if pixels.shape[3] == 7:
            raise KeyboardInterrupt
        return original(self, pixels, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageCodec, "coded_and_decoded", killed)
    with pytest.raises(KeyboardInterrupt):
        compress_images(folder, output, codec, STEP, append=True)
    assert output.read_bytes() == before
    monkeypatch.undo()
    result = compress_images(folder, output, codec, STEP, append=True)
    file = CodedFile.open(output)
    assert file.is_complete
    assert [entry.key for entry in file.entries[:2]] == ["0.png", "1.png"]
    assert result.metrics["n_images"] == len(file.entries) == len({entry.key for entry in file.entries}) == 10
    decompress_images(output, tmp_path / "out")
    assert pixels_of(tmp_path / "out" / "images" / "inner" / "gray.png").shape == (40, 40)
    with pytest.raises(InputError, match="another model"):
        compress_images(folder, output, LosslessCodec.general(), Target(), append=True)
    with pytest.raises(InputError, match="no file"):
        compress_images(folder, tmp_path / "none.imc", codec, STEP, append=True)


def test_keys_that_share_their_beginning_come_back(codec: ImageCodec, tmp_path: Path) -> None:
    keys = ["a/1.png", "a/12.png", "a/12.png.png", "\u00e4", "\u00f6", "b", "b "]
    coded = codec.coded(synthetic_images(7, size=16), ImageSpec(16, 16, 1), 24)
    start = coded_file.MAGIC + coded_file.head_record(codec.identity(), bytes(8))
    images = coded_file.images_record(keys, [coded_file.About(exif=b"x")] * 7, coded)
    (tmp_path / "a.imc").write_bytes(start + images + coded_file.end_record(7))
    file = CodedFile.open(tmp_path / "a.imc")
    assert [entry.key for entry in file.entries] == keys
    assert file.images(file.entries[0].place)[1][3].exif == b"x"


def test_keys_that_grow_without_end_are_refused(tmp_path: Path) -> None:
    """Each of 60,000 keys would repeat a first one of 100 kB."""
    long = varint(0) + varint(10**5) + b"x" * 10**5 + varint(0)
    told = long + (varint(10**5) + varint(0) + varint(0)) * 60_000
    content = varint(60_001) + varint(2 * len(told)) + told
    start = coded_file.MAGIC + coded_file.head_record(bytes(8), bytes(8))
    (tmp_path / "a.imc").write_bytes(start + coded_file.record(b"I", content))
    with pytest.raises(InputError, match="too long"):
        CodedFile.open(tmp_path / "a.imc")
