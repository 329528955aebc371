"""One row per item, in order and by position; or an error that names what is missing."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import imatlas as ia
from imatlas.errors import InputError, InputTypeError, SourceError
from imatlas.images.dataset import Images, images_of, load_pixels
from imatlas.images.encode import write_picture


def level(i: int) -> int:
    """The gray value of picture i, in another order than the names."""
    return (i * 37) % 50 * 5


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Twelve files identified by their gray value, not in the order of their names."""
    names = [f"{name}.png" for name in "khbafgclejdi"]
    for i, name in enumerate(names):
        write_picture(tmp_path / name, np.full((10, 12, 3), level(i), np.uint8))
    return [str(tmp_path / name) for name in names]


def levels(images: Any) -> list[int]:
    return load_pixels(images)[0][:, 0, 0, 0].tolist()


EXPECTED = [level(i) for i in range(12)]


@pytest.mark.parametrize(
    "give",
    [
        list,
        tuple,
        np.array,
        lambda files: np.array(files, object),
        lambda files: [Path(file) for file in files],
        lambda files: [file.encode() for file in files] and [Path(file.encode().decode()) for file in files],
        lambda files: pd.Series(files, index=range(11, -1, -1)),
        lambda files: pd.Series(files, index=list("zyxwvutsrqpo")),
        lambda files: pd.Index(files),
        lambda files: pd.DataFrame({"path": files})["path"],
        lambda files: pa.array(files),
        lambda files: pa.chunked_array([files[:5], files[5:]]),
        lambda files: pa.table({"path": files})["path"],
        lambda files: [np.asarray(Image.open(file)) for file in files],
        lambda files: [Image.open(file) for file in files],
        lambda files: [Path(file).open("rb") for file in files],  # noqa: SIM115
        lambda files: [io.BytesIO(Path(file).read_bytes()) for file in files],
        lambda files: [Path(file).read_bytes() for file in files],
        lambda files: [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files],
        lambda files: [np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files],
        lambda files: pd.Series([np.asarray(Image.open(file)) for file in files], index=range(11, -1, -1)),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_kind_of_list_keeps_its_order(give: Any, files: list[str]) -> None:
    assert levels(give(files)) == EXPECTED


def test_a_file_listed_twice_has_two_rows(files: list[str], tmp_path: Path) -> None:
    places = [3, 3, 0, 7, 3, 11]
    given = [files[i] for i in places]
    given[1] = str(tmp_path / "sub" / ".." / Path(given[1]).name)
    assert levels(given) == [level(i) for i in places]
    assert images_of(given).keys == [Path(files[i]).name for i in places]


@pytest.mark.parametrize("bad", ["missing", "text", "folder", "zip"])
def test_a_missing_row_is_an_error_with_its_name(bad: str, files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.png"
    if bad == "text":
        path.write_text("no picture")
    elif bad == "folder":
        path.mkdir()
    elif bad == "zip":
        zipfile.ZipFile(path, "w").close()
    with pytest.raises(InputError, match=r"1 of 13 items cannot be used.*wrong\.png"):
        load_pixels([*files[:4], str(path), *files[4:]])
    images = Images([*files[:4], str(path), *files[4:]])  # which says by its keys what its rows are
    assert images.keys == [Path(file).name for file in files]


@pytest.mark.parametrize("bad", [b"junk", None, 7, "nowhere.png"])
def test_a_damaged_item_of_a_dataset_is_an_error(bad: Any) -> None:
    class Dataset:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> Any:
            return bad if i == 1 else np.full((8, 8, 3), i, np.uint8)

    with pytest.raises(InputError, match=r"1 of 3 items cannot be used.*000001"):
        load_pixels(Dataset())
    assert levels(Images(Dataset())) == [0, 2]


def test_a_pipeline_scores_paths_as_it_scores_arrays(tmp_path: Path, rng: np.random.Generator) -> None:
    """The labels of `train_test_split` stay with their files."""
    labels = rng.integers(0, 2, 60)
    pixels = rng.integers(0, 90, (60, 16, 16, 3), dtype=np.uint8)
    pixels[labels == 1, :, 8:] += 120
    names = [f"{i:03d}" for i in rng.permutation(60)]
    for name, picture in zip(names, pixels, strict=True):
        write_picture(tmp_path / f"{name}.png", picture)
    paths = [str(tmp_path / f"{name}.png") for name in names]
    scores = []
    for given in (paths, pixels):
        parts = train_test_split(given, labels, random_state=0)
        pipe = make_pipeline(ia.Autoencoder(latent_dim=8, max_steps=30), LogisticRegression())
        scores.append(pipe.fit(parts[0], parts[2]).score(parts[1], parts[3]))
    assert scores[0] == scores[1] == 1.0


def test_one_picture_is_not_a_set_of_rows(tmp_path: Path) -> None:
    one = np.zeros((64, 96, 3), np.uint8)
    np.save(tmp_path / "one.npy", one)
    np.savez(tmp_path / "one.npz", images=one)
    for given in (one, torch.zeros(64, 96, 4), torch.zeros(3, 64, 96), tmp_path / "one.npy", tmp_path / "one.npz"):
        with pytest.raises(InputError, match="looks like one picture"):
            Images(given)
    assert len(Images(one[None])) == 1
    assert len(Images(one[..., None])) == 64
    assert len(Images(np.zeros((3, 64, 96), np.uint8))) == 3


@pytest.mark.parametrize(
    "give", [lambda b: io.BytesIO(b), lambda b: b, lambda b: Image.open(io.BytesIO(b)), memoryview]
)
def test_one_picture_in_memory_is_a_set_of_one(give: Any, files: list[str]) -> None:
    assert levels(give(Path(files[2]).read_bytes())) == [level(2)]


def test_an_open_file_stays_open_where_it_was(files: list[str]) -> None:
    with open(files[4], "rb") as file:
        file.seek(3)
        assert levels(file) == [level(4)]
        assert file.tell() == 3
        assert levels([file, file]) == [level(4)] * 2
    with open(files[4], encoding="latin-1") as text, pytest.raises((InputError, InputTypeError)):
        load_pixels(text)


@pytest.mark.parametrize("given", [pd.DataFrame({"a": [1], "b": [2]}), pa.table({"a": [1], "b": [2]})])
def test_a_table_without_an_image_column_is_an_error(given: Any) -> None:
    with pytest.raises(InputTypeError, match="columns a, b; give one of them"):
        Images(given)


@pytest.mark.parametrize("given", [{"a": 1}, {"x.png"}, 5, None, (x for x in "ab")])
def test_objects_without_rows_are_refused(given: Any) -> None:
    with pytest.raises(InputTypeError, match="Images cannot be read from a"):
        Images(given)


def test_a_masked_array_keeps_its_mask(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    hidden = rng.random((6, 16, 16)) < 0.2
    masked = np.ma.MaskedArray(pixels, np.repeat(hidden[..., None], 3, 3))
    got, spec = load_pixels(masked)
    want, _ = load_pixels(pixels, mask=hidden)
    np.testing.assert_array_equal(got, want)
    assert spec.dtype == "float32"
    assert np.isnan(Images(masked).pixels[hidden]).all()
    assert np.isnan(load_pixels([masked[0], masked[1]])[0]).any()
    model = ia.VAE(latent_dim=4, max_steps=5).fit(pixels)
    np.testing.assert_array_equal(model.transform(masked), model.transform(pixels, mask=hidden))
    assert not np.array_equal(model.transform(masked), model.transform(pixels))


@pytest.mark.parametrize(
    "model", [ia.SOM(rows=3, cols=3), ia.KMeans(n_clusters=2), ia.OutlierDetector(), ia.ImageClusterer()]
)
def test_masked_images_are_not_fitted(model: Any, rng: np.random.Generator) -> None:
    values = rng.normal(size=(40, 5)).astype(np.float32)
    values[4, 2] = -1e6
    masked = np.ma.masked_less(values, -1e5)
    if isinstance(model, ia.SOM):  # which takes gaps
        assert model.fit(masked).codebook_.min() > -100
    else:
        with pytest.raises(ValueError, match="NaN"):
            model.fit(masked)
    model.fit(np.ma.MaskedArray(np.delete(values, 4, axis=0)))  # a mask that hides nothing


def test_output_folders_of_imatlas_are_not_a_source(tmp_path: Path, files: list[str], rng: np.random.Generator) -> None:
    """Atlases, models, caches and trash below the folder are skipped in every kind of source."""
    inside = tmp_path / "deep" / "renamed"
    inside.mkdir(parents=True)
    (inside / "atlas.json").write_text("{}")
    (inside / "cache" / "x").mkdir(parents=True)
    shutil.copy(files[0], inside / "cache" / "x" / "thumbnails.bin")
    shutil.copy(files[0], inside / "map.png")
    ia.KMeans(n_clusters=2).fit(rng.random((8, 3))).save(tmp_path / "model")
    shutil.copy(files[0], tmp_path / "model" / "sheet.png")
    trash = tmp_path / "photos-trash" / "0001"
    trash.mkdir(parents=True)
    (trash / "undo.json").write_text("{}")
    shutil.copy(files[0], trash / "a.png")
    names = sorted(Path(file).name for file in files)
    found = Images(tmp_path)
    assert found.keys == names
    reasons = dict(found.skipped)
    assert "an atlas" in reasons["deep/renamed/"]
    assert "a model" in reasons["model/"]
    assert "a trash" in reasons["photos-trash/0001/"]
    assert Images(str(tmp_path / "**" / "*.*")).keys == names
    with pytest.raises(SourceError, match="No file matches"):
        Images(str(tmp_path / "deep" / "*" / "*.png"))
    with pytest.raises(SourceError, match="is an atlas"):
        Images(inside)
    for suffix in ("zip", "tar"):
        archive = tmp_path.parent / f"{tmp_path.name}.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(archive, "w") as packed:
                for path in sorted(tmp_path.rglob("*")):
                    packed.write(path, path.relative_to(tmp_path))
        else:
            with tarfile.open(archive, "w") as packed:
                packed.add(tmp_path, "")
        assert Images(archive).keys == names


def test_containers_are_detected_by_content(tmp_path: Path, files: list[str]) -> None:
    tmp_path = tmp_path / "held"
    tmp_path.mkdir()
    for name in ("a.zip", "b.npy", "c.parquet", "d.tar.gz", "e.svg", "f.dng", "g"):
        shutil.copy(files[1], tmp_path / name)
        assert levels(tmp_path / name) == [level(1)]
    with zipfile.ZipFile(tmp_path / "h.parquet", "w") as archive:
        archive.write(files[1], "x.png")
    with tarfile.open(tmp_path / "i", "w:gz") as archive:
        archive.add(files[1], "x.png")
    np.savez(tmp_path / "j", np.full((1, 9, 9), level(1), np.uint8))
    (tmp_path / "j.npz").rename(tmp_path / "j")
    for name in "hij":
        assert levels(next(tmp_path.glob(f"{name}*"))) == [level(1)]


@pytest.mark.parametrize("name", ["a.jpg", "b.zip", "c.npy", "d.parquet", "e.tar", "f"])
def test_a_pointer_of_git_lfs_says_what_to_do(name: str, tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="git lfs pull"):
        len(Images(tmp_path / name))


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((20, 30), np.uint8, (20, 30, 1)),
        ((20, 30, 3), np.uint8, (20, 30, 3)),
        ((20, 30, 7), np.uint16, (20, 30, 7)),
        ((3, 20, 30), np.uint8, (20, 30, 3)),
        ((20, 30), np.float64, (20, 30, 1)),
        ((20, 30), bool, (20, 30, 1)),
    ],
)
def test_a_folder_of_arrays_is_a_folder_of_pictures(
    shape: tuple[int, ...], dtype: Any, expected: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = [
        (rng.random(shape) * (2 if dtype is bool else 200 if dtype != np.float64 else 1)).astype(dtype)
        for _ in range(3)
    ]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", np.asfortranarray(array) if i == 1 else array)
    images = Images(tmp_path)
    assert images.keys == ["0.npy", "1.npy", "2.npy"]
    first = arrays[1] if shape[0] != 3 else arrays[1].transpose(1, 2, 0)
    first = np.atleast_3d(first) * np.uint8(255) if dtype is bool else np.atleast_3d(first)
    assert images[1].shape == expected
    np.testing.assert_allclose(images[1], first, rtol=1e-6)


def test_frames_of_an_array_and_arrays_beside_pictures(tmp_path: Path, files: list[str]) -> None:
    np.save(tmp_path / "features.npy", np.zeros((12, 512), np.float32))
    images = Images(tmp_path)
    assert len(images) == 12
    assert images.skipped == [("(1 other file)", "no images: 1 .npy")]
    stack = tmp_path / "stacks"
    stack.mkdir()
    np.save(stack / "volume.npy", np.arange(5 * 20 * 30, dtype=np.uint16).reshape(5, 20, 30))
    assert Images(stack, frames="all").keys == [f"volume.npy#{i}" for i in range(1, 6)]
    np.save(stack / "labels.npy", np.arange(5))
    np.save(stack / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    reasons = dict(Images(stack).skipped)
    assert "not an image" in reasons["labels.npy"]
    assert "not an image" in reasons["objects.npy"]


def test_a_field_may_have_any_name(tmp_path: Path, files: list[str]) -> None:
    contents = [Path(file).read_bytes() for file in files]
    other = [b"no picture"] * 12
    table = pa.table({"raw": other, "foto": contents})
    pq.write_table(table, tmp_path / "a.parquet")
    assert levels(Images(tmp_path / "a.parquet", field="foto")) == EXPECTED
    copy = pickle.loads(pickle.dumps(Images(tmp_path / "a.parquet", field="foto")))
    assert levels(copy) == EXPECTED
    assert levels(Images(table, field="foto")) == EXPECTED
    assert levels(Images(pd.DataFrame({"raw": other, "foto": contents}), field="foto")) == EXPECTED
    rows = [{"label": 1, "foto": content} for content in contents]
    assert levels(Images(rows, field="foto")) == EXPECTED
    with pytest.raises(InputError, match="name the field by 'field'"):
        len(Images(rows))
    with pytest.raises(SourceError, match="columns that do: raw, foto"):
        Images(tmp_path / "a.parquet", field="bild")
    assert levels(Images(table["foto"])) == EXPECTED
    assert levels(Images(pa.table({"label": list(range(12)), "image": contents}))) == EXPECTED
    assert levels(Images(pd.DataFrame({"label": 1, "path": files}))) == EXPECTED


def test_parquet_of_paths_is_an_error(tmp_path: Path, files: list[str]) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = pa.array([{"bytes": None, "path": file} for file in files], kind)
    pq.write_table(pa.table({"image": structs}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="possibly a path; give the files"):
        len(Images(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"image": files}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="give those files"):
        Images(tmp_path / "b.parquet")


def test_parts_of_a_dataset_follow_each_other(files: list[str]) -> None:
    pictures = [{"image": Path(file).read_bytes(), "label": 1} for file in files]
    assert levels({"train": pictures[:5], "empty": [], "test": pictures[5:]}) == EXPECTED

    class IterableDataset:
        def __iter__(self) -> Any:
            return iter(pictures)

    class Streamed(IterableDataset):
        pass

    assert levels(Streamed()) == EXPECTED
    with pytest.raises(InputTypeError, match="no length; give its items as a list"):
        Images(x for x in "ab")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
def test_arrow_files(kind: str, stream: bool, tmp_path: Path, files: list[str]) -> None:
    contents = [Path(file).read_bytes() for file in files]
    column = {
        "bytes": pa.array(contents),
        "struct": pa.array([{"bytes": content, "path": None} for content in contents]),
        "paths": pa.array(files),
    }[kind]
    table = pa.table({"label": list(range(12)), "image": column})
    opener = pa.ipc.new_stream if stream else pa.ipc.new_file
    path = tmp_path / "data-00000-of-00001.arrow"
    with opener(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    assert levels(path) == EXPECTED
    assert levels(Images(path, field="image")) == EXPECTED
    assert levels(pickle.loads(pickle.dumps(Images(path)))) == EXPECTED
    with pytest.raises(SourceError, match="its columns: label, image"):
        Images(path, field="bild")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match="readable Arrow file"):
        Images(path)
    for codec in ("lz4", "zstd"):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with opener(str(path), table.schema, options=options) as writer:
            writer.write_table(table)
        with pytest.raises(SourceError, match="compressed buffers"):
            Images(path)


def test_learn_keeps_the_field(tmp_path: Path, files: list[str]) -> None:
    contents = [Path(file).read_bytes() for file in files]
    pq.write_table(pa.table({"raw": [b"no"] * 12, "foto": contents}), tmp_path / "a.parquet")
    atlas = ia.learn(tmp_path / "a.parquet", tmp_path / "x.atlas", budget=1, field="foto", progress=False)
    assert len(atlas) == 12
    assert atlas.store.originals.read(str(atlas.store.rows["key"][0])) in contents
