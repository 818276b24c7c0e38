"""An auxiliary set without the original data: structures of any kind, labelled by a teacher.

Labels of the pretrained model itself are enough to keep what it knows while it is fine-tuned
(arXiv 2606.12704); xTB gives cheap electronic labels of a pool on top.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepmd_mft.data.check import check_frames
from deepmd_mft.data.convert import file_record
from deepmd_mft.data.frames import Frames, Skipped
from deepmd_mft.data.labelling import labelled
from deepmd_mft.data.pool import Pool, read_pool
from deepmd_mft.data.summary import Summary
from deepmd_mft.data.teachers import open_teacher
from deepmd_mft.data.teachers.base import REASON
from deepmd_mft.data.teachers.xtb import METHODS
from deepmd_mft.data.writers import NpyWriter
from deepmd_mft.errors import UserError
from deepmd_mft.files.records import write_record
from deepmd_mft.files.staging import staged_folder
from deepmd_mft.files.versions import package_versions
from deepmd_mft.structures.elements import symbol
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.data.teachers import Teacher

#: In eV per atom. Crystals at the pressures of the earth's core have less than 50; xTB at times
#: converges to nonsense of thousands, where symmetry hides it from the forces.
MAX_VIRIAL = 200.0

__all__ = ["Replay", "replay"]


@dataclass
class Replay:
    """What is to be made.

    Parameters
    ----------
    checkpoint : ModelFile
        The pretrained model.
    sources : list of Path
        Sets, LMDBs, files that ase reads, tables of SMILES.
    teachers : list of str
        Names as :func:`~deepmd_mft.data.teachers.open_teacher` takes them.
    properties : list of str
        Electronic labels.
    number : int, optional
        Structures to choose by farthest-point sampling.
    copies : int
        Rattled copies of each beside it.
    rattle : (float, float)
        The standard deviation of a copy's displacements is drawn between these, in Angstrom.
    strain : float
        Standard deviation of the strain of copies of crystals.
    valid : float
        Fraction of the structures, with their copies, in the validation set.
    max_force : float
        Frames with a larger force are left out, eV/Angstrom.
    seed : int
        Of every draw.
    jobs : int
        Processes.
    """

    checkpoint: ModelFile
    sources: list[Path]
    teachers: list[str]
    properties: list[str] = field(default_factory=list)
    number: int | None = None
    copies: int = 0
    rattle: tuple[float, float] = (0.02, 0.1)
    strain: float = 0.0
    valid: float = 0.1
    max_force: float = 30.0
    seed: int = 1
    jobs: int = 1

    def check(self) -> None:
        """Raise a UserError for what makes no sense."""
        wrong = {
            f"--number {self.number}: at least 2 structures": (self.number or 2) < 2,
            f"--copies {self.copies}: 0 or more": self.copies < 0,
            f"--rattle {self.rattle[0]:g} {self.rattle[1]:g}: 0 <= smallest <= largest": not (
                0 <= self.rattle[0] <= self.rattle[1] < np.inf
            ),
            f"--strain {self.strain:g}: between 0 and 0.3": not 0 <= self.strain <= 0.3,
            f"--valid {self.valid:g}: a fraction between 0 and 1": not 0 < self.valid < 1,
            f"--max-force {self.max_force:g}: above 0": not self.max_force > 0,
            f"--jobs {self.jobs}: at least 1": self.jobs < 1,
        }
        for text, is_wrong in wrong.items():
            if is_wrong:
                raise UserError(f"{text} is needed")
        if (self.strain or self.rattle != Replay.rattle) and not self.copies:
            raise UserError("--rattle and --strain are of copies; give --copies N")
        if len(set(self.teachers)) < len(self.teachers):
            raise UserError(f"--teacher {' '.join(self.teachers)}: one is named twice")
        if len({path.resolve() for path in self.sources}) < len(self.sources):
            raise UserError(f"{', '.join(map(str, self.sources))}: one is named twice")


@dataclass
class Made:
    """What was made.

    Parameters
    ----------
    sets : dict of str to Summary
        By folder below the output.
    unread : Summary
        What the sources had and no structure was made of.
    """

    sets: dict[str, Summary]
    unread: Summary


def replay(wanted: Replay, out: Path, *, overwrite: bool, progress: bool) -> Made:
    """Choose, copy, label and write ``train`` and ``valid``.

    Parameters
    ----------
    wanted : Replay
    out : Path
        Folder to write: ``train`` and ``valid``, below a folder for each teacher if there are
        several.
    overwrite : bool
        Replace an existing folder of this verb.
    progress : bool
        Show progress bars.

    Returns
    -------
    Made

    Raises
    ------
    UserError
        If an option makes no sense, a source cannot be read, a teacher does not know an element,
        or nothing is left to write.
    """
    wanted.check()
    names = [wanted.properties if one in METHODS else [] for one in wanted.teachers]
    if not any(names) and wanted.properties:
        names[0] = wanted.properties  # refused there, with the reason
    teachers = [
        open_teacher(one, wanted.checkpoint, properties)
        for one, properties in zip(wanted.teachers, names, strict=True)
    ]
    with staged_folder(
        out, "replay", [wanted.checkpoint.path, *wanted.sources], overwrite=overwrite
    ) as folder:
        pool = read_pool(wanted.sources, wanted.jobs)
        found = len(pool)
        unread = Summary({})
        for skipped in pool.skipped:
            unread.skip(skipped)
        for teacher in teachers:
            require_elements(pool, teacher.elements, wanted.checkpoint)
        if wanted.number is not None:
            pool = diverse(pool, wanted, progress=progress)
        chosen = len(pool)
        pool = with_copies(pool, wanted)
        held = held_back(pool, wanted)
        drawn = {
            "unread": unread.as_dict()["skipped"],
            "structures": found,
            "chosen": chosen,
            "frames": len(pool),
            **{
                name: getattr(wanted, name)
                for name in ("number", "copies", "rattle", "strain", "valid", "max_force", "seed")
            },
        }
        summaries: dict[str, Summary] = {}
        for teacher in teachers:
            labels = labelled(pool, teacher, wanted.jobs, progress=progress)
            place = teacher.name if len(teachers) > 1 else ""
            for part, rows in (("train", np.flatnonzero(~held)), ("valid", np.flatnonzero(held))):
                where = f"{place}/{part}".lstrip("/")
                summaries[where] = _write(
                    folder / where, pool, labels, rows, teacher, wanted, drawn
                )
        record = {
            "made_by": "dp-mft replay",
            "teachers": [teacher.record for teacher in teachers],
            "drawn": drawn,
            "files": _sources(wanted),
            "sets": {name: one.as_dict() for name, one in summaries.items()},
            "versions": package_versions(),
        }
        write_record(folder, "replay", record)
    return Made(summaries, unread)


def require_elements(pool: Pool, known: list[str] | None, model: ModelFile) -> None:
    """Raise a UserError if structures have elements that a model lacks."""
    if known is None:
        return
    strange: dict[str, str] = {}
    for structure, name in zip(pool.structures, pool.ids, strict=True):
        for element in {symbol(number) for number in structure.numbers.tolist()}.difference(known):
            strange.setdefault(element, name)
    if strange:
        listed = ", ".join(f"{one} ({name})" for one, name in sorted(strange.items())[:5])
        more = ", ..." if len(strange) > 5 else ""
        raise UserError(
            f"{model.path} knows {len(known)} elements, {', '.join(known)}, but there are "
            f"structures with {listed}{more}; leave them out, or take another checkpoint"
        )


def diverse(pool: Pool, wanted: Replay, *, progress: bool = False) -> Pool:
    """Choose structures that are far from each other in the representation of the checkpoint."""
    from deepmd_mft.inference.predictor import Predictor  # noqa: PLC0415  (slow to import)
    from deepmd_mft.representations.farthest import farthest_points  # noqa: PLC0415

    model = wanted.checkpoint
    predictor = Predictor.load(model.path, model.branch)
    require_elements(pool, predictor.type_map, model)
    batches = predictor.batches(StructureSet.of("pool", pool.structures))
    with tqdm(total=len(pool), unit=" structures", desc="diversity", disable=not progress) as bar:
        features = predictor.represent(batches, "descriptor", bar.update)
    return pool.take(np.sort(farthest_points(features, wanted.number or len(pool))))


def with_copies(pool: Pool, wanted: Replay) -> Pool:
    """Return the structures, each followed by its rattled and strained copies."""
    if not wanted.copies:
        return pool
    rng = np.random.default_rng([wanted.seed, 1])
    whole = Pool(skipped=pool.skipped)
    rows = zip(pool.structures, pool.ids, pool.groups, pool.charges, strict=True)
    for structure, name, group, charge in rows:
        whole.add(structure, name, group, charge)
        for copy in range(1, wanted.copies + 1):
            numbers, positions, cell = structure
            if cell is not None:
                # A strain of six components, and no rotation.
                noise = wanted.strain * rng.standard_normal((3, 3))
                stretch = np.eye(3) + (noise + noise.T) / 2
                positions, cell = positions @ stretch, cell @ stretch
            amplitude = rng.uniform(*wanted.rattle)
            positions = positions + amplitude * rng.standard_normal(positions.shape)
            whole.add(Structure(numbers, positions, cell), f"{name}~{copy}", group, charge)
    return whole


def held_back(pool: Pool, wanted: Replay) -> np.ndarray:
    """Say for every structure whether it is for validation: whole groups, at least one."""
    groups = sorted(set(pool.groups))
    if len(groups) < 2:
        raise UserError(
            "there is one molecule or crystal only, and none would be left to validate on; give "
            "more structures"
        )
    number = min(max(round(wanted.valid * len(groups)), 1), len(groups) - 1)
    rng = np.random.default_rng([wanted.seed, 2])
    held = {groups[i] for i in rng.choice(len(groups), number, replace=False)}
    return np.array([group in held for group in pool.groups])


def _write(
    folder: Path,
    pool: Pool,
    labels: dict[str, np.ndarray],
    rows: np.ndarray,
    teacher: Teacher,
    wanted: Replay,
    drawn: dict[str, Any],
) -> Summary:
    """Write some rows of a pool as a set."""
    summary = Summary(teacher.units)
    folder.parent.mkdir(exist_ok=True)
    with NpyWriter(folder) as writer:
        for item, row in _frames(pool, labels, rows, wanted.max_force):
            checked = None if isinstance(item, Skipped) else check_frames(item)
            for skipped in [item] if isinstance(item, Skipped) else checked.skipped:  # type: ignore[union-attr]
                summary.skip(skipped)
            if checked is not None and checked.frames is not None:
                writer.add(checked.frames, [row])
                summary.add(checked.frames)
        if not summary.structures:
            raise UserError(
                f"no structure of {', '.join(map(str, wanted.sources))} was left to write to "
                f"{folder.name}:\n{summary.text()}"
            )
        writer.finish(
            {
                "reader": "replay",
                "files": _sources(wanted),
                "notes": [f"labels of a teacher: {teacher.record['kind']}"],
                "units": {name: summary.units.get(name, "") for name in summary.labels},
                "summary": summary.as_dict(),
                "teacher": teacher.record,
                "drawn": drawn,
            }
        )
    return summary


def _frames(
    pool: Pool, labels: dict[str, np.ndarray], rows: np.ndarray, max_force: float
) -> Iterator[tuple[Frames | Skipped, int]]:
    """Yield the structures with their labels, or why they are left out."""
    sizes = [len(one.numbers) for one in pool.structures]
    starts = np.cumsum([0, *sizes])
    for row in rows.tolist():
        name, (numbers, positions, cell) = pool.ids[row], pool.structures[row]
        force = labels["force"][starts[row] : starts[row + 1]]
        reason = str(labels[REASON][row])
        if not reason and np.linalg.norm(force, axis=1).max() > max_force:
            reason = f"a force above {max_force:g} eV/A"
        if not reason and np.abs(labels["virial"][row]).max() > MAX_VIRIAL * sizes[row]:
            reason = f"a virial above {MAX_VIRIAL:g} eV per atom: the teacher fails there"
        if reason:
            yield Skipped(name, reason), row
            continue
        scalars = set(labels) - {"force", "virial", REASON}
        own = {one: labels[one][row : row + 1].reshape(1, -1) for one in sorted(scalars)}
        own["energy"] = labels["energy"][row : row + 1]
        own["force"] = force[None]
        if cell is not None:
            own["virial"] = labels["virial"][row].reshape(1, 3, 3)
        cells = None if cell is None else cell[None]
        yield Frames(numbers, positions[None], own, [name], cells, group=pool.groups[row]), row


def _sources(wanted: Replay) -> list[dict[str, Any]]:
    """Return place and checksum of everything that was read."""
    return [
        file_record(path) if path.is_file() else StructureSet(path.name, [path]).checksum()[0]
        for path in wanted.sources
    ]
