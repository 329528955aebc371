"""The server of the studio: the verbs of an atlas, decisions that last, and nobody else's requests."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas.studio.jobs import Job, Jobs
from tests.studio.conftest import Studio


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_the_overview_agrees_with_the_atlas(studio: Studio) -> None:
    found, atlas = studio.json("/api/atlas"), ia.Atlas(studio.folder)
    assert found["n_images"] == len(atlas) == 60
    assert sum(cluster["size"] for cluster in found["clusters"]) == 60
    assert found["undo"] is None
    assert found["can"]["create"]
    clusters = np.frombuffer(studio.ask("/api/columns/cluster")[1], "<f4")
    assert np.array_equal(clusters, atlas.table()["cluster"].to_numpy())
    assert studio.ask("/api/columns/nothing")[0] == 404


@pytest.mark.parametrize("layout", ["map", "similarity"])
def test_tiles_show_the_images_at_their_places(studio: Studio, layout: str) -> None:
    about = next(each for each in studio.json("/api/atlas")["layouts"] if each["name"] == layout)
    content = studio.ask(f"/api/layouts/{layout}")[1]
    (n,) = np.frombuffer(content[:4], "<u4")
    rows = np.frombuffer(content[4 : 4 + 4 * n], "<u4")
    xy = np.frombuffer(content[4 + 4 * n :], "<f4").reshape(n, 2)
    assert n == 60
    z, seen = about["max_zoom"] - 3, 0
    for row, (x, y) in zip(rows, xy, strict=True):
        status, tile, _ = studio.ask(f"/api/tiles/{layout}/{z}/{int(x * 2**z / 512)}/{int(y * 2**z / 512)}")
        assert status == 200
        drawn = np.asarray(picture(tile).convert("RGB"), float)
        px, py = (int(value * 2**z % 512) for value in (x, y))
        middle = drawn[py - 16 : py + 16, px - 16 : px + 16].mean((0, 1))
        whole = picture(studio.ask(f"/api/thumbnails/{row}")[1]).convert("RGB").resize((64, 64))
        seen += bool(np.abs(middle - np.asarray(whole, float)[16:48, 16:48].mean((0, 1))).max() < 12)
    assert seen == n if layout == "map" else seen >= 0.75 * n  # scattered images may hide others
    assert studio.ask(f"/api/tiles/{layout}/30/0/0")[0] == 404
    for level in range(about["max_zoom"] + 1):
        assert studio.ask(f"/api/tiles/{layout}/{level}/0/0")[0] in (200, 204)


def test_lists_are_sorted_filtered_and_paged(studio: Studio) -> None:
    scores = [each["outlier"] for each in studio.json("/api/images?sort=outlier&descending=true&limit=60")["images"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 60
    assert [each["key"] for each in studio.json("/api/images?offset=10&limit=2")["images"]] == ["10.png", "11.png"]
    assert studio.json("/api/images?text=0.PNG")["total"] == 6
    assert studio.json("/api/images?rows=3,5")["total"] == 2
    assert studio.ask("/api/images?rows=60")[0] == 404
    assert studio.ask("/api/images?sort=secret")[0] == 422


def test_an_image_with_its_neighbors_and_its_original(studio: Studio, folder: Path) -> None:
    found = studio.json("/api/images/4")
    assert (found["key"], found["width"], found["height"]) == ("04.png", 90, 96)
    assert found["neighbors"][0]["key"] == "59.png"
    assert found["path"] == str(folder / "04.png")
    _, content, headers = studio.ask("/api/pictures/4?side=1000")
    assert (picture(content).size, headers["x-original"]) == ((90, 96), "yes")
    assert studio.ask("/api/images/60")[0] == studio.ask("/api/images/-1")[0] == 404
    assert picture(studio.ask("/api/images/4/why")[1]).size[0] > 8


def test_search_by_row_region_examples_and_upload(studio: Studio, folder: Path) -> None:
    found = studio.json("/api/search", {"row": 4, "k": 5})["results"]
    assert [found[0]["key"], len(found)] == ["59.png", 5]
    near = studio.json("/api/search", {"row": 4, "region": [0, 0, 60, 60], "k": 5})["results"]
    assert near[0]["key"] != "04.png"
    kinds = {each["row"] % 2 for each in studio.json("/api/search", {"like": [0, 2], "unlike": [1], "k": 5})["results"]}
    assert kinds == {0}
    raw = {"content-type": "application/octet-stream"}
    sent = json.loads(studio.ask("/api/uploads", (folder / "07.png").read_bytes(), headers=raw)[1])
    assert (sent["width"], sent["height"]) == (90, 96)
    assert studio.json("/api/search", {"upload": sent["id"], "k": 1})["results"][0]["key"] == "07.png"
    assert picture(studio.ask(f"/api/uploads/{sent['id']}")[1]).size == (90, 96)
    status, content, _ = studio.ask("/api/uploads", b"no image", headers=raw)
    assert status == 400
    assert "no image that can be read" in json.loads(content)["error"]
    assert studio.ask("/api/search", {"row": 4, "region": [80, 0, 60, 60]})[0] == 400
    assert studio.ask("/api/search", {})[0] == 400


def test_labels_are_undone_redone_and_last(studio: Studio, opened: Callable[..., Studio]) -> None:
    found = studio.json("/api/decisions", {"kind": "label", "rows": [0, 2, 4], "value": "cat"})
    assert found["labels"] == [{"label": "cat", "count": 3}]
    assert found["undo"] == "label 3 images 'cat'"
    studio.json("/api/decisions", {"kind": "label", "rows": [1, 3], "value": "coffee"})
    studio.json("/api/decisions", {"kind": "leave_out", "rows": [5], "value": True})
    studio.json("/api/decisions", {"kind": "name", "cluster": 0, "value": "first"})
    assert studio.json("/api/undo", {})["clusters"][0]["name"] == "cluster 0"
    assert studio.json("/api/redo", {})["clusters"][0]["name"] == "first"
    again = opened(studio.folder)
    assert again.json("/api/atlas")["labels"] == [{"label": "cat", "count": 3}, {"label": "coffee", "count": 2}]
    assert again.json("/api/images?left_out=true")["images"][0]["key"] == "05.png"
    table = again.ask("/api/export?format=csv")[1].decode("utf-8-sig").splitlines()
    assert table[1].startswith("00.png,cat,False,")
    assert again.ask("/api/export?format=list&label=coffee")[1] == b"01.png\n03.png\n"
    asked = again.json("/api/export", {"rows": [3, 0], "format": "list"})["id"]
    assert again.ask(f"/api/export/{asked}")[1] == b"03.png\n00.png\n"
    assert "predicted" not in again.json("/api/images/1")
    assert again.ask("/api/columns/predicted")[0] == 404
    spread = again.json("/api/propagate", {"n_next": 3})
    described = {each["name"]: each for each in spread["atlas"]["columns"]}
    assert described["predicted"]["values"] == [each["label"] for each in spread["labels"]]
    shown = np.frombuffer(again.ask("/api/columns/predicted")[1], "<f4")
    assert shown.tolist() == spread["label_of"]
    sure = np.frombuffer(again.ask("/api/columns/predicted_confidence")[1], "<f4")
    assert np.allclose(sure, spread["confidence"], atol=1e-4)
    one = again.json("/api/images/1")
    assert one["predicted"] == spread["labels"][spread["label_of"][1]]["label"]
    table = again.ask("/api/export?format=csv&rows=1")[1].decode("utf-8-sig").splitlines()
    assert table[0].endswith(",predicted,predicted_confidence")
    assert table[1].endswith(f",{one['predicted']},{one['predicted_confidence']}")
    right = sum(
        spread["labels"][label]["label"] == ("cat", "coffee")[row % 2] for row, label in enumerate(spread["label_of"])
    )
    assert right >= 57  # 59.png is a cat
    assert len(spread["next"]) == 3
    for _ in range(4):
        state = again.json("/api/undo", {})
    assert state["labels"] == []
    assert again.ask("/api/undo", {})[0] == 400


def last_event(studio: Studio, job: str) -> Any:
    return json.loads(studio.ask(f"/api/jobs/{job}/events")[1].decode().split("\n\n")[-2].removeprefix("data: "))


def result(studio: Studio, job: str) -> Any:
    """What a job has made."""
    last = last_event(studio, job)
    assert last["state"] == "done", last
    return last["result"]


def test_a_short_job_does_not_wait_for_a_long_one() -> None:
    jobs, gate, steps = Jobs(), threading.Event(), threading.Event()

    def endless(job: Job) -> dict[str, Any]:
        steps.set()
        while True:
            gate.wait(0.01)
            job.tell("working")

    def until(job: Job, state: str) -> None:
        end = time.monotonic() + 20
        while job.state != state and time.monotonic() < end:
            time.sleep(0.01)
        assert job.state == state

    long = jobs.begin("long", endless, "long")
    assert steps.wait(20)
    waiting = jobs.start("also long", dict, "long")
    until(jobs.start("short", lambda: {"x": 1}), "done")
    assert (long.state, waiting.state) == ("running", "waiting")
    long.turn("cancelled")
    until(waiting, "done")
    jobs.close()


def test_jobs_are_followed_and_cancelled(studio: Studio) -> None:
    job = studio.json("/api/create", {"kind": "sample", "n": 1})["job"]
    result(studio, job)
    assert studio.json(f"/api/jobs/{job}", method="DELETE")["state"] == "done"
    assert studio.ask("/api/jobs/0000000000000000/events")[0] == 404


def test_duplicates_and_outliers(studio: Studio) -> None:
    found = result(studio, studio.json("/api/duplicates")["job"])
    groups = [sorted(each["key"] for each in group) for group in found["groups"]]
    assert ["04.png", "59.png"] in groups
    few, many = (studio.json(f"/api/outliers?rate={rate}")["total"] for rate in (0.01, 0.5))
    assert few <= many


def test_names_are_proposed_and_images_found_by_a_word(studio: Studio) -> None:
    assert studio.json("/api/atlas")["can"]["words"]
    found = result(studio, studio.json("/api/words")["job"])
    assert len(found["clusters"]) == len(studio.json("/api/atlas")["clusters"])
    assert "ImageNet" in found["note"]
    found = result(studio, studio.json("/api/find", {"word": "espresso", "k": 5})["job"])
    assert {each["row"] % 2 for each in found["results"]} == {1}
    assert found["names"] == ["espresso"]
    assert {each["name"] for each in found["results"]} == {"espresso"}
    job = studio.json("/api/find", {"word": "bananna"})["job"]
    assert "similar ones are banana" in last_event(studio, job)["error"]


def test_duplicates_are_moved_away_and_brought_back(opened: Callable[..., Studio], folder: Path) -> None:
    studio = opened()
    assert studio.ask("/api/duplicates/move", {"rows": [59]})[0] == 400  # nothing was looked for
    groups = result(studio, studio.json("/api/duplicates")["job"])["groups"]
    group = next(group for group in groups if {"04.png", "59.png"} <= {each["key"] for each in group})
    others = [each["row"] for each in group if not each["best"]]
    status, content, _ = studio.ask("/api/duplicates/move", {"rows": [each["row"] for each in group]})
    assert status == 400
    assert "would be moved" in json.loads(content)["error"]
    before = sorted(path.name for path in folder.iterdir())
    assert "nothing was deleted" in studio.json("/api/duplicates/move", {"rows": others})["sentences"][0]
    assert len(list(folder.iterdir())) == len(before) - len(others)
    assert opened(studio.folder).json("/api/atlas")["moved"] == sorted(others)  # also the next day
    for label, rows in (("cat", [0, 2]), ("coffee", [1, 3])):
        studio.json("/api/decisions", {"kind": "label", "rows": rows, "value": label})
    left_out = studio.json("/api/propagate", {"n_next": 3})["next"]
    studio.json("/api/decisions", {"kind": "leave_out", "rows": left_out, "value": True})
    spread = studio.json("/api/propagate", {"n_next": 3})
    assert sorted(spread["rows"]) == [row for row in range(60) if row not in others]
    assert len(spread["label_of"]) == len(spread["confidence"]) == 60 - len(others)
    assert sum(each["given"] for each in spread["labels"]) == 4 - len({0, 1, 2, 3} & set(others))
    assert spread["next"]
    assert not {0, 1, 2, 3, *left_out, *others} & set(spread["next"])
    back = studio.json("/api/duplicates/undo", {})
    assert "Restored" in back["sentences"][0]
    assert back["atlas"]["moved"] == []
    assert sorted(path.name for path in folder.iterdir()) == before
    assert studio.ask("/api/duplicates/undo", {})[0] == 400


def test_a_read_only_studio_changes_nothing(opened: Callable[..., Studio]) -> None:
    studio = opened(read_only=True)
    for path, body in (
        ("decisions", {"kind": "label", "rows": [0], "value": "x"}),
        ("undo", {}),
        ("redo", {}),
        ("duplicates/undo", {}),
    ):
        assert studio.ask(f"/api/{path}", body)[0] == 403
    assert not (studio.folder / "decisions.jsonl").exists()


def test_pages_of_other_sites_can_do_nothing(studio: Studio) -> None:
    label = {"kind": "label", "rows": [0], "value": "x"}
    assert studio.ask("/api/atlas", headers={"host": "evil.example"})[0] == 421
    assert studio.ask("/api/decisions", label, headers={"origin": "http://evil.example"})[0] == 403
    assert studio.ask("/api/decisions", label, headers={"origin": "null"})[0] == 403
    assert studio.ask("/api/decisions", label, headers={"sec-fetch-site": "cross-site"})[0] == 403
    assert (
        studio.ask("/api/pictures/0", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})[0] == 403
    )
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert studio.ask("/api/decisions", label, headers={"content-type": kind})[0] == 415
    assert studio.json("/api/atlas")["revision"] == 0
    headers = studio.ask("/")[2]
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_a_token_is_asked_for_and_kept_as_a_cookie(opened: Callable[..., Studio]) -> None:
    studio = opened(token="secret-token")
    assert studio.ask("/api/atlas")[0] == 401
    assert studio.ask("/api/atlas?token=wrong")[0] == 401
    status, _, headers = studio.ask("/?token=secret-token")
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert studio.ask("/api/atlas", headers={"cookie": cookie.partition(";")[0]})[0] == 200


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/static/"]
)
def test_only_the_files_of_the_pages_are_served(studio: Studio, path: str) -> None:
    assert studio.ask(path)[0] == 404


def test_too_long_a_body_is_refused(studio: Studio) -> None:
    raw = {"content-type": "application/octet-stream", "content-length": str(2**27)}
    assert studio.ask("/api/uploads", b"x", headers=raw)[0] == 413


def test_decisions_of_many_at_once_are_all_kept(studio: Studio) -> None:
    def decide(row: int) -> None:
        studio.json("/api/decisions", {"kind": "label", "rows": [row], "value": f"label {row}"})

    threads = [threading.Thread(target=decide, args=(row,)) for row in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studio.json("/api/atlas")["labels"]) == 20
