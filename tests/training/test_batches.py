import numpy as np
import torch

from imatlas.images.spec import ImageSpec
from imatlas.training.batches import MAX_ABS, Data, batch_rows, make_batch


def test_every_epoch_is_a_permutation_with_random_access():
    row = batch_rows(7, seed=3, start=0, size=35)
    epochs = row.reshape(5, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    for start, size in [(0, 1), (5, 4), (13, 20), (34, 1)]:
        assert np.array_equal(batch_rows(7, 3, start, size), row[start : start + size])
    assert not np.array_equal(batch_rows(7, 4, 0, 35), row)


def test_missing_infinite_and_extreme_floats_are_unknown():
    pixels = np.zeros((2, 8, 8, 1), np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1], pixels[0, 0, 2] = np.nan, np.inf, MAX_ABS * 10
    batch = make_batch(pixels, ImageSpec(8, 8, 1, "float32", -1.0, 1.0))
    assert batch.known is not None
    assert int((~batch.known).sum()) == 3
    assert torch.isfinite(batch.x).all()
    assert (batch.x[~batch.known] == 0).all()


def test_whole_images_have_no_mask():
    spec = ImageSpec(8, 8, 3)
    assert make_batch(np.zeros((2, 8, 8, 3), np.uint8), spec).known is None
    assert make_batch(np.zeros((2, 8, 8, 3), np.float32), spec).known is None


def test_the_length_of_data_is_the_number_of_training_rows():
    pixels, spec = np.zeros((10, 8, 8, 1), np.uint8), ImageSpec(8, 8, 1)
    assert len(Data(pixels, spec, pixels[:0])) == 10
    assert len(Data(pixels, spec, pixels[:2], rows=np.arange(2, 10))) == 8
