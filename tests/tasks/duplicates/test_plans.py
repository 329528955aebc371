"""Plans: nothing is lost, whatever is edited, changed or cut short."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from imatlas.cli import main
from imatlas.errors import ArtifactError, ImatlasError, InputError, SourceError
from imatlas.tasks.duplicates import plans
from imatlas.tasks.duplicates.plans import PlanRow, apply_plan, read_plan, undo, write_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for key in ("a.jpg", "sub/a copy.jpg", "sub/a, again.jpg", "b.jpg", "b2.jpg"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode() * 100)
    return folder


def rows_of(folder: Path) -> list[PlanRow]:
    def row(key: str, action: str, group: str) -> PlanRow:
        return PlanRow(key, action, group, "why", hashlib.sha256((folder / key).read_bytes()).hexdigest())

    return [
        row("a.jpg", "keep", "1"),
        row("sub/a copy.jpg", "move", "1"),
        row("sub/a, again.jpg", "move", "1"),
        row("b.jpg", "keep", "2"),
        row("b2.jpg", "move", "2"),
    ]


@pytest.fixture
def plan(folder: Path, tmp_path: Path) -> Path:
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    return tmp_path / "plan.csv"


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != plans.LOG}


def test_there_and_back(folder: Path, plan: Path) -> None:
    before = contents(folder)
    told = apply_plan(read_plan(plan))
    trash = Path(told.data["trash"])
    assert set(contents(trash)) == {"sub/a copy.jpg", "sub/a, again.jpg", "b2.jpg"}
    assert contents(trash) | contents(folder) == before
    with pytest.raises(ArtifactError, match="applied already"):
        apply_plan(read_plan(plan))
    assert undo(folder).metrics == {"back": 3, "left": 0}
    assert contents(folder) == before
    assert not trash.parent.exists()
    with pytest.raises(SourceError, match="nothing to bring back"):
        undo(folder)
    assert apply_plan(read_plan(plan)).metrics == {"moved": 3}


@pytest.mark.parametrize("name", ["link", "unlink", "mkdir"])
@pytest.mark.parametrize("calls", range(4))
@pytest.mark.parametrize("after", ["apply", "undo"])
def test_cut_at_any_step_nothing_is_lost_and_both_ways_go_on(
    folder: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int, after: str
) -> None:
    before, root = contents(folder), folder.parent
    real, left = getattr(os, name), [calls]

    def cut(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, cut)
        with contextlib.suppress(KeyboardInterrupt):
            apply_plan(read_plan(plan))
    everywhere = {content for where in (folder, root / "photos-trash") for content in contents(where).values()}
    assert everywhere == set(before.values())
    if after == "apply":
        with contextlib.suppress(ArtifactError):  # "applied already", where the cut came after the end
            apply_plan(read_plan(plan))
        assert set(contents(folder)) == {"a.jpg", "b.jpg"}
    try:
        undo(folder)
    except SourceError:  # nothing was begun
        assert after == "undo"
    assert contents(folder) == before


def test_undo_never_overwrites_a_new_file(folder: Path, plan: Path) -> None:
    old = (folder / "b2.jpg").read_bytes()
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (folder / "b2.jpg").write_bytes(b"new")
    told = undo(folder)
    assert told.metrics == {"back": 2, "left": 1}
    assert "b2.jpg (another file has its name now" in told.sentences[1]
    assert (folder / "b2.jpg").read_bytes() == b"new"
    assert (trash / "b2.jpg").read_bytes() == old
    (folder / "b2.jpg").unlink()
    assert undo(folder).metrics == {"back": 1, "left": 0}
    assert (folder / "b2.jpg").read_bytes() == old


@pytest.mark.parametrize("key", ["b2.jpg", "b.jpg"])
@pytest.mark.parametrize("change", ["edit", "remove"])
def test_what_changed_since_stops_it_before_anything_moves(folder: Path, plan: Path, key: str, change: str) -> None:
    if change == "edit":
        (folder / key).write_bytes(b"edited")
    else:
        (folder / key).unlink()
    before = contents(folder)
    with pytest.raises(ArtifactError, match=r"make the plan anew"):
        apply_plan(read_plan(plan))
    assert contents(folder) == before
    assert not (folder.parent / "photos-trash").exists()


def test_a_kept_link_to_a_moved_file_is_no_copy(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to(folder / "b2.jpg")
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    with pytest.raises(ArtifactError, match="No copy that group 2 keeps"):
        apply_plan(read_plan(tmp_path / "plan.csv"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a.jpg,keep,1", "a.jpg,move,1", "Every copy of group 1"),
        ("b.jpg,keep,2", "b.jpg,drop,2", "must be keep or move"),
        ("b2.jpg,move,2", "../b2.jpg,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "/etc/passwd,move,2", "must name a file in the folder"),
        ("b2.jpg,move,2", "b.jpg,move,2", "more than once"),
        ("key,action", "name,action", "no column key"),
    ],
)
def test_a_plan_that_was_edited_wrongly_is_refused(folder: Path, plan: Path, old: str, new: str, words: str) -> None:
    text = plan.read_text()
    assert old in text
    plan.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_plan(plan)


def test_a_plan_from_a_spreadsheet_is_read(folder: Path, plan: Path) -> None:
    text = plan.read_text().replace('"sub/a, again.jpg"', "sub/a copy 3.jpg").replace(",", ";")
    plan.write_bytes(b"\xef\xbb\xbf" + text.replace("move;2", "KEEP ;2").encode())
    read = read_plan(plan)
    assert [row.key for row in read.moves] == ["sub/a copy.jpg", "sub/a copy 3.jpg"]


def test_a_folder_that_was_moved_is_named(folder: Path, plan: Path) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(SourceError, match="where it is now"):
        apply_plan(read_plan(plan))
    assert apply_plan(read_plan(plan, moved)).metrics == {"moved": 3}


def test_a_second_process_waits_its_turn(folder: Path, plan: Path) -> None:
    with plans._locked(folder), pytest.raises(ImatlasError, match="Another process"):
        apply_plan(read_plan(plan))


def edited(plan: Path, old: str, new: str) -> Path:
    text = plan.read_text()
    assert old in text
    plan.write_text(text.replace(old, new))
    return plan


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder of the user's own with copies of what a plan names, so that only the place stops it."""
    folder = tmp_path / "home" / "private"
    folder.mkdir(parents=True)
    for key in ("b.jpg", "b2.jpg"):
        (folder / key).write_bytes(key.encode() * 100)
    return folder


def test_files_behind_a_link_are_never_moved(folder: Path, private: Path, tmp_path: Path) -> None:
    (folder / "linked").symlink_to(private)
    (folder / "one.jpg").symlink_to(private / "b2.jpg")
    sha256 = hashlib.sha256((private / "b2.jpg").read_bytes()).hexdigest()
    kept = PlanRow("b2.jpg", "keep", "1", "", sha256)
    before = everything(tmp_path)
    for key in ("linked/b2.jpg", "one.jpg"):
        write_plan([kept, PlanRow(key, "move", "1", "", sha256)], folder, tmp_path / "plan.csv")
        with pytest.raises(ArtifactError, match=f"is a link.* Take the line of '{key}' out"):
            apply_plan(read_plan(tmp_path / "plan.csv"))
        (tmp_path / "plan.csv").unlink()
    assert everything(tmp_path) == before


def test_a_plan_keeps_what_lies_behind_a_link_and_one_copy_besides(folder: Path, private: Path, tmp_path: Path) -> None:
    from PIL import Image

    photos = tmp_path / "pictures"
    photos.mkdir()
    rng = __import__("numpy").random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 40, 3), "uint8").repeat(4, 0).repeat(4, 1)
    for path in (photos / "b.png", photos / "c.png", private / "x.png", private / "y.png"):
        Image.fromarray(pixels).save(path)
    (photos / "a-linked").symlink_to(private)
    (photos / "a.png").symlink_to(private / "x.png")
    before = everything(private)
    assert main(["duplicates", str(photos), "-o", str(tmp_path / "plan.csv")]) == 0
    actions = {row.key: row.action for row in read_plan(tmp_path / "plan.csv").rows}
    assert actions == {
        "a.png": "keep",
        "a-linked/x.png": "keep",
        "a-linked/y.png": "keep",
        "b.png": "keep",
        "c.png": "move",
    }
    assert main(["duplicates", "--apply", str(tmp_path / "plan.csv")]) == 0
    assert everything(private) == before
    assert sorted(os.listdir(photos)) == ["a-linked", "a.png", "b.png"]


def test_a_plan_for_another_folder_than_the_one_named_is_refused(
    folder: Path, plan: Path, private: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    with pytest.raises(ArtifactError, match="which is still there, and not for"):
        read_plan(plan, private)
    edited(plan, str(folder), str(private))
    with pytest.raises(ArtifactError, match="which is still there, and not for"):
        read_plan(plan, folder)
    with pytest.raises(ArtifactError, match=r"was not made here for .*private'; .*imatlas duplicates .*--apply"):
        read_plan(plan)
    plan.unlink()
    assert everything(tmp_path) == {k: v for k, v in before.items() if k != "plan.csv"}


def test_a_plan_that_came_with_a_folder_moves_files_there_alone(folder: Path, plan: Path, private: Path) -> None:
    rows = [line.rsplit(",", 1)[0] for line in plan.read_text().splitlines()]  # of a stranger: no seal
    came = folder / "plan.csv"
    came.write_text("\n".join(rows).replace(str(folder), str(private)))
    with pytest.raises(ArtifactError, match="was not made here"):
        read_plan(came)
    came.write_text("\n".join(rows))
    assert apply_plan(read_plan(came)).metrics == {"moved": 3}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"key": "b2.jpg"', '"key": "{mine}"'),
        ('"key": "b2.jpg"', '"key": "../../home/private/b2.jpg"'),
        ('"key": "b2.jpg"', '"key": "linked/b2.jpg"'),
        ('"key": "b2.jpg"', '"key": ""'),
        ('"key": "b2.jpg"', '"key": 3'),
        ('"key": "b2.jpg"', '"key": "b2.jpg\\u0000"'),
        ('"format": 1', '"format": 2'),
        ('"sha256": "', '"sha256": "x'),
        ('"done": true', '"done": "yes"'),
        ('"files": [', '"files": "'),
        ('"plan": "', '"plan": ' + "[" * 100_000 + '"'),
    ],
)
def test_an_edited_log_deletes_plants_and_overwrites_nothing(
    folder: Path, plan: Path, private: Path, tmp_path: Path, old: str, new: str
) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (folder / "linked").symlink_to(private)
    (trash / "linked").mkdir()
    (trash / "linked" / "b2.jpg").write_bytes((trash / "b2.jpg").read_bytes())
    edited(trash / plans.LOG, old, new.replace("{mine}", str(private / "b2.jpg")))
    before = everything(tmp_path)
    (private / "b2.jpg").unlink()
    for _ in range(2):
        assert left_or_refused(folder) in (1, "refused")
        assert not (private / "b2.jpg").exists()
    (private / "b2.jpg").write_bytes(before["home/private/b2.jpg"])
    left_or_refused(folder)
    assert (private / "b2.jpg").read_bytes() == before["home/private/b2.jpg"]
    assert everything(private) == {"b.jpg": b"b.jpg" * 100, "b2.jpg": b"b2.jpg" * 100}
    assert trash.joinpath("b2.jpg").exists() or folder.joinpath("b2.jpg").exists()


def left_or_refused(folder: Path) -> int | str:
    try:
        return undo(folder).metrics["left"]
    except ArtifactError:
        return "refused"


def test_a_trash_that_is_a_link_is_neither_filled_nor_emptied(
    folder: Path, plan: Path, private: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos-trash").symlink_to(private)
    before = everything(tmp_path)
    for call in (lambda: apply_plan(read_plan(plan)), lambda: undo(folder)):
        with pytest.raises(ArtifactError, match="is not a folder"):
            call()
    assert everything(tmp_path) == before
    (tmp_path / "photos-trash").unlink()
    (tmp_path / "photos-trash").mkdir()
    (tmp_path / "photos-trash" / "0001").symlink_to(private)
    assert apply_plan(read_plan(plan)).metrics == {"moved": 3}
    assert sorted(os.listdir(private)) == ["b.jpg", "b2.jpg"]


def test_links_that_came_into_the_trash_are_not_followed_back(folder: Path, plan: Path, private: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (trash / "b2.jpg").rename(trash / "saved")
    (trash / "b2.jpg").symlink_to(private / "b2.jpg")
    (folder / "sub").rename(folder / "elsewhere")
    (folder / "sub").symlink_to(private)
    assert undo(folder).metrics == {"back": 0, "left": 3}
    assert sorted(os.listdir(private)) == ["b.jpg", "b2.jpg"]
    assert (trash / "sub" / "a copy.jpg").is_file()


def test_a_file_that_changed_in_the_trash_stays_there(folder: Path, plan: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    (trash / "b2.jpg").write_bytes(b"another")
    (trash / "empty").mkdir()  # a user's own
    told = undo(folder)
    assert told.metrics == {"back": 2, "left": 1}
    assert "not the file that was put there" in told.sentences[1]
    assert (trash / "b2.jpg").read_bytes() == b"another"
    (trash / "b2.jpg").unlink()
    undo(folder)
    assert os.listdir(trash) == ["empty"]


def test_the_log_of_another_folder_is_not_used(folder: Path, plan: Path, tmp_path: Path) -> None:
    trash = Path(apply_plan(read_plan(plan)).data["trash"])
    other = tmp_path / "other"
    other.mkdir()
    trash.parent.rename(tmp_path / "other-trash")
    with pytest.raises(ArtifactError, match="which is still there, and not for"):
        undo(other)
    assert not os.listdir(other)
    folder.rename(tmp_path / "gone") and other.rmdir()
    (tmp_path / "gone").rename(other)  # the folder with its trash, under another name
    assert undo(other).metrics == {"back": 3, "left": 0}


def test_two_names_of_one_file_are_two_copies_only_while_both_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").unlink()
    os.link(folder / "b2.jpg", folder / "b.jpg")
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    assert apply_plan(read_plan(tmp_path / "plan.csv")).metrics == {"moved": 3}
    assert (folder / "b.jpg").read_bytes() == b"b2.jpg" * 100
    assert undo(folder).metrics == {"back": 3, "left": 0}
    text = (tmp_path / "plan.csv").read_text().replace("b2.jpg,move", "./b.jpg,move")
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(InputError, match="must name a file in the folder"):  # one file under two spellings
        read_plan(tmp_path / "plan.csv")


def test_pipes_and_folders_are_not_waited_for(folder: Path, plan: Path, tmp_path: Path) -> None:
    (folder / "b2.jpg").unlink()
    os.mkfifo(folder / "b2.jpg")
    with pytest.raises(ArtifactError, match="has changed"):
        apply_plan(read_plan(plan))
    os.mkfifo(tmp_path / "pipe.csv")
    for other in (tmp_path / "pipe.csv", folder):
        with pytest.raises(SourceError):
            read_plan(other)


def test_the_lock_is_not_a_file_that_others_could_have_made(folder: Path, tmp_path: Path, monkeypatch) -> None:
    from imatlas.tasks.duplicates import lock, seals

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with plans._locked(folder), pytest.raises(ImatlasError, match="Another process"), plans._locked(folder):
        raise AssertionError("both hold it")
    assert not (tmp_path / "state").exists()
    monkeypatch.setattr(lock, "_lock", lambda *_: None)  # a file system that cannot lock a folder
    with plans._locked(folder), pytest.raises(ImatlasError, match="Another process"), plans._locked(folder):
        raise AssertionError("both hold it")
    (tmp_path / "state" / "imatlas").chmod(0o777)
    monkeypatch.setattr(seals.tempfile, "gettempdir", lambda: str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / f"imatlas-{os.getuid()}").symlink_to(tmp_path / "state")
    assert seals.own_folder() is None
    assert seals.seal("x") == ""
    with plans._locked(folder):
        pass


def test_the_seal_is_of_this_user_alone(tmp_path: Path, monkeypatch) -> None:
    from imatlas.tasks.duplicates.seals import is_sealed, seal

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    word = seal("/a")
    assert is_sealed("/a", word)
    assert not is_sealed("/b", word)
    assert not is_sealed("/a", "")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "mine" / "imatlas").iterdir()] == [0o600]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    assert not is_sealed("/a", word)


def test_a_whole_disk_has_no_trash() -> None:
    with pytest.raises(InputError, match="is a whole disk"):
        undo("/")
