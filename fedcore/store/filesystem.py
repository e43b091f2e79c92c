"""A Store in a folder: the same run without S3, and the reader of a site's own BIDS folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcore.errors import (
    AccessDenied,
    BlobError,
    ConfigError,
    Conflict,
    FedcoreError,
    NotFound,
    StoreUnavailable,
)
from fedcore.store.api import Versioned

_OWN = ".fedcore-"
"""What the names of our lock and temporary files start with: never listed, and no key's part."""

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class FilesystemStore:
    """Objects are files below ``root``; links are followed. Reading writes nothing.

    Writers, also of other processes, take turns under a lock file, so that ``create`` and
    ``replace`` hold on every file system that has locks. Where S3 lets ``a`` and ``a/b`` both be
    objects, a folder cannot: the second of the two raises Conflict.

    Raises ConfigError if ``root`` is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"{root} is not a folder: correct the path, or create it")
        self._root = root

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        path = self._path(key)
        with _speaking_of(key, path), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise BlobError(f"{key} has {size} bytes; at most {max_bytes} are accepted")
            return file.read()

    def get_versioned(self, key: str) -> Versioned:
        data = self.get(key)
        return Versioned(data, _version(data))

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with _speaking_of(key, path):
            return path.is_file()

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, lambda _: True)

    def create(self, key: str, data: bytes) -> bool:
        absent = not self.exists(key)  # spares writing what would be thrown away
        return absent and self._write(key, data, lambda path: not path.exists())

    def replace(self, key: str, data: bytes, version: str) -> bool:
        def unchanged(path: Path) -> bool:
            return path.is_file() and _version(path.read_bytes()) == version

        return self._write(key, data, unchanged)

    def list(self, prefix: str = "") -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        start = self._path(folder) if folder else self._root
        with _speaking_of(prefix, start):
            return iter(sorted(key for key in self._keys(start) if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _speaking_of(key, path):
            if path.is_file():
                with self._turn():
                    path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") or part.startswith(_OWN) for part in parts):
            raise AccessDenied(f"{key!r} cannot be a key in the folder {self._root}")
        return self._root.joinpath(*parts)

    def _keys(self, start: Path) -> Iterator[str]:
        for folder, names, files in os.walk(start, onerror=_raise_unless_gone, followlinks=True):
            names[:] = [name for name in names if not _leads_back(Path(folder, name))]
            for name in files:
                path = Path(folder, name)
                if not name.startswith(_OWN) and path.is_file():
                    yield path.relative_to(self._root).as_posix()

    def _write(self, key: str, data: bytes, admit: Callable[[Path], bool]) -> bool:
        path = self._path(key)
        with _speaking_of(key, path):
            self._make_room(key, path)
            with _temporary(path.parent, data) as temporary, self._turn():
                if not admit(path):
                    return False
                temporary.replace(path)
                return True

    def _make_room(self, key: str, path: Path) -> None:
        clash = (
            f"{key!r} and an object of {self._root} cannot both be: one is a folder of the other"
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise Conflict(clash) from error
        if path.is_dir():
            raise Conflict(clash)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock that all writers to this folder share."""
        lock = os.open(self._root / f"{_OWN}lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@contextmanager
def _temporary(folder: Path, data: bytes) -> Iterator[Path]:
    """``data`` in a file of its own, on the disk, until renamed or the block ends."""
    path = folder / f"{_OWN}{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _speaking_of(key: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _told(error, key, path) from error


def _told(error: OSError, key: str, path: Path) -> FedcoreError:
    if error.errno in _ABSENT:
        return NotFound(f"there is no object {key!r} ({path})")
    if error.errno in _DENIED:
        return AccessDenied(f"{path}: {error.strerror}; give this user the right to it")
    if error.errno in _FULL:
        return StoreUnavailable(f"{path}: {error.strerror}; free some room and try again")
    if error.errno == errno.ENAMETOOLONG:
        return ConfigError(f"the key {key!r} is too long for the file system of {path.anchor}")
    return StoreUnavailable(f"{path}: {error.strerror}")


def _leads_back(folder: Path) -> bool:
    """Whether ``folder`` is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise_unless_gone(error: OSError) -> None:
    if error.errno not in _ABSENT:
        raise error


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
