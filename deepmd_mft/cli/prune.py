"""``dp-mft prune``: a checkpoint with the chosen branches and elements, without the optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="FILE.pt[:BRANCH], or the folder of a run"
    )
    parser.add_argument(
        "--branch",
        nargs="+",
        metavar="NAME",
        help="the branches to keep, by name or alias; all by default",
    )
    parser.add_argument(
        "--type-map",
        nargs="+",
        metavar="ELEMENT",
        help="the elements to keep, in this order; all by default",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE.pt", help="the file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace it")


def run(args: argparse.Namespace) -> int:
    """Prune, compare, write, print sizes."""
    from deepmd_mft.checkpoints.edit.prune import prune  # noqa: PLC0415
    from deepmd_mft.checkpoints.file import write_state  # noqa: PLC0415
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.checksums import file_checksum  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415

    if args.out.suffix != ".pt":
        raise UserError(f"-o {args.out}: deepmd-kit knows a checkpoint by its ending, .pt")
    file = ModelFile.parse(args.checkpoint)
    branches = args.branch or ([file.branch] if file.branch else None)
    with staged_file(args.out, [file.path], overwrite=args.overwrite) as partial:
        found = prune(file.path, branches, args.type_map)
        made = {
            "made_by": "dp-mft prune",
            "inputs": [
                {"path": str(file.path), "sha256": file_checksum(file.path)},
            ],
            "branches": found.branches,
            "type_map": found.type_map,
        }
        write_state(partial, found.state, made)
    before, after = (path.stat().st_size / 1e6 for path in (file.path, args.out))
    kept = ", ".join(name for name in found.branches if name)
    if kept:
        print(f"branches: {kept} ({len(found.branches)} of {found.of})")
    if args.type_map:
        print(
            f"type map: {' '.join(found.type_map)}; outputs on molecules of them differ by at most "
            f"{found.difference:.1g} of their size"
        )
    print(f"{args.out}: {after:.2f} MB, was {before:.2f} MB; no optimiser, {_next(kept)}")
    return 0


def _next(kept: str) -> str:
    head = " with a branch as finetune_head" if kept else ""
    return f"for --finetune{head}, --init-model, freeze and test"
