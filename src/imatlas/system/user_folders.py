"""Folders that only this user can write: state of programs, and a cache that may be deleted."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Literal

from imatlas.system.atomic_io import is_link


def user_folder(kind: Literal["state", "cache"] = "state") -> Path | None:
    """A folder that only this user can write; None where there is none."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / ("Application Support" if kind == "state" else "Caches")
    else:
        base = Path(os.environ.get(f"XDG_{kind.upper()}_HOME", ""))
        base = base if base.is_absolute() else home / (".local/state" if kind == "state" else ".cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    for folder in (base / "imatlas", Path(tempfile.gettempdir()) / f"imatlas-{user}"):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_own(folder) and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError:
            continue
    return None


def _is_own(folder: Path) -> bool:
    """Whether a folder is not a link, belongs to this user, and nobody else may write it."""
    status = folder.lstat()
    if is_link(folder) or not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
