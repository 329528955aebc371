"""Atlases at addresses: learned into a server that speaks S3, and opened from there."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.atlas import learn, lease, remote_atlas
from imatlas.atlas.home import home_of
from imatlas.atlas.lease import Lease
from imatlas.atlas.manifest import Manifest
from imatlas.cli import main
from imatlas.errors import ArtifactError, AtlasBusyError, InputError, SourceError
from imatlas.images.sources.writable_store import ConflictError, WritableStore
from imatlas.system.inventory import seal
from tests.s3_server import SECRET, Server

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("nanio", "s3fs"))), reason="nanio or s3fs is not installed"
    ),
]

OPTIONS: dict[str, Any] = {"budget": "1s", "encoder": "own", "image_size": 16, "progress": False}
ADDRESS = "s3://bucket/sub/a.atlas"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


def use(server: Server, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    """Name a server and its credentials, as a user does, by environment variables."""
    import s3fs

    for name, value in server.environment(**options).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server, with an empty bucket, and a user with an empty cache."""
    use(running, monkeypatch)
    another_machine(monkeypatch, tmp_path, "one")
    shutil.rmtree(running.folder / "bucket", ignore_errors=True)
    (running.folder / "bucket").mkdir()
    return running


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A user whose cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 60, (24, 24, 3)) + 60 * (i % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas in a folder, with all stages."""
    folder = tmp_path_factory.mktemp("atlas") / "a.atlas"
    ia.learn(photos, folder, **OPTIONS)
    return folder


@pytest.fixture
def few_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without generator and report, which take the longest."""
    names = ("intake", "encoder", "map", "clusters", "outliers", "layout")
    monkeypatch.setattr(learn, "STAGES", {name: learn.STAGES[name] for name in names})


def published(finished: Path, server: Server) -> Path:
    """The folder behind `ADDRESS`, to which the atlas was copied."""
    folder = server.folder / "bucket" / "sub" / "a.atlas"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache", ".*"))
    return folder


def at(server: Server) -> Path:
    return server.folder / "bucket" / "sub" / "a.atlas"


def names_at(server: Server) -> set[str]:
    return {path.relative_to(at(server)).as_posix() for path in at(server).rglob("*") if path.is_file()}


def fetched() -> set[str]:
    """Names of the files of atlases in the cache."""
    root = Path(os.environ["XDG_CACHE_HOME"])
    return {path.as_posix().partition("/a.atlas/")[2] for path in root.rglob("*") if path.is_file()}


def reseal(path: Path, **changes: Any) -> None:
    """Change values of an `atlas.json`, with a valid digest."""
    values = json.loads(path.read_text()) | changes
    values.pop("digest")
    path.write_text(json.dumps({**values, "digest": seal(values)}))


# Opening


def test_an_atlas_at_an_address_answers_as_in_its_folder(finished: Path, server: Server) -> None:
    published(finished, server)
    here, there = ia.load(finished), ia.load(ADDRESS)
    assert (there.name, len(there)) == ("a", 24)
    assert repr(there) == f"Atlas('{ADDRESS}', 24 images)"
    assert there.search("03.png", k=3).equals(here.search("03.png", k=3))
    assert there.table().equals(here.table())
    assert not any(name.startswith("generator") for name in fetched())
    assert not any(name.startswith("images.lance/data/") and thumbnails(finished, name) for name in fetched())
    np.testing.assert_array_equal(there.sample(2, random_state=0), here.sample(2, random_state=0))
    assert there.store.thumbnails([3]) == here.store.thumbnails([3])


def thumbnails(folder: Path, name: str) -> bool:
    """Whether a file of the table is that of the thumbnails."""
    return name.partition("/")[2] in ia.load(folder).store.table._files_of["thumbnail"]


def test_files_are_fetched_once_and_shared_by_versions(finished: Path, server: Server, photos: Path) -> None:
    folder = published(finished, server)
    ia.load(ADDRESS).store.model("map")
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "atlas.json":
            path.unlink()
    assert ia.load(ADDRESS).store.model("map").rows_ == ia.load(finished).store.model("map").rows_
    reseal(folder / "atlas.json", notes=["another version"])
    assert ia.load(ADDRESS).store.model("map") is not None
    with pytest.raises(ArtifactError, match=rf"'{ADDRESS}/[a-z]+-0001/.*' is gone or was replaced"):
        ia.load(ADDRESS).sample(1)


def test_a_damaged_file_in_the_cache_is_fetched_again(finished: Path, server: Server) -> None:
    published(finished, server)
    ia.load(ADDRESS).store.model("map")
    [weights] = Path(os.environ["XDG_CACHE_HOME"]).rglob("map-0001/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert ia.load(ADDRESS).store.model("map") is not None


def test_commands_take_an_address(finished: Path, server: Server, tmp_path: Path, capsys) -> None:
    published(finished, server)
    for command in (
        ["info", ADDRESS],
        ["search", ADDRESS, "03.png", "-k", "2", "--json"],
        ["sample", ADDRESS, "-n", "1", "-o", str(tmp_path / "new.png")],
        ["report", ADDRESS, "-o", str(tmp_path / "report.html")],
        ["duplicates", ADDRESS, "--json"],
    ):
        assert main(command) == 0, capsys.readouterr().err
    assert main(["report", ADDRESS]) == 1
    assert "give one by -o" in capsys.readouterr().err


def test_decisions_at_an_address_are_read_and_not_made(finished: Path, server: Server) -> None:
    folder = published(finished, server)
    copy = ia.load(folder)
    copy.decisions.label(["03.png"], "three")
    there = ia.load(ADDRESS)
    assert there.decisions.state.labels == {"03.png": "three"}
    with pytest.raises(InputError, match=rf"'{ADDRESS}' is only read, so nothing can be decided"):
        there.decisions.label(["04.png"], "four")


def test_the_studio_of_an_address_is_read_only(finished: Path, server: Server) -> None:
    pytest.importorskip("fastapi")
    from imatlas.studio.server import reopening

    published(finished, server)
    studio = reopening(ia.load(ADDRESS))._studio
    assert studio.read_only
    assert studio.overview()["atlas"] == Manifest.read(finished).identity
    assert studio.on_disk() == "this"


def test_any_store_can_be_read_and_only_s3_written(finished: Path, photos: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(finished), "/sets/b.atlas", recursive=True)
    try:
        assert len(ia.load("memory://sets/b.atlas")) == 24
        assert len(ia.load(f"file://{finished}")) == 24
        with pytest.raises(InputError, match="not written to 'memory://'"):
            ia.learn(photos, "memory://sets/c.atlas", **OPTIONS)
    finally:
        memory.store.clear()


def test_nothing_and_refused_access_are_told_without_secrets(
    finished: Path, server: Server, photos: Path, monkeypatch, capsys
) -> None:
    with pytest.raises(SourceError, match=rf"There is no atlas at '{ADDRESS}'"):
        ia.load(ADDRESS)
    published(finished, server)
    use(server, monkeypatch, secret="wrong-secret")
    for command in (["info", ADDRESS], ["learn", str(photos), "-o", ADDRESS]):
        assert main(command) == 1
        shown = capsys.readouterr()
        assert "check the credentials" in shown.err
        assert "wrong-secret" not in shown.err + shown.out
        assert SECRET not in shown.err + shown.out
    assert main(["learn", str(photos), "-o", "s3://me:hush@bucket/a.atlas"]) == 1
    assert "hush" not in capsys.readouterr().err


# An atlas of a stranger


@pytest.mark.parametrize("name", ["../evil.png", "/etc/passwd", "map-0001/../../x", ".ssh/config"])
def test_names_that_lead_elsewhere_are_refused(finished: Path, server: Server, name: str) -> None:
    folder = published(finished, server)
    files = json.loads((folder / "atlas.json").read_text())["files"]
    reseal(folder / "atlas.json", files={**files, name: [4, "0" * 64]})
    with pytest.raises(ArtifactError, match=rf"'{ADDRESS}/atlas.json'.*which is not one of an atlas"):
        ia.load(ADDRESS)


def test_other_content_and_other_sizes_are_refused(finished: Path, server: Server) -> None:
    folder = published(finished, server)
    weights = folder / "map-0001" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"damaged .its checksum differs"):
        ia.load(ADDRESS).store.model("map")
    weights.write_bytes(content + b"more")
    with pytest.raises(ArtifactError, match="is gone or was replaced"):
        ia.load(ADDRESS).store.model("map")
    files = json.loads((folder / "atlas.json").read_text())["files"]
    reseal(folder / "atlas.json", files={**files, "skipped.csv": [2**40, "0" * 64]})
    with pytest.raises(ArtifactError, match="larger than any such file"):
        ia.load(ADDRESS)
    (folder / "atlas.json").write_bytes(b"{" + b" " * 2**27)
    with pytest.raises(ArtifactError, match="more than 67,108,864 bytes"):
        ia.load(ADDRESS)


def test_a_list_of_skipped_files_of_a_commit_that_never_came(finished: Path, server: Server) -> None:
    folder = published(finished, server)
    (folder / "skipped.csv").write_text("key,reason\nlater.png,broken\n")
    atlas = ia.load(ADDRESS)
    assert len(atlas.search(atlas.keys[0], k=2)) == 2
    assert not (atlas.folder / "skipped.csv").exists() or "later" not in (atlas.folder / "skipped.csv").read_text()


def test_a_link_in_the_cache_is_not_followed(finished: Path, server: Server, tmp_path: Path) -> None:
    published(finished, server)
    atlas = ia.load(ADDRESS)
    (tmp_path / "mine").mkdir()
    (atlas.folder / "map-0001").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a link"):
        atlas.store.model("map")
    assert not list((tmp_path / "mine").iterdir())


# Learning


def test_learn_into_an_address(server: Server, photos: Path, finished: Path, capsys) -> None:
    command = ["learn", str(photos), "-o", ADDRESS, "--budget", "1s", "--encoder", "own", "--image-size", "16"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"Atlas: {ADDRESS}" in out
    assert os.environ["XDG_CACHE_HOME"] not in out
    atlas = ia.load(ADDRESS)
    assert atlas.store.manifest.finished
    assert set(atlas.store.manifest.files) < names_at(server)
    assert {"atlas.json", "report.html", "metrics.jsonl"} <= names_at(server)
    assert ".lease" not in names_at(server)
    assert atlas.store.manifest.settings == ia.load(finished).store.manifest.settings
    whole = at(server).parent / "copy.atlas"
    shutil.copytree(at(server), whole)
    assert ia.load(whole).table().equals(atlas.table())
    assert main(command) == 0
    assert "Nothing has changed" in capsys.readouterr().out
    assert Manifest.read(at(server)).identity == atlas.store.manifest.identity
    assert main([*command[:-1], "24"]) == 1
    assert f"'{ADDRESS}' was learned with other settings" in capsys.readouterr().err


@pytest.mark.usefixtures("few_stages")
def test_readers_go_on_while_the_atlas_is_learned_again(server: Server, photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    first = ia.learn(mine, ADDRESS, **OPTIONS)
    shutil.rmtree(first.folder.parents[1])
    opened = ia.load(ADDRESS)  # nothing but its manifests is in the cache
    (mine / "00.png").unlink()
    states: list[int] = []

    def look(event: dict[str, Any]) -> None:
        if event.get("event") == "stage" and event["state"] == "done":
            states.append(len(ia.Atlas(ADDRESS).table()))

    second = ia.learn(mine, ADDRESS, callback=look, **OPTIONS)
    assert set(states) <= {23, 24}
    assert len(second) == 23
    shutil.rmtree(first.folder.parents[1] / "working")
    assert len(opened.table()) == 24
    assert len(opened.store.thumbnails(list(range(24)))) == 24
    (mine / "01.png").unlink()
    ia.learn(mine, ADDRESS, **OPTIONS)
    gone = set(Manifest.read(at(server)).files) | {old.name for old in Manifest.read(at(server)).old}
    assert names_at(server) <= gone | {"atlas.json", "metrics.jsonl", "report.html"}


@pytest.mark.usefixtures("few_stages")
def test_a_version_stays_in_the_cache_while_it_is_open(
    server: Server, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(remote_atlas, "KEPT", -1.0)
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    ia.learn(mine, ADDRESS, **OPTIONS)
    opened = ia.load(ADDRESS)
    place = opened.folder.parent
    (mine / "00.png").unlink()
    ia.learn(mine, ADDRESS, **OPTIONS)
    newest = ia.load(ADDRESS)
    assert len(opened.store.thumbnails(list(range(24)))) == 24
    assert place.exists()
    del opened
    gc.collect()
    assert len(ia.load(ADDRESS)) == 23
    assert not place.exists()
    assert newest.folder.exists()


@pytest.mark.usefixtures("few_stages")
def test_another_machine_goes_on_with_it(server: Server, photos: Path, tmp_path: Path, monkeypatch) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    first = ia.learn(mine, ADDRESS, **OPTIONS)
    another_machine(monkeypatch, tmp_path, "two")
    (mine / "00.png").unlink()
    second = ia.learn(mine, ADDRESS, **OPTIONS)
    assert second.store.manifest.models == first.store.manifest.models
    kept = first.embedding[[key != "00.png" for key in first.keys]]
    np.testing.assert_array_equal(second.embedding, kept)
    another_machine(monkeypatch, tmp_path, "one")
    (mine / "01.png").unlink()
    third = ia.learn(mine, ADDRESS, **OPTIONS)
    assert third.keys == second.keys[1:]
    assert third.store.manifest.models == first.store.manifest.models


@pytest.mark.usefixtures("few_stages")
def test_overwrite_replaces_what_is_there(server: Server, photos: Path) -> None:
    ia.learn(photos, ADDRESS, **OPTIONS)
    before = names_at(server)
    atlas = ia.learn(photos, ADDRESS, overwrite=True, **{**OPTIONS, "image_size": 8})
    assert atlas.store.spec.width == 8
    assert len(atlas.store.thumbnails(list(range(24)))) == 24
    data = {name for name in before if "/data/" in name}
    assert data
    assert not data & names_at(server)


def test_a_killed_run_is_continued_at_once(server: Server, photos: Path, finished: Path) -> None:
    command = [sys.executable, "-m", "imatlas", "learn", str(photos), "-o", ADDRESS, "--budget", "1s"]
    command += ["--encoder", "own", "--image-size", "16"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(1200):
        if (at(server) / "atlas.json").exists() and b'"map-0001' in (at(server) / "atlas.json").read_bytes():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    unfinished = ia.load(ADDRESS)
    assert not unfinished.store.manifest.finished
    assert ".lease" in names_at(server)
    atlas = ia.learn(photos, ADDRESS, **OPTIONS)
    assert atlas.store.manifest.finished
    assert atlas.store.manifest.models["map"] == "map-0001"
    assert atlas.table()["cell"].equals(unfinished.table()["cell"])


@pytest.mark.usefixtures("few_stages")
def test_a_second_writer_is_told(server: Server, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.2)
    told: list[str] = []

    def second(event: dict[str, Any]) -> None:
        if event.get("stage") == "map" and event["state"] == "started":
            with pytest.raises(AtlasBusyError, match=rf"Another process is writing '{ADDRESS}'") as raised:
                ia.learn(photos, ADDRESS, **OPTIONS)
            told.append(str(raised.value))
            another_machine(monkeypatch, tmp_path, "two")
            with pytest.raises(AtlasBusyError, match=rf"Another process is writing '{ADDRESS}' .its lease") as raised:
                ia.learn(photos, ADDRESS, **OPTIONS)
            told.append(str(raised.value))
            another_machine(monkeypatch, tmp_path, "one")

    ia.learn(photos, ADDRESS, callback=second, **OPTIONS)
    assert len(told) == 2


def test_a_lease_that_ended_is_taken_over_and_the_first_writer_is_told(server: Server, monkeypatch) -> None:
    store = WritableStore(ADDRESS)
    first, second = Lease(store, "one"), Lease(store, "two")
    monkeypatch.setattr(lease, "RENEWED", 0.1)
    first.take()
    with pytest.raises(AtlasBusyError, match="Another process is writing"):
        second.take()
    time.sleep(0.5)
    first.check()
    monkeypatch.setattr(lease, "RENEWED", 60.0)
    time.sleep(0.3)
    monkeypatch.setattr(lease, "SECONDS", 1.0)
    time.sleep(3.0)
    second.take()
    monkeypatch.setattr(lease, "RENEWED", 1.0)
    with pytest.raises(AtlasBusyError, match="Another process has begun to write"):
        first.check()  # not renewed for longer than it should be, as after a suspension
    first._ended.set()
    first._thread.join()
    with pytest.raises(ConflictError):
        store.put(".lease", b"{}", first._etag)
    first.release()
    assert ".lease" in names_at(server)
    second.release()
    assert ".lease" not in names_at(server)


@pytest.mark.usefixtures("few_stages")
def test_a_version_that_somebody_else_commits_is_not_overwritten(server: Server, photos: Path, tmp_path: Path) -> None:
    def other(event: dict[str, Any]) -> None:
        if event.get("stage") == "clusters" and event["state"] == "started":
            changed = tmp_path / "atlas.json"
            shutil.copy(at(server) / "atlas.json", changed)
            reseal(changed, notes=["from somebody else"])
            fsspec.filesystem("s3").put_file(str(changed), f"{ADDRESS}/atlas.json")

    with pytest.raises(AtlasBusyError, match=rf"Another process has written '{ADDRESS}' meanwhile"):
        ia.learn(photos, ADDRESS, callback=other, **OPTIONS)
    assert Manifest.read(at(server)).notes == ["from somebody else"]
    atlas = ia.learn(photos, ADDRESS, **OPTIONS)
    assert "clusters" in atlas.store.manifest.models
    assert atlas.store.manifest.notes[:1] == ["from somebody else"]


@pytest.mark.usefixtures("few_stages")
@pytest.mark.parametrize("how", ["lease", "commit"])
def test_a_writer_that_was_overtaken_touches_nothing(how: str, server: Server, photos: Path, monkeypatch) -> None:
    """As one that was suspended: another has taken the lease over, or has committed and uses the same names."""
    monkeypatch.setattr(lease, "RENEWED", 60.0)
    before: dict[str, bytes] = {}

    def other(event: dict[str, Any]) -> None:
        if event.get("stage") == "clusters" and event["state"] == "started":
            (at(server) / "clusters-0001").mkdir(exist_ok=True)
            for name in ("manifest.json", "weights.safetensors"):
                fsspec.filesystem("s3").pipe_file(f"{ADDRESS}/clusters-0001/{name}", b"theirs")
            if how == "lease":
                fsspec.filesystem("s3").pipe_file(f"{ADDRESS}/.lease", b'{"holder": "another", "renewed": 1}')
                monkeypatch.setattr(lease, "RENEWED", -1.0)
            else:
                changed = json.loads((at(server) / "atlas.json").read_text())
                fsspec.filesystem("s3").pipe_file(f"{ADDRESS}/atlas.json", json.dumps(changed, indent=3).encode())
            before.update({name: (at(server) / name).read_bytes() for name in names_at(server)})

    with pytest.raises(AtlasBusyError, match="Another process has"):
        ia.learn(photos, ADDRESS, callback=other, **OPTIONS)
    after = {name: (at(server) / name).read_bytes() for name in names_at(server)}
    assert {name: after.get(name) for name in before if name != ".lease"} == {
        name: content for name, content in before.items() if name != ".lease"
    }


@pytest.mark.usefixtures("few_stages")
def test_a_server_that_stops_is_waited_for(server: Server, photos: Path, capsys) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event.get("stage") == "map" and event["state"] == "started":
            server.stop()
            threading.Timer(3.0, server.start).start()

    atlas = ia.learn(photos, ADDRESS, callback=stop, **OPTIONS)
    assert "layout" in atlas.store.manifest.models
    told = capsys.readouterr().err
    assert "does not answer" in told
    assert "answers again" in told


def test_what_is_no_atlas_is_not_touched(server: Server, photos: Path) -> None:
    at(server).mkdir(parents=True)
    (at(server) / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ArtifactError, match=r"such as 'holiday.jpg', and it is not an atlas"):
        ia.learn(photos, ADDRESS, **OPTIONS)
    assert names_at(server) == {"holiday.jpg"}
    (at(server) / "atlas.json").write_text('{"my": "own"}')
    with pytest.raises(ArtifactError, match="is not from imatlas"):
        ia.learn(photos, ADDRESS, overwrite=True, **OPTIONS)
    assert (at(server) / "atlas.json").read_text() == '{"my": "own"}'


def test_a_missing_bucket_is_told(server: Server, photos: Path) -> None:
    with pytest.raises(SourceError, match=r"There is no bucket at 's3://nowhere/a.atlas'"):
        ia.learn(photos, "s3://nowhere/a.atlas", **OPTIONS)


def test_a_server_without_conditions_is_refused(photos: Path, tmp_path: Path, monkeypatch) -> None:
    plain = Server(tmp_path / "plain", conditions=False)
    (plain.folder / "bucket").mkdir(parents=True)
    plain.start()
    try:
        use(plain, monkeypatch)
        another_machine(monkeypatch, tmp_path, "plain")
        with pytest.raises(InputError, match="ignores conditions of writes"):
            ia.learn(photos, ADDRESS, **OPTIONS)
        assert names_at(plain) == set()
    finally:
        plain.stop()


@pytest.mark.usefixtures("few_stages")
def test_what_is_missing_at_the_address_goes_up_again(server: Server, photos: Path) -> None:
    atlas = ia.learn(photos, ADDRESS, **OPTIONS)
    (at(server) / "map-0001" / "model.json").unlink()
    (at(server) / "skipped.csv").unlink()
    ia.learn(photos, ADDRESS, **OPTIONS)
    assert set(atlas.store.manifest.files) <= names_at(server)


def test_homes() -> None:
    assert str(home_of("~/a.atlas").place) == os.path.expanduser("~/a.atlas")
    assert str(home_of("file:///x/a.atlas").place) == "/x/a.atlas"
    with pytest.raises(InputError, match="user name or a password"):
        home_of("s3://key:hush@bucket/a.atlas")
