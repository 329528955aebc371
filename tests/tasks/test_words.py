"""Words for images: probabilities of the published classifier, proposals for clusters, and finding by a word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.cli import main
from imatlas.errors import InputError
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.tasks.words import Words, matching, names, words_of
from imatlas.testing import synthetic_images


def test_photographs_get_their_words() -> None:
    """The mug and the cat of scikit-image are classes of ImageNet."""
    given = [np.asarray(Image.fromarray(each).resize((224, 224))) for each in (data.coffee(), data.chelsea())]
    found = words_of(PretrainedEncoder(normalize=False).fit_transform(np.stack(given)))
    assert np.allclose(found.probabilities.sum(1, dtype=np.float64), 1, atol=0.02)
    assert found.best(0, 3)[0][0] in ("espresso", "coffee mug", "cup")
    assert found.best(1, 1)[0][0] in ("Egyptian Mau", "tabby cat", "tiger cat")
    assert found.find("espresso")[0] > found.find("espresso")[1]


def test_words_that_stand_out_are_proposed() -> None:
    probabilities = np.full((8, 1000), 1e-5, np.float16)
    probabilities[:, 7] = 0.5  # everywhere
    probabilities[:4, 3] = 0.4
    found = Words(probabilities).of_clusters(np.repeat([0, 1], 4), 3)
    assert [word for word, _ in found[0]] == [names()[3]]
    assert found[0][0][1] == pytest.approx(0.4, abs=1e-3)
    assert found[1] == found[2] == []


def test_unknown_words_are_refused_with_similar_ones() -> None:
    assert matching(" BANANA ") == [names().index("banana")]
    with pytest.raises(InputError, match="similar ones are banana"):
        matching("bananna")
    with pytest.raises(InputError, match="None of the 1,000"):
        matching(" ")


def test_an_atlas_finds_by_words_once_and_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        whole = (data.coffee(), data.chelsea())[i % 2]
        Image.fromarray(whole[i : i + 280, i : i + 400]).resize((200, 140)).save(folder / f"{i:02d}.png")
    atlas = ia.learn(folder, tmp_path / "a.atlas", budget="2s", encoder="pretrained", progress=False)
    assert main(["words", str(atlas.folder), "-o", str(tmp_path / "words.csv")]) == 0
    assert (tmp_path / "words.csv").read_text().startswith('"cluster","size","words"')
    found = atlas.find("espresso", 6)
    assert all(int(key[:2]) % 2 == 0 for key in found["key"].to_pylist())
    monkeypatch.setattr(PretrainedEncoder, "transform", None)  # not needed again
    assert ia.Atlas(atlas.folder).find("espresso", 6).equals(found)
    capsys.readouterr()
    assert main(["words", str(atlas.folder), "espresso", "-k", "2", "--json"]) == 0
    assert [row["rank"] for row in json.loads(capsys.readouterr().out)] == [1, 2]


def test_an_encoder_of_its_own_knows_no_words(tmp_path: Path) -> None:
    atlas = ia.learn(synthetic_images(8, size=16), tmp_path / "a.atlas", budget="1s", encoder="own", progress=False)
    with pytest.raises(InputError, match="knows no words"):
        atlas.words()
