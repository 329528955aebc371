"""Inventories: every kind of damage is detected before a file is parsed, and only regular files are opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imatlas.errors import ArtifactError
from imatlas.system.inventory import (
    _PNG_END,
    Entry,
    Inventory,
    entry_of,
    is_as_written,
    parse_json,
    read_json,
    seal,
    with_own_hash,
)


@pytest.fixture
def listed(tmp_path: Path, rng) -> Inventory:
    (tmp_path / "part").mkdir()
    (tmp_path / "a.bin").write_bytes(rng.bytes(3000))
    (tmp_path / "part" / "b.bin").write_bytes(rng.bytes(3000))
    found = Inventory(tmp_path, advice="make it anew")
    found.record(["a.bin", "part/b.bin"])
    return Inventory(tmp_path, found.files, advice="make it anew")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1700] ^= 4
    path.write_bytes(content)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def folder_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(path.parent.with_name("moved"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "its checksum differs"),
        (lambda path: os.truncate(path, 2999), "2,999 bytes instead of 3,000"),
        (Path.unlink, "it is gone"),
        (fifo, "it is not a file"),
        (folder, "it is not a file"),
        (link, "through a link"),
        (folder_link, "through a link"),
        (lambda path: (path.unlink(), path.parent.rmdir(), path.parent.write_text("")), "it is gone"),
    ],
)
def test_damage_is_reported_by_file(listed: Inventory, damage, reason: str) -> None:
    assert not listed.damaged()
    listed = Inventory(listed.folder, listed.files, advice="make it anew")
    damage(listed.folder / "part" / "b.bin")
    with pytest.raises(ArtifactError, match=rf"part/b.bin' is damaged \(.*{reason}.*; make it anew\."):
        listed.check(["a.bin", "part/b.bin"])
    listed.check(["a.bin"])


def test_a_changed_file_is_checked_again(listed: Inventory) -> None:
    listed.check(["a.bin"])
    flip(listed.folder / "a.bin")
    assert listed.damaged(["a.bin"]) == {"a.bin": "its checksum differs"}


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "other.bin"])
def test_unlisted_files_are_refused(listed: Inventory, name: str) -> None:
    with pytest.raises(ArtifactError, match="not in the list"):
        listed.check([name])
    hostile = Inventory(listed.folder, {name: Entry(1, "00")})
    assert hostile.damaged() in ({name: "its name leads elsewhere, or through a link"}, {name: "it is gone"})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "levels deep"),
        (b"[" * 60 + b"]" * 60, "levels deep"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b"", "Expecting value"),
    ],
)
def test_invalid_json_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(content)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json' is damaged"):
        read_json(tmp_path / "x.json")


def test_large_json_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(["x"] * 1000))
    with pytest.raises(ArtifactError, match="over 1,000 bytes"):
        read_json(tmp_path / "x.json", most_bytes=1000)


def test_a_seal_depends_on_every_value_and_not_on_layout() -> None:
    values = {"b": [1, 2.5, "é"], "a": {"y": None, "x": True}}
    assert seal(values) == seal(json.loads(json.dumps(values, indent=3, sort_keys=True)))
    assert seal(values) != seal({**values, "b": [1, 2.25, "é"]})


def test_the_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert entry_of(tmp_path / "x") == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


@pytest.mark.parametrize("name", ["00001.png", "encoder.onnx", "e.keys.npy"])
def test_a_file_with_its_own_hash_is_recognized_by_name_and_content(tmp_path, name) -> None:
    content = b"\x89PNG and so on" + (_PNG_END if name.endswith(".png") else b"")
    path = tmp_path / name
    path.write_bytes(with_own_hash(name, content))
    assert is_as_written(path)
    written = path.read_bytes()
    other = path.with_name(f"0{name}")
    for file, changed in (
        (path, content),
        (path, b""),
        (path, written[1:]),
        (path, b"\x00" + written[1:]),
        (path, written + b"\n"),
        (other, written),
    ):
        file.write_bytes(changed)
        assert not is_as_written(file)
    path.unlink()
    path.symlink_to(other)
    assert not is_as_written(path)
    assert not is_as_written(tmp_path / "gone.png")


def test_former_files_are_distinguished_from_new_ones_of_the_same_name(tmp_path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    inventory = Inventory(tmp_path)
    inventory.record("abc")
    (tmp_path / "a").write_text("mine")
    inventory.drop("ab")
    assert inventory.unchanged(inventory.old) == ["b"]
    (tmp_path / "c").write_text("damaged")
    inventory.drop("c", damaged=True)  # by whoever has just seen that
    assert inventory.unchanged(inventory.old) == ["b", "c"]
    assert not inventory.files
