"""``dp-mft fetch``: download a public data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.data.fetch import CATALOGUE, fetch, human_size
from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dp-mft fetch``."""
    parser.add_argument("name", nargs="?", help="data set; without a name they are listed")
    parser.add_argument("--to", type=Path, default=Path(), help="folder (default: here)")
    parser.add_argument(
        "--dry-run", action="store_true", help="show size, licence and addresses only"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """List the data sets, or load one."""
    if args.name is None:
        for name, source in CATALOGUE.items():
            print(f"{name:<36} {source.title}")
        return 0
    if args.name not in CATALOGUE:
        raise UserError(f"no data set {args.name!r}; there are {', '.join(CATALOGUE)}")
    source = CATALOGUE[args.name]
    print(f"{source.title}\n  reference  {source.reference}\n  licence    {source.licence}")
    for file in source.files:
        size = file.about or human_size(file.size)
        print(f"  file       {file.name}, {size}, {file.url}")
        print(f"             checksum {file.checksum or 'not published'}")
    if args.dry_run:
        return 0
    for file in source.files:
        verdict = fetch(file, args.to, progress=not args.quiet and sys.stderr.isatty())
        print(f"  {args.to / file.name}: {verdict}")
    if source.convert:
        print(f"  next       {source.convert}")
    return 0
