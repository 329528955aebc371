"""EfficientNet-Lite0: every published tensor is used, folding is exact, photographs are classified."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch.nn import functional as F

from imatlas.models.parts.published_weights import load_checkpoint
from imatlas.nn.backbones import BATCH_NORM_EPSILON, Convolution, EfficientNetLite0, fold_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    return load_checkpoint("efficientnet-lite0")


@pytest.fixture(scope="module")
def classifier(checkpoint: dict[str, torch.Tensor]) -> EfficientNetLite0:
    network = EfficientNetLite0(n_classes=1000).eval()
    network.load_state_dict(fold_checkpoint(checkpoint, classifier=True))
    return network


def prepared(pixels: np.ndarray) -> torch.Tensor:
    """The center of a picture (H, W, 3) as network input: 224 x 224, RGB, in [-1, 1]."""
    image = Image.fromarray(pixels)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return torch.tensor(np.asarray(small)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize(
    ("name", "classes", "at_least"),
    [
        ("chelsea", [281, 282, 285], 0.8),  # tabby, tiger cat, Egyptian cat
        ("coffee", [504, 967, 968], 0.9),  # coffee mug, espresso, cup
        ("camera", [872], 0.9),  # tripod; a gray picture
    ],
)
def test_photographs_are_classified(
    classifier: EfficientNetLite0, name: str, classes: list[int], at_least: float
) -> None:
    pixels = getattr(skimage.data, name)()
    rgb = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    with torch.inference_mode():
        chances = classifier.logits(classifier(prepared(rgb))).softmax(1)[0]
    assert float(chances[classes].sum()) > at_least


def test_colors_are_red_green_blue(classifier: EfficientNetLite0) -> None:
    x = prepared(skimage.data.coffee())
    with torch.inference_mode():
        right, swapped = (classifier.logits(classifier(v)).softmax(1)[0, 967] for v in (x, x.flip(1)))
    assert right > swapped


def test_folding_equals_batch_normalization(checkpoint: dict[str, torch.Tensor]) -> None:
    state = fold_checkpoint(checkpoint)
    x = torch.rand(2, 320, 5, 5, generator=torch.Generator().manual_seed(0))
    norm = [checkpoint[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    expected = F.batch_norm(F.conv2d(x, checkpoint["_conv_head.weight"]), *norm, eps=BATCH_NORM_EPSILON)
    folded = F.conv2d(x, state["head.weight"], state["head.bias"])
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


def test_extra_and_missing_tensors_are_refused(checkpoint: dict[str, torch.Tensor]) -> None:
    with pytest.raises(KeyError, match="does not"):
        fold_checkpoint({**checkpoint, "_blocks.0._se_reduce.weight": torch.zeros(1)})
    with pytest.raises(KeyError):
        fold_checkpoint({k: v for k, v in checkpoint.items() if k != "_blocks.7._bn2.running_var"})


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [7, 8])
def test_odd_padding_goes_to_the_bottom_and_right(kernel_size: int, size: int) -> None:
    layer = Convolution(1, 1, kernel_size, stride=2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    x = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size)
    n_out = -(-size // 2)
    before = max((n_out - 1) * 2 + kernel_size - size, 0) // 2
    expected = torch.zeros(n_out, n_out)
    for i in range(n_out):
        for j in range(n_out):
            rows = [r for r in range(2 * i - before, 2 * i - before + kernel_size) if 0 <= r < size]
            columns = [c for c in range(2 * j - before, 2 * j - before + kernel_size) if 0 <= c < size]
            expected[i, j] = x[0, 0][rows][:, columns].sum()
    with torch.inference_mode():
        assert torch.equal(layer(x)[0, 0], expected)


def test_every_stage_halves_as_published(classifier: EfficientNetLite0) -> None:
    sizes = []
    hooks = [b.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:]))) for b in classifier.blocks]
    with torch.inference_mode():
        features = classifier(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert [sizes[i] for i in (0, 2, 4, 7, 10, 14, 15)] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (80, 14, 14),
        (112, 14, 14),
        (192, 7, 7),
        (320, 7, 7),
    ]
    assert features.shape == (1, 1280)


def test_logits_need_a_classifier() -> None:
    with pytest.raises(ValueError, match="n_classes"):
        EfficientNetLite0().logits(torch.zeros(1, 1280))
