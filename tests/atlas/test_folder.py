"""The folder of an atlas: what is ours is listed, checked, repaired and swept; what is a user's stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.atlas import learn
from imatlas.atlas.journal import Journal
from imatlas.atlas.manifest import Manifest
from imatlas.errors import ArtifactError, SourceError, UnsafePathError
from imatlas.system.inventory import seal
from imatlas.training import checkpoints

OPTIONS = {"budget": "1s", "encoder": "own", "image_size": 16}

MINE = [
    "holiday-2024/a.jpg",
    "notes-2024",
    ".x.new-y/z",
    ".report.html.new-123",
    ".writing-notes/a",
    "encoder-0007/model.json",
    "generator-0001x/a",
    "encoder-0001/notes.txt",
    "cache/mine.txt",
    "cache/.new-mine/pixels.npy",
    "cache/features/mine-000001.npy",
    "images.lance/mine.txt",
    "images.lance/data/mine.lance",
    "images-0002.lance/data/mine.lance",
]
"""What users keep in the folder of an atlas, under names that look like ours."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "photos"
    folder.mkdir()
    rng, whole = np.random.default_rng(0), (data.chelsea(), data.coffee())
    for i in range(24):
        top, left = rng.integers(0, 200, 2)
        Image.fromarray(whole[i % 2][top : top + 90, left : left + 90]).resize((20, 20)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture(scope="module")
def learned(photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("atlas") / "tiny.atlas"
    ia.learn(photos, folder, progress=False, **OPTIONS)
    return folder


@pytest.fixture
def atlas(learned, tmp_path) -> Path:
    """A copy of the finished atlas."""
    return Path(shutil.copytree(learned, tmp_path / "tiny.atlas"))


@pytest.fixture
def few_stages(monkeypatch) -> None:
    """Without generator and report, which take the longest."""
    names = ("intake", "encoder", "map", "clusters", "outliers", "layout")
    monkeypatch.setattr(learn, "STAGES", {name: learn.STAGES[name] for name in names})


def keep(folder: Path) -> None:
    for name in MINE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my {name}")


def kept(folder: Path) -> list[str]:
    return [n for n in MINE if (folder / n).is_file() and (folder / n).read_text() == f"my {n}"]


def our_files(folder: Path) -> set[str]:
    return {
        n
        for p in folder.rglob("*")
        if p.is_file()
        and not (n := p.relative_to(folder).as_posix()).startswith("cache/")
        and n not in MINE
        and p.name != "latest_version_hint.json"
    }


def change(path: Path, **values) -> None:
    """Change values of `atlas.json` as somebody would who computes the checksum too."""
    found = json.loads(path.read_text())
    found.pop("digest")
    found |= values
    path.write_text(json.dumps({**found, "digest": seal(found)}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_manifest_lists_every_file_that_counts_and_nothing_is_left_over(learned):
    manifest = Manifest.read(learned)
    outputs = {"atlas.json", ".lock", "metrics.jsonl", "report.html"}
    assert our_files(learned) == {*manifest.files, *outputs}
    assert manifest.old == []
    assert not manifest.inventory(learned).damaged()


def test_what_a_user_keeps_in_the_folder_stays(atlas, photos):
    keep(atlas)
    ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert kept(atlas) == MINE


def test_updating_and_overwriting_replace_exactly_what_was_listed(atlas, photos, tmp_path, few_stages):
    keep(atlas)
    before = Manifest.read(atlas)
    ia.learn(photos, atlas, progress=False, clusters=2, overwrite=True, **OPTIONS)
    assert kept(atlas) == MINE
    manifest = Manifest.read(atlas)
    assert manifest.models["encoder"] != "encoder-0007"
    assert our_files(atlas) == {*manifest.files, "atlas.json", ".lock", "metrics.jsonl"}
    assert not set(before.files) - set(manifest.files) & our_files(atlas)
    grown = Path(shutil.copytree(photos, tmp_path / "grown"))
    shutil.copy(grown / "00.png", grown / "24.png")
    change(atlas / "atlas.json", source=str(grown), settings={**manifest.settings, "source": str(grown)})
    assert len(ia.learn(grown, atlas, progress=False, clusters=2, **OPTIONS)) == 25
    assert kept(atlas) == MINE
    assert our_files(atlas) == {*Manifest.read(atlas).files, "atlas.json", ".lock", "metrics.jsonl"}


def test_what_a_killed_run_left_is_swept_by_its_journal(atlas, photos):
    """A run that saved a model, began a table and a file, and came to no commit."""
    keep(atlas)
    before = our_files(atlas)
    journal, manifest = Journal(atlas), Manifest.read(atlas)
    journal.save_model("encoder-0002", ia.load(atlas).model("map").save)
    (atlas / "encoder-0002" / "mine.txt").write_text("mine")
    journal.writing_table("images.lance")
    table = ia.load(atlas).store.table
    table.inventory = None
    table.set(cell=np.zeros(24, np.int32))
    journal.replacing("report.html").__enter__().write_text("half")
    with (atlas / ".writing.jsonl").open("a") as file:
        file.write('{"own": "../../etc"}\n{"model": "holiday-2024", "files": ["../a", "b"]}\n{"table": "../x.lan')
    assert len(our_files(atlas)) > len(before) + 5
    ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert our_files(atlas) == {*before, "encoder-0002/mine.txt"}
    assert not list(atlas.glob(".writing*[0-9a-f]"))
    assert kept(atlas) == MINE
    assert Manifest.read(atlas) == manifest
    assert not manifest.inventory(atlas).damaged()


def test_a_run_killed_before_its_first_commit_does_not_bar_the_folder(tmp_path, photos, few_stages):
    folder = tmp_path / "new.atlas"
    folder.mkdir()
    (folder / ".lock").touch()
    Journal(folder).replacing("atlas.json").__enter__().write_text("half")
    assert len(ia.learn(photos, folder, progress=False, **OPTIONS)) == 24
    assert not list(folder.glob(".writing*"))


@pytest.mark.parametrize("content", ['{"name": "world"}', "", "not json", '{"format": 1, "library": "x"}', "[]"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_with_an_atlas_json_of_another_program_is_not_touched(tmp_path, photos, content, overwrite):
    folder = tmp_path / "game"
    for name in ("metrics.jsonl", "report.html", "skipped.csv", "encoder-0001/model.json", "images.lance/data/x.lance"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "atlas.json").write_text(content)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ArtifactError, match="is not from imatlas"):
        ia.learn(photos, folder, progress=False, overwrite=overwrite, **OPTIONS)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"} == before
    with pytest.raises(ArtifactError, match="is not from imatlas"):
        ia.load(folder)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_no_atlas_is_refused(tmp_path, photos, overwrite):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="exists and is not an atlas"):
        ia.learn(photos, tmp_path, progress=False, overwrite=overwrite, **OPTIONS)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_damaged_manifest_says_overwrite_and_that_deletes_nothing(atlas, photos, few_stages, capsys):
    keep(atlas)
    text = (atlas / "atlas.json").read_text()
    (atlas / "atlas.json").write_text(text.replace('"seconds": ', '"seconds": 1', 1))
    for call in (ia.load, lambda folder: ia.learn(photos, folder, progress=False, **OPTIONS)):
        with pytest.raises(ArtifactError, match=r"atlas\.json' is damaged \(its checksum differs\).*--overwrite"):
            call(atlas)
    old = our_files(atlas)
    assert len(ia.learn(photos, atlas, overwrite=True, **OPTIONS)) == 24
    assert "files that imatlas did not list are kept" in capsys.readouterr().out
    assert old - our_files(atlas) == {"report.html"}
    assert kept(atlas) == MINE


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("table", {"intake", "encoder", "map", "clusters", "outliers", "layout"}),
        ("skipped.csv", {"intake", "encoder", "map", "clusters", "outliers", "layout"}),
        ("encoder", {"encoder", "map", "clusters", "outliers", "layout"}),
        ("map", {"map"}),
        ("clusters", {"clusters"}),
        ("outliers", {"outliers"}),
        ("layout", {"layout"}),
    ],
)
def test_the_same_command_repairs_what_is_damaged(atlas, photos, few_stages, capsys, name, again):
    manifest = Manifest.read(atlas)
    whole = ia.load(atlas).table()
    if name == "table":
        path = atlas / next(n for n in manifest.files if n.startswith("images.lance/data/"))
    else:
        path = atlas / name if name == "skipped.csv" else atlas / manifest.models[name] / "weights.safetensors"
    flip(path)
    ia.learn(photos, atlas, **OPTIONS)
    said = capsys.readouterr().out
    assert f"'{path}' is damaged (its checksum differs)" in said
    assert {line.split()[1] for line in said.splitlines() if line[:2] in ("1/", "2/", "3/", "4/", "5/", "6/")} == again
    now = Manifest.read(atlas)
    assert not now.inventory(atlas).damaged()
    assert our_files(atlas) == {*now.files, "atlas.json", ".lock", "metrics.jsonl", "report.html"}
    kept_models = {
        role: model for role, model in manifest.models.items() if role not in again or name in ("table", "skipped.csv")
    }
    changes = {"generator", "outliers"} if name == "table" else {"generator"}  # the detector is fitted to all rows
    assert {role: now.models.get(role) for role in kept_models if role not in changes} == {
        role: model for role, model in kept_models.items() if role not in changes
    }
    if name != "encoder":
        assert ia.load(atlas).table().select(["key", "cell", "x"]) == whole.select(["key", "cell", "x"])
    capsys.readouterr()
    ia.learn(photos, atlas, **OPTIONS)
    assert "damaged" not in capsys.readouterr().out


def test_nothing_is_deleted_where_a_repair_cannot_begin(atlas, photos, tmp_path):
    """The pictures are gone: what is left of the table is all that there is."""
    moved = Path(shutil.move(shutil.copytree(photos, tmp_path / "there"), tmp_path / "gone"))
    manifest = Manifest.read(atlas)
    there = str(tmp_path / "there")
    change(atlas / "atlas.json", source=there, settings={**manifest.settings, "source": there})
    flip(atlas / next(n for n in manifest.files if n.startswith("images.lance/data/")))
    before = our_files(atlas)
    with pytest.raises(SourceError):
        ia.learn(tmp_path / "there", atlas, progress=False, **OPTIONS)
    assert before <= our_files(atlas)
    assert moved.is_dir()


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "report.html", "skipped.csv", "atlas.json", ".lock", ".writing.jsonl"]
)
@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "dangling"])
def test_links_and_pipes_under_our_names_are_refused(atlas, photos, tmp_path, name, kind):
    target = tmp_path / "precious"
    if (atlas / name).exists():
        shutil.move(atlas / name, target)
    else:
        target.write_text("precious")
    content = target.read_bytes()
    make = {"link": target, "dangling": tmp_path / "nothing"}
    if kind in make:
        (atlas / name).symlink_to(make[kind])
    else:
        {"fifo": os.mkfifo, "folder": os.mkdir}[kind](atlas / name)
    with pytest.raises((ArtifactError, UnsafePathError), match=f"{name}' is (not a file|a link|a folder)"):
        ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert target.read_bytes() == content
    assert not (tmp_path / "nothing").exists()
    if name == "atlas.json":
        with pytest.raises(ArtifactError, match=r"is a link|is not a file"):
            ia.load(atlas)


@pytest.mark.parametrize("name", ["cache", "images.lance", "encoder-0001", "cache/features"])
def test_a_linked_folder_is_not_followed(atlas, photos, tmp_path, name):
    model = Manifest.read(atlas).models["encoder"]
    path = atlas / name.replace("encoder-0001", model)
    path.mkdir(exist_ok=True)
    shutil.move(path, tmp_path / "precious")
    before = {p: p.read_bytes() for p in (tmp_path / "precious").rglob("*") if p.is_file()}
    path.symlink_to(tmp_path / "precious")
    if name == "encoder-0001":
        with pytest.raises(ArtifactError, match="through a link"):
            ia.load(atlas).model("encoder")
    elif name == "images.lance":
        with pytest.raises(UnsafePathError, match="is a link"):
            len(ia.load(atlas))
    if name != "encoder-0001":
        with pytest.raises(UnsafePathError, match="is a link"):
            ia.learn(photos, atlas, progress=False, **OPTIONS)
    else:
        ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert {p: p.read_bytes() for p in (tmp_path / "precious").rglob("*") if p.is_file()} == before


NESTED: list = []
for _ in range(60):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"models": {"encoder": "../elsewhere"}}, "models.encoder"),
        ({"models": {"encoder": "/etc-0001"}}, "models.encoder"),
        ({"models": {"encoder": "encoder-0009"}}, "'encoder-0009' is not among its files"),
        ({"table": {"name": "../x.lance", "version": 1}}, "table"),
        ({"table": {"name": "images.lance", "version": 10**30}}, "table"),
        ({"table": {"name": "images.lance", "version": 1}}, "its table is not among its files"),
        ({"files": {"../../etc/passwd": [1, "0" * 64]}, "table": {}, "models": {}}, "etc/passwd"),
        ({"old": [["../../home/me/thesis.tex", 1, "0" * 64]]}, "thesis"),
        ({"old": [["holiday-2024/../../x", 1, "0" * 64]]}, "holiday"),
        ({"finished": "yes"}, "finished"),
        ({"notes": "x"}, "notes"),
        ({"extra": 1}, "extra"),
        ({"source": 7}, "source"),
        ({"source": "x" * 30_000}, "source"),
        ({"stages": {}}, "no intake stage"),
        ({"stages": {"intake": {"fingerprint": "", "seconds": -1.0, "summary": ""}}}, "stages"),
        ({"metrics": {"map": {"sentences": "x", "metrics": {}, "protocol": ""}}}, "metrics.map"),
        ({"metrics": {"map": NESTED}}, "levels deep"),
        ({"settings": {"random_state": 0}}, "settings"),
        *[
            (
                {
                    "spec": {
                        "height": 16,
                        "width": 16,
                        "channels": 3,
                        "dtype": "uint8",
                        "low": 0.0,
                        "high": 255.0,
                        "alpha": None,
                        **spec,
                    }
                },
                said,
            )
            for spec, said in (
                ({"height": 20_000}, "height"),
                ({"width": True}, "width"),
                ({"channels": 0}, "channels"),
                ({"dtype": "object"}, "dtype"),
                ({"high": 0.0}, "low must be less than high"),
                ({"low": 10**400}, "low must be"),
                ({"low": "0"}, "low must be"),
                ({"alpha": 1}, "alpha"),
                ({"more": 1}, "image spec"),
            )
        ],
    ],
)
def test_values_that_cannot_be_meant_are_one_clear_line(atlas, values, said):
    change(atlas / "atlas.json", **values)
    with pytest.raises(ArtifactError, match=f"damaged.*{said}"):
        ia.load(atlas).info()


def test_a_name_that_is_not_utf_8_may_be_a_source(atlas):
    change(atlas / "atlas.json", source="/tmp/\udcff photos")
    assert ia.load(atlas).store.manifest.source == "/tmp/\udcff photos"


def test_a_number_that_is_not_finite_is_kept_as_none(atlas):
    manifest = Manifest.read(atlas)
    manifest.metrics["map"]["metrics"]["filled"] = float("nan")
    manifest.commit(atlas)
    assert Manifest.read(atlas).metrics["map"]["metrics"]["filled"] is None


def test_another_format_says_what_to_do(atlas):
    text = (atlas / "atlas.json").read_text()
    assert '"format": 1' in text
    (atlas / "atlas.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(ArtifactError, match="upgrade imatlas"):
        ia.load(atlas)


def test_an_atlas_without_its_manifest_is_no_folder_of_images(atlas, capsys):
    from imatlas.cli import main

    (atlas / "atlas.json").unlink()
    assert main(["duplicates", str(atlas)]) == 1
    assert "'atlas.json' was not found" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"'atlas\.json' was not found"):
        ia.load(atlas)


def test_an_atlas_behind_a_link_is_swept_as_any_other(atlas, photos, few_stages, tmp_path):
    way = tmp_path / "way"
    way.symlink_to(atlas)
    (atlas / "cache" / "checkpoint").mkdir(exist_ok=True)
    (atlas / "cache" / "checkpoint" / checkpoints.NAME).write_bytes(b"old")
    ia.learn(photos, way, progress=False, overwrite=True, **OPTIONS)
    assert way.is_symlink()
    assert not list(atlas.glob("*-0002"))
    assert our_files(atlas) == {*Manifest.read(atlas).files, "atlas.json", ".lock", "metrics.jsonl"}
    assert (atlas / "cache" / "checkpoint" / checkpoints.NAME).read_bytes() != b"old"
    assert len(ia.load(way)) == 24


def test_lists_of_a_stranger_delete_nothing_but_what_they_are_for(atlas, photos, few_stages):
    mine = ("holiday-2024/IMG_0001.jpg", "notes-2024/todo.txt", "encoder-2024/mine.jpg", "map-2024/model.json")
    for name in mine:
        (atlas / name).parent.mkdir()
        (atlas / name).write_text("mine")
    lines = [{"model": name.partition("/")[0], "files": [name.partition("/")[2]]} for name in mine[:3]]
    (atlas / ".writing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(atlas / "atlas.json", old=[[mine[3], 4, "0" * 64], [mine[3], 4, hashlib.sha256(b"Mine").hexdigest()]])
    ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert [(atlas / name).read_text() for name in mine] == ["mine"] * 4
    assert Manifest.read(atlas).old == []
    change(atlas / "atlas.json", old=[[mine[3], 4, hashlib.sha256(b"mine").hexdigest()]])
    ia.learn(photos, atlas, progress=False, **OPTIONS)
    assert not (atlas / mine[3]).exists()
    change(atlas / "atlas.json", old=[[mine[0], 4, hashlib.sha256(b"mine").hexdigest()]])
    with pytest.raises(ArtifactError, match="holiday-2024"):
        Manifest.read(atlas)


def test_what_is_no_folder_is_no_place_for_an_atlas(photos, tmp_path):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "report.html").write_text("mine")
    (tmp_path / "way").symlink_to("keep")
    for name, said in (
        ("file", "is not a folder"),
        ("pipe.csv", "is not a folder"),
        ("file/a.atlas", "is not a folder"),
        ("keep/x/..", "is not an atlas"),
        ("way/x/..", "is not an atlas"),
        ("way", "is not an atlas"),
    ):
        for overwrite in (False, True):
            with pytest.raises(ArtifactError, match=said):
                ia.learn(photos, tmp_path / name, progress=False, overwrite=overwrite, **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "keep", "pipe.csv", "way"]
    assert [path.name for path in (tmp_path / "keep").iterdir()] == ["report.html"]


def test_an_atlas_of_a_stranger_hands_no_other_file_over(atlas, photos, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(photos, home)
    (home / "00.png").write_bytes(b"-----BEGIN KEY-----")
    (home / "01.png").write_bytes((home / "02.png").read_bytes())
    change(atlas / "atlas.json", source=str(home))
    for copy in (False, True):
        done = ia.load(atlas).export(tmp_path / f"out-{copy}", to="folders", copy=copy)
        assert [key for key, _ in done.data["left_out"]] == ["00.png", "01.png"]
        assert all("has changed since" in reason for _, reason in done.data["left_out"])
