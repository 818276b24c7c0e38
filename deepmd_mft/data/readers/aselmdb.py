"""ASE-LMDB (``.aselmdb``): OMat24, OC20, OMol25 and other releases of FAIR Chemistry.

Each record is zlib-compressed JSON of an ase database row, under the key of its number
(``1``, ``2``, ...); ``nextid``, ``metadata`` and ``deleted_ids`` are no rows. Energies are in eV,
forces in eV/A, stresses in eV/A^3 with ase's sign.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np

from deepmd_mft.data.frames import Frames, Source
from deepmd_mft.data.readers.ase_file import AtomsReader, require_ase
from deepmd_mft.errors import UserError
from deepmd_mft.files.lmdb import check_complete

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deepmd_mft.data.readers import ReadOptions

__all__ = ["read_aselmdb"]

_NEEDED = ("numbers", "positions", "cell", "pbc")
# A structure of ten thousand atoms needs a megabyte; zlib can expand to any size.
_LARGEST = 2**26
_RESERVED = {b"nextid", b"metadata", b"deleted_ids"}


def read_aselmdb(path: Path, options: ReadOptions) -> Source:
    """Read one file or all ``*.aselmdb`` files of a folder, in the order of their names."""
    require_ase()
    options.require_units()
    files = sorted(path.glob("*.aselmdb")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no *.aselmdb file")
    reader = AtomsReader(options)
    total = 0
    for file in files:
        with _open(file) as environment, environment.begin() as transaction:
            reserved = sum(transaction.get(key) is not None for key in _RESERVED)
            total += transaction.stat()["entries"] - reserved
    return Source(
        "aselmdb", files, options.units, _frames(files, reader), total, notes=reader.notes
    )


def _open(path: Path) -> lmdb.Environment:
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
    except lmdb.Error as error:
        raise UserError(
            f"{path} cannot be opened as LMDB ({error}); an interrupted download leaves such "
            "a file: fetch it again"
        ) from None
    try:
        check_complete(environment, path)
    except UserError:
        environment.close()
        raise
    return environment


def _frames(files: list[Path], reader: AtomsReader) -> Iterator[Frames]:
    for file in files:
        with _open(file) as environment, environment.begin() as transaction:
            keys = [key for key, _ in transaction.cursor() if key.isdigit()]
            for key in sorted(keys, key=int):
                place = f"{file.name}:{key.decode()}"
                try:
                    yield _row(transaction.get(key, b""), place, reader)
                except UserError:
                    raise
                except Exception as error:
                    # A foreign record can fail anywhere in ase.
                    raise UserError(
                        f"{place}: damaged record ({type(error).__name__}: {error}); is this an "
                        "ASE-LMDB of atoms?"
                    ) from error


def _decompressed(record: bytes, place: str) -> bytes:
    machine = zlib.decompressobj()
    content = machine.decompress(record, _LARGEST)
    if machine.unconsumed_tail:
        raise UserError(f"{place}: more than {_LARGEST // 2**20} MB in one record")
    return content


def _row(record: bytes, place: str, reader: AtomsReader) -> Frames:
    from ase.db.row import AtomsRow  # noqa: PLC0415
    from ase.io.jsonio import object_hook  # noqa: PLC0415

    content: dict[str, Any] = json.loads(_decompressed(record, place), object_hook=object_hook)
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise UserError(f"{place}: no {missing[0]!r}; is this an ASE-LMDB of atoms?")
    content["id"] = place
    for name in ("positions", "cell", "pbc", "forces", "stress"):
        if content.get(name) is not None:
            content[name] = np.asarray(content[name])
    content["numbers"] = np.asarray(content["numbers"], dtype=np.int64)
    atoms = AtomsRow(content).toatoms()
    atoms.info.update(content.get("data") or {})
    atoms.info.update(content.get("key_value_pairs") or {})
    return reader.frames(atoms, place)
