"""Seals: what this user wrote on this machine is told from what came from elsewhere.

A plan names the folder in which it moves files. One that was made here may do so; one that came with a download must
not choose the folder itself. So a plan carries a word that is made of that folder's name and of a secret, and the
secret never leaves the user's own folder. Without the right word, the folder is named on the command line.
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

SECRET = "seal.key"
"""The file within `own_folder` that holds the secret, 64 letters."""


def seal(text: str) -> str:
    """The word that only this user on this machine makes of a text; "" where no folder of his own can be written."""
    secret = _secret()
    return f"made-here-{hmac.digest(secret, text.encode(), 'sha256').hex()[:32]}" if secret else ""


def is_sealed(text: str, word: str) -> bool:
    """Whether a word is the seal of a text."""
    return bool(word) and hmac.compare_digest(seal(text).encode(), word.encode("utf-8", "surrogatepass"))


def own_folder() -> Path | None:
    """A folder that this user alone can write, for what programs remember; None where there is none."""
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
    """Whether a folder is no link, belongs to this user, and no other one may write it."""
    status = folder.lstat()
    if is_link(folder) or not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _secret() -> bytes:
    """The secret, made when it is first asked for; b"" where it can be neither read nor made."""
    folder = own_folder()
    if folder is None:
        return b""
    path = folder / SECRET
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
