"""PET: every way to SUV by body weight, and every reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scans
from pydicom.dataset import Dataset
from scans import only, write

from fedcore.imports import suv
from fedcore.imports.reasons import Unfit

HALF = 6586.2
BY_HAND = 70e3 / (3.5e8 * 0.5 ** (3600 / HALF))


def test_by_hand() -> None:
    assert suv.scale(scans.pet()).factor == pytest.approx(BY_HAND, rel=1e-6)


def test_an_image_in_suv_with_slopes_that_differ_by_slice(tmp_path: Any) -> None:
    stack = scans.pet()
    for number, slice_ in enumerate(stack, start=1):
        slice_.RescaleSlope = number
    store = scans.bring(write(tmp_path, stack))
    found = only(store)
    truth = scans.voxels() * np.arange(1, 9) * BY_HAND
    assert found.modality == "pet"
    assert scans.same(scans.image(store, found.files[0]), truth, scans.affine())


def _on(**fields: Any) -> Callable[[list[Dataset]], None]:
    def change(stack: list[Dataset]) -> None:
        for head in stack:
            for name, value in fields.items():
                if value is None:
                    delattr(head, name)
                else:
                    setattr(head, name, value)

    return change


def _drug(**fields: Any) -> Callable[[list[Dataset]], None]:
    def change(stack: list[Dataset]) -> None:
        _on(**fields)([stack[0].RadiopharmaceuticalInformationSequence[0]])

    return change


def _philips(offset: int, value: float) -> Callable[[list[Dataset]], None]:
    def change(stack: list[Dataset]) -> None:
        for head in stack:
            head.Units = "CNTS"
            block = head.private_block(0x7053, "Philips PET Private Group", create=True)
            block.add_new(offset, "DS", str(value))

    return change


@pytest.mark.parametrize(("change", "factor"), [
    (_on(DecayCorrection="ADMIN"), 70e3 / 3.5e8),
    (_on(Units="GML"), 1.0),
    (_philips(0x00, 0.0025), 0.0025),
    (_philips(0x09, 2.0), 2 * BY_HAND),
    (_drug(RadiopharmaceuticalStartDateTime="20210310091600.0+0100"), BY_HAND),
    (_on(SeriesTime="235959"), BY_HAND),  # when it was made: the acquisition counts
    (_on(SeriesTime="003000", AcquisitionTime="003000"), None),  # checked below
    (_on(AcquisitionTime="104600"), BY_HAND),
])  # fmt: skip
def test_the_ways_to_a_factor(change: Any, factor: float | None) -> None:
    stack = scans.pet()
    change(stack)
    if factor is None:  # 9:16 of the day before
        factor = 70e3 / (3.5e8 * 0.5 ** ((15 * 3600 + 14 * 60) / HALF))
    assert suv.scale(stack).factor == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize(("change", "reason"), [
    (_on(PatientWeight=None), "no body weight"),
    (_on(PatientWeight="0"), "no body weight"),
    (_drug(RadionuclideTotalDose=None), "no injected dose"),
    (_drug(RadionuclideTotalDose="350"), "no injected dose"),  # MBq
    (_on(RadiopharmaceuticalInformationSequence=None), "no injected dose"),
    (_drug(RadiopharmaceuticalStartTime=None), "no injection time"),
    (_drug(RadiopharmaceuticalStartTime="noon"), "no injection time"),
    (_drug(RadiopharmaceuticalStartDateTime="20210309091600"), "no injection time"),
    (_drug(RadionuclideHalfLife=None), "no injection time"),
    (_on(DecayCorrection="NONE"), "unknown decay correction"),
    (_on(Units="CNTS"), "counts without a factor"),
    (_on(Units="PROPCNTS"), "unknown PET unit"),
    (_on(Units="GML", SUVType="LBM"), "SUV not by body weight"),
])  # fmt: skip
def test_what_is_missing_is_said(change: Any, reason: str) -> None:
    stack = scans.pet()
    change(stack)
    with pytest.raises(Unfit) as told:
        suv.scale(stack)
    assert told.value.reason == reason
