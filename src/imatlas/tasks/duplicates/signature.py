"""Signatures that tell what this user wrote on this machine from what came from elsewhere.

A plan names the folder in which it moves files. One that was made here may do so; one that was downloaded must not
choose the folder. So a plan carries an HMAC of the folder's name, whose key never leaves the user's own folder. Without
a valid signature, the folder has to be named on the command line.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import sys
import tempfile
from pathlib import Path

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import is_link, replacing
from imatlas.system.inventory import open_regular

KEY_FILE = "signature.key"
"""The file within `user_folder` that holds the key, 64 hexadecimal digits."""


def sign(text: str) -> str:
    """The signature of a text by this user on this machine; "" where the user has no folder for the key."""
    key = _key()
    return f"made-here-{hmac.digest(key, text.encode(), 'sha256').hex()[:32]}" if key else ""


def is_signed(text: str, signature: str) -> bool:
    """Whether a signature is that of a text."""
    return bool(signature) and hmac.compare_digest(sign(text).encode(), signature.encode("utf-8", "surrogatepass"))


def user_folder() -> Path | None:
    """A folder that only this user can write, for the state of programs; None where there is none."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        state = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        state = home / "Library" / "Application Support"
    else:
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        state = state if state.is_absolute() else home / ".local" / "state"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    for folder in (state / "imatlas", Path(tempfile.gettempdir()) / f"imatlas-{user}"):
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


def _key() -> bytes:
    """The key, made on first use; b"" where it can be neither read nor made."""
    folder = user_folder()
    if folder is None:
        return b""
    path = folder / KEY_FILE
    try:
        if not os.path.lexists(path):
            with replacing(path) as aside:
                aside.chmod(0o600)
                aside.write_text(secrets.token_hex(32), encoding="ascii")
        with open_regular(path) as file:
            found = file.read(65)
    except (OSError, ArtifactError):
        return b""
    return found if len(found) == 64 else b""
