"""PET: the factor from stored values to SUV by body weight (g/mL).

SUV = activity concentration · body weight / injected activity at the time that the image is
corrected to. After the QIBA FDG-PET/CT profile's pseudo-code:
https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from fedcore.imports.headers import drug, number, text
from fedcore.imports.reasons import Reason, Unfit

_PHILIPS = "Philips PET Private Group"
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x00, 0x09  # offsets in its block of group 7053
_WEIGHT_KG, _DOSE_BQ = (0.5, 400.0), (1e5, 1e11)
_LONGEST_S = 86400.0


@dataclass(frozen=True)
class Scale:
    """``factor`` · stored value (after the rescale slope) = SUV; ``how`` says where it is from."""

    factor: float
    how: str


def scale(heads: Iterable[Dataset]) -> Scale:
    """The factor of a series, from the headers of all its files.

    Raises Unfit with what is missing.
    """
    slices = list(heads)
    head = slices[0]
    unit = text(head, "Units").upper()
    if unit == "GML":
        kind = text(head, "SUVType").upper()
        if kind not in ("", "BW"):
            raise Unfit(Reason.SUV_TYPE, f"it holds SUV of type {kind}")
        return Scale(1.0, "as stored")
    if unit == "BQML":
        return Scale(*_by_weight(slices))
    if unit == "CNTS":
        direct = _philips(head, _PHILIPS_SUV)
        if direct:
            return Scale(direct, f"counts by Philips' SUV factor {direct:g}")
        activity = _philips(head, _PHILIPS_ACTIVITY)
        if activity:
            factor, how = _by_weight(slices)
            return Scale(activity * factor, f"counts by Philips' activity factor; {how}")
        raise Unfit(Reason.COUNTS, "Units are CNTS, and Philips' private factors are not there")
    raise Unfit(Reason.PET_UNIT, f"Units are {unit or 'absent'}")


def _by_weight(slices: list[Dataset]) -> tuple[float, str]:
    head = slices[0]
    weight = number(head, "PatientWeight")
    if weight is None or not _WEIGHT_KG[0] <= weight <= _WEIGHT_KG[1]:
        raise Unfit(Reason.NO_WEIGHT, f"PatientWeight is {weight or 'absent'}")
    given = drug(head)
    dose = number(given, "RadionuclideTotalDose")
    if dose is None or not _DOSE_BQ[0] <= dose <= _DOSE_BQ[1]:
        raise Unfit(Reason.NO_DOSE, f"RadionuclideTotalDose is {dose or 'absent'}; Bq are wanted")
    correction = text(head, "DecayCorrection").upper()
    if correction == "ADMIN":
        left, told = 1.0, "the injection"
    elif correction == "START":
        left, told = _left(slices, given), "the start of the scan"
    else:
        raise Unfit(Reason.DECAY, f"DecayCorrection is {correction or 'absent'}")
    return 1000 * weight / (dose * left), f"by body weight, decay-corrected to {told}"


def _left(slices: list[Dataset], given: Dataset) -> float:
    """The share of the injected activity that is left when the scan starts."""
    half_life = number(given, "RadionuclideHalfLife")
    if not half_life or half_life <= 0:
        raise Unfit(Reason.NO_TIME, "RadionuclideHalfLife is absent")
    started = _scan_start(slices)
    injected = _moment(text(given, "RadiopharmaceuticalStartDateTime"))
    if injected is None:
        injected = _moment(f"{started:%Y%m%d}" + text(given, "RadiopharmaceuticalStartTime"))
        if injected is not None and injected > started:  # before midnight
            injected -= datetime.timedelta(days=1)
    if injected is None:
        raise Unfit(Reason.NO_TIME, "the injection has no time")
    passed = (started - injected).total_seconds()
    if not 0 <= passed <= min(_LONGEST_S, 10 * half_life):
        raise Unfit(Reason.NO_TIME, f"{passed:.0f} s from the injection to the scan cannot be")
    return float(0.5 ** (passed / half_life))


def _scan_start(slices: list[Dataset]) -> datetime.datetime:
    """The series' time, or the first acquisition's: some write when the series was made instead."""
    acquired = [_both(head, "Acquisition") for head in slices]
    known = [moment for moment in acquired if moment is not None]
    series = _both(slices[0], "Series")
    if known and (series is None or series > min(known)):
        return min(known)
    if series is None:
        raise Unfit(Reason.NO_TIME, "the scan has no time")
    return series


def _both(head: Dataset, which: str) -> datetime.datetime | None:
    return _moment(text(head, f"{which}Date") + text(head, f"{which}Time"))


def _moment(digits: str) -> datetime.datetime | None:
    """YYYYMMDDHHMM[SS][.FFFFFF][±ZZXX] → a time without zone."""
    whole = digits.replace("+", ".").replace("-", ".").split(".")[0]
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y%m%d%H%M", 12)):
        if len(whole) == length:
            try:
                return datetime.datetime.strptime(whole, form)
            except ValueError:
                return None
    return None


def _philips(head: Dataset, offset: int) -> float | None:
    try:
        value = float(head.private_block(0x7053, _PHILIPS)[offset].value)
    except Exception:  # absent, or of another type
        return None
    return value if 0 < value < 1e12 else None
