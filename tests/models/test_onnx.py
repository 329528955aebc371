"""ONNX files: results, metadata, and removal of files that differ."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from imatlas import seeding
from imatlas.cli import main
from imatlas.errors import ArtifactError, InputError, MissingExtraError
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.autoencoder import Autoencoder
from imatlas.models.flow_matching import FlowMatching
from imatlas.models.gan import GAN
from imatlas.models.kmeans import KMeans
from imatlas.models.onnx import N_CHECKED, TOLERANCE, Network, _compare, export_onnx, require_onnx
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.models.vae import VAE
from imatlas.nn.condition import Condition
from imatlas.nn.time_embedding import sinusoidal
from imatlas.testing import synthetic_images
from imatlas.training.batches import make_batch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def onnxruntime():
    """Skip if the extra is not installed; `make test` installs it."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    return pytest.importorskip("onnxruntime")


def session(onnxruntime, path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return synthetic_images(24, size=(9, 12), channels=3, dtype="uint16", random_state=0)


@pytest.fixture(scope="module")
def vae(images) -> VAE:
    return VAE(latent_dim=3, size="small", likelihood="bernoulli", max_steps=20, progress=False).fit(images)


@pytest.fixture(scope="module")
def exported(onnxruntime, vae, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "vae-onnx"
    return export_onnx(vae, folder), folder


class Halves:
    """A model of one small network; `flaw` is added in its file only."""

    def __init__(self, flaw: float = 0.0) -> None:
        self.flaw = flaw

    def _check_fitted(self) -> None:
        pass

    def _networks(self) -> dict[str, Network]:
        def call(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            return module(x) * (1 + self.flaw if torch.compiler.is_exporting() else 1)

        layer = torch.nn.utils.skip_init(torch.nn.Linear, 4, 2, bias=False)  # without random initialization
        torch.nn.init.constant_(layer.weight, 0.5)
        x = torch.linspace(-1, 1, 4 * N_CHECKED).reshape(-1, 4)
        contract = {"input x": "float32 (N, 4)", "output y": "float32 (N, 2)"}
        return {"halves": Network(layer, call, {"x": x}, "y", contract)}


def test_both_networks_are_written_and_verified(exported) -> None:
    done, folder = exported
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    for part, one in done.items():
        assert one.path == folder / f"{part}.onnx"
        assert one.n_checked == N_CHECKED
        assert 0 <= one.difference <= TOLERANCE * one.largest
        assert one.largest > 0


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_images_gives_the_results_of_the_model(onnxruntime, exported, vae, images, n) -> None:
    """From pixels to pixels, as the metadata of the file describes."""
    _, folder = exported
    encoder, decoder = (session(onnxruntime, folder / f"{part}.onnx") for part in ("encoder", "decoder"))
    x = (2 * (images[:n] - vae.spec_.low) / (vae.spec_.high - vae.spec_.low) - 1).astype(np.float32)
    [z] = encoder.run(None, {"images": x.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(z, vae.transform(images[:n]), atol=1e-5)
    [x_hat] = decoder.run(None, {"z": z})
    assert x_hat.shape == (n, 3, 9, 12)
    rebuilt = to_pixels(torch.from_numpy(x_hat), vae.spec_).astype(float)
    assert np.abs(rebuilt - vae.inverse_transform(z)).max() <= 1e-4 * 65535


def test_metadata_describes_the_network_and_nothing_of_this_machine(onnxruntime, exported, vae) -> None:
    _, folder = exported
    encoder = session(onnxruntime, folder / "encoder.onnx")
    said = encoder.get_modelmeta().custom_metadata_map
    assert said["class"] == "VAE"
    assert said["network"] == "encoder"
    assert said["library"].startswith("imatlas ")
    assert "(N, 3, 9, 12)" in said["input images"]
    assert f"(v - {vae.spec_.low:.9g}) / (" in said["input images"]
    assert "(N, 3)" in said["output z"]
    assert [(i.name, i.shape) for i in encoder.get_inputs()] == [("images", ["N", 3, 9, 12])]
    assert [(o.name, o.shape) for o in encoder.get_outputs()] == [("z", ["N", 3])]
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in (Path(torch.__file__).parents[1], Path(__file__).parents[2], Path.home()):
            assert str(place).encode() not in content


def test_a_changed_weight_is_found(onnxruntime, exported, vae, tmp_path) -> None:
    import onnx

    _, folder = exported
    graph = onnx.load(folder / "decoder.onnx")
    network = vae._networks()["decoder"]
    planted = next(w for w in graph.graph.initializer if len(w.dims) == 4)
    weights = onnx.numpy_helper.to_array(planted).copy()
    weights[0, 0, 0, 0] += 1.0
    planted.CopyFrom(onnx.numpy_helper.from_array(weights, planted.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    right, largest = _compare(network, folder / "decoder.onnx")
    wrong, _ = _compare(network, tmp_path / "wrong.onnx")
    assert right <= TOLERANCE * largest < wrong


def test_a_file_that_differs_is_removed(onnxruntime, tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"file of the halves differs .* It was removed"):
        export_onnx(Halves(flaw=0.01), tmp_path / "new" / "halves")
    assert not list((tmp_path / "new").iterdir())
    near = export_onnx(Halves(flaw=0.01), tmp_path / "halves.onnx", tolerance=0.1)["halves"]
    assert near.difference == pytest.approx(0.01 * near.largest, rel=1e-3)
    before = near.path.read_bytes()
    with pytest.raises(ArtifactError, match="differs"):
        export_onnx(Halves(flaw=float("nan")), near.path, overwrite=True)
    assert near.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["halves.onnx", "new"]


def test_only_an_earlier_export_is_replaced(onnxruntime, tmp_path, vae) -> None:
    file, folder = tmp_path / "a.onnx", tmp_path / "photos"
    file.write_bytes(b"earlier")
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"precious")
    with pytest.raises(ArtifactError, match=r"already exists"):
        export_onnx(Halves(), file)
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match=r"not an earlier export" if overwrite else r"already exists"):
            export_onnx(vae, folder, overwrite=overwrite)
    (folder / "one.jpg").rename(folder / "encoder.onnx")
    with pytest.raises(ArtifactError, match=r"'encoder\.onnx' in it was not written by imatlas"):
        export_onnx(vae, folder, overwrite=True)
    assert (folder / "encoder.onnx").read_bytes() == b"precious"
    export_onnx(vae, tmp_path / "vae")
    export_onnx(vae, tmp_path / "vae", overwrite=True)
    with pytest.raises(InputError, match=r"2 networks \(encoder, decoder\)"):
        export_onnx(vae, tmp_path / "vae.onnx")


def test_export_is_deterministic_and_leaves_random_states_and_settings_unchanged(onnxruntime, tmp_path) -> None:
    logger = logging.getLogger("torch.onnx")
    before, level = torch.random.get_rng_state(), logger.level
    export_onnx(Halves(), tmp_path / "a.onnx")
    export_onnx(Halves(), tmp_path / "b.onnx")
    assert torch.equal(before, torch.random.get_rng_state())
    assert level == logger.level
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_autoencoder_from_the_command_line(onnxruntime, tmp_path, capsys) -> None:
    images = synthetic_images(16, size=8, random_state=0)
    model = Autoencoder(latent_dim=2, size="small", max_steps=3, progress=False).fit(images)
    model.save(tmp_path / "ae")
    command = ["export", str(tmp_path / "ae"), "-o", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert 0 <= said["metrics"]["largest difference, decoder"] < 1e-4
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    files = said["files"]
    [z] = session(onnxruntime, Path(files["encoder"])).run(None, {"images": make_batch(images, model.spec_).x.numpy()})
    np.testing.assert_allclose(z, model.transform(images), atol=1e-5)


def test_a_model_without_a_network_says_so(tmp_path, capsys) -> None:
    KMeans(n_clusters=2).fit(np.eye(4, dtype=np.float32)).save(tmp_path / "kmeans")
    assert main(["export", str(tmp_path / "kmeans"), "-o", str(tmp_path / "out")]) == 1
    assert "KMeans has no network to export" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": 3},
        {},
        {"normalize": False},
        {"layers": "many"},
        {"layers": "both", "views": 2, "n_components": 3},
        {"layers": "many", "views": 2, "normalize": False, "n_components": 3},
        {"layers": "many", "views": 3, "rotation_invariant": True, "n_components": 3, "whiten": 0.5},
    ],
)
def test_an_exported_pretrained_encoder_equals_transform(options) -> None:
    """Without writing a file, which takes ten seconds for this network."""
    side = 32 if options.get("views", 1) == 1 else 48  # several views are cropped from larger images
    images = synthetic_images(8, size=side, channels=3)
    model = PretrainedEncoder(image_size=32, **options).fit(images)
    [network] = model._networks().values()
    with torch.inference_mode():
        features = network(make_batch(images, ImageSpec(side, side, 3)).x).numpy()
    np.testing.assert_allclose(features, model.transform(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_times_and_labels_are_inputs_of_any_number(onnxruntime, tmp_path, fixed) -> None:
    labels = Condition(3, 0, 4)
    torch.nn.init.constant_(labels.embed.weight, 0.5)
    inputs = {"t": torch.linspace(0, 1, N_CHECKED), "y": torch.arange(N_CHECKED) % 3}

    class Labeled(Halves):
        def _networks(self) -> dict[str, Network]:
            def call(module: torch.nn.Module, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return sinusoidal(t, 4) + module(y, len(t) if fixed else t.shape[0])

            return {"labels": Network(labels, call, inputs, "vectors", {})}

    if fixed:  # while it is written, `len` is the number 2
        with pytest.raises(ArtifactError, match=r"file of the labels does not run .* It was removed"):
            export_onnx(Labeled(), tmp_path / "labels.onnx")
        assert not list(tmp_path.iterdir())
        return
    done = export_onnx(Labeled(), tmp_path / "labels.onnx")["labels"]
    assert 0 <= done.difference <= TOLERANCE * done.largest
    got = session(onnxruntime, done.path)
    assert [i.name for i in got.get_inputs()] == ["t", "y"]
    [one] = got.run(None, {"t": np.array([0.25], np.float32), "y": np.array([2])})
    np.testing.assert_allclose(one, sinusoidal(torch.tensor([0.25]), 4).numpy() + 0.5, atol=1e-5)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_the_error_names_the_extra(monkeypatch, tmp_path, vae, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'imatlas\[onnx\]'"):
        export_onnx(vae, tmp_path / "out")
    with pytest.raises(MissingExtraError):
        require_onnx()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["free", "labels", "vectors"])
def test_a_conditional_gan_is_exported_with_its_condition(onnxruntime, kind, tmp_path) -> None:
    images = synthetic_images(24, size=(9, 12), channels=3, random_state=0)
    labels = np.arange(24) % 3 * 5
    y = {"free": None, "labels": labels, "vectors": np.stack([labels, labels**2 + 1.0], axis=1)}[kind]
    model = GAN(latent_dim=3, max_steps=2, progress=False).fit(images, y)
    done = export_onnx(model, tmp_path / "gan.onnx")["generator"]
    assert done.difference <= TOLERANCE * done.largest
    z = seeding.noise(5, 2, 3)
    asked = {} if y is None else {"y": np.array([2, 0]) if kind == "labels" else y[[2, 0]].astype(np.float32)}
    (out,) = session(onnxruntime, tmp_path / "gan.onnx").run(None, {"z": z, **asked})
    expected = model.sample(2, y=None if y is None else y[[2, 0]], random_state=5)
    made = to_pixels(torch.from_numpy(out), model.spec_)
    assert np.abs(made.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("over", ["vectors", "pixels"])
def test_a_flow_is_exported_as_velocity_and_decoder(onnxruntime, over, tmp_path) -> None:
    images = synthetic_images(40, size=16, random_state=0)
    labels = np.arange(40) % 2
    inner = Autoencoder(latent_dim=4, size="small", max_steps=20, progress=False) if over == "vectors" else None
    model = FlowMatching(autoencoder=inner, max_steps=10, batch_size=16, progress=False).fit(images, labels)
    done = export_onnx(model, tmp_path / "flow")
    assert set(done) == ({"velocity", "decoder"} if inner else {"velocity"})
    x = seeding.noise(5, 3, model.n_noise)
    x = x if inner else x.reshape(3, 1, 16, 16)
    velocity = session(onnxruntime, tmp_path / "flow" / "velocity.onnx")
    for i in range(4):  # four Euler steps, as the contract describes
        t = np.full(3, i / 4, np.float32)
        x = x + 0.25 * velocity.run(None, {"x": x, "t": t, "d": np.zeros(3, np.float32), "y": np.array([0, 1, 1])})[0]
    if inner:
        (x,) = session(onnxruntime, tmp_path / "flow" / "decoder.onnx").run(None, {"x": x})
    made = to_pixels(torch.from_numpy(x), model.spec_)
    expected = model.sample(3, y=[0, 1, 1], solver="euler", n_steps=4, random_state=5)
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_only_unchanged_files_of_an_export_are_replaced(onnxruntime, tmp_path, vae) -> None:
    import onnx

    folder = tmp_path / "vae"
    export_onnx(vae, folder)
    model = onnx.load(folder / "encoder.onnx")
    assert "imatlas-sha256" in {entry.key for entry in model.metadata_props}
    onnx.checker.check_model(model)
    written = (folder / "encoder.onnx").read_bytes()
    for mine, content in (
        ("my-quantized-2023.onnx", written),
        ("notes.onnx", b"about the library imatlas 1.0"),
        ("encoder.onnx", model.SerializeToString()[:-1] + b"f"),
    ):
        (folder / mine).write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"'{mine}' in it was not written by imatlas"):
            export_onnx(vae, folder, overwrite=True)
        assert (folder / mine).read_bytes() == content
        (folder / mine).unlink()
    (folder / "encoder.onnx").write_bytes(written)
    export_onnx(vae, folder, overwrite=True)
    with pytest.raises(ArtifactError, match="already exists"):
        export_onnx(vae, folder / "x" / ".." / ".." / "vae")
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
