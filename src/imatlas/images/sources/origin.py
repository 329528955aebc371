"""The place of images, as an atlas records it: one place for a folder, however its files were listed.

A folder, a pattern, the files that a shell expands it to, and several of these are all files of one folder. The list of
files may change between runs; the place stays the same.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from imatlas.arguments import is_address
from imatlas.images.sources.addresses import checked_address, fixed_address


@dataclass(frozen=True)
class Origin:
    """The place of images.

    Attributes
    ----------
    place : str
        The folder that the keys are relative to, or the file that contains the images, absolute; an address for those
        in a store; for images in memory, a description.
    files : str
        Which files of the folder, in words or as a pattern; "" for all.
    """

    place: str
    files: str = ""


def located(path: str | os.PathLike[str]) -> str:
    """A path as an absolute one, '~' expanded, without '.' and '..'.

    Links keep their names, except those before a '..', which leads out of their target.
    """
    text = os.path.join(os.getcwd(), os.path.expanduser(os.fspath(path)))
    return os.path.realpath(text) if ".." in Path(text).parts else os.path.normpath(text)


def fixed_part(pattern: str) -> Path:
    """The folder that the keys of a pattern's files are relative to: the part before its first wildcard."""
    parts = Path(pattern).parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def place_of(text: str | os.PathLike[str]) -> str:
    """The place of a folder, a file or a pattern given by the user."""
    path = os.path.expanduser(os.fspath(text))
    if is_address(path):
        address = checked_address(path)
        return fixed_address(address) if glob.has_magic(address) else address
    return located(fixed_part(path) if glob.has_magic(path) and not os.path.lexists(path) else path)


def in_memory(kind: str, shape: tuple[int, ...] = ()) -> str:
    """The place of images in memory: a description without their number."""
    of_shape = f" of {' x '.join(map(str, shape))}" if shape else ""
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}{of_shape}"


def same_place(remembered: str, now: str) -> bool:
    """Whether two places are one, perhaps through a link."""
    both_paths = os.path.isabs(remembered) and os.path.isabs(now)
    return remembered == now or (both_paths and os.path.realpath(remembered) == os.path.realpath(now))
