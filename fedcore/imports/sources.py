"""Where studies come from: a folder, a zip, a DICOMDIR, a DICOMweb server → local files, in parts.

A part holds whole patients, so that a part can be imported and forgotten.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedcore.errors import ConfigError, DataError
from fedcore.imports.reasons import Reason, Unfit
from fedcore.settings import dicomweb_settings

_MAX_FILES, _MAX_BYTES, _MAX_RATIO = 1_000_000, 200 * 2**30, 200
_RATIO_FROM = 2**20  # bytes: small files may shrink as they like
_CHUNK = 2**20

Known = Callable[[str, str], bool]
"""Whether a study (its UID, its content's digest) needs no import."""


@dataclass(frozen=True)
class Part:
    """``files`` below ``root``; ``missing``: (name, why) of what should be there and is not."""

    root: Path
    files: tuple[Path, ...]
    missing: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """``name`` is what it is called in notes: the same source has the same name."""

    @property
    def name(self) -> str: ...

    def parts(self, known: Known) -> Iterator[Part]:
        """The parts, one after the other; a part's files may be gone when the next is asked for."""


@dataclass(frozen=True)
class Folder:
    """Every file below a folder; links to folders are not followed."""

    root: Path

    @property
    def name(self) -> str:
        return str(self.root.resolve())

    def parts(self, known: Known) -> Iterator[Part]:  # noqa: ARG002
        yield Part(self.root, tuple(_walk(self.root)))


@dataclass(frozen=True)
class Zip:
    """The members of a zip, unpacked into a scratch folder under names of our own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.resolve())

    def parts(self, known: Known) -> Iterator[Part]:  # noqa: ARG002
        with _scratch() as root:
            missing = _unpack(self.path, root)
            yield Part(root, tuple(_walk(root)), missing)


@dataclass(frozen=True)
class Dicomdir:
    """The files that a DICOMDIR lists (PS3.10)."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.resolve())

    def parts(self, known: Known) -> Iterator[Part]:  # noqa: ARG002
        root = self.path.parent
        listed = list(_listed(self.path))
        there = tuple(path for path in listed if path.is_file())
        gone = tuple((str(p), str(Reason.GONE)) for p in listed if not p.is_file())
        yield Part(root, there, gone)


def open_source(text: str) -> Source:
    """The source that a person means. Raises ConfigError if there is none, NotFound never."""
    if text.startswith(("http://", "https://")):
        from fedcore.imports.dicomweb import Dicomweb

        known = dicomweb_settings()
        password, token = (
            word.get_secret_value() if word is not None else None
            for word in (known.password, known.token)
        )
        return Dicomweb(text, known.user, password, token)
    path = Path(text)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise ConfigError(f"{text}: no such folder or file; a URL begins with http:// or https://")
    if path.name.upper() == "DICOMDIR":
        return Dicomdir(path)
    if zipfile.is_zipfile(path):
        return Zip(path)
    raise ConfigError(f"{text}: neither a folder, nor a zip, nor a DICOMDIR")


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not name.startswith("."):
                yield path


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fedcore-import-") as folder:
        yield Path(folder)


def _unpack(archive: Path, root: Path) -> tuple[tuple[str, str], ...]:
    """Unpack safely: within ``root``, no more than is there room for. Raises DataError.

    Returns the members that cannot be unpacked.
    """
    missing = []
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            _check_sizes(archive, members, shutil.disk_usage(root).free)
            for number, member in enumerate(members):
                target = _target(root, member.filename, number)
                try:
                    _copy(file, member, target)
                except (zipfile.BadZipFile, RuntimeError, OSError, ValueError, EOFError,
                        NotImplementedError) as error:  # fmt: skip
                    target.unlink(missing_ok=True)
                    missing.append((member.filename, type(error).__name__))
                except Exception as error:  # zlib.error, lzma's: a damaged member
                    target.unlink(missing_ok=True)
                    missing.append((member.filename, type(error).__name__))
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{archive}: a damaged zip: {error}", reason="unreadable archive"
        ) from error
    return tuple((name, str(Reason.UNREADABLE)) for name, _ in missing)


def _check_sizes(archive: Path, members: list[zipfile.ZipInfo], room: int) -> None:
    total = sum(member.file_size for member in members)
    bomb = any(
        member.file_size > _RATIO_FROM and member.file_size > _MAX_RATIO * member.compress_size
        for member in members
    )
    if len(members) > _MAX_FILES or total > _MAX_BYTES or bomb:
        raise Unfit(
            Reason.UNSAFE_ARCHIVE,
            f"{archive}: {len(members)} files, {total} bytes when unpacked: it may be a zip bomb. "
            "Unpack it by hand and import the folder",
        )
    if total > room:
        raise ConfigError(
            f"{archive}: {total} bytes when unpacked, and {room} are free in "
            f"{tempfile.gettempdir()}: set TMPDIR to a larger disk"
        )


def _target(root: Path, name: str, number: int) -> Path:
    """Where a member goes: its own folders where they are harmless (NIfTI needs them)."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    safe = not name.startswith(("/", "\\")) and all(
        part not in (".", "..") and ":" not in part and "\0" not in part and len(part) < 200
        for part in parts
    )
    target = root.joinpath(*parts) if safe and parts else root / f"member-{number}.dcm"
    if target.exists() or any(parent.is_file() for parent in target.parents):
        target = root / f"member-{number}" / (parts[-1] if safe and parts else "file.dcm")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """At most as many bytes as the directory says: a bomb lies there."""
    left = member.file_size
    with file.open(member) as packed, target.open("xb") as out:
        while chunk := packed.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ValueError("longer than it says")
            out.write(chunk)


def _listed(path: Path) -> Iterator[Path]:
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    root = path.parent.resolve()
    try:
        sequence = dcmread(path, force=True).get("DirectoryRecordSequence") or []
        names = [
            record.get("ReferencedFileID") for record in sequence if isinstance(record, Dataset)
        ]
    except Exception as error:
        raise DataError(f"{path}: a damaged DICOMDIR: {type(error).__name__}; import the folder",
                        reason="unreadable archive") from error  # fmt: skip
    for name in names:
        if name:
            parts = [name] if isinstance(name, str) else [str(part) for part in name]
            target = root.joinpath(*(p for part in parts for p in part.split("\\")))
            if target.resolve().is_relative_to(root):
                yield target
