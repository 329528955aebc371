"""Demo images without a download: random patches of twelve photographs that are installed with scikit-image.

The photographs are free of known copyright restrictions. Patches of one photograph should form a cluster. Ten
problem files as in any real folder are added: broken, misnamed, rotated, gray, 16-bit and duplicate ones.
"""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from imatlas.errors import ArtifactError, UnsafePathError
from imatlas.images.decode import resize_pixels
from imatlas.images.encode import encode
from imatlas.system.atomic_io import is_link, within, write_file, write_folder
from imatlas.system.inventory import entry_of, read_json

PATCHES_PER_PHOTO = 76

# Name of the patches -> name in `skimage.data`, and the colors of black and white for gray photographs.
_PHOTOS: dict[str, tuple[str, tuple[str, str] | None]] = {
    "astronaut": ("astronaut", None),
    "brick": ("brick", ("#3a1710", "#e9a27c")),
    "cat": ("chelsea", None),
    "coffee": ("coffee", None),
    "coins": ("coins", ("#1d140a", "#f3dc9c")),
    "galaxies": ("hubble_deep_field", None),
    "grass": ("grass", ("#0d1f0c", "#c3df8a")),
    "gravel": ("gravel", ("#17171c", "#e4ddd3")),
    "moon": ("moon", ("#05070f", "#d7e0ee")),
    "retina": ("retina", None),
    "rocket": ("rocket", None),
    "tissue": ("immunohistochemistry", None),
}


def write_demo_images(folder: str | Path, random_state: int = 0, *, listed: Path | None = None) -> Path:
    """Write the demo images: 912 patches of 12 photographs ("coffee-0012.jpg") and 10 problem files ("problem-…").

    Parameters
    ----------
    folder : path
        The folder to create. One that already contains exactly these files is left unchanged.
    random_state : int
        Seed of the positions, scales and flips.
    listed : path, optional
        A file that lists the images with their hashes. It is written here, and lets the next call replace exactly these
        files, for example with those of another seed.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ArtifactError
        If the folder contains anything else.
    """
    folder = Path(folder)
    files = demo_files(random_state)
    if _holds(folder, files):
        return folder
    replaced = {} if listed is None else _unchanged(folder, listed)
    if folder.exists() and not replaced and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"'{folder}' already exists and contains other files; choose another folder for the demo.")

    def write(aside: Path) -> None:
        for name, content in files.items():
            (aside / name).write_bytes(content)
        if listed is not None:  # lists both, because a killed run may leave either
            _list(listed, [*replaced.items(), *hashes])

    hashes = [(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()]
    write_folder(folder, write, replaces=replaced)
    if listed is not None:
        _list(listed, hashes)
    return folder


def _holds(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether a folder contains exactly these files."""
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    if found.keys() != files.keys():
        return False
    return all(
        not is_link(path) and path.is_file() and path.read_bytes() == files[name] for name, path in found.items()
    )


def _list(listed: Path, hashes: list[tuple[str, str]]) -> None:
    about = "Images of the imatlas demo that --overwrite may replace."
    write_file(listed, (json.dumps({"about": about, "files": hashes}, indent=1) + "\n").encode())


def _unchanged(folder: Path, listed: Path) -> dict[str, str]:
    """The listed files that exist and have the listed hash: name -> hash."""
    try:
        pairs = _Listed.model_validate(read_json(listed)).files
    except FileNotFoundError:
        return {}
    except ValidationError:
        raise ArtifactError(f"'{listed}' is not a list of demo images; choose another folder for the demo.") from None
    found = {}
    for name, sha256 in pairs:
        with suppress(UnsafePathError, ArtifactError, OSError):
            if entry_of(within(folder, name)).sha256 == sha256:
                found[name] = sha256
    return found


class _Listed(BaseModel):
    files: list[tuple[str, str]]


def demo_files(random_state: int = 0) -> dict[str, bytes]:
    """The demo images as file name -> content, the same for the same seed."""
    files: dict[str, bytes] = {}
    patches: dict[str, np.ndarray] = {}
    for number, name in enumerate(_PHOTOS):
        rng = np.random.default_rng([random_state, number])
        photo = _photo(name)
        for index in range(PATCHES_PER_PHOTO):
            patch = _patch(photo, rng)
            # Every fourth photograph is stored as PNG, for a mix of formats.
            suffix = "png" if number % 4 == 3 else "jpg"
            file = f"{name}-{index:04d}.{suffix}"
            patches[file] = patch
            files[file] = encode(patch, "png" if suffix == "png" else "jpeg")
    return files | _problem_files(files, patches)


def _photo(name: str) -> np.ndarray:
    """One photograph (H, W, 3) uint8; a gray one at full contrast and tinted."""
    from skimage import data

    source, tones = _PHOTOS[name]
    photo = getattr(data, source)()
    if tones is None:
        return photo
    low, high = np.percentile(photo, (0.5, 99.5))
    gray = np.clip((photo - low) / (high - low), 0.0, 1.0)[..., None]
    dark, light = (np.array([int(tone[i : i + 2], 16) for i in (1, 3, 5)], float) for tone in tones)
    return np.rint(dark + (light - dark) * gray).astype(np.uint8)


def _patch(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One patch (S, S, 3) with S from 96 to 128: the crop of highest contrast out of three, randomly mirrored."""
    height, width = photo.shape[:2]
    crops = []
    for _ in range(3):
        side = int(min(height, width) * rng.uniform(0.28, 0.55))
        top = int(rng.integers(0, height - side + 1))
        left = int(rng.integers(0, width - side + 1))
        crops.append(photo[top : top + side, left : left + side])
    crop = max(crops, key=lambda c: float(c[::4, ::4].std()))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return _resize(crop, int(rng.choice([96, 112, 128])))


def _problem_files(files: dict[str, bytes], patches: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Ten files that often cause errors; the name of each says why."""
    from skimage import data

    cat, rocket = patches["cat-0001.jpg"], patches["rocket-0002.jpg"]
    gray = _resize(data.camera()[60:300, 120:360], 128)
    deep = data.cell()[250:410, 330:490].astype(np.uint16) * 257
    return {
        "problem-16-bit.png": encode(deep, "png"),
        "problem-copy-1.jpg": files["astronaut-0003.jpg"],
        "problem-copy-2.png": files["coffee-0012.png"],
        "problem-empty.jpg": b"",
        "problem-gray.png": encode(gray, "png"),
        # Stored on its side; EXIF orientation 6 (rotate by 90° clockwise) makes it upright.
        "problem-rotated.jpg": _with_orientation(encode(np.rot90(cat), "jpeg"), 6),
        "problem-saved-again-1.jpg": encode(cat, "jpeg", quality=60),
        "problem-saved-again-2.jpg": encode(rocket, "jpeg", quality=50),
        "problem-text.jpg": b"This is a text file with the name of a picture.\n",
        "problem-truncated.jpg": files["retina-0005.jpg"][: len(files["retina-0005.jpg"]) // 2],
    }


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return resize_pixels(np.ascontiguousarray(pixels)[None], side, side)[0]


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG file with an EXIF segment that contains only the orientation (tag 0x0112, one short)."""
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 2) + exif + jpeg[2:]
