"""A series of DICOM files → one volume, by dcm2niix in a process of its own.

dcm2niix knows the vendors' quirks, multi-frame images and compressed syntaxes; damaged pixels can
end its process, not the import. What it wrote is held against the headers' geometry before it is
believed. Where a stack is tilted the headers' affine is exact, as a shear, and taken instead:
dcm2niix's own correction puts the volume centimetres beside its place (see docs/import.md).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from fedcore.errors import DataError
from fedcore.imports.deidentify import rewritten
from fedcore.imports.geometry import Geometry
from fedcore.imports.headers import Instance
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.secret import Secret

_SECONDS = 300.0
_OFF_VOXELS = 0.75  # ours is the headers'; this is about axes and slices that were mixed up
_UNKNOWN_SYNTAXES = {  # what dcm2niix cannot decode
    "1.2.840.10008.1.2.4.51": "JPEG with 12 bits",
    **{f"1.2.840.10008.1.2.4.{end}": "HTJ2K" for end in (201, 202, 203)},
    **{f"1.2.840.10008.1.2.4.{end}": "JPEG XL" for end in (110, 111, 112)},
}
_VIDEO = "1.2.840.10008.1.2.4.10"

Array = NDArray[Any]


@dataclass(frozen=True)
class Converted:
    """``voxels`` (X, Y, Z) as stored times slope; ``affine`` (4, 4) → RAS+ mm.

    ``described``: what dcm2niix says of the scan in BIDS' words. ``notes``: what was done to it.
    """

    voxels: Array
    affine: NDArray[np.float64]
    described: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


def convert(
    instances: Sequence[Instance], geometry: Geometry, patient: str, secret: Secret
) -> Converted:
    """The volume of a series whose geometry was checked. Raises Unfit."""
    syntax = instances[0].syntax
    unknown = "video" if syntax.startswith(_VIDEO) else _UNKNOWN_SYNTAXES.get(syntax)
    if unknown is not None:
        raise Unfit(Reason.COMPRESSION, f"transfer syntax {syntax}: {unknown}")
    notes = []
    kept = _without_spares(instances, geometry)
    if len(kept) < len(instances):
        notes.append(f"{len(instances) - len(kept)} repeated slices left out")
    with tempfile.TemporaryDirectory(prefix="fedcore-") as folder:
        given, made = Path(folder, "dicom"), Path(folder, "nifti")
        given.mkdir()
        made.mkdir()
        for index, instance in enumerate(kept):
            rewritten(instance.path, given / f"{index:06}.dcm", patient, secret)
        _run(given, made)
        image, described = _one_volume(made, geometry)
    affine, more = _placed(image, geometry)
    voxels = np.asanyarray(image.dataobj)
    if geometry.even:
        notes += more
    else:
        notes.append("uneven steps: resampled to the finest of them, by dcm2niix")
    return Converted(voxels.reshape(voxels.shape[:3]), affine, described, tuple(notes))


def version() -> str:
    """The converter's name and version."""
    said = subprocess.run([dcm2niix.bin, "-v"], capture_output=True, text=True, check=False).stdout
    return f"dcm2niix {said.strip().splitlines()[-1]}"


def _without_spares(instances: Sequence[Instance], geometry: Geometry) -> list[Instance]:
    """Files that repeat a slice with other pixels raise Unfit; equal ones are left out."""
    for first, other in geometry.spare:
        if _pixels(first) != _pixels(other):
            raise Unfit(Reason.CONFLICT, f"instances {first.number} and {other.number} lie at the "
                        "same place and differ")  # fmt: skip
    spare = {other.sop for _, other in geometry.spare}
    return [instance for instance in instances if instance.sop not in spare]


def _pixels(instance: Instance) -> bytes:
    try:
        return bytes(dcmread(instance.path, force=True).PixelData)
    except Exception as error:
        raise Unfit(Reason.PIXELS, f"its pixels cannot be read: {type(error).__name__}") from error


def _run(given: Path, made: Path) -> None:
    # Not -p n, which sounds right for Philips, and makes it forget slopes that differ by slice.
    order = [dcm2niix.bin, "-z", "n", "-b", "y", "-ba", "y", "-f", "volume", "-o", str(made)]
    try:
        done = subprocess.run(
            [*order, str(given)], capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unfit(Reason.PIXELS, f"not converted within {_SECONDS:g} s") from error
    if done.returncode < 0:
        raise Unfit(Reason.PIXELS, f"the converter was ended by signal {-done.returncode}")
    if not any(made.glob("*.nii")):
        said = done.stdout.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise Unfit(Reason.PIXELS, f"the converter made no image: {' / '.join(said)}")


def _one_volume(made: Path, geometry: Geometry) -> tuple[Any, dict[str, Any]]:
    files = {path.stem.removeprefix("volume"): path for path in made.glob("*.nii")}
    wanted = [name for name in files if not name.startswith(("_Tilt", "_Eq"))]
    if len(wanted) > 1:
        raise Unfit(Reason.VOLUMES, f"the converter found {len(wanted)} images in it")
    name = wanted[0] if geometry.even else next((n for n in files if n.startswith("_Eq")), "")
    try:
        loaded: Any = nibabel.Nifti1Image.from_bytes(files[name].read_bytes())
        shape = loaded.shape
    except (KeyError, IndexError, OSError, ValueError) as error:
        raise Unfit(
            Reason.PIXELS, f"what the converter made cannot be read: {type(error).__name__}"
        ) from error
    if loaded.get_data_dtype().kind not in "iuf":
        raise Unfit(Reason.COLOUR, "its pixels have several samples")
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise Unfit(Reason.VOLUMES, f"the converter made an image of shape {shape}")
    described: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        described = json.loads((made / f"volume{wanted[0]}.json").read_text("utf-8"))
    return loaded, described


def _placed(image: Any, geometry: Geometry) -> tuple[NDArray[np.float64], list[str]]:
    """The image's affine, by the headers. Raises Unfit if the converter's says something else."""
    said = np.asarray(image.affine, dtype=np.float64)
    shape = image.shape
    if not geometry.even:
        _check_corner(said, geometry, shape)
        return said, []
    if shape[2] != geometry.slices:
        raise Unfit(Reason.PIXELS, f"of {geometry.slices} slices {shape[2]} could be converted")
    ours = geometry.affine.copy()
    for axis in range(3):
        if ours[:3, axis] @ said[:3, axis] < 0:  # the converter turned this axis round
            ours[:3, 3] += ours[:3, axis] * (shape[axis] - 1)
            ours[:3, axis] *= -1
    if geometry.tilt:
        return ours, [f"tilted by {geometry.tilt:g}°: kept as a shear, nothing interpolated"]
    ends = np.array([[0, 0, 0, 1], [shape[0] - 1, shape[1] - 1, shape[2] - 1, 1]]).T
    off = np.linalg.inv(ours) @ (said - ours) @ ends
    if np.abs(off[:3]).max() > _OFF_VOXELS:
        raise Unfit(Reason.GEOMETRY, f"the converter puts it {np.abs(off[:3]).max():.1f} voxels "
                    "from where the headers say")  # fmt: skip
    return ours, []


def _check_corner(said: NDArray[np.float64], geometry: Geometry, shape: Sequence[int]) -> None:
    """An image on new slices: its corner voxels still hold the first slice's corner."""
    corner = np.linalg.inv(said) @ geometry.affine[:, 3]
    size = np.array(shape[:3]) - 1
    if np.minimum(np.abs(corner[:3]), np.abs(corner[:3] - size)).max() > 1:
        raise Unfit(Reason.GEOMETRY, "resampled slices do not start where the headers say")


def as_nifti(voxels: Array, affine: NDArray[np.float64]) -> bytes:
    """A .nii.gz with nothing in its header but the grid. Equal input, equal bytes."""
    import gzip

    file: Any = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    file.set_sform(affine, code=1)
    sheared = (
        abs(np.linalg.det(affine[:3, :3])) < 0.9999 * np.linalg.norm(affine[:3, :3], axis=0).prod()
    )
    file.set_qform(None if sheared else affine, code=0 if sheared else 1)
    file.header.set_xyzt_units("mm", "sec")
    return gzip.compress(file.to_bytes(), compresslevel=3, mtime=0)


def readable(data: bytes) -> None:
    """Raises DataError unless a client could train on it."""
    from fedcore.data import nifti

    volume = nifti.read(data)
    if min(volume.voxels.shape) < 2:
        raise DataError("an axis has a single voxel", reason=str(Reason.TOO_FEW))
