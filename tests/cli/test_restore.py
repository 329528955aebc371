"""Commands that restore images, and what they say about saved models."""

import json

import pytest

from imatlas.cli import main


@pytest.mark.parametrize(
    ("command", "option"), [("denoise", "--preview"), ("denoise", "--error-map"), ("inpaint", "--samples=2")]
)
def test_what_makes_more_files_needs_a_folder(command, option, atlas, tmp_path, capsys):
    photos = str(atlas.parent / "photos")
    assert main([command, photos, "-o", str(tmp_path / "one.png"), option]) == 2
    assert "needs a folder as output" in " ".join(capsys.readouterr().err.split())
    assert not any(tmp_path.iterdir())


def test_info_tells_what_a_saved_model_is(atlas, tmp_path, capsys):
    photos = str(atlas.parent / "photos")
    assert main(["denoise", photos, "-o", str(tmp_path / "clean"), "--budget", "1s"]) == 0
    assert main(["fit", "kmeans", photos, "--n-clusters", "3", "-o", str(tmp_path / "kmeans")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "clean" / "model")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Denoiser, fitted to 8-bit" in told
    assert "Noise: standard deviation" in told
    assert "budget 1s" in told
    assert main(["info", str(tmp_path / "kmeans"), "--json"]) == 0
    assert "KMeans, fitted to" in json.loads(capsys.readouterr().out)["sentences"][0]
    assert main(["info", photos]) == 1
