"""Folders of clusters: names do not collide, no file of others is replaced, and none of the user is lost."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from imatlas.errors import ArtifactError, DecodeError, InputError
from imatlas.system.csv_files import read_csv
from imatlas.tasks.cluster_folders import planned_files, write_folders

KEYS = ["a/cat.jpg", "b/cat.jpg", "b/CAT.JPG", "dog", "e/dog", "f/cat (2).jpg"]
LABELS = np.array([0, 0, 0, 1, 1, 0])


@pytest.fixture
def source(tmp_path):
    for key in KEYS:
        (tmp_path / "in" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / key).write_bytes(key.encode())
    return tmp_path / "in"


def test_names_that_collide_get_numbers() -> None:
    assert planned_files(KEYS, LABELS) == [
        "cluster-000_4-images/cat.jpg",
        "cluster-000_4-images/cat (2).jpg",
        "cluster-000_4-images/CAT (3).JPG",
        "cluster-001_2-images/dog",
        "cluster-001_2-images/dog (2)",
        "cluster-000_4-images/cat (2) (2).jpg",
    ]


def test_names_of_clusters_are_part_of_those_of_folders_and_can_be_replaced(source, tmp_path) -> None:
    names = {0: "../red/cars: <ö> _1_\n", 1: "///"}
    planned = planned_files(KEYS, LABELS, names)
    assert planned[0] == "cluster-000_red-cars-ö-1_4-images/cat.jpg"
    assert planned[3] == "cluster-001_2-images/dog"
    assert len(planned_files(["a"], np.array([7]), {7: "x" * 500})[0]) < 80
    for given in (names, {}, {0: "1_2-images"}, names):
        write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", tmp_path / "out", names=given, overwrite=True)
        listed = {row["file"] for row in read_csv(tmp_path / "out" / "clusters.csv", ("file",), what="a list")}
        found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_symlink()}
        assert found == listed == set(planned_files(KEYS, LABELS, given))


@pytest.mark.parametrize("copy", [False, True])
def test_every_image_lies_in_the_folder_of_its_cluster(source, tmp_path, copy) -> None:
    done = write_folders(
        KEYS, LABELS, source.joinpath, lambda k: (source / k).read_bytes(), tmp_path / "out", copy=copy
    )
    listed = (tmp_path / "out" / "clusters.csv").read_text().splitlines()
    assert listed[0] == "key,cluster,file"
    for line in listed[1:]:
        key, label, file = line.split(",")
        path = tmp_path / "out" / file
        assert path.read_bytes() == key.encode()
        assert path.is_symlink() != copy
        assert LABELS[KEYS.index(key)] == int(label)
    assert len(listed) == 7
    assert "6 images in 2 folders" in done.sentences[0]


def test_files_of_others_are_never_overwritten(source, tmp_path) -> None:
    def again(**options):
        return write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", tmp_path / "out", **options)

    again()
    with pytest.raises(ArtifactError, match="already exists"):
        again()
    again(overwrite=True)
    mine = tmp_path / "out" / "cluster-000_4-images" / "notes.txt"
    mine.write_text("years of work")
    with pytest.raises(ArtifactError, match=r"contains 'cluster-000_4-images/notes\.txt'"):
        again(overwrite=True)
    assert mine.read_text() == "years of work"
    mine.unlink()
    empty = tmp_path / "other"
    empty.mkdir()
    (empty / "thesis.tex").write_text("mine")
    with pytest.raises(ArtifactError, match="contains 'thesis"):
        write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", empty, overwrite=True)


def test_names_in_the_list_of_an_earlier_export_delete_no_files_of_others(source, tmp_path) -> None:
    out = tmp_path / "out"

    def again(copy: bool) -> None:
        read = lambda key: (source / key).read_bytes()  # noqa: E731
        write_folders(KEYS, LABELS, source.joinpath, read, out, copy=copy, overwrite=True)

    again(copy=True)
    again(copy=False)
    again(copy=True)
    copied = out / "cluster-000_4-images" / "cat.jpg"
    copied.write_bytes(b"retouched for hours")
    with pytest.raises(ArtifactError, match=r"cat\.jpg' differs from its original"):
        again(copy=True)
    copied.write_bytes(KEYS[0].encode())
    (source / KEYS[1]).unlink()  # the copy is the only one now
    with pytest.raises(ArtifactError, match=r"cat \(2\)\.jpg' differs from its original"):
        again(copy=False)
    (source / KEYS[1]).write_bytes(KEYS[1].encode())
    for name in (
        "holiday.jpg",
        "../in/dog",
        str(source / "dog"),
        "sub/holiday.jpg",
        "cluster-0_1-images/../holiday.jpg",
    ):
        (out / "holiday.jpg").write_bytes(b"dog")
        (out / "clusters.csv").write_text(f"key,cluster,file\ndog,0,{name}\n")
        with pytest.raises(ArtifactError, match="that imatlas did not write"):
            again(copy=False)
        assert (out / "holiday.jpg").read_bytes() == (source / "dog").read_bytes() == b"dog"
        assert copied.is_file()


@pytest.mark.parametrize("copy", [False, True])
def test_keys_that_lead_out_of_the_source_are_left_out(source, tmp_path, copy) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    keys = ["dog", "../secret.jpg", str(secret), "..", "", "e/../../secret.jpg", "e/dog"]
    labels = np.zeros(len(keys), int)
    done = write_folders(
        keys, labels, source.joinpath, lambda k: (source / k).read_bytes(), tmp_path / "out", copy=copy
    )
    assert [key for key, _ in done.data["left_out"]] == keys[1:-1]
    assert all("leads out of" in reason for _, reason in done.data["left_out"])
    assert {path.read_bytes() for path in (tmp_path / "out").glob("*/*")} == {b"dog", b"e/dog"}


def test_missing_originals_are_reported(source, tmp_path) -> None:
    def path_of(key):
        return None if key == "dog" else source / key

    done = write_folders(KEYS, LABELS, path_of, lambda key: b"", tmp_path / "out")
    assert done.data["left_out"][0][0] == "dog"
    assert "1 image left out, such as dog" in done.sentences[1]
    assert len(list((tmp_path / "out").rglob("*"))) == 5 + 2 + 1

    def gone(key):
        raise DecodeError("no such file")

    with pytest.raises(InputError, match="No original can be used"):
        write_folders(KEYS, LABELS, lambda key: None, gone, tmp_path / "none", copy=True)
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


@pytest.mark.parametrize("how", ["links", "folder linked", "source is the copies", "second name"])
def test_a_copy_that_is_its_own_original_stays(source, tmp_path, how) -> None:
    out = tmp_path / "out"
    done = write_folders(KEYS, LABELS, source.joinpath, lambda k: (source / k).read_bytes(), out, copy=True)
    assert len(done.data["left_out"]) == 0
    files = {row["key"]: out / row["file"] for row in read_csv(out / "clusters.csv", ("key", "file"), what="a list")}
    root, keys, labels = source, KEYS, LABELS
    if how == "links":  # the user keeps the sorted copies, and has links to them under the old names
        for key in KEYS:
            (source / key).unlink()
            (source / key).symlink_to(os.path.relpath(files[key], (source / key).parent))
    elif how == "second name":
        (source / "dog").unlink()
        os.link(files["dog"], source / "dog")
    elif how == "folder linked":
        shutil.rmtree(source)
        source.symlink_to(out / "cluster-001_2-images")
        keys, labels = ["dog", "dog (2)"], np.array([1, 1])
    else:
        root, keys, labels = out / "cluster-001_2-images", ["dog", "dog (2)"], np.array([1, 1])
        shutil.rmtree(source)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for copy in (False, True):
        with pytest.raises(ArtifactError, match="or is the original itself"):
            write_folders(
                keys, labels, root.joinpath, lambda k: (root / k).read_bytes(), out, copy=copy, overwrite=True
            )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_no_link_is_made_to_a_file_that_is_replaced(source, tmp_path) -> None:
    out = source / "out"  # within the folder of the images, so that the next atlas holds the copies, too
    write_folders(["dog"], LABELS[:1], source.joinpath, lambda k: (source / k).read_bytes(), out, copy=True)
    copied = "out/cluster-000_1-images/dog"
    done = write_folders(
        ["dog", copied], LABELS[:2], source.joinpath, lambda k: (source / k).read_bytes(), out, overwrite=True
    )
    assert [key for key, _ in done.data["left_out"]] == [copied]
    assert (out / "cluster-000_2-images" / "dog").read_bytes() == b"dog"
    assert (source / "dog").read_bytes() == b"dog"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "# my notes\r\n" + text,
        lambda text: text.replace("key,cluster,file", "key,cluster,file,name"),
        lambda text: text.replace("dog,1,", "dog,sleeping dogs,"),
        lambda text: text.replace("\r\n", "\n"),
        lambda text: "a,b\r\nmine,1\r\n",
        lambda text: "",
    ],
)
def test_an_edited_list_is_not_overwritten(source, tmp_path, edit) -> None:
    out = tmp_path / "out"

    def again() -> None:
        write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", out, overwrite=True)

    again()
    again()
    listed = out / "clusters.csv"
    mine = edit(listed.read_bytes().decode()).encode()
    listed.write_bytes(mine)
    with pytest.raises(ArtifactError, match=r"holds a 'clusters\.csv' that imatlas did not write"):
        again()
    assert listed.read_bytes() == mine


def test_a_link_of_the_user_in_an_export_stays(source, tmp_path) -> None:
    out = tmp_path / "out"
    write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", out)
    mine = out / "cluster-001_2-images" / "dog"
    mine.unlink()
    mine.symlink_to("../../in/dog")
    with pytest.raises(ArtifactError, match="is a link that imatlas did not write"):
        write_folders(KEYS, LABELS, source.joinpath, lambda key: b"", out, overwrite=True)
    assert mine.is_symlink()
