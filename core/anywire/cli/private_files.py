"""Folders and files that only this user can read."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from anywire.errors import ConfigError


def runtime_folder() -> Path:
    """The folder of what runs now, made if need be: ``anywire`` in XDG_RUNTIME_DIR, or where there is none in the
    temporary folder, under a name with the user's number. Raises `ConfigError` when somebody else could have put
    something there."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and os.access(base, os.W_OK | os.X_OK):
        return private_folder(Path(base) / "anywire")
    return private_folder(Path(tempfile.gettempdir()) / f"anywire-{os.getuid()}")


def private_folder(path: Path) -> Path:
    """``path``, made if need be with mode 0700. Raises `ConfigError` when it is another user's, or open to others."""
    with contextlib.suppress(FileExistsError):
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise ConfigError(f"the folder {path} cannot be made: {error.strerror}") from error
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"{path} must be a folder of this user alone (mode 0700): remove it, or set XDG_RUNTIME_DIR to a folder "
            "of yours"
        )
    return path


def kept_secret(path: Path) -> str:
    """The secret in the file ``path``: hexadecimal text of 32 bytes, made at the first call with mode 0600. Raises
    `ConfigError` when others can read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "w") as file:
            file.write(secrets.token_hex(32))
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            status = os.fstat(file.fileno())
            secret = file.read().strip()
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read: {error.strerror}") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(f"others can read the key {path}: remove it, and a new one is made at the next start")
    if len(secret) != 64 or not secret.isalnum():
        raise ConfigError(f"{path} holds no key: remove it, and a new one is made at the next start")
    return secret
