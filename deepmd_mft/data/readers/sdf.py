"""SDF and MOL files, version V2000, of which ase reads the atoms of the first molecule only."""

from __future__ import annotations

import io
import re
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ase import Atoms

__all__ = ["molecules"]

_END = "$$$$"


def molecules(lines: Iterable[str]) -> Iterator[Atoms]:
    """Yield every molecule, with its total charge and its data items in ``info``.

    Raises
    ------
    ValueError
        If a molecule is cut off, a drawing in two dimensions, or of version V3000.
    """
    one: list[str] = []
    for line in chain(lines, [_END]):
        if not line.startswith(_END):
            one.append(line)
            continue
        if any(text.strip() for text in one):
            yield _molecule(one)
        one = []


def _molecule(lines: list[str]) -> Atoms:
    from ase.io import read  # noqa: PLC0415

    title, program, _, counts, *_ = *lines, "", "", "", ""
    if "V3000" in counts:
        raise ValueError("it is an SDF file of version V3000; write it as V2000")
    if program[20:22].upper() == "2D":
        raise ValueError(f"{title.strip()!r} is a drawing in two dimensions, not a geometry")
    if not any(line.startswith("M  END") for line in lines):
        raise ValueError(f"{title.strip()!r} has no line M  END; is the file truncated?")
    atoms = read(io.StringIO("".join(lines)), format="sdf")
    atoms.info.update(_data_items(lines))
    charged = [line.split()[4::2] for line in lines if line.startswith("M  CHG")]
    if charged:
        atoms.info["charge"] = sum(map(int, chain(*charged)))
    return atoms


def _data_items(lines: list[str]) -> dict[str, Any]:
    """Return what stands below the atoms: name to text."""
    items: dict[str, Any] = {}
    for number, line in enumerate(lines):
        found = re.match(r">.*<(.+)>", line)
        if found:
            items[found[1]] = "".join(takewhile(str.strip, lines[number + 1 :])).strip()
    return items
