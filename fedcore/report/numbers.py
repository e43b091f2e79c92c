"""Figures as text. What is absent or not finite is "not measured", everywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

NOT_MEASURED = "not measured"


def finite(value: Any) -> float:
    """The value as a float, NaN if there is none.

    >>> finite(3), finite(None), finite(float("inf"))
    (3.0, nan, nan)
    """
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def bounds(interval: Any) -> tuple[float, float, float]:
    """Value, low and high of an interval, of a plain figure, or of nothing.

    >>> bounds({"value": 0.9, "low": 0.8, "high": None}), bounds(0.5), bounds(None)
    ((0.9, 0.8, nan), (0.5, nan, nan), (nan, nan, nan))
    """
    if isinstance(interval, Mapping):
        value, low, high = (finite(interval.get(key)) for key in ("value", "low", "high"))
        return value, low, high
    return finite(interval), math.nan, math.nan


def share(value: Any, digits: int = 2) -> str:
    """A figure with fixed decimals.

    >>> share(0.91234), share(None)
    ('0.91', 'not measured')
    """
    number = finite(value)
    return NOT_MEASURED if math.isnan(number) else f"{number:.{digits}f}".replace("-", "−")


def spread(interval: Any) -> str:
    """Both ends of an interval, or nothing if it has none.

    >>> spread({"value": 0.9, "low": 0.85, "high": 0.94}), spread({"value": 0.9})
    ('0.85–0.94', '')
    """
    _, low, high = bounds(interval)
    return "" if math.isnan(low + high) else f"{share(low)}–{share(high)}"


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands.

    >>> count(1234567) == "1\u202f234\u202f567"
    True
    """
    number = finite(value)
    return NOT_MEASURED if math.isnan(number) else f"{number:,.0f}".replace(",", "\u202f")


def size(value: Any) -> str:
    """Bytes in the unit that reads best (decimal).

    >>> size(999), size(12_345_678), size(None)
    ('999 B', '12.3 MB', 'not measured')
    """
    number = finite(value)
    if math.isnan(number):
        return NOT_MEASURED
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def duration(value: Any) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.0421), duration(75), duration(7260)
    ('0.042 s', '1 min 15 s', '2 h 1 min')
    """
    number = finite(value)
    if math.isnan(number):
        return NOT_MEASURED
    if number < 59.5:
        return f"{number:.2g} s" if number < 10 else f"{number:.0f} s"
    minutes, seconds = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def scientific(value: Any) -> str:
    """A small figure as it is written by hand.

    >>> scientific(1e-5), scientific(2.3e-6), scientific(0.25), scientific(0)
    ('10⁻⁵', '2.3 × 10⁻⁶', '0.25', '0')
    """
    number = finite(value)
    if math.isnan(number):
        return NOT_MEASURED
    if number == 0 or 1e-3 <= abs(number) < 1e4:
        return f"{number:.3g}"
    mantissa, exponent = f"{number:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.0" else f"{mantissa.removesuffix('.0')} × {power}"


def moment(value: Any) -> str:
    """An ISO 8601 time without its fraction of a second; other text as it is.

    >>> moment("2026-03-04T05:06:07.89+00:00")
    '2026-03-04 05:06:07 UTC'
    """
    if not value:
        return NOT_MEASURED
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    zone = at.strftime("%Z") if at.tzinfo else ""
    return f"{at:%Y-%m-%d %H:%M:%S} {zone}".strip()


def words(value: Any) -> str:
    """A name as a label.

    >>> words("age_band"), words("min_macro_auc")
    ('age band', 'min macro AUC')
    """
    return re.sub(r"\bauc\b", "AUC", str(value).replace("_", " "))
