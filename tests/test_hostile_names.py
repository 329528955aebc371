"""File names that Linux allows, through every command: nothing fails, terminals are safe, keys name their files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.cli import main
from imatlas.images.keys import file_name_of, key_of
from imatlas.system.csv_files import cell

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")

NAMES = [
    *(b"12:30.png", b"a\\b.png", b"\xff.png", b"\\xff.png", b"a\nb.png", b"-rf.png", b"trail.png ", b"....png"),
    *(b"x" * 251 + b".png", "🎉👩‍👧.png".encode(), b"CON.png", b"Case.png", b"case.png", b"a.png#2", b"tab\t.png"),
    *(b"\x1b[31mred\x1b]0;t\x07.png", "\u202egnp.exe.png".encode(), "\u0085\u009b31m.png".encode(), b"\x7f\r.png"),
    *(b"=1+1.png", b"+2.png", b"@sum.png", "＝x.png".encode(), b"'=1.png", b"\"q'.png", b"a,b;c.png", b"#.png"),
    *(b"a[/b].png", b"[link=http:/e.x]l.png", b":dog:.png", b"$x^{$.png", b"%s{0}.png", b"~.png", b"*.png", b" l.png"),
    *(b"<script>alert(1)</script>.png", b"&amp;.png", b"s p/$(id).png", "é.png".encode(), "e\u0301.png".encode()),
]
COPIES = {b"\x1bcopy\xfe.png": b"\xff.png", b"=copy\n.png": b"=1+1.png", b"co:py\\.png": b"12:30.png"}
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FOLDER = "ph [o]\n$(t)\x1b"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    folder, rng = os.fsencode(root / FOLDER), np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        place = os.path.join(folder, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        ramp = 5 * np.arange(16)[:, None, None] if number % 2 else 0
        pixels = np.clip(rng.normal(128 + 60 * (number % 3 - 1), 30, (16, 16, 3)) + ramp, 0, 255).astype(np.uint8)
        with open(place, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    for copy, of in COPIES.items():
        with open(os.path.join(folder, of), "rb") as source, open(os.path.join(folder, copy), "wb") as target:
            target.write(source.read())
    with open(os.path.join(folder, b"broken\x1b[2J\n=.png"), "wb") as file:
        file.write(b"no picture")
    return root


@pytest.fixture
def say(capfd):
    """Run the program; its output, without control characters."""

    def run(*arguments: object, code: int = 0) -> str:
        assert main([str(argument) for argument in arguments]) == code, capfd.readouterr().err
        sys.stdout.flush()
        out, err = (text.replace("\r\n", "\n") for text in capfd.readouterr())
        assert not ACTS.findall(out + err)
        return out

    return run


@pytest.fixture
def atlas(root, say) -> Path:
    """The atlas of these images, in a folder with such a name as far as Lance supports it."""
    path = root / "at $l <b>[/b].atlas"
    if not path.exists():
        out = say("learn", root / FOLDER, "-o", path, "--budget", "3s")
        assert f"imatlas sample '{path}' -n 16 -o new.png" in out
    return path


def files_in(folder: Path) -> set[bytes]:
    return {os.path.join(at, name) for at, _, names in os.walk(os.fsencode(folder)) for name in names}


def test_every_image_has_its_key_and_every_key_its_file(root, atlas, say):
    opened = ia.load(atlas)
    keys = opened.keys
    assert sorted(keys) == sorted(key_of(os.fsdecode(name)) for name in [*NAMES, *COPIES])
    assert all(opened.store.originals.path(key) for key in keys)
    with (atlas / "skipped.csv").open(encoding="utf-8", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["broken\\x1b[2J\\x0a=.png"]
    say("check", root / FOLDER)
    say("info", atlas)
    for verb in ("check", "info"):
        json.loads(say(verb, root / FOLDER if verb == "check" else atlas, "--json"))


def test_tables_in_every_format(atlas, say, tmp_path):
    keys = ia.load(atlas).keys
    assert [row["key"] for row in json.loads(say("table", atlas, "--json"))] == keys
    rows = list(csv.reader(say("table", atlas).splitlines()))
    assert [row[0] for row in rows[1:]] == [cell(key) for key in keys]
    assert not [row[0] for row in rows if row[0][:1] in ("=", "+", "-", "@", "＝")]
    say("table", atlas, "-o", tmp_path / "t.csv")
    say("table", atlas, "-o", tmp_path / "t.json")
    say("table", atlas, "-o", tmp_path / "t.parquet")
    assert [row["key"] for row in json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))] == keys


def test_images_are_found_by_their_keys_and_by_their_names(atlas, say, tmp_path):
    for key in ia.load(atlas).keys[::2]:
        found = json.loads(say("search", atlas, "-k", 1, "--json", "--", key))
        assert found[0]["key"] not in ("", key)  # the nearest other one
    for name in (b"\xff.png", b"\x1b[31mred\x1b]0;t\x07.png", b"a\nb.png"):
        assert say("search", atlas, os.fsdecode(name), "-k", 2)
    key = key_of(os.fsdecode(b"\xff.png"))
    say("explain", atlas, "--image", key)
    say("explain", atlas, "--image", "=1+1.png", "-o", tmp_path / "e.html")
    say("sample", atlas, "-n", 2, "--like", key, "--like=-rf.png", "-o", tmp_path / "s.png")
    say("sliders", atlas, "-n", 2, "--steps", 3, "--like", "a\\b.png", "-o", tmp_path / "sl.png")
    say("morph", atlas, key, "12:30.png", "-o", tmp_path / "m.gif", "--frames", 3)
    say("search", atlas, key, "-o", tmp_path / "f.csv")
    say("search", atlas, key, "-o", tmp_path / "f.png")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.links = 0, []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.links += [value for name, value in attrs if name == "href" and "e.x" in (value or "")]


def test_pages_and_pictures_show_names_as_text(atlas, say, tmp_path):
    say("report", atlas, "-o", tmp_path / "r.html")
    say("outliers", atlas, "-o", tmp_path / "o.csv", "--page", tmp_path / "o.html")
    say("clusters", atlas, "-o", tmp_path / "c.csv")
    say("explain", atlas, "--cluster", 0, "-o", tmp_path / "x.html")
    say("map", atlas, "-o", tmp_path / "m.svg")
    say("score", atlas)
    for page in tmp_path.glob("*.html"):
        tags, text = Tags(), page.read_text(encoding="utf-8")
        tags.feed(text)
        assert (tags.scripts, tags.links) == (3, [])
        assert "<script>alert" not in text
        assert not ACTS.findall(text.replace("\t", ""))


def test_labels_by_key_and_labels_that_became_a_table(root, atlas, say, tmp_path, capfd):
    keys = ia.load(atlas).keys
    with (tmp_path / "l.csv").open("w", encoding="utf-16", newline="") as file:
        rows = [(cell(key), "=dark" if i % 2 else "[/b]\x1b") for i, key in enumerate(keys[:20])]
        csv.writer(file, delimiter="\t").writerows([("KEY", "Label"), *rows, ("gone.png", "x"), ()])
    assert main(["classify", str(atlas), "--labels", str(tmp_path / "l.csv"), "-o", str(tmp_path / "all.csv")]) == 0
    printed = capfd.readouterr()
    assert "20 labels of 2 classes" in printed.out
    assert printed.err == "Note: 1 of 21 labels is for unknown images, such as 'gone.png'; the other labels are used.\n"
    assert not ACTS.findall(printed.out)
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["key"] for row in read] == [cell(key) for key in keys]
    assert {row["label"] for row in read} == {"'=dark", "[/b]\\x1b"}
    assert f"{len(keys)} labels of 2 classes" in say("classify", atlas, "--labels", tmp_path / "all.csv")
    say("classify", atlas, "--labels", tmp_path / "l.csv", "--images", root / FOLDER, "--json")


def test_a_plan_is_written_applied_and_undone(root, say, tmp_path):
    folder, plan = root / FOLDER, tmp_path / "=plan [x].csv"
    before = files_in(folder)
    out = say("duplicates", folder, "-o", plan)
    assert f"imatlas duplicates --apply '{plan}'" in out
    rows = list(csv.reader(plan.read_text(encoding="utf-8").splitlines()))
    assert not [value for row in rows for value in row if value[:1] in ("=", "+", "-", "@")]
    moved = {os.fsencode(folder / file_name_of(row[0].removeprefix("'"))) for row in rows if row[1] == "move"}
    assert len(moved) == 3
    # As a spreadsheet saves it again.
    plan.write_text("\r\n".join(";".join(row) for row in rows), encoding="utf-16", newline="")
    say("duplicates", "--apply", plan)
    assert before - files_in(folder) == moved
    say("duplicates", folder, "--undo")
    assert files_in(folder) == before
    say("duplicates", folder, "--against", folder, "-o", tmp_path / "leaks.csv")


def test_images_are_exported(atlas, say, tmp_path):
    n = len(NAMES) + len(COPIES)
    for options in ([], ["--copy"], ["--copy", "--overwrite"]):
        out = tmp_path / ("copies" if options else "links")
        say("export", atlas, "--to", "folders", "-o", out, *options)
        assert len(files_in(out)) == n + 1
        with (out / "clusters.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert (out / file_name_of(row["file"])).is_file()
    say("export", atlas, "--to", "numpy", "-o", tmp_path / "e.npz")
    out = say("export", atlas, "--to", "embedding-atlas", "-o", tmp_path / "a b.parquet", "--neighbors", 3)
    assert f"embedding-atlas '{tmp_path / 'a b.parquet'}' --x x" in out


def test_models_and_folders_of_such_names(root, say, tmp_path, capfd):
    bad = tmp_path / os.fsdecode(b"\xff\n[b]")
    say("fit", "kmeans", root / FOLDER, "-o", bad / "km")
    shutil.copytree(root / FOLDER, bad / "photos")
    before = files_in(bad / "photos")
    say("duplicates", bad / "photos", "-o", bad / "plan.csv")
    say("duplicates", "--apply", bad / "plan.csv")
    assert len(before - files_in(bad / "photos")) == len(COPIES)
    say("duplicates", bad / "photos", "--undo")
    assert files_in(bad / "photos") == before
    assert main(["learn", str(root / FOLDER), "-o", str(bad / "x.atlas"), "--budget", "2s"]) == 1
    assert "is not UTF-8; choose another name" in capfd.readouterr().err


def test_messages_about_wrong_names_are_text(atlas, say, capfd):
    for arguments, code in [
        (["check", "\x1b[31m[/b]no\udcff"], 1),
        (["search", str(atlas), "\x1bno[/b].png"], 1),
        (["info", "\udcff\x1b"], 1),
        (["classify", str(atlas), "--labels", "\x1b.csv"], 1),
        (["duplicates", "--apply", "\x1b\udcff.csv"], 1),
        (["explain", str(atlas), "--image", "\x1b\udcff"], 1),
        (["learn", "\x1b[/b]", "--no-such\x1b"], 2),
    ]:
        assert main(arguments) == code
        printed = capfd.readouterr()
        assert not ACTS.findall(printed.out + printed.err)
        assert "unexpected" not in printed.err
