import math

import pytest
import torch

from imatlas.nn.blocks import coarse_grid, stage_widths
from imatlas.nn.time_embedding import sinusoidal
from imatlas.nn.unet import ConditionalBlock, Level, SelfAttention, UNet

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(8, 8, 1), (9, 17, 5), (28, 28, 1), (30, 30, 3), (45, 64, 4), (64, 45, 2), (130, 20, 3)]


def inputs(shape, n=2):
    height, width, channels = shape
    return torch.randn(n, channels, height, width), torch.rand(n), torch.randn(n, 6)


def randomized(unet):
    """The network with random weights in place of zeros, which hide the layers before them."""
    with torch.no_grad():
        for weight in unet.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return unet


@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_is_kept_and_every_weight_gets_a_gradient(shape):
    x, t, condition = inputs(shape)
    velocity = randomized(UNet(shape, 16, 1, 6))(x, t, condition)
    assert velocity.shape == x.shape
    unet = randomized(UNet(shape, 16, 2, 6))
    (unet(x, t, condition) - x).square().mean().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_network_returns_zero_and_gets_a_gradient(shape):
    x, t, condition = inputs(shape)
    unet = UNet(shape, 16, 1, 6)
    velocity = unet(x, t, condition)
    assert velocity.abs().max() == 0
    (velocity - x).square().mean().backward()
    assert unet.head.weight.grad.any()


@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 9, 3), (28, 28, 1), (33, 70, 2)])
def test_every_pixel_depends_on_every_pixel(shape):
    x, t, condition = inputs(shape, 1)
    unet = randomized(UNet(shape, 16, 1, 6))
    x.requires_grad_()
    unet(x, t, condition)[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


def test_time_and_condition_change_the_velocity_and_other_images_do_not():
    x, t, condition = inputs((16, 16, 3), 3)
    unet = randomized(UNet((16, 16, 3), 16, 1, 6))
    with torch.no_grad():
        velocity = unet(x, t, condition)
        assert (unet(x, t + 0.1, condition) != velocity).any()
        assert (unet(x, t, condition + 1) != velocity).any()
        assert torch.allclose(unet(x[1:2], t[1:2], condition[1:2]), velocity[1:2], atol=1e-5)


@pytest.mark.parametrize("size", [8, 9, 16, 31, 32, 64, 100, 256])
def test_attention_is_on_the_coarsest_grid_only(size):
    unet = UNet((size, size + 3, 3), 16, 1, 6)
    level, depth = unet.level, 1
    while isinstance(level.inner, Level):
        level, depth = level.inner, depth + 1
    assert isinstance(level.inner, SelfAttention)
    assert sum(isinstance(m, SelfAttention) for m in unet.modules()) == 1
    assert depth == len(stage_widths(size, size + 3, 16))
    assert 4 <= coarse_grid(size, size + 3, depth)[0] <= 8


def test_a_new_block_is_the_identity():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ConditionalBlock(8, 3)(x, torch.randn(2, 3)), x)
    assert not SelfAttention(8)(x, torch.randn(2, 3)).any()


def test_attention_is_the_softmax_of_scalar_products():
    attention = randomized(SelfAttention(4)).double()
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    rows = attention.norm(x).reshape(2, 4, 6).transpose(1, 2)
    q, k, v = (part.reshape(2, 6, 4, 1) for part in attention.qkv(rows).chunk(3, dim=2))
    taken = torch.zeros(2, 6, 4, dtype=torch.float64)
    for n in range(2):
        for head in range(4):
            weights = (q[n, :, head] @ k[n, :, head].T / math.sqrt(1)).softmax(1)
            taken[n, :, head] = (weights @ v[n, :, head])[:, 0]
    expected = (taken @ attention.out.weight.T + attention.out.bias).transpose(1, 2).reshape(2, 4, 3, 2)
    assert torch.allclose(attention(x, None), expected)


@pytest.mark.parametrize("width", [7, 8, 32])
def test_time_embeddings_are_distinct(width):
    t = torch.tensor([0.0, 0.001, 0.5, 1.0])
    waves = sinusoidal(t, width)
    assert waves.shape == (4, width)
    assert waves.dtype == torch.float32
    half = (width + 1) // 2
    assert torch.allclose(waves[:, 0], torch.cos(1000 * t), atol=1e-4)
    assert torch.allclose(waves[:, half], torch.sin(1000 * t), atol=1e-4)
    assert torch.allclose(waves[0, :half], torch.ones(half))
    assert torch.cdist(waves, waves).fill_diagonal_(1).min() > 0.1
    slowest = 1000 * 10_000 ** (-(half - 1) / half)
    assert torch.allclose(waves[:, half - 1], torch.cos(slowest * t), atol=1e-4)
