"""An atlas as a service for programs."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import imatlas as ia
from imatlas.studio.batching import Batcher
from imatlas.studio.security import Guard, hosts_of
from imatlas.studio.service import service_api
from imatlas.studio.serving import listening_on


@pytest.fixture(scope="module")
def atlas(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> ia.Atlas:
    atlas = ia.Atlas(shutil.copytree(learned, tmp_path_factory.mktemp("service") / "photos.atlas"))
    keys = atlas.keys
    for label, rows in (("cat", (0, 2, 4)), ("coffee", (1, 3, 5))):
        atlas.decisions.label([keys[row] for row in rows], label)
    return atlas


@pytest.fixture(scope="module", params=["", "secret"])
def service(atlas: ia.Atlas, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Address and token of a running service."""
    listening = listening_on("127.0.0.1", 0)
    port = listening.getsockname()[1]
    hosts = None if request.param else hosts_of("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(Guard(service_api(atlas), hosts, request.param), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{port}", request.param
    server.should_exit = True
    thread.join()


def ask(service: tuple[str, str], path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    address, token = service
    given = {"content-type": "application/octet-stream", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(address + path, body, {**given, **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_images_are_judged_as_the_atlas_judges_them(service: tuple[str, str], atlas: ia.Atlas, folder: Path) -> None:
    assert ask(service, "/health")[1]["n_images"] == 60
    clusters, classified = atlas.clusters(), atlas.classify()
    for row in (0, 7, 31):
        content = (folder / atlas.keys[row]).read_bytes()
        status, found = ask(service, "/embed", content)
        assert status == 200
        features, known = np.array(found["features"]), atlas.embedding[row]
        assert features @ known / np.linalg.norm(features) / np.linalg.norm(known) > 0.999
        found = ask(service, "/search?k=5", content)[1]["images"]
        assert atlas.keys[row] == found[0]["key"]
        assert [image["distance"] for image in found] == sorted(image["distance"] for image in found)
        found = ask(service, "/classify", content)[1]
        assert found["cluster"] == clusters.labels[row]
        assert found["label"] == classified.labels[row]
        assert 0.5 < found["label_confidence"] <= 1
        found = ask(service, "/outlier?false_positive_rate=0.1", content)[1]
        score = atlas.outliers(folder / atlas.keys[row]).outlier_scores[0]
        assert found["outlier_score"] == pytest.approx(float(score), rel=0.05)
        assert found["is_outlier"] == (found["p_value"] <= 0.1)


def test_requests_that_arrive_together_get_their_own_answers(
    service: tuple[str, str], atlas: ia.Atlas, folder: Path
) -> None:
    contents = [(folder / key).read_bytes() for key in atlas.keys[:24]]
    contents[5] = b"no image"
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda content: ask(service, "/search?k=1", content), contents))
    assert answers[5][0] == 400
    assert "no image" in answers[5][1]["error"]
    for row, (status, found) in enumerate(answers):
        if row != 5:
            assert status == 200
            assert found["images"][0]["distance"] < 0.5 * float(np.median(atlas.store.spread.neighbors)) + 1e-3


def test_others_are_refused(service: tuple[str, str], folder: Path) -> None:
    content = (folder / "00.png").read_bytes()
    assert ask(service, "/embed", content, origin="http://attacker.example")[0] == 403
    assert ask(service, "/embed", content, **{"content-type": "text/plain"})[0] == 415
    assert ask(service, "/search?k=0", content)[0] == 422
    assert ask(service, "/outlier?false_positive_rate=2", content)[0] == 422
    if service[1]:
        assert ask(service, "/embed", content, host="somewhere.example")[0] == 200  # the token decides
        assert ask(service, "/embed", content, authorization="Bearer wrong")[0] == 401
        assert ask(service, "/embed", content, authorization="Bearer é")[0] == 401
    else:
        assert ask(service, "/embed", content, host="somewhere.example")[0] == 421


def test_a_guard_needs_names_or_a_token() -> None:
    with pytest.raises(ValueError, match="token"):
        Guard(None, None)  # type: ignore[arg-type]


def test_batches_are_bounded_and_a_failure_is_that_of_its_batch() -> None:
    seen: list[int] = []

    def work(items: Any) -> list[Any]:
        seen.append(len(items))
        if "bad" in items:
            raise RuntimeError("worker")
        return [ValueError(item) if item == "odd" else item * 2 for item in items]

    async def run() -> list[Any]:
        batcher = Batcher(work, most=4, wait=0.01)
        working = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*(batcher.ask(n) for n in (1, 2, "odd", 4, 5, 6)), return_exceptions=True)
        failed = await asyncio.gather(batcher.ask("bad"), return_exceptions=True)
        after = await batcher.ask(7)
        working.cancel()
        return [*found, *failed, after]

    found = asyncio.run(run())
    assert [each for each in found if isinstance(each, int)] == [2, 4, 8, 10, 12, 14]
    assert [type(each) for each in found if isinstance(each, Exception)] == [ValueError, RuntimeError]
    assert seen == [4, 2, 1, 1]
