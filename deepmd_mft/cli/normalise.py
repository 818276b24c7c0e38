"""``dp-mft normalise``: several force-field data sets in common units, as JMP trains on them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("input", type=Path, help="input of dp --pt train, with its data in place")
    add(
        "--temperature",
        type=float,
        metavar="T",
        help="also set the branches' shares by their numbers of structures, n^(1/T); JMP takes 2",
    )
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the new input, JSON")
    add("--overwrite", action="store_true", help="replace it")


def run(args: argparse.Namespace) -> int:
    """Fit, fill, write, print."""
    from deepmd_mft.files.staging import check_file, staged_file  # noqa: PLC0415
    from deepmd_mft.inputs.branches import read_input  # noqa: PLC0415
    from deepmd_mft.inputs.normalising import normalise_force_fields  # noqa: PLC0415

    check_file(args.out, [args.input], overwrite=args.overwrite)
    if args.temperature is not None and not 0 < args.temperature < math.inf:
        raise UserError("--temperature must be positive and finite")
    config = read_input(args.input)
    with staged_file(args.out, [args.input], overwrite=args.overwrite) as partial:
        notes = normalise_force_fields(config, args.temperature)
        partial.write_text(json.dumps(config, indent=2) + "\n")
    print("\n".join(notes))
    return 0
