"""Missing pixels of the images of a folder, from mask images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from imatlas.errors import DecodeError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.formats.sniff import has_image_name


class MaskFiles:
    """Masks by image: black where pixels are known, with a tenth of white for rounding; of a picture with alpha, opaque
    there.

    Parameters
    ----------
    path : path
        One picture, for all images; or a folder of pictures with the stems of the images that they belong to.

    Raises
    ------
    InputError
        If there is neither.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: dict[str, Path] = {}
        if self.path.is_dir():
            self._files = {file.stem: file for file in sorted(self.path.iterdir()) if has_image_name(file.name)}
        elif not self.path.is_file():
            raise InputError(f"Masks are a picture, or a folder of pictures. Got '{path}', which is neither.")

    def of(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Where pixels of an image of a size are missing, (H, W) of bool; nowhere without a mask in the folder.

        Raises
        ------
        InputError
            If its mask cannot be read, or has another size.
        """
        file = self._files.get(Path(key).stem) if self.path.is_dir() else self.path
        if file is None:
            return np.zeros(size, bool)
        try:
            picture = read_picture(file.read_bytes(), name=file.name)
        except DecodeError as error:
            raise InputError(f"its mask '{file.name}' cannot be read: {error}") from error
        pixels = picture.pixels()
        if pixels.shape[:2] != size:
            found = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise InputError(f"its mask has its size, {size[1]} x {size[0]}; got {found} in '{file.name}'")
        if picture.kind.alpha:
            return np.asarray(pixels[..., -1] < 0.9 * np.iinfo(pixels.dtype).max)
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
        return np.asarray(pixels.mean(2, dtype=np.float32) > 0.1 * top)

    def stamp(self) -> str:
        """Path, and a hash that changes with the masks."""
        digest = hashlib.sha256()
        for file in self._files.values() if self.path.is_dir() else [self.path]:
            digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
        return f"{self.path} {digest.hexdigest()[:16]}"
