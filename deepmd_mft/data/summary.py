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

# Names kept as examples for each reason why something was skipped.
_EXAMPLES = 3


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
        self.atoms = 0
        self.smallest, self.largest = 0, 0
        self._elements = np.zeros(len(ELEMENTS) + 1, dtype=np.int64)
        self._labels: dict[str, dict[str, float]] = {}
        self._skipped: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, frames: Frames) -> None:
        """Count one batch of frames."""
        nf, nloc = len(frames), len(frames.numbers)
        self.smallest = min(self.smallest or nloc, nloc)
        self.largest = max(self.largest, nloc)
        self.structures += nf
        self.periodic += nf * (frames.cells is not None)
        self.atoms += nf * nloc
        self._elements += nf * np.bincount(frames.numbers, minlength=len(self._elements))
        for name, value in frames.labels.items():
            finite = value[np.isfinite(value)]
            entry = self._labels.setdefault(
                name, {"frames": 0, "values": 0, "min": np.inf, "max": -np.inf, "sum": 0.0}
            )
            entry["frames"] += nf
            if finite.size:
                entry["values"] += finite.size
                entry["min"] = min(entry["min"], float(finite.min()))
                entry["max"] = max(entry["max"], float(finite.max()))
                entry["sum"] += float(finite.sum())

    def skip(self, skipped: Skipped) -> None:
        """Count one configuration that was left out."""
        self._skipped[skipped.reason] += 1
        examples = self._examples.setdefault(skipped.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(skipped.id)

    @property
    def labels(self) -> list[str]:
        """Names of the labels seen so far."""
        return list(self._labels)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for ``dataset.json``."""
        return {
            "structures": self.structures,
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
            "skipped": {
                reason: {"structures": n, "examples": self._examples[reason]}
                for reason, n in self._skipped.most_common()
            },
        }

    def text(self) -> str:
        """Return the summary that a user reads at the end of a conversion."""
        numbers = self.as_dict()
        molecules = self.structures - self.periodic
        kinds = [f"{self.periodic:,} periodic"] if self.periodic else []
        kinds += [f"{molecules:,} molecular"] if molecules else []
        lines = [
            f"  structures  {self.structures:,} ({', '.join(kinds) or 'none'})",
            f"  atoms       {self.atoms:,}, {self.smallest} to {self.largest} a structure",
            f"  elements    {len(numbers['elements'])}: {' '.join(numbers['elements'])}",
        ]
        for name, entry in numbers["labels"].items():
            if entry["min"] is None:
                values = "no finite value"
            else:
                values = f"{entry['min']:.6g} to {entry['max']:.6g}, mean {entry['mean']:.6g}"
            few = entry["structures"]
            count = "" if few == self.structures else f", in {few:,} structures"
            lines.append(f"  {name:<11} {values} {entry['unit']}{count}")
        if not self._skipped:
            lines.append("  skipped     nothing")
        for reason, entry in numbers["skipped"].items():
            examples = ", ".join(entry["examples"])
            more = ", ..." if entry["structures"] > len(entry["examples"]) else ""
            lines.append(f"  skipped     {entry['structures']:,}: {reason} ({examples}{more})")
        return "\n".join(lines)
