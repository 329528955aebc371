"""Every kind of source gives the same images, whatever else it contains."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imatlas import Images
from imatlas.arguments import path_of
from imatlas.errors import InputError, InputTypeError, SourceError
from imatlas.images.dataset import load_pixels
from imatlas.images.encode import encode, write_picture
from imatlas.images.sources.opening import open_several, open_source


@pytest.fixture
def pictures(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Four pictures of one size by their keys, with unusual names and folders."""
    keys = ["a.png", "b ü/日本 語.png", "b ü/c/d.png", "it's #1%.png"]
    return {key: rng.integers(0, 256, (20, 20, 3), np.uint8) for key in sorted(keys)}


@pytest.fixture
def folder(tmp_path: Path, pictures: dict[str, np.ndarray]) -> Path:
    root = tmp_path / "pictures"
    for key, array in pictures.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        write_picture(root / key, array)
    (root / "README.txt").write_text("not a picture")
    (root / "labels.csv").write_text("a,b\n1,2\n")
    (root / "b ü" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root


def check_same(images: Images, pictures: dict[str, np.ndarray]) -> None:
    assert images.keys == list(pictures)
    np.testing.assert_array_equal(images.pixels, np.stack(list(pictures.values())))
    for i, array in enumerate(pictures.values()):
        np.testing.assert_array_equal(images[i], array)


NOT_IMAGES = [("(3 other files)", "no images: 1 .csv, 1 .ds_store, 1 .txt")]


def test_a_folder_with_unusual_names_and_other_files(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    images = Images(folder)
    check_same(images, pictures)
    assert images.skipped == NOT_IMAGES
    assert images.root == folder


def test_an_image_without_an_image_name_is_found(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    (folder / "a.png").rename(folder / "a")
    (folder / "it's #1%.png").rename(folder / "it.csv")
    assert Images(folder).keys == ["a", "b ü/c/d.png", "b ü/日本 語.png", "it.csv"]


def test_a_pattern_a_list_and_one_file(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    check_same(Images(str(folder / "**" / "*.png")), pictures)
    turned = dict(reversed(pictures.items()))
    check_same(Images([folder / key for key in turned]), turned)
    single = Images(folder / "a.png")
    assert single.keys == ["a.png"]
    np.testing.assert_array_equal(single[0], pictures["a.png"])


def test_every_listed_file_has_its_own_line(folder: Path) -> None:
    images = Images([folder / "a.png", folder / "README.txt", folder / "gone.png", folder / "a.png"])
    assert images.keys == ["a.png"]
    assert images.skipped == [
        ("a.png", "listed twice; used once"),
        ("README.txt", "not a picture in a supported format"),
        ("gone.png", "no such file"),
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives(kind: str, folder: Path, pictures: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
            archive.writestr("__MACOSX/._a.png", b"\0\5\x16\7")
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:
            archive.add(folder, "")
            mac = tarfile.TarInfo("__MACOSX/._a.png")
            mac.size = 4
            archive.addfile(mac, io.BytesIO(b"\0\5\x16\7"))
    images = Images(path)
    check_same(images, pictures)
    assert images.skipped[0][0] == "(4 other files)"
    copy = pickle.loads(pickle.dumps(images[1:3]))
    np.testing.assert_array_equal(copy[0], images[1])


def test_an_archive_with_a_wrong_suffix_is_detected_by_content(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "download"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "a.png", "a.png")
    assert Images(path).keys == ["a.png"]


def test_bombs_in_archives_are_refused_with_a_reason(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("imatlas.images.sources.base.MAX_BYTES", 100_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "a.png", "a.png")
        archive.writestr("b.png", bytes(200_000))
    images = Images(path)
    assert images.keys == ["a.png"]
    assert images.skipped[0][0] == "b.png"
    assert "more than the limit" in images.skipped[0][1]


def test_a_damaged_member_and_a_truncated_archive(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "a.png", "a.png")
        archive.write(folder / "b ü/c/d.png", "d.png")
        place = archive.getinfo("d.png").header_offset + 300
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    images = Images(path)
    assert images.keys == ["a.png"]
    assert images.skipped[0][0] == "d.png"
    assert "damaged in the archive" in images.skipped[0][1]
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="cannot be opened"):
        Images(path)


def test_a_truncated_tar_gives_its_complete_members(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder / "a.png", "a.png")
        archive.add(folder / "b ü/c/d.png", "d.png")
    path.write_bytes(path.read_bytes()[:3000])
    images = Images(path)
    assert images.keys == ["a.png"]
    assert {key for key, _ in images.skipped} <= {"d.png", "set.tar"}
    assert images.skipped


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_with_bytes_or_the_struct_of_hugging_face(
    struct: bool, pictures: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [encode(array, "png") for array in pictures.values()] + [None]
    column = [{"bytes": f, "path": "x.png"} if f else None for f in files] if struct else files
    table = pa.table({"label": list(range(len(files))), "image": column})
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=2)
    images = Images(tmp_path / "set.parquet")
    assert images.keys == ["000000", "000001", "000002", "000003"]
    np.testing.assert_array_equal(images.pixels, np.stack(list(pictures.values())))
    assert images.skipped == [("000004", "the row contains no image" + ", possibly a path; give the files" * struct)]
    assert pickle.loads(pickle.dumps(images)).keys == images.keys
    pq.write_table(pa.table({"a": [1]}), tmp_path / "bare.parquet")
    with pytest.raises(SourceError, match="No column"):
        Images(tmp_path / "bare.parquet")


def test_numpy_files_are_read_without_pickle(rng: np.random.Generator, tmp_path: Path) -> None:
    array = rng.integers(0, 256, (5, 8, 9), np.uint8)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", labels=np.arange(5), images=array)
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "b.npz"):
        np.testing.assert_array_equal(Images(tmp_path / name).pixels[..., 0], array)
    assert isinstance(Images(tmp_path / "a.npy").pixels.base, np.memmap | np.ndarray)
    with pytest.raises(SourceError, match="cannot be opened"):
        Images(tmp_path / "c.npy")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int64, bool])
def test_arrays_and_tensors_are_not_copied(dtype: type, rng: np.random.Generator) -> None:
    array = rng.integers(0, 2, (6, 10, 12)).astype(dtype)
    expected = array * np.uint8(255) if dtype is bool else array
    for source in (array, array[..., None], torch.from_numpy(array)):
        images = Images(source)
        assert images.pixels.shape == (6, 10, 12, 1)
        assert images.pixels.dtype in (np.uint8, np.uint16, np.float32)
        np.testing.assert_array_equal(images.pixels[..., 0], expected)
    assert np.shares_memory(Images(np.zeros((2, 4, 4), np.uint8)).pixels, Images(np.zeros((2, 4, 4))).pixels) is False
    same = np.zeros((2, 4, 4, 3), np.uint8)
    assert np.shares_memory(Images(same).pixels, same)


def test_arrays_of_another_shape_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"transpose\(0, 2, 3, 1\)"):
        Images(np.zeros((5, 3, 32, 32)))
    for shape in ((5,), (5, 4), (0, 4, 4), (1, 2, 3, 4, 5)):
        with pytest.raises(InputError, match="shape"):
            Images(np.zeros(shape))
    with pytest.raises(InputTypeError, match="numbers"):
        Images(np.zeros((2, 4, 4), dtype="U1"))


class _Torch(torch.utils.data.Dataset):
    def __init__(self, array: np.ndarray) -> None:
        self._tensors = torch.from_numpy(array).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 2:
            raise RuntimeError("broken worker")
        return self._tensors[index], 7


def test_datasets_of_torch_and_of_hugging_faces_kind(rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (4, 12, 14, 3), np.uint8)
    images = Images(_Torch(array))
    np.testing.assert_array_equal(images.pixels, array[[0, 1, 3]])
    assert images.skipped == [("000002", "the dataset raised an error (RuntimeError: broken worker)")]
    items = [{"image": Image.fromarray(array[0]), "label": 3}, {"image": {"bytes": encode(array[1], "png")}}]
    items += [{"img": array[2]}, {"label": 3}]
    images = Images(items)
    np.testing.assert_array_equal(images.pixels, array[:3])
    assert images.skipped == [("000003", "no image among the fields label; name the field by 'field'")]


def test_circular_links_are_entered_once(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    try:
        (folder / "b ü" / "loop").symlink_to(folder, target_is_directory=True)
        (folder / "again").symlink_to(folder / "b ü", target_is_directory=True)
        (folder / "dead.png").symlink_to(folder / "nowhere.png")
    except OSError:
        pytest.skip("links cannot be made here")
    images = Images(folder)
    check_same(images, pictures)
    assert ("dead.png", "a broken link") in images.skipped
    linked = [key for key, reason in images.skipped if "is included already" in reason]
    assert linked == ["again/", "b ü/loop/"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert ("pipe.png", "not a regular file") in Images(folder).skipped


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_unreadable_files_and_folders_are_reported(folder: Path) -> None:
    (folder / "a.png").chmod(0)
    (folder / "b ü" / "c").chmod(0)
    try:
        skipped = dict(Images(folder).skipped)
    finally:
        (folder / "b ü" / "c").chmod(0o755)
    assert "Permission denied" in skipped["a.png"]
    assert "Permission denied" in skipped["b ü/c/"]


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode here")
def test_a_name_that_is_not_unicode_is_escaped(folder: Path) -> None:
    not_utf8 = os.fsencode(folder) + b"/z\xff.png"
    try:
        os.rename(folder / "a.png", not_utf8)
    except OSError:
        pytest.skip("this file system refuses such names")
    images = Images(folder)
    assert "z\\xff.png" in images.keys
    assert images[images.keys.index("z\\xff.png")].shape == (20, 20, 3)
    "".join(images.keys).encode("utf-8")


def test_missing_or_empty_sources_are_a_source_error(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SourceError, match="no file or folder") as caught:
        Images(tmp_path / "nowhere")
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no files"):
        Images(tmp_path / "empty")
    with pytest.raises(SourceError, match=r"\*\*"):
        Images(str(tmp_path / "*.jpg"))
    with pytest.raises(InputTypeError, match="int"):
        Images(3)
    with pytest.raises(InputTypeError, match="dict"):
        Images({"a": 1})


def test_a_set_of_nothing_but_bad_files_lists_the_first_reasons(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    images = Images(tmp_path)
    with pytest.raises(InputError, match=r"None of the 5 items .* \(0\.jpg: an empty file; .*; and 2 more\)"):
        len(images)


def test_load_pixels_accepts_every_source(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    pixels, spec = load_pixels(folder)
    np.testing.assert_array_equal(pixels, np.stack(list(pictures.values())))
    again, _ = load_pixels(Images(folder), image_size=10)
    assert again.shape == (4, 10, 10, 3)
    gray, gray_spec = load_pixels(np.zeros((2, 20, 20), np.uint8), spec=spec)
    assert gray.shape == (2, 20, 20, 3)
    assert gray_spec == spec


def test_names_of_sources(folder: Path) -> None:
    assert open_source(str(folder)).name == str(folder)
    assert "not read yet" in repr(Images(folder))
    images = Images(folder)
    len(images)
    assert repr(images).startswith("<Images: 4 images of 20 x 20 x 3 uint8 from ")


def test_the_work_for_several_sources_is_linear(tmp_path, monkeypatch):
    """A shell expands one pattern to thousands of sources: the work per path does not grow."""
    looked_at = []

    def counted(text):
        looked_at.append(text)
        return path_of(text)

    for i in range(40):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    names = sorted(map(str, tmp_path.iterdir()))
    monkeypatch.setattr("imatlas.images.sources.opening.path_of", counted)
    for n in (10, 40):
        looked_at.clear()
        assert len(open_several(names[:n]).keys) == n
        assert len(looked_at) == 2 * n
