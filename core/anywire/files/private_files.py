"""Folders and files that only this user can read."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from anywire.errors import ConfigError
from anywire.this_system import HAS_USERS, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, effective_user_id, lock_file, user_id

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of a private file that are read; a longer one is refused."""


def runtime_folder() -> Path:
    """The folder of what runs now, made if need be: ``anywire`` in XDG_RUNTIME_DIR, or where there is none in the
    temporary folder, under a name with the user's number. Raises `ConfigError` when somebody else could have put
    something there."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and os.access(base, os.W_OK | os.X_OK):
        return private_folder(Path(base) / "anywire")
    return private_folder(Path(tempfile.gettempdir()) / f"anywire-{user_id()}")


def config_folder() -> Path:
    """The folder of what this user has set, which need not be there: ``anywire`` in XDG_CONFIG_HOME, or in
    ``~/.config``."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "anywire"


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
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user_id():
        raise ConfigError(
            f"{path} must be a folder of this user alone: remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        )
    if HAS_USERS and status.st_mode & 0o077:
        raise ConfigError(f"{path} must be a folder of this user alone: run `chmod 700 {shlex.quote(str(path))}`")
    return path


def kept_private(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a private file, which is made with mode 0600 and what ``make`` returns when there is none. Raises
    `ConfigError` as `read_private` and `change_private` do."""
    try:
        return read_private(path)
    except FileNotFoundError:
        change_private(path, lambda found: found or make())
        return read_private(path)


def kept_secret(path: Path) -> str:
    """The secret in the file ``path``: hexadecimal text of 32 bytes, made at the first call. Raises `ConfigError` when
    others can read it, and when it holds no such text."""
    secret = kept_private(path, lambda: secrets.token_hex(32).encode()).strip()
    if len(secret) != 64 or not secret.isalnum():
        raise ConfigError(f"{path} holds no key: remove it, and a new one is made at the next start")
    return secret.decode()


def read_private(path: Path) -> bytes:
    """The content of a file that this user alone can read.

    Raises `FileNotFoundError` when there is none, and `ConfigError` when others can read it (with the command that
    mends that), when it is no file, too long, or cannot be read. No error repeats anything of the content.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC), "rb") as file:
            return _checked(file.fileno(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def change_private(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace the content of a private file by what ``change`` makes of it, which gets nothing when there is no file.

    Changes of several processes come one after the other. A reader sees the content before or after, never a part. A
    new file has mode 0600, and its folder is made if need be. Waits while another process changes it. Raises what
    `read_private` raises, what ``change`` raises, and `ConfigError` when it cannot be written; it is as before then.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while not (_replaced(target, change) or _created(target, change)):
            pass  # another process was faster
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _replaced(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Whether there was a file, which is changed now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    except FileNotFoundError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        lock_file(file, wait=True)
        status = os.fstat(file.fileno())
        try:
            if path.stat().st_ino != status.st_ino:  # replaced while this waited for the lock
                return False
        except FileNotFoundError:
            return False
        new = _written(path, change(_checked(file.fileno(), path)), status)
        try:
            new.rename(path)
        except OSError:
            new.unlink()
            raise
    return True


def _created(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Whether there was no file, and now is one. It appears with its whole content."""
    if path.exists():
        return False
    new = _written(path, change(b""), None)
    try:
        os.link(new, path)
    except FileExistsError:
        return False
    finally:
        new.unlink()
    return True


def check_private(path: Path, status: os.stat_result) -> None:
    """Raise `ConfigError` unless a file or folder with this status is this user's alone; the sentence has the command
    that mends it."""
    mode, quoted = "700" if stat.S_ISDIR(status.st_mode) else "600", shlex.quote(str(path))
    if not HAS_USERS:
        return
    if status.st_uid != effective_user_id():
        raise ConfigError(f"{path} belongs to another user: run `chown {effective_user_id()} {quoted}`")
    if status.st_mode & 0o077:
        raise ConfigError(f"others can read {path}: run `chmod {mode} {quoted}`")


def _check_source(path: Path, status: os.stat_result) -> None:
    """Raise `ConfigError` unless a file that somebody else may have put there for this user is safe: nobody but this
    user and root can read or replace it."""
    if not HAS_USERS:
        return
    me, quoted = effective_user_id(), shlex.quote(str(path))
    folder = path.resolve().parent
    above = folder.stat()
    if above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX:
        raise ConfigError(f"others can replace {path}: run `chmod o-w {shlex.quote(str(folder))}`")
    # Root may look after the files of another user, in folders of that one.
    trusted = {0, me} if me else {0, above.st_uid}
    if status.st_uid not in trusted:
        raise ConfigError(f"{path} belongs to another user: run `chown {me} {quoted}`")
    # What root owns a group may read: so do Debian and Kubernetes hand keys to programs of other users. Root itself
    # looks after such files, of groups other than its own.
    handed_on = status.st_uid == 0 and (me != 0 or status.st_gid != 0)
    if status.st_mode & (0o027 if handed_on else 0o077):
        raise ConfigError(f"others can read {path}: run `chmod 600 {quoted}`")


def _checked(descriptor: int, path: Path) -> bytes:
    """The content of an open file, unless it is none of this user alone."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is no file")
    _check_source(path, status)
    if status.st_size > MAX_BYTES:
        raise ConfigError(f"{path} is longer than {MAX_BYTES // 2**20} MiB")
    found = bytearray()
    while piece := os.read(descriptor, 65536):
        found += piece
    return bytes(found)


def _written(path: Path, data: bytes, like: os.stat_result | None) -> Path:
    """A new file beside ``path`` with this content, that survives a crash from then on; with the owner of ``like``. One
    that root owns may be read by the group that could read ``like``."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if like is not None and (like.st_uid, like.st_gid) != (effective_user_id(), os.getegid()):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            if like is not None and like.st_uid == 0 and like.st_mode & 0o040:
                os.fchmod(descriptor, 0o640)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        new.unlink()
        raise
    return new
