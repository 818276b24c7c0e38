"""``dp-mft convert``: a public data set to deepmd-kit systems."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deepmd_mft.data.check import RCUT
from deepmd_mft.data.convert import convert
from deepmd_mft.data.readers import READERS, PropertySpec, ReadOptions, open_source
from deepmd_mft.errors import UserError
from deepmd_mft.files.staging import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dp-mft convert``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "kinds of source:\n" + "\n".join(
        f"  {name:<13} {text}" for name, text in READERS.items()
    )
    add = parser.add_argument
    add("source", type=Path, help="file or folder to read")
    add("out", type=Path, help="folder to write; deepmd LMDB if it ends in .lmdb, else deepmd/npy")
    add("--kind", choices=["auto", *READERS], default="auto", help="kind of source")
    add(
        "--property",
        dest="properties",
        action="append",
        default=[],
        metavar="NAME[=KEY[:UNIT]]",
        help="a property to take, its key in the source and its unit (repeat for more)",
    )
    add("--type-map", help="elements in order, separated by commas")
    add("--only", choices=["all", "periodic", "molecular"], default="all")
    add("--no-cell", action="store_true", help="drop the cells: every structure is a molecule")
    add("--energy-unit", help="unit of energies in an ase or npz source (default eV)")
    add("--force-unit", help="unit of forces there (default energy unit / length unit)")
    add("--length-unit", help="unit of positions in an npz source (default angstrom)")
    add("--stress-unit", help="unit of stresses in an ase source (default eV/A^3)")
    add("--energy-key", help="info key of the energy, if ase does not know it")
    add("--force-key", help="arrays key of the forces, if ase does not know them")
    add("--id-key", help="column or info key of the structures' names")
    add(
        "--group-key",
        help="column or info key of groups that have one value: conformers of a molecule, "
        "terminations of a slab (predictions are means over a group)",
    )
    add("--structure-column", help="table: column of structure files, or of CIF contents")
    add("--smiles-column", help="table: column of SMILES; geometries are made by RDKit")
    add("--frame", choices=["first", "last"], help="table: which of several structures in a file")
    add(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that make geometries from SMILES (default: one per core)",
    )
    add("--level", help="level of theory, where a file holds several (ANI-1x)")
    add("--exclude", type=Path, help="QM9: uncharacterized.txt, molecules to leave out")
    add("--keep-nan", action="store_true", help="keep structures whose target is NaN")
    add(
        "--rcut",
        type=float,
        default=RCUT,
        help="vacuum that partly periodic structures need along open directions (default 6 A)",
    )
    add("--strict", action="store_true", help="stop at the first bad structure, skip none")
    add("--limit", type=int, help="stop after this many structures of the source")
    add("--overwrite", action="store_true", help="replace an existing folder")
    add("-q", "--quiet", action="store_true", help="no progress bar")


def _elements(text: str) -> list[str]:
    """Return the elements of ``--type-map``, each of which has one number."""
    listed = [one.strip() for one in text.split(",")]
    twice = sorted({one for one in listed if listed.count(one) > 1})
    if twice:
        raise UserError(f"--type-map {text}: {', '.join(twice)} is listed more than once")
    return listed


def run(args: argparse.Namespace) -> int:
    """Convert and print the summary."""
    taken = vars(args)
    options = ReadOptions(
        properties=[PropertySpec.parse(text) for text in args.properties],
        **{name: taken[name] for name in ReadOptions.__dataclass_fields__ if name != "properties"},
    )
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: nothing would be converted; give 1 or more")
    if not args.rcut > 0:
        raise UserError(f"--rcut {args.rcut:g}: a cutoff above 0 is needed")
    check_folder(args.out, "convert", overwrite=args.overwrite)
    source = open_source(args.source, args.kind, options)
    summary = convert(
        source,
        args.out,
        type_map=_elements(args.type_map) if args.type_map else None,
        only=args.only,
        keep_nan=args.keep_nan,
        rcut=args.rcut,
        strict=args.strict,
        limit=args.limit,
        overwrite=args.overwrite,
        progress=not args.quiet and sys.stderr.isatty(),
    )
    print(f"{args.source} ({source.name}) -> {args.out}")
    print(summary.text())
    for note in source.notes:
        print(f"  note        {note}")
    return 0
