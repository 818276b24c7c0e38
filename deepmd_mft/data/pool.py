"""Structures of any source, without their labels: to be labelled, or predicted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deepmd_mft.data.check import check_frames
from deepmd_mft.data.electrons import smiles_charge, total_charge
from deepmd_mft.data.frames import Skipped
from deepmd_mft.data.readers import ReadOptions, open_source
from deepmd_mft.errors import UserError
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

__all__ = ["Pool", "read_pool"]


@dataclass
class Pool:
    """Structures to label.

    Parameters
    ----------
    structures : list of Structure
    ids : list of str
        One name per structure.
    groups : list of str
        What must not be divided between training and validation.
    charges : list of float
        Total charges, of the source or its SMILES; 0 where neither states any.
    labelled : list of str
        Name of the group of structures that has one label; empty for a structure on its own.
    skipped : list of Skipped
        What a file had and no structure was made of.
    """

    structures: list[Structure] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    charges: list[float] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.structures)

    def add(
        self, structure: Structure, name: str, group: str, charge: float = 0.0, labelled: str = ""
    ) -> None:
        """Append a structure."""
        self.labelled.append(labelled)
        self.structures.append(structure)
        self.ids.append(name)
        self.groups.append(group or name)
        self.charges.append(charge)

    def take(self, rows: np.ndarray) -> Pool:
        """Return some of the structures."""
        chosen = rows.tolist()
        return Pool(
            [self.structures[row] for row in chosen],
            [self.ids[row] for row in chosen],
            [self.groups[row] for row in chosen],
            [self.charges[row] for row in chosen],
            [self.labelled[row] for row in chosen],
            self.skipped,
        )


def read_pool(sources: Sequence[Path], jobs: int = 1) -> Pool:
    """Read structures, whatever labels they have.

    Parameters
    ----------
    sources : sequence of Path
        Sets and LMDBs; files of any kind that ``dp-mft convert`` reads. RDKit makes the geometries
        of a table of SMILES.
    jobs : int
        Processes for these.

    Raises
    ------
    UserError
        If there is nothing to read.
    """
    pool = Pool()
    for source in sources:
        rows = list(_read(source, pool.skipped, jobs))
        taken = set(pool.ids)
        doubled = any(name in taken for _, name, *_ in rows)  # files of one name in two folders
        for structure, name, group, charge, labelled in rows:
            one = f"{source}:{name}" if doubled else name
            whole = f"{source}:{labelled}" if labelled and len(sources) > 1 else labelled
            pool.add(structure, one, group, charge, whole)
    if not len(pool):
        reasons = "".join(f"; {one.id}: {one.reason}" for one in pool.skipped[:3])
        raise UserError(f"{', '.join(map(str, sources))}: no structures in it{reasons}")
    return pool


def _read(
    path: Path, skipped: list[Skipped], jobs: int
) -> Iterator[tuple[Structure, str, str, float, str]]:
    """Yield structure, name, group, charge and labelled group of everything at a path."""
    from h5py import is_hdf5  # noqa: PLC0415  (slow to import)

    if not path.is_file() or is_hdf5(path):
        data = StructureSet(path.name, [path])
        pooling = Pooling(data)
        whole = [pooling.structures.ids[group] for group in pooling.groups.tolist()]
        labelled = whole if pooling.of_groups else [""] * len(data)
        known = zip(data, data.ids, data.groups, data.smiles, labelled, strict=True)
        for structure, name, group, smiles, one in known:
            yield structure, name, group, smiles_charge(smiles), one
        return
    kind = "table" if path.suffix == ".smi" else "auto"
    for item in open_source(path, kind, ReadOptions(jobs=jobs)).frames:
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        checked = check_frames(replace(item, labels={}))  # theirs may be damaged, and do not matter
        skipped += checked.skipped
        frames = checked.frames
        if frames is None:
            continue
        cells = frames.cells if frames.cells is not None else [None] * len(frames)
        for name, coords, cell in zip(frames.ids, frames.coords, cells, strict=True):
            structure = Structure(frames.numbers, coords, cell)
            yield structure, name, frames.group or frames.smiles, total_charge(frames) or 0.0, ""
