"""From a source to a deepmd-kit data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepmd_mft.data.check import RCUT, Checked, check_frames
from deepmd_mft.data.frames import Frames, Skipped
from deepmd_mft.data.groups import in_groups
from deepmd_mft.data.summary import Summary
from deepmd_mft.data.writers import open_writer
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deepmd_mft.data.frames import Source
    from deepmd_mft.data.groups import Placed

__all__ = ["convert", "file_record"]

# Files larger than this (in bytes) are recorded by size alone; hashing them takes minutes.
_HASH_UP_TO = 2**30


def convert(
    source: Source,
    out: Path,
    *,
    type_map: list[str] | None = None,
    only: str = "all",
    keep_nan: bool = False,
    rcut: float = RCUT,
    strict: bool = False,
    limit: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Write a source as deepmd/npy (mixed), or as LMDB if ``out`` ends in ``.lmdb``.

    Parameters
    ----------
    source : Source
        What a reader returned.
    out : Path
        Folder to write.
    type_map : list of str, optional
        Order of the elements.
    only : str
        ``all``, ``periodic`` or ``molecular``.
    keep_nan : bool
        Keep structures with NaN targets.
    rcut : float
        Vacuum (in Angstrom) that partly periodic structures need along open directions.
    strict : bool
        Stop at the first structure that would be skipped.
    limit : int, optional
        Stop after this many structures of the source.
    overwrite : bool
        Replace an existing folder that a conversion wrote.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Summary
        What was written and what was skipped; also in ``dataset.json``.
    """
    summary = Summary(source.units)
    total = source.total if limit is None else limit
    if source.grouped and out.suffix == ".lmdb":
        raise UserError(
            f"{out}: labels of groups are not written as LMDB, whose frames deepmd-kit draws one "
            "by one; give a name without .lmdb (deepmd/npy)"
        )
    with (
        open_writer(out, type_map=type_map, inputs=source.files, overwrite=overwrite) as writer,
        tqdm(total=total, unit=" structures", disable=not progress, mininterval=0.5) as bar,
    ):
        found = _shown(_positions(source, limit), bar)
        for batch in in_groups(found) if source.grouped else ([one] for one in found):
            kept: list[tuple[Frames, Sequence[int]]] = []
            for item, first in batch:
                checked = _sift(item, only=only, keep_nan=keep_nan, rcut=rcut)
                _count(checked, summary, strict=strict)
                if checked.frames is not None:
                    kept.append((checked.frames, _source_rows(item, checked.frames, first)))
            if kept and source.grouped:
                writer.add_group(kept)
                summary.add_group([frames for frames, _ in kept])
            elif kept:
                writer.add(*kept[0])
                summary.add(kept[0][0])
        if not summary.structures:
            files = ", ".join(str(path) for path in source.files)
            raise UserError(f"no structure was left to write of {files}:\n{summary.text()}")
        writer.finish(_record(source, summary))
    return summary


def _positions(source: Source, limit: int | None) -> Iterator[Placed]:
    """Yield what the source has, with its (first) row there."""
    seen = 0
    for item in source.frames:
        if limit is not None and seen >= limit:
            return
        if isinstance(item, Frames) and limit is not None and seen + len(item) > limit:
            yield item.select(np.arange(len(item)) < limit - seen), seen
            return
        yield item, seen
        seen += len(item) if isinstance(item, Frames) else 1


def _shown(found: Iterator[Placed], bar: tqdm) -> Iterator[Placed]:
    """Yield what is found, and show how far the source is read."""
    for item, first in found:
        yield item, first
        bar.update(first - bar.n)


def _source_rows(item: Frames | Skipped, kept: Frames, first: int) -> list[int]:
    """Rows in the source of the frames that were kept of ``item``."""
    names = item.ids if isinstance(item, Frames) else []
    position = {name: first + i for i, name in enumerate(names)}
    return [position[name] for name in kept.ids]


def _sift(item: Frames | Skipped, *, only: str, keep_nan: bool, rcut: float) -> Checked:
    """Divide into what is written and what is not."""
    if isinstance(item, Skipped):
        return Checked(None, [item])
    kind = "molecular" if item.cells is None else "periodic"
    if only not in ("all", kind):
        reason = f"{kind}, and --only {only} was asked for"
        return Checked(None, [Skipped(name, reason) for name in item.ids])
    return check_frames(item, allow_nan=keep_nan, rcut=rcut)


def _count(checked: Checked, summary: Summary, *, strict: bool) -> None:
    """Count what is left out, and what there is to say about the rest."""
    for skipped in checked.skipped:
        if strict:
            raise UserError(f"{skipped.id}: {skipped.reason} (--strict stops at the first)")
        summary.skip(skipped)
    for text, ids in checked.remarks.items():
        summary.remark(text, ids)


def _record(source: Source, summary: Summary) -> dict[str, Any]:
    return {
        "reader": source.name,
        "files": [file_record(path) for path in source.files],
        "notes": source.notes,
        "units": {name: summary.units.get(name, "") for name in summary.labels},
        "summary": summary.as_dict(),
    }


def file_record(path: Path) -> dict[str, Any]:
    """Name, size and (up to 1 GiB) SHA-256 of an input file."""
    size = path.stat().st_size
    record: dict[str, Any] = {"path": str(path.resolve()), "bytes": size}
    if path.is_file() and size <= _HASH_UP_TO:
        record["sha256"] = file_checksum(path)
    return record
