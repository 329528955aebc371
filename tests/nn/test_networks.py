import pytest
import torch

from imatlas.nn.blocks import ResidualBlock, coarse_grid, pad_to, stage_widths
from imatlas.nn.condition import Condition
from imatlas.nn.decoder import Decoder
from imatlas.nn.discriminator import Discriminator
from imatlas.nn.encoder import Encoder
from imatlas.nn.generator import ImageGenerator

SHAPES = [(8, 8, 1), (9, 17, 5), (28, 28, 1), (30, 30, 3), (45, 64, 4), (64, 45, 2), (130, 20, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_and_decoder_take_any_size(shape):
    height, width, channels = shape
    encoder, decoder = Encoder(shape, 6, width=32), Decoder(shape, 6, width=32)
    x = torch.randn(2, channels, height, width)
    z = encoder(x)
    assert z.shape == (2, 6)
    x_hat = decoder(z)
    assert x_hat.shape == x.shape
    with torch.no_grad():
        for module in (*encoder.modules(), *decoder.modules()):
            if isinstance(module, ResidualBlock):  # starts as the identity, which would hide its first convolution
                module.conv_out.weight.normal_(std=0.1)
    (decoder(encoder(x)) - x).square().mean().backward()
    for module in (encoder, decoder):
        assert all(p.grad is not None and (p.grad != 0).any() for p in module.parameters())


@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 9, 3), (28, 28, 1), (33, 70, 2)])
def test_every_pixel_counts(shape):
    height, width, channels = shape
    encoder, decoder = Encoder(shape, 4, width=32), Decoder(shape, 4, width=32)
    x = torch.randn(1, channels, height, width, requires_grad=True)
    encoder(x).square().sum().backward()
    assert (x.grad != 0).all()
    x_hat, other = decoder(torch.zeros(1, 4)), decoder(torch.ones(1, 4))
    assert (x_hat != other).float().mean() > 0.99


def test_stages_leave_four_to_eight_pixels():
    for size in range(8, 300):
        widths = stage_widths(size, size + 30, 64)
        grid = coarse_grid(size, size + 30, len(widths))
        assert 4 <= grid[0] <= 8
        assert widths[-1] == 64
        assert widths == sorted(widths)
        assert grid[0] * 2 ** len(widths) >= size


@pytest.mark.parametrize("size", [16, 64])
def test_a_new_decoder_draws_no_grid(size):
    """Features that are equal everywhere give an image that is, away from its border."""
    decoder = Decoder((size, size, 3), 4)
    features = torch.randn(2, 64, 1, 1).expand(-1, -1, *decoder.grid)
    x = decoder.last(torch.nn.functional.silu(decoder.stages(features)))
    inner = x[:, :, size // 3 : -(size // 3), size // 3 : -(size // 3)]
    assert x.detach().std() > 1e-2
    assert torch.allclose(inner, inner.mean((2, 3), keepdim=True), atol=1e-5)


def test_a_new_block_is_the_identity():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8)(x), x)


def test_padding_repeats_the_border():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to(x, 4, 4)[0, 0]
    assert padded[:, 3].tolist() == [2.0, 5.0, 5.0, 5.0]
    assert pad_to(x, 2, 3) is x


@pytest.mark.parametrize("shape", [*SHAPES, (256, 160, 3)])
def test_generator_and_discriminator_take_any_size(shape):
    height, width, channels = shape
    generator = ImageGenerator(shape, 6, Condition(3, 0, 16), width=16)
    discriminator = Discriminator(shape, Condition(3, 0, 16), width=16)
    y = torch.tensor([0, 2])
    x = generator(torch.randn(2, 6), y)
    assert x.shape == (2, channels, height, width)
    logit = discriminator(x, y)
    assert logit.shape == (2,)
    (logit[0] - logit[1]).backward()
    for module in (generator, discriminator):
        got = {name for name, p in module.named_parameters() if p.grad is not None and (p.grad != 0).any()}
        # a block starts as the identity, which hides its first convolution; with labels the null embedding is unused
        assert {name for name, _ in module.named_parameters()} - got <= {
            name for name, _ in module.named_parameters() if "conv_in" in name or name == "condition.null"
        }


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 70, 2)])
def test_a_discriminator_depends_on_every_pixel_and_the_condition(shape):
    height, width, channels = shape
    discriminator = Discriminator(shape, Condition(0, 5, 16), width=16)
    x = torch.randn(1, channels, height, width, requires_grad=True)
    y = torch.randn(1, 5, requires_grad=True)
    discriminator(x, y).sum().backward()
    assert (x.grad != 0).all()
    assert (y.grad != 0).all()


def test_a_generator_depends_on_noise_and_condition():
    generator = ImageGenerator((12, 12, 1), 4, Condition(2, 0, 16), width=16)
    z, y = torch.randn(2, 4), torch.tensor([0, 1])
    x = generator(z[:1], y[:1])
    assert not torch.equal(x, generator(z[1:], y[:1]))
    assert not torch.equal(x, generator(z[:1], y[1:]))
