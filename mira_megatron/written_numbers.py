"""How numbers are written for people: thousands separators, units, n/a where there is none."""

from __future__ import annotations

MISSING = "n/a"
_SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_COUNT_UNITS = ("k", "M", "G", "T")


def grouped(number: int | None) -> str:
    """Returns a whole number with thousands separators."""
    return MISSING if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 2) -> str:
    """Returns a number with a fixed number of decimals, so that columns align."""
    return MISSING if number is None else f"{number:z,.{digits}f}"


def percent(part: int | None, whole: int) -> str:
    """Returns a share with one decimal; n/a where there is nothing to share."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.1f}%"


def size(num_bytes: int) -> str:
    """Returns a file size in decimal units (1 kB = 1,000 bytes)."""
    scaled, unit = float(num_bytes), _SIZE_UNITS[0]
    for larger in _SIZE_UNITS[1:]:
        if scaled < 1000:
            break
        scaled, unit = scaled / 1000, larger
    return f"{num_bytes:,} bytes" if unit == "bytes" else f"{scaled:,.1f} {unit}"


def short(number: float) -> str:
    """Returns a count of any size in a few characters: whole below 10,000, then 12.3k, 4.56G."""
    if abs(round(number)) < 10_000:
        return f"{round(number):,}"
    scaled, unit = number / 1000, _COUNT_UNITS[0]
    for larger in _COUNT_UNITS[1:]:
        if abs(scaled) < 999.5:
            break
        scaled, unit = scaled / 1000, larger
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:,.{digits}f}{unit}"


def duration(seconds: float) -> str:
    """Returns a time in its two largest units: 45 s, 3 min 20 s, 5 h 28 min, 2 d 3 h."""
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} min {left % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24} h"
