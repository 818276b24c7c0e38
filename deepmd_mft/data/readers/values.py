"""Numbers as users' files write them."""

from __future__ import annotations

from typing import Any

__all__ = ["number"]

_WORDS = {"": float("nan"), "true": 1.0, "false": 0.0}


def number(value: Any) -> float:
    """Return a number, NaN where nothing is written.

    Text and typed columns mean the same: ``True`` is 1 and nothing is NaN in both. Python's
    ``1_000`` is no number in a data file.

    Raises
    ------
    ValueError
        For anything else.
    """
    if value is None:
        return float("nan")
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, OverflowError):
            raise ValueError(f"{value!r:.80} is not a number") from None
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if "_" in text or not text.isascii():
        raise ValueError(f"{value!r:.80} is not a number")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{value!r:.80} is not a number") from None
