"""Signatures that tell what this user wrote on this machine from what came from elsewhere.

A plan names the folder in which it moves files. One that was made here may do so; one that was downloaded must not
choose the folder. So a plan carries an HMAC of the folder's name, whose key never leaves the user's own folder. Without
a valid signature, the folder has to be named on the command line.
"""

from __future__ import annotations

import hmac
import os
import secrets

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import replacing
from imatlas.system.inventory import open_regular
from imatlas.system.user_folders import user_folder

KEY_FILE = "signature.key"
"""The file within `user_folder` that holds the key, 64 hexadecimal digits."""


def sign(text: str) -> str:
    """The signature of a text by this user on this machine; "" where the user has no folder for the key."""
    key = _key()
    return f"made-here-{hmac.digest(key, text.encode(), 'sha256').hex()[:32]}" if key else ""


def is_signed(text: str, signature: str) -> bool:
    """Whether a signature is that of a text."""
    return bool(signature) and hmac.compare_digest(sign(text).encode(), signature.encode("utf-8", "surrogatepass"))


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
