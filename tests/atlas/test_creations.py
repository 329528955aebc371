"""What was made is remembered: across processes, damaged lines, and a file that has grown too large."""

from __future__ import annotations

from pathlib import Path

import pytest

from imatlas.atlas import creations as module
from imatlas.atlas.creations import NAME, Creation, Creations, Keeping
from imatlas.atlas.recipes import Morphing, Sampling
from imatlas.errors import ArtifactError, UnsafePathError
from imatlas.system.locks import locked

A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def creation(id: str, **recipe: object) -> Creation:
    return Creation(id=id, recipe=Sampling(kind="sample", **recipe), generator="x", pictures=["UklGRg=="])


def test_creations_come_back_in_order_with_what_is_kept(tmp_path: Path) -> None:
    one, other = Creations(tmp_path), Creations(tmp_path)
    assert one.all() == {}
    assert one.add(creation(A, seed=3)) == ""
    other.add(Creation(id=B, recipe=Morphing(kind="morph", images=["ä.png", "猫.png"]), generator="x"))
    one.add(Keeping(id=A, image=2, kept=True, picture="AAAA"))
    one.add(Keeping(id=A, image=5, kept=True))
    one.add(Keeping(id=A, image=5, kept=False))
    found = Creations(tmp_path).all()
    assert list(found) == [A, B]
    assert found[A].kept == {2: "AAAA"}
    assert found[A].creation.recipe == Sampling(kind="sample", seed=3)
    assert found[A].creation.time > 1e9
    assert found[B].creation.recipe.images == ["ä.png", "猫.png"]


@pytest.mark.parametrize(
    "damage",
    [
        b'{"id": "half',
        b"\x00\xff\n",
        b'{"id": "../../x", "recipe": {"kind": "sample"}, "generator": "x"}\n',
        b'{"id": "cccccccccccccccc", "recipe": {"kind": "sample", "novelty": NaN}, "generator": "x"}\n',
        b'{"id": "cccccccccccccccc", "recipe": {"kind": "explode"}, "generator": "x"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_is_passed_over(damage: bytes, tmp_path: Path) -> None:
    Creations(tmp_path).add(creation(A))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + damage)
    assert list(Creations(tmp_path).all()) == [A]
    Creations(tmp_path).add(creation(B))
    assert list(Creations(tmp_path).all()) == [A, B]


def test_a_file_that_has_grown_goes_on_with_the_newer_half_and_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 4000)
    creations = Creations(tmp_path)
    creations.add(creation(A))
    creations.add(Keeping(id=A, image=0, kept=True, picture="AAAA"))
    ids = [f"{i:016x}" for i in range(60)]
    for id in ids:
        assert creations.add(creation(id)) == ""
        assert (tmp_path / NAME).stat().st_size <= 4000
    found = list(creations.all())
    assert found[0] == A
    assert creations.all()[A].kept == {0: "AAAA"}
    assert 5 < len(found) < 40
    assert found[1:] == ids[1 - len(found) :]


def test_a_file_full_of_kept_images_takes_no_more_until_some_are_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 4000)
    creations = Creations(tmp_path)
    creations.add(creation(A))
    for image in range(3):
        creations.add(Keeping(id=A, image=image, kept=True, picture="A" * 1000))
    assert "full of images that are kept" in creations.add(Keeping(id=A, image=3, kept=True, picture="A" * 1000))
    assert sorted(creations.all()[A].kept) == [0, 1, 2, 3]  # until the process ends
    assert sorted(Creations(tmp_path).all()[A].kept) == [0, 1, 2]
    assert Creations(tmp_path).add(Keeping(id=A, image=0, kept=False)) == ""
    assert Creations(tmp_path).add(Keeping(id=A, image=3, kept=True, picture="A" * 1000)) == ""


def test_what_cannot_be_written_is_known_until_the_process_ends(tmp_path: Path) -> None:
    creations = Creations(tmp_path, read_only=True)
    assert "reading only" in creations.add(creation(A))
    assert list(creations.all()) == [A]
    with locked(tmp_path / module.LOCK, tmp_path):
        busy = Creations(tmp_path)
        assert "Another process" in busy.add(creation(B))
    assert list(busy.all()) == [B]
    assert not (tmp_path / NAME).exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / NAME).symlink_to(tmp_path / "mine.txt")
    with pytest.raises((UnsafePathError, ArtifactError)):
        Creations(tmp_path).all()
    Creations(tmp_path).add(creation(C))
    assert (tmp_path / "mine.txt").read_text() == "mine"
