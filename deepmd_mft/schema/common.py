"""Options that several types share."""

from __future__ import annotations

from typing import Any

from dargs import Argument

from deepmd_mft.names import RESERVED_NAMES


def choice(name: str, choices: tuple[str, ...], default: str | None, doc: str) -> Argument:
    """Return an option that is one of some words."""
    return Argument(
        name,
        str,
        optional=True,
        default=default,
        extra_check=lambda value: value is None or value in choices,
        extra_check_errmsg=f"must be one of {', '.join(choices)}",
        doc=doc,
    )


def at_least(name: str, dtype: Any, least: float, default: Any, doc: str) -> Argument:
    """Return an option with a least value, or a list of such."""
    return Argument(
        name,
        dtype,
        optional=True,
        default=default,
        extra_check=lambda value: (
            value is None
            or all(item >= least for item in (value if isinstance(value, list) else [value]))
        ),
        extra_check_errmsg=f"must be at least {least:g}",
        doc=doc,
    )


def metric(choices: tuple[str, ...], default: list[str], doc: str) -> Argument:
    """Return the option ``metric``."""
    return Argument(
        "metric",
        list[str],
        optional=True,
        default=default,
        extra_check=lambda names: all(name in choices for name in names),
        extra_check_errmsg=f"must be a list of {', '.join(choices)}",
        doc=doc,
    )


#: What a loss says about an option that its fitting net has too.
_OF_THE_HEAD = " Left out, it is the fitting net's; given, it must be the same."


def property_name(*, several: bool, loss: bool = False) -> Argument:
    """Return the option ``property_name`` of a fitting net or a loss."""
    doc = (
        "Name of the property: labels are read from `set.*/<property_name>.npy`, one row per "
        "frame, and the model's output has this name."
    )
    if loss:
        doc += _OF_THE_HEAD
    if several:
        doc += (
            " A list makes one head for several properties, each with its own file, bias and "
            "scale; `dp test` then tests the first."
        )
    return Argument(
        "property_name",
        [str, list[str]] if several else str,
        optional=loss,
        default=None,
        extra_check=lambda names: (
            not (set([names] if isinstance(names, str) else names or []) & set(RESERVED_NAMES))
        ),
        extra_check_errmsg=(
            "is taken by deepmd-kit, whose `dp test` would read the output as its own; choose "
            f"another name (taken: {', '.join(RESERVED_NAMES)}) and rename the label file"
        ),
        doc=doc,
    )


def task_dim(*, loss: bool = False) -> Argument:
    """Return the option ``task_dim`` of a fitting net or a loss."""
    return at_least(
        "task_dim",
        [int, list[int]],
        1,
        None if loss else 1,
        "Number of components of the property, the columns of its label file; a list for several "
        "properties." + (_OF_THE_HEAD if loss else ""),
    )


def num_classes(*, loss: bool = False) -> Argument:
    """Return the option ``num_classes`` of a fitting net or a loss."""
    return at_least(
        "num_classes",
        int,
        2,
        None if loss else 2,
        "Number of classes; labels are whole numbers from 0." + (_OF_THE_HEAD if loss else ""),
    )
