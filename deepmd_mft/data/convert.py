"""From a source to a deepmd-kit data set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from deepmd_mft.data.check import check_frames
from deepmd_mft.data.frames import Skipped
from deepmd_mft.data.summary import Summary
from deepmd_mft.data.writers import open_writer
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.data.frames import Source

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
    strict : bool
        Stop at the first structure that would be skipped.
    limit : int, optional
        Stop after this many configurations of the source.
    overwrite : bool
        Replace an existing folder.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Summary
        What was written and what was skipped; also in ``dataset.json``.
    """
    summary = Summary(source.units)
    seen = 0

    def skip(skipped: Skipped) -> None:
        if strict:
            raise UserError(f"{skipped.id}: {skipped.reason} (--strict stops at the first)")
        summary.skip(skipped)

    writer = open_writer(out, type_map=type_map, overwrite=overwrite)
    total = source.total if limit is None else limit
    with (
        writer,
        tqdm(total=total, unit=" structures", disable=not progress, mininterval=0.5) as bar,
    ):
        for item in source.frames:
            if isinstance(item, Skipped):
                skip(item)
                seen += 1
            else:
                frames, bad = check_frames(item, allow_nan=keep_nan)
                for skipped in bad:
                    skip(skipped)
                position = {name: seen + i for i, name in enumerate(item.ids)}
                seen += len(item)
                kind = "molecular" if frames.cells is None else "periodic"
                if only in ("all", kind):
                    if len(frames):
                        writer.add(frames, [position[name] for name in frames.ids])
                        summary.add(frames)
                else:
                    for name in frames.ids:
                        summary.skip(Skipped(name, f"{kind}, and --only {only} was asked for"))
            bar.update(seen - bar.n)
            if limit is not None and seen >= limit:
                break
        if not summary.structures:
            raise UserError(
                "no structure was left to write:\n" + summary.text()
                if seen
                else f"no structure found in {', '.join(str(f) for f in source.files)}"
            )
        writer.finish(_record(source, summary, seen))
    return summary


def _record(source: Source, summary: Summary, seen: int) -> dict[str, Any]:
    return {
        "reader": source.name,
        "files": [file_record(path) for path in source.files],
        "source_rows": seen,
        "notes": source.notes,
        "units": {name: summary.units.get(name, "") for name in summary.labels},
        "summary": summary.as_dict(),
    }


def file_record(path: Path) -> dict[str, Any]:
    """Name, size and (up to 1 GiB) SHA-256 of an input file."""
    size = path.stat().st_size
    record: dict[str, Any] = {"path": str(path.resolve()), "bytes": size}
    if path.is_file() and size <= _HASH_UP_TO:
        with path.open("rb") as handle:
            record["sha256"] = hashlib.file_digest(handle, "sha256").hexdigest()
    return record
