"""A few labels propagated to an atlas: what is kept, reported and refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from imatlas.errors import InputError, SourceError
from imatlas.tasks.classify import classify, read_labels

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray, list[str]]:
    X, y = make_blobs(120, 4, centers=3, random_state=0)
    return X.astype(np.float32), np.array(["fig", "nut", "oat"])[y], [f"{i}.png" for i in range(120)]


def test_all_get_a_label_and_given_ones_are_kept(blobs) -> None:
    X, y, keys = blobs
    given = {keys[i]: y[i] for kind in ("fig", "nut", "oat") for i in np.flatnonzero(y == kind)[:4]}
    wrong = keys[int(np.flatnonzero(y == "fig")[10])]
    given[wrong] = "oat"
    found = classify(X, keys, given, n_next=5)
    assert found.labels[keys.index(wrong)] == "oat"
    assert found.confidence[keys.index(wrong)] == 1
    others = [i for i, key in enumerate(keys) if key not in given]
    assert (found.labels[others] == y[others]).mean() > 0.97
    assert len(found.next_rows) == 5
    assert not {keys[i] for i in found.next_rows} & set(given)
    kinds, nexts = found.result.panels
    assert [row[1] for row in kinds.rows] == [4, 4, 5]
    assert sum(row[2] for row in kinds.rows) == 120
    assert [row[0] for row in nexts.rows] == [keys[i] for i in found.next_rows]
    assert "13 labels of 3 classes" in found.result.sentences[0]


def test_with_one_label_per_class_there_is_no_accuracy(blobs) -> None:
    X, y, keys = blobs
    found = classify(X, keys, {keys[int(np.flatnonzero(y == kind)[0])]: kind for kind in ("fig", "nut", "oat")})
    assert "accuracy" not in found.result.metrics
    assert "accuracy cannot be estimated" in found.result.sentences[1]


def test_labels_that_cannot_be_used_are_refused(blobs) -> None:
    X, _, keys = blobs
    with pytest.raises(InputError, match=r"1 of 2 labels is for unknown images, such as 'gone\.png'"):
        classify(X, keys, {"gone.png": "fig", keys[0]: "nut"})
    with pytest.raises(InputError, match="at least two classes"):
        classify(X, keys, {keys[0]: "nut", keys[1]: "nut"})


def test_a_file_of_labels(tmp_path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffkey, label,who\na.png,fig,me\nb.png,,me\nc.png, nut ,you\na.png,fig,you\n", encoding="utf-8")
    assert read_labels(path) == {"a.png": "fig", "c.png": "nut"}
    path.write_text("key,label\na.png,fig\na.png,nut\n")
    with pytest.raises(InputError, match=r"labels 'a\.png' both 'fig' and 'nut'"):
        read_labels(path)
    path.write_text("file,class\na.png,fig\n")
    with pytest.raises(InputError, match=r"must have the columns key and label\. Got file, class"):
        read_labels(path)
    with pytest.raises(SourceError, match="There is no file"):
        read_labels(tmp_path / "none.csv")
