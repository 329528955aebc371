import numpy as np
import torch
from torch import nn

from imatlas import seeding


def test_more_rows_of_noise_change_no_earlier_one():
    many = seeding.noise(5, 40, 3)
    assert np.array_equal(seeding.noise(5, 4, 3), many[:4])
    assert seeding.noise(5, 0, 3).shape == (0, 3)
    assert not np.array_equal(seeding.noise(6, 4, 3), many[:4])


def test_noise_is_standard_normal():
    draws = seeding.noise(0, 4000, 2)
    assert abs(draws.mean()) < 0.05
    assert abs(draws.std() - 1) < 0.05


def test_what_a_draw_is_for_decides_it():
    assert len({seeding.seed_of(0, "step", i) for i in range(1000)} | {seeding.seed_of(0, "epoch", 1)}) == 1001
    first, second = (torch.rand(4, generator=seeding.generator(0, "a")) for _ in range(2))
    assert torch.equal(first, second)


def test_seeded_init_leaves_the_global_generator():
    before = torch.random.get_rng_state()
    with seeding.seeded_init(3):
        first = nn.Linear(4, 4).weight
    torch.rand(5)
    torch.random.set_rng_state(before)
    with seeding.seeded_init(3):
        second = nn.Linear(4, 4).weight
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
