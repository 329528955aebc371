"""One row per picture, with its values: nested lists, tables, stacks, masks and integers of every dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import imatlas as ia
from imatlas.errors import InputError, InputTypeError, ParameterError
from imatlas.images.dataset import Images, images_of, load_pixels
from imatlas.images.spec import ImageSpec


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 24, 24, 3)).astype(np.uint8)


@pytest.fixture
def files(pixels: np.ndarray, tmp_path: Path) -> list[Path]:
    (tmp_path / "img").mkdir()
    paths = [tmp_path / "img" / f"{name}.png" for name in "dbface"]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    return paths


@pytest.mark.parametrize("tops", [(200, 1000, 250), (90, 200, 250), (200, 70000, 250)])
@pytest.mark.parametrize("low", [0, -1000])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_keep_their_values_in_every_set(
    tops: tuple[int, ...], low: int, dtype: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Each picture alone would have another dtype; a list is read like the array of its items."""
    arrays = [rng.integers(low if i else 0, top, (16, 16)).astype(dtype) for i, top in enumerate(tops)]
    whole, _ = load_pixels(np.stack(arrays))
    np.testing.assert_array_equal(whole[..., 0], arrays)
    for given in (arrays, tuple(arrays), pd.Series(arrays), [torch.from_numpy(a) for a in arrays], Lazy(arrays)):
        got, _ = load_pixels(given)
        assert got.dtype == whole.dtype
        np.testing.assert_array_equal(got, whole)
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    for given in (tmp_path, [tmp_path / f"{i}.npy" for i in range(3)]):
        np.testing.assert_array_equal(load_pixels(given)[0], whole)


class Lazy:
    """A dataset with integer indexing."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return {"image": self.items[i], "label": 1}


def test_a_mask_hides_the_same_in_every_container(pixels: np.ndarray, tmp_path: Path) -> None:
    hidden = np.zeros(pixels.shape, bool)
    hidden[:, 4:12, 4:12] = True
    masked = np.ma.MaskedArray(pixels, hidden)
    spec = ImageSpec(24, 24, 3)
    want = np.where(hidden, np.nan, pixels.astype(np.float32))
    for given in (masked, list(masked), Images(masked), Images(list(masked))):
        got, own = load_pixels(given, spec=spec)
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert (own.dtype, own.low, own.high) == ("float32", 0, 255)
    mixed, _ = load_pixels([masked[0], pixels[1], Image.fromarray(pixels[2])], spec=spec)
    assert np.isnan(mixed[0][hidden[0]]).all()
    np.testing.assert_array_equal(mixed[1:], pixels[1:3])
    small, _ = load_pixels(masked, spec=ImageSpec(12, 12, 3))
    assert np.isnan(small[:, 3:5, 3:5]).all()
    assert np.isfinite(small[:, 8:]).all()
    deep = np.ma.MaskedArray(pixels.astype(np.uint16) * 257, hidden)
    np.testing.assert_allclose(load_pixels(Images(deep), spec=spec)[0], want, atol=1e-4)


def test_methods_of_an_atlas_use_masks_and_rows(pixels: np.ndarray, files: list[Path], tmp_path: Path) -> None:
    hidden = np.zeros(pixels.shape, bool)
    hidden[:, :10] = True
    masked = np.ma.MaskedArray(pixels, hidden)
    for encoder, size in (("own", 12), ("pretrained", None)):
        atlas = ia.learn(
            files[0].parent, tmp_path / f"{encoder}.atlas", encoder=encoder, image_size=size, budget=0.5, progress=False
        )
        seen = atlas.embed(masked)
        assert np.abs(seen - atlas.embed(pixels)).max() > 1e-4
        np.testing.assert_allclose(atlas.embed(list(masked)), seen, atol=1e-5)
        np.testing.assert_allclose(atlas.embed(Images(masked)), seen, atol=1e-5)
        beside = atlas.embed([masked[0], pixels[1]])[1:]  # as alone; resized, within the rounding of pixels
        np.testing.assert_allclose(beside, atlas.embed(pixels[1:2]), atol=0 if encoder == "own" else 0.02)
        assert atlas.search(masked[0], 1)["distance"][0].as_py() > 0
        assert atlas.search(pixels[0].astype(np.float32), 1)["key"][0].as_py() == files[0].name
        with pytest.raises(InputError, match="hides all of its pixels"):
            atlas.search(np.ma.MaskedArray(pixels[0], True))
        assert atlas.embed(Images(pixels)[[]]).shape == (0, seen.shape[1])
        repeated = [files[1], files[1], files[0]]
        assert len(atlas.outliers(repeated).p_values) == len(atlas.outliers(masked[:3]).p_values) == 3
        with pytest.raises(InputError, match=r"1 of 2 items cannot be used.*nowhere"):
            atlas.outliers([files[0], "nowhere.png"])
    encoder = ia.PretrainedEncoder().fit(pixels)
    np.testing.assert_array_equal(encoder.transform(masked), encoder.transform(Images(masked)))
    assert not np.array_equal(encoder.transform(masked), encoder.transform(pixels))


def test_a_stack_in_a_file_has_one_row_per_picture(pixels: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels[:4])
    np.save(tmp_path / "b.npy", pixels[4])
    np.save(tmp_path / "c.npy", pixels[5].transpose(2, 0, 1))
    keys = ["a.npy#1", "a.npy#2", "a.npy#3", "a.npy#4", "b.npy", "c.npy"]
    for given in (tmp_path, [tmp_path / f"{name}.npy" for name in "abc"], str(tmp_path / "*.npy")):
        images = Images(given)
        assert images.keys == keys
        np.testing.assert_array_equal(load_pixels(given)[0], pixels)
        np.testing.assert_array_equal(images[2], pixels[2])
    np.testing.assert_array_equal(load_pixels([tmp_path / "a.npy"])[0], load_pixels(tmp_path / "a.npy")[0])
    with pytest.raises(InputError, match="list each file once"):
        load_pixels([tmp_path / "a.npy"] * 2)
    atlas = ia.learn(tmp_path, tmp_path / "x.atlas", encoder="own", budget=0.5, progress=False)
    assert sorted(atlas.store.rows["key"]) == keys
    with pytest.raises(InputError, match="a file of 4 pictures"):
        atlas.search(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(64, 96, 13), (64, 96, 5), (48, 48, 200)])
def test_one_picture_of_many_channels_is_not_a_set(shape: tuple[int, ...], tmp_path: Path) -> None:
    one = np.zeros(shape, np.uint8)
    np.save(tmp_path / "one.npy", one)
    for given in (one, torch.from_numpy(one), tmp_path / "one.npy"):
        with pytest.raises(InputError, match=rf"one picture with {shape[2]} channels: give x\[None\].*x\[..., None\]"):
            Images(given)
    for given in (one[None], [one], [tmp_path / "one.npy"]):
        assert Images(given)[0].shape == shape
    assert len(Images(one[..., None])) == shape[0]
    assert len(Images(np.zeros((100, 28, 28), np.uint8))) == 100
    assert len(Images(np.zeros((1797, 8, 8), np.uint8))) == 1797


def test_a_dict_of_columns_is_a_table(pixels: np.ndarray) -> None:
    columns = {"image": list(pixels), "mask": list(pixels[..., 0]), "label": [0] * 6}
    np.testing.assert_array_equal(load_pixels(columns)[0], pixels)
    np.testing.assert_array_equal(Images(columns, field="mask").pixels[..., 0], pixels[..., 0])
    np.testing.assert_array_equal(load_pixels({"image": pixels, "mask": pixels[..., 0]})[0], pixels)
    np.testing.assert_array_equal(load_pixels({"foto": list(pixels)})[0], pixels)
    with pytest.raises(InputTypeError, match="the columns a, b; give one of them"):
        Images({"a": list(pixels), "b": list(pixels)})


def test_tables_of_pandas_name_the_field(files: list[Path], pixels: np.ndarray) -> None:
    paths = [str(file) for file in files]
    with pytest.raises(InputTypeError, match="2 columns 'image'; rename"):
        Images(pd.DataFrame([[p, p] for p in paths], columns=["image", "image"]))
    numbered = pd.DataFrame({0: 1, 7: paths})
    for field in (7, "7"):
        np.testing.assert_array_equal(Images(numbered, field=field).pixels, pixels)
    with pytest.raises(InputTypeError, match=r"table\[0\]"):
        Images(numbered)
    for table in (numbered, pa.table({"0": paths, "7": paths})):
        with pytest.raises(InputTypeError, match="no column 'c', which 'field' names; its columns are 0, 7"):
            Images(table, field="c")
    for given in (np.array(paths)[:, None], pd.DataFrame({"x": paths})[["x"]].to_numpy(), pd.DataFrame({"x": paths})):
        np.testing.assert_array_equal(load_pixels(given)[0], pixels)
    np.testing.assert_array_equal(load_pixels(np.array(paths).astype("S"))[0], pixels)
    np.testing.assert_array_equal(load_pixels(pd.DataFrame({"y": 1, "filename": paths}))[0], pixels)


def test_polars_tables(files: list[Path], pixels: np.ndarray) -> None:
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"label": 1, "path": [str(file) for file in files]})
    np.testing.assert_array_equal(load_pixels(table)[0], pixels)


def test_nested_lists_lose_no_picture(files: list[Path], pixels: np.ndarray) -> None:
    for nested in ([files], [files[:3], files[3:]], [[pixels[0], pixels[1]], [pixels[2], pixels[3]]]):
        with pytest.raises(InputError, match="images instead of one; give one list"):
            images_of(nested)
    names = [str(file) for file in files]
    for given in (list(zip(files, range(6), strict=True)), list(zip(names, "abcdef", strict=True))):
        np.testing.assert_array_equal(load_pixels(given)[0], pixels)
    contents = [(file.read_bytes(), 3) for file in files]
    np.testing.assert_array_equal(load_pixels(contents)[0], pixels)
    np.testing.assert_array_equal(load_pixels([{"bytes": bytearray(c)} for c, _ in contents])[0], pixels)
    np.testing.assert_array_equal(load_pixels([(picture, picture[..., 0]) for picture in pixels])[0], pixels)
    np.testing.assert_array_equal(load_pixels(pixels.tolist())[0], pixels)
    np.testing.assert_array_equal(load_pixels([{"image": picture.tolist()} for picture in pixels])[0], pixels)


def test_parts_that_are_streams(pixels: np.ndarray) -> None:
    class IterableDataset:
        def __init__(self, items: Any) -> None:
            self.items = items

        def __iter__(self) -> Any:
            return iter(self.items)

    parts = {"train": IterableDataset(pixels[:4]), "test": IterableDataset(pixels[4:])}
    np.testing.assert_array_equal(load_pixels(parts)[0], pixels)


def test_tensor_dtypes_that_numpy_lacks(pixels: np.ndarray) -> None:
    tensor = torch.from_numpy(pixels)
    for given in (tensor.to_sparse(), tensor.to(torch.bfloat16).to_sparse(), [t.to_sparse() for t in tensor]):
        np.testing.assert_allclose(load_pixels(given)[0], pixels, atol=1.0)


@pytest.mark.parametrize("text", ["", "a\0b", "https://me:word@example.org/a.png"])
def test_invalid_paths_are_refused(text: str, files: list[Path]) -> None:
    for given in (text, [text], [files[0], text]):
        with pytest.raises(InputError, match=r"must be a path|contains a user name|only files on this machine"):
            Images(given)


def test_small_arguments_of_images(pixels: np.ndarray) -> None:
    images = Images(pixels)
    for index in (np.array(2), torch.tensor(2), np.int8(2)):
        np.testing.assert_array_equal(images[index], pixels[2])
    with pytest.raises(ParameterError, match="at_size"):
        images.at_size(None)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="'field'"):
        Images(pixels, field=["a"])  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="the class ndarray"):
        Images(np.ndarray)
