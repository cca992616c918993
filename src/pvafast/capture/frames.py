"""The frames of a capture (NTNDArray), as files of their own."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, final

import numpy as np

from .._backend import value
from .._types import STRUCTURE
from ..errors import FrameError, PvaError
from ..ndarray import ColorMode, Frame
from .records import Record

Form: TypeAlias = Literal["npy", "tiff"]

_INDEX: Final = "index.csv"
_HEADINGS: Final = (
    "file", "pv", "received", "uniqueId", "timeStamp", "dataTimeStamp", "dtype", "shape", "axes", "codec",
)  # fmt: skip
_RGB: Final = frozenset({ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3})
# A name is the peer's: nothing of it may lead elsewhere, or mean something to a file system or a shell.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_CHARACTERS: Final = 100
# Reasons for frames that could not be written; a peer could think of many.
_REASONS: Final = 100


@final
class FrameFiles:
    """Writes frames as FOLDER/PV/000001-ID.npy, counted by PV, ID being the uniqueId; FOLDER/index.csv tells what each is.

    folder: made if it is not there, otherwise it must be empty (FileExistsError). form: "npy", the array as it is; "tiff", one
    page, colours as RGB where the colour mode is RGB (ImportError without tifffile). written: how many;
    failed: how many frames could not be read or written, by (PV, why). OSError where the disk does not take them.
    """

    def __init__(self, folder: str | os.PathLike[str], form: Form = "npy") -> None:
        self.folder = Path(folder)
        self.form = form
        self.written = 0
        self.failed: dict[tuple[str, str], int] = {}
        self._tiff: Any = None
        if form == "tiff":
            self._tiff = _tifffile()
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty")
        self._folders: dict[str, Path] = {}
        self._counts: dict[str, int] = {}
        # Names in use, and the last number that was put behind each.
        self._taken: dict[str, int] = {_INDEX: 1}
        # Names may hold bytes that are no text.
        self._index: IO[str] = open(  # noqa: SIM115
            self.folder / _INDEX, "w", newline="", encoding="utf-8", errors="backslashreplace"
        )
        self._rows = csv.writer(self._index)
        self._rows.writerow(_HEADINGS)

    def add(self, record: Record) -> Path | None:
        """Write the frame that a record brings; None if it brings none, or one that cannot be read."""
        held = record.value
        if not isinstance(held, value.Value) or not is_frame(held, record):
            return None
        pv = record.pv if isinstance(record.pv, str) else ", ".join(record.pv)
        pv = pv or f"ioid {record.ioid} of {record.src}"
        try:
            frame = Frame(held)
            made = self._array(frame)
        except PvaError as error:
            self._fail(pv, str(error))
            return None
        path = self._path(pv, frame.unique_id)
        if self._tiff is None:
            np.save(path, made, allow_pickle=False)
        else:
            told = {"pv": pv, "uniqueId": frame.unique_id, "timeStamp": frame.timestamp_ns}
            photometric = "minisblack" if made is frame.data else "rgb"
            try:
                self._tiff.imwrite(path, made, photometric=photometric, metadata=told)
            except ValueError as error:
                path.unlink(missing_ok=True)
                self._fail(pv, f"tifffile: {error}")
                return None
        self.written += 1
        self._note(path, pv, frame, record)
        return path

    def _array(self, frame: Frame) -> Any:
        """What is written of a frame."""
        if self._tiff is None:
            return frame.data
        if not frame.size:
            raise FrameError("a frame without pixels is no TIFF")
        axes = frame.axes
        if frame.color_mode in _RGB and "c" in axes and frame.shape[axes.index("c")] == 3:
            return frame.to_rgb()
        return frame.data

    def _fail(self, pv: str, why: str) -> None:
        reason = (pv, why)
        if reason in self.failed or len(self.failed) < _REASONS:
            self.failed[reason] = self.failed.get(reason, 0) + 1

    def close(self) -> None:
        """Write the index to its end."""
        self._index.close()

    def __enter__(self) -> FrameFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _path(self, pv: str, number: int) -> Path:
        folder = self._folders.get(pv)
        if folder is None:
            # On some file systems "CAM" and "cam" are one.
            name = stem = safe_name(pv)
            n = self._taken.get(stem.casefold(), 0)
            while name.casefold() in self._taken:
                n += 1
                name = f"{stem}-{n}"
            self._taken[stem.casefold()] = n
            self._taken[name.casefold()] = 1
            folder = self._folders[pv] = self.folder / name
            folder.mkdir()
        count = self._counts[pv] = self._counts.get(pv, 0) + 1
        return folder / f"{count:06}-{number}.{self.form}"

    def _note(self, path: Path, pv: str, frame: Frame, record: Record) -> None:
        self._rows.writerow([
            path.relative_to(self.folder).as_posix(), pv, record.time, frame.unique_id, _seconds(frame.timestamp_ns),
            _seconds(frame.data_timestamp_ns), frame.dtype.name, "x".join(map(str, frame.shape)), frame.axes, frame.codec,
        ])  # fmt: skip


def is_frame(held: value.Value, record: Record) -> bool:
    """Whether a record brings a frame: the pixels are among what came."""
    type = held.type
    if type.code != STRUCTURE or not type.id.startswith("epics:nt/NTNDArray:"):
        return False
    if "value" not in type or "dimension" not in type:
        return False
    changed = record.changed
    if changed is not None and 0 not in changed and type.index("value") not in changed:
        return False
    return isinstance(getattr(held["value"], "value", None), np.ndarray)


def safe_name(name: str) -> str:
    """A name that any file system takes, made of letters, digits, "_", "-" and ".", of a PV's."""
    made = _UNSAFE.sub("_", name).strip("._-")[:_CHARACTERS].rstrip("._-") or "PV"
    return f"_{made}" if _DEVICES.fullmatch(made) else made


def _seconds(ns: int) -> str:
    """A time stamp with every digit; "" for none."""
    if not ns:
        return ""
    sign = "-" if ns < 0 else ""
    seconds, rest = divmod(abs(ns), 1_000_000_000)
    return f"{sign}{seconds}.{rest:09}"


def _tifffile() -> Any:
    try:
        import tifffile  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError("TIFF needs tifffile: pip install 'pvafast[tiff]'") from error
    return tifffile
