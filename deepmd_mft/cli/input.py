"""``dp-mft input``: fill a template from a checkpoint and data folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepmd_mft.inputs.filling import Filling

T = TypeVar("T")

#: Options of the data, and what these are for.
SECTIONS = {"train": "training", "valid": "validation"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "template",
        type=Path,
        help="the name of a template, for instance small/mft or qm9/homo/ft, or any input.json",
    )
    for name, kind in SECTIONS.items():
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=Path,
            default=[],
            metavar="DIR",
            help=f"{kind} data of the property",
        )
    add_filling(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("input.json"), help="input.json")
    parser.add_argument(
        "--no-tighten",
        action="store_true",
        help="leave e_sel, a_sel and sel_reduce_factor as they are, instead of fitting them to the "
        "data in the input and in a copy of the checkpoint (the same network)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace it")


def add_filling(parser: argparse.ArgumentParser) -> None:
    """Declare what goes into a template beside the data of the property."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE|NAME",
        help="gives descriptor, type map, dim_case_embd and the heads that it has; `embedded` is "
        "the small one that comes with this package, DPA-3.1-3M and the like what "
        "`dp pretrained download` has fetched",
    )
    parser.add_argument(
        "--aux-head",
        nargs="+",
        default=[],
        metavar="[NAME=]HEAD",
        help="the branch of the checkpoint whose head an auxiliary branch inherits, or RANDOM; "
        "left out, the one of its name",
    )
    for name, kind in SECTIONS.items():
        parser.add_argument(
            f"--aux-{name}",
            nargs="+",
            default=[],
            metavar="[NAME[:LABEL]=]DIR",
            help=f"{kind} data of the auxiliary branches: those of the template's only one, or of "
            "any number by name. A new one learns energies and forces or a property, whichever "
            "its data have; LABEL says it where they have both or several",
        )
    parser.add_argument(
        "--property",
        metavar="NAME",
        help="label to learn; left out, the template's, or the only one of the data",
    )
    parser.add_argument(
        "--intensive",
        action=argparse.BooleanOptionalAction,
        help="whether the property does not grow with the number of atoms; left out, as in the "
        "template",
    )
    parser.add_argument(
        "--type-map",
        nargs="+",
        metavar="ELEMENT",
        default=[],
        help="elements of the model; left out, those of the template or checkpoint and the data",
    )
    parser.add_argument("--steps", type=int, help="training steps, of all branches together")
    parser.add_argument("--save-freq", type=int, metavar="N", help="steps between checkpoints")
    parser.add_argument("--batch-size", type=_batch_size, help="of the property, e.g. auto:512")
    parser.add_argument(
        "--aux-batch-size",
        nargs="+",
        default=[],
        metavar="[NAME=]SIZE",
        help="of the auxiliary branches, or of one",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--share",
        nargs="+",
        default=[],
        metavar="[NAME=]SHARE",
        help="of the steps (model_prob): of the property branch, e.g. 0.4, and of others by name; "
        "what is left is divided equally. Left out, the property's is the template's",
    )
    group.add_argument(
        "--temperature",
        type=float,
        help="shares by numbers of structures instead, n^(1/T); JMP takes 2",
    )
    parser.add_argument("--stat-files", metavar="DIR", help="where deepmd-kit keeps statistics")


def _batch_size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _named(texts: list[str], option: str, convert: Callable[[str], T]) -> dict[str, T]:
    """Read ``[NAME=]VALUE`` texts."""
    found: dict[str, T] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if name in found or (equals and not name):
            raise UserError(
                f"{option} {text}: " + (f"'{name}' has one already" if name else "write NAME=VALUE")
            )
        found[name] = convert(value)
    return found


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UserError(
            f"--share {text}: a share is a number between 0 and 1 (without a step a branch has no "
            "effect: leave it out)"
        )
    return share


def read_filling(args: argparse.Namespace, train: list[Path], valid: list[Path]) -> Filling:
    """Return what goes into a template: these data, and the options of :func:`add_filling`."""
    from deepmd_mft.checkpoints.named import find_checkpoint  # noqa: PLC0415
    from deepmd_mft.inputs.auxiliary import parse_auxiliary  # noqa: PLC0415
    from deepmd_mft.inputs.filling import Filling  # noqa: PLC0415

    if args.temperature is not None and args.temperature <= 0:
        raise UserError("--temperature must be positive")
    return Filling(
        train,
        valid,
        parse_auxiliary(args.aux_train, args.aux_valid),
        checkpoint=None if args.checkpoint is None else find_checkpoint(args.checkpoint),
        aux_heads=_named(args.aux_head, "--aux-head", str),
        steps=args.steps,
        batch_size=args.batch_size,
        aux_batch_sizes=_named(args.aux_batch_size, "--aux-batch-size", _batch_size),
        shares=_named(args.share, "--share", _share),
        temperature=args.temperature,
        stat_files=args.stat_files,
        property_name=args.property,
        intensive=args.intensive,
        type_map=args.type_map,
        save_freq=args.save_freq,
    )


def run(args: argparse.Namespace) -> int:
    """Fill and write; say the next two commands."""
    from deepmd_mft.files.shipped import find_template  # noqa: PLC0415
    from deepmd_mft.files.staging import check_file, staged_file  # noqa: PLC0415
    from deepmd_mft.inputs.filling import fill  # noqa: PLC0415
    from deepmd_mft.inputs.narrowing import Narrowed, narrow  # noqa: PLC0415
    from deepmd_mft.inputs.paths import moved, with_paths  # noqa: PLC0415

    filling = read_filling(args, args.train, args.valid)
    data = [*args.train, *args.valid, *filling.auxiliary_data]
    checkpoint, source = filling.checkpoint, find_template(args.template)
    read = [path for path in (source, checkpoint, *data) if path is not None]
    check_file(args.out, read, overwrite=args.overwrite)
    try:
        template = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read as JSON ({error})") from None
    old, new = (path.absolute().parent for path in (source, args.out))
    if old != new:
        template = with_paths(template, moved(old, new))
    with staged_file(args.out, read, overwrite=args.overwrite) as partial:
        found = Narrowed(fill(template, filling, args.out), checkpoint)
        if not args.no_tighten:
            found = narrow(found.config, checkpoint, args.out, overwrite=args.overwrite)
        partial.write_text(json.dumps(found.config, indent=2) + "\n")
    for note in [*filling.notes, *found.notes]:
        print(note, file=sys.stderr)
    if found.checkpoint != checkpoint:
        print(f"wrote {found.checkpoint}; {checkpoint} is as it was", file=sys.stderr)
    finetune = f" --finetune {found.checkpoint.resolve()}" if found.checkpoint else ""
    print(f"wrote {args.out}; next, in {args.out.absolute().parent}:", file=sys.stderr)
    print(f"  dp-mft check {args.out.name}{finetune}", file=sys.stderr)
    print(f"  dp --pt train {args.out.name}{finetune}", file=sys.stderr)
    return 0
