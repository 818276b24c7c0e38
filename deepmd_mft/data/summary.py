"""What went into a data set, counted while it streams by."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.data.frames import FORCE_FIELD_UNITS
from deepmd_mft.structures.elements import ELEMENTS

if TYPE_CHECKING:
    from deepmd_mft.data.frames import Frames, Skipped

__all__ = ["Summary"]

# Names kept as examples for each reason why something was skipped, and for each remark.
_EXAMPLES = 3


class _Named:
    """Structures counted under a text, with the names of the first ones."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, text: str, ids: list[str]) -> None:
        self._counts[text] += len(ids)
        examples = self._examples.setdefault(text, [])
        examples.extend(ids[: _EXAMPLES - len(examples)])

    def as_dict(self) -> dict[str, Any]:
        return {
            text: {"structures": n, "examples": self._examples[text]}
            for text, n in self._counts.most_common()
        }

    def lines(self) -> list[str]:
        return [
            f"{n:,}: {text} ({', '.join(self._examples[text])}"
            f"{', ...' if n > len(self._examples[text]) else ''})"
            for text, n in self._counts.most_common()
        ]


class Summary:
    """Running count of structures, elements, atoms, label ranges and what was skipped.

    Parameters
    ----------
    units : dict of str to str
        Unit of every property.
    """

    def __init__(self, units: dict[str, str]) -> None:
        self.units = {**FORCE_FIELD_UNITS, **units}
        self.structures = 0
        self.periodic = 0
        self.groups = self.largest_group = 0
        self.atoms = 0
        self.smallest, self.largest = 0, 0
        self._elements = np.zeros(len(ELEMENTS) + 1, dtype=np.int64)
        self._labels: dict[str, dict[str, float]] = {}
        self._skipped = _Named()
        self._remarks = _Named()

    def add_group(self, parts: list[Frames]) -> None:
        """Count structures that have one label together."""
        self.groups += 1
        self.largest_group = max(self.largest_group, sum(map(len, parts)))
        self.add(parts[0], labelled=1)
        for one in parts[1:]:
            self.add(one, labelled=0)

    def add(self, frames: Frames, labelled: int | None = None) -> None:
        """Count one batch of frames, of which the labels of the first few, or all, count."""
        nf, nloc = len(frames), len(frames.numbers)
        self.smallest = min(self.smallest or nloc, nloc)
        self.largest = max(self.largest, nloc)
        self.structures += nf
        self.periodic += nf * (frames.cells is not None)
        self.atoms += nf * nloc
        self._elements += nf * np.bincount(frames.numbers, minlength=len(self._elements))
        for name, values in frames.labels.items():
            value = values if name in FORCE_FIELD_UNITS else values[:labelled]
            finite = value[np.isfinite(value)]
            entry = self._labels.setdefault(
                name, {"frames": 0, "values": 0, "min": np.inf, "max": -np.inf, "sum": 0.0}
            )
            entry["frames"] += len(value)
            if finite.size:
                entry["values"] += finite.size
                entry["min"] = min(entry["min"], float(finite.min()))
                entry["max"] = max(entry["max"], float(finite.max()))
                entry["sum"] += float(finite.sum())

    def skip(self, skipped: Skipped) -> None:
        """Count one structure that was left out."""
        self._skipped.add(skipped.reason, [skipped.id])

    def remark(self, remark: str, ids: list[str]) -> None:
        """Count structures that were written and about which there is something to say."""
        self._remarks.add(remark, ids)

    @property
    def labels(self) -> list[str]:
        """Names of the labels seen so far."""
        return list(self._labels)

    @property
    def skipped(self) -> list[str]:
        """What was left out, a line for each reason."""
        return self._skipped.lines()

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for ``dataset.json``."""
        return {
            "structures": self.structures,
            **({"groups": self.groups} if self.groups else {}),
            "periodic": self.periodic,
            "atoms": self.atoms,
            "atoms_per_structure": [self.smallest, self.largest],
            "elements": {
                ELEMENTS[z - 1]: int(self._elements[z]) for z in np.flatnonzero(self._elements)
            },
            "labels": {
                name: {
                    "unit": self.units.get(name, ""),
                    "structures": int(entry["frames"]),
                    "min": entry["min"] if entry["values"] else None,
                    "max": entry["max"] if entry["values"] else None,
                    "mean": entry["sum"] / entry["values"] if entry["values"] else None,
                }
                for name, entry in self._labels.items()
            },
            "remarks": self._remarks.as_dict(),
            "skipped": self._skipped.as_dict(),
        }

    def text(self) -> str:
        """Return the summary that a user reads at the end of a conversion."""
        numbers = self.as_dict()
        molecules = self.structures - self.periodic
        kinds = [f"{self.periodic:,} periodic"] if self.periodic else []
        kinds += [f"{molecules:,} molecular"] if molecules else []
        lines = [
            f"  structures  {self.structures:,} ({', '.join(kinds) or 'none'})",
            f"  atoms       {self.atoms:,}, {self.smallest} to {self.largest} per structure",
            f"  elements    {len(numbers['elements'])}: {' '.join(numbers['elements'])}",
        ]
        if self.groups:
            mean = self.structures / self.groups
            lines.append(
                f"  groups      {self.groups:,} with one label each, of {mean:.3g} structures on "
                f"average, {self.largest_group} at most"
            )
        for name, entry in numbers["labels"].items():
            if entry["min"] is None:
                values = "no finite value"
            else:
                values = f"{entry['min']:.6g} to {entry['max']:.6g}, mean {entry['mean']:.6g}"
            few = entry["structures"]
            of_groups = self.groups and name not in FORCE_FIELD_UNITS
            every, unit = (self.groups, "groups") if of_groups else (self.structures, "structures")
            count = "" if few == every else f", in {few:,} {unit}"
            lines.append(f"  {name:<11} {values} {entry['unit']}{count}")
        lines += [f"  of these    {line}" for line in self._remarks.lines()]
        lines += [f"  skipped     {line}" for line in self.skipped or ["nothing"]]
        return "\n".join(lines)
