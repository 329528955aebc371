"""Tables of images: several files as one source, and the choice of the column."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import imatlas as ia
from imatlas.cli import main
from imatlas.cli.shared import one_source
from imatlas.errors import InputError, Notice, SourceError
from imatlas.images.encode import encode

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(levels: Iterable[int]) -> list[bytes]:
    return [encode(np.full((16, 16, 3), 10 * level, np.uint8), "png") for level in levels]


def levels_of(source: object, **options: object) -> list[int]:
    return [int(pixels[0, 0, 0]) // 10 for pixels in ia.Images(source, **options).pixels]


def write(path: Path, columns: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if path.suffix in (".parquet", ".pq"):
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return path


def structs(levels: Iterable[int]) -> list[dict[str, object]]:
    return [{"bytes": content, "path": None} for content in pictures(levels)]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "ipc"])
def test_the_shards_of_a_folder_are_one_source_in_the_order_of_their_names(tmp_path, monkeypatch, ending) -> None:
    monkeypatch.chdir(tmp_path)
    for part, some in enumerate((range(4), range(4, 6), range(6, 9))):
        write(Path("set/data") / f"train-{part:05d}-of-00003.{ending}", {"image": structs(some)})
    Path("set/README.md").write_text("about")
    write(Path(f"set/data/cache-1.{ending}"), {"indices": [1, 2]})
    several = sorted(str(path) for path in Path("set/data").glob("train*"))
    for source in ("set", f"set/data/train*.{ending}", several, one_source(several)):
        assert levels_of(source) == list(range(9))
    images = ia.Images("set")
    assert images.keys[3:5] == ["data/train-00000-of-00003/000003", "data/train-00001-of-00003/000000"]
    assert len(pickle.loads(pickle.dumps(images))) == 9
    atlas = ia.learn("set", "a.atlas", budget=0.4, progress=False)
    assert atlas.store.originals.read(images.keys[4]) == pictures(range(4, 5))[0]
    assert main(["export", "a.atlas", "--to", "folders", "-o", "x", "--copy"]) == 0
    assert len([*Path("x").rglob("*-images/*")]) == 9
    write(Path(f"set/data/train-00003-of-00003.{ending}"), {"image": structs(range(9, 11))})
    assert len(ia.learn("set", "a.atlas", budget=0.4, progress=False)) == 11


def test_tables_next_to_pictures_are_reported(tmp_path) -> None:
    write(tmp_path / "a.parquet", {"image": structs(range(3))})
    (tmp_path / "b.png").write_bytes(pictures(range(1))[0])
    images = ia.Images(tmp_path)
    assert len(images) == 1
    assert "1 .parquet; a table of images is read if it is given itself" in images.skipped[0][1]
    np.save(tmp_path / "c.npy", np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"a\.parquet' is an archive, a table"):
        one_source([str(tmp_path / "b.png"), str(tmp_path / "a.parquet")])
    with pytest.raises(InputError, match=r"a\.parquet' is an archive, a table"):
        one_source([str(tmp_path / "a.parquet"), str(tmp_path / "b.png")])
    with pytest.raises(InputError, match=r"a\.parquet' is given more than once"):
        one_source([str(tmp_path / "a.parquet"), str(tmp_path / "." / "a.parquet")])


def test_a_folder_of_tables_without_images_gives_the_reason(tmp_path) -> None:
    write(tmp_path / "a.parquet", {"label": [1, 2]})
    with pytest.raises(SourceError, match=r"No column of .* contains image bytes"):
        ia.Images(tmp_path)
    np.save(tmp_path / "c.npy", np.zeros((8, 8, 3), np.uint8))
    assert len(ia.Images(tmp_path)) == 1  # the table is about the arrays


def test_the_choice_between_two_columns_is_reported(tmp_path) -> None:
    for ending in ("parquet", "arrow"):
        path = write(tmp_path / f"a.{ending}", {"thumbnail": structs(range(3)), "image": structs(range(3, 6))})
        with pytest.warns(Notice, match="from the column 'image'; 'thumbnail' contain bytes too"):
            assert levels_of(path) == [3, 4, 5]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert levels_of(path, field="thumbnail") == [0, 1, 2]


def test_commands_that_read_images_take_the_column(tmp_path, capsys) -> None:
    path = str(write(tmp_path / "a.parquet", {"one": structs(range(9)), "other": structs([1] * 9)}))
    assert main(["duplicates", path, "--field", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["n_duplicates"] == 8
    options = ["--latent-dim", "2", "--max-steps", "2", "--image-size", "8", "--budget", "1s"]
    assert main(["fit", "autoencoder", path, "--field", "other", "-o", str(tmp_path / "model"), *options]) == 0
    assert ia.load(tmp_path / "model").transform(ia.Images(path, field="one")).shape == (9, 2)


def test_a_column_within_a_struct_is_named_by_its_path(tmp_path) -> None:
    for ending in ("parquet", "arrow"):
        path = write(tmp_path / f"a.{ending}", {
            "m": [{"photo": content, "id": 1, "other": b"none"} for content in pictures(range(3))],
            "n": [{"deep": {"photo": row}} for row in structs(range(3, 6))],
        })  # fmt: skip
        assert levels_of(path, field="m.photo") == [0, 1, 2]
        assert levels_of(path, field="n.deep.photo") == [3, 4, 5]
        copy = pickle.loads(pickle.dumps(ia.Images(path, field="m.photo")))
        assert (copy.pixels[:, 0, 0, 0] // 10).tolist() == [0, 1, 2]
        with pytest.raises(SourceError, match=r"m\.photo|columns: m, n"):
            ia.Images(path, field="m.none")


def test_a_field_without_columns_is_refused(tmp_path, capsys) -> None:
    for i, content in enumerate(pictures(range(3))):
        (tmp_path / f"{i}.png").write_bytes(content)
    files = sorted(str(path) for path in tmp_path.glob("*.png"))
    for source in ([str(tmp_path)], files):
        assert main(["check", *source, "--field", "x"]) == 1
        assert "omit 'field' (--field)" in capsys.readouterr().err


def test_a_field_names_an_array_of_a_file_of_arrays(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8), np.uint8), masks=np.full((3, 8, 8), 50, np.uint8))
    assert levels_of(tmp_path / "a.npz", field="masks") == [5, 5, 5]
    with pytest.raises(SourceError, match="no array 'x'; its arrays: images, masks"):
        ia.Images(tmp_path / "a.npz", field="x")
