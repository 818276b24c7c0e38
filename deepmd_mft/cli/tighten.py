"""``dp-mft tighten``: the smallest neighbour selection that is the same network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.checkpoints.edit.tighten import Change


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="INPUT|CHECKPOINT", help="a .json, or a .pt"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        required=True,
        metavar="DIR",
        help="all data that the model is to see: training, validation and test sets",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.2,
        help="room above the most neighbours of an atom in the data, as a share of them; 0.2",
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="of a single file; NAME.tight.json or NAME.tight.pt"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace it")


def run(args: argparse.Namespace) -> int:
    """Tighten each file, compare, write."""
    from deepmd_mft.files.staging import check_file  # noqa: PLC0415

    if args.out is not None and len(args.files) > 1:
        raise UserError("-o names one file; leave it out to write NAME.tight.* beside each")
    if args.margin < 0:
        raise UserError("--margin is a share of the neighbours: 0 or more")
    outs = [args.out or path.with_suffix(f".tight{path.suffix}") for path in args.files]
    for path, out in zip(args.files, outs, strict=True):
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        check_file(out, [*args.files, *args.data], overwrite=args.overwrite)
    for path, out in zip(args.files, outs, strict=True):
        _tighten(path, out, args)
    return 0


def _tighten(path: Path, out: Path, args: argparse.Namespace) -> None:
    from deepmd_mft.files.staging import staged_file  # noqa: PLC0415

    with staged_file(out, [path, *args.data], overwrite=args.overwrite) as partial:
        if path.suffix == ".pt":
            changes, compared = _write_checkpoint(path, partial, args)
        else:
            changes, compared = _write_input(path, partial, args)
    for change in changes:
        print(_line(change))
    print(f"{out}: the same network on {compared} frames that the lists held before")


def _write_checkpoint(path: Path, out: Path, args: argparse.Namespace) -> tuple[list[Change], int]:
    import torch  # noqa: PLC0415

    from deepmd_mft.checkpoints.edit.tighten import tighten_checkpoint  # noqa: PLC0415

    state, changes, compared = tighten_checkpoint(path, args.data, args.margin)
    torch.save(state, out)
    return changes, compared


def _write_input(path: Path, out: Path, args: argparse.Namespace) -> tuple[list[Change], int]:
    from deepmd_mft.checkpoints.edit.tighten import check_equal, tighten  # noqa: PLC0415

    try:
        config = json.loads(path.read_text())
        model = dict(config["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no JSON input of dp --pt train ({error!r})") from None
    new, changes = tighten(model, args.data, args.margin)
    compared = check_equal(model, new, args.data)
    out.write_text(json.dumps({**config, "model": new}, indent=2) + "\n")
    return changes, compared


def _line(change: Change) -> str:
    (edges, angles), (e_rcut, a_rcut) = change.most, change.cutoffs
    old, new = change.old, change.new
    return (
        f"{change.where}: at most {edges} neighbours within {e_rcut:g} and {angles} within "
        f"{a_rcut:g} Angstrom; e_sel {old.e_sel} -> {new.e_sel}, a_sel {old.a_sel} -> {new.a_sel}, "
        f"sel_reduce_factor {old.sel_reduce_factor:g} -> {new.sel_reduce_factor:g}"
    )
