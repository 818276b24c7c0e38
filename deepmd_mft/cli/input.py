"""``dp-mft input``: fill a template from a checkpoint and data folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deepmd_mft.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("template", type=Path, help="a JSON of input_templates/, or any input")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="gives descriptor, type map, dim_case_embd and the auxiliary head",
    )
    parser.add_argument("--aux-head", metavar="NAME", help="its force-field branch to keep")
    for name, text in (
        ("train", "training data of the property"),
        ("valid", "validation data of the property"),
        ("aux-train", "training data of the auxiliary branch"),
        ("aux-valid", "validation data of the auxiliary branch"),
    ):
        parser.add_argument(f"--{name}", nargs="+", type=Path, default=[], metavar="DIR", help=text)
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
    parser.add_argument("--aux-batch-size", type=_batch_size, help="of the auxiliary branch")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--model-prob", type=float, help="share of the property branch, e.g. 0.5")
    group.add_argument(
        "--temperature",
        type=float,
        help="shares by numbers of structures instead, n^(1/T); JMP takes 2",
    )
    parser.add_argument("--stat-files", metavar="DIR", help="where deepmd-kit keeps statistics")
    parser.add_argument("-o", "--out", type=Path, default=Path("input.json"), help="input.json")
    parser.add_argument("--overwrite", action="store_true", help="replace it")


def _batch_size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def run(args: argparse.Namespace) -> int:
    """Fill and write; say the next two commands."""
    from deepmd_mft.files.staging import check_file, staged_file  # noqa: PLC0415
    from deepmd_mft.inputs.filling import Filling, fill  # noqa: PLC0415

    data = [*args.train, *args.valid, *args.aux_train, *args.aux_valid]
    read = [path for path in (args.template, args.checkpoint, *data) if path is not None]
    check_file(args.out, read, overwrite=args.overwrite)
    if args.model_prob is not None and not 0 < args.model_prob < 1:
        raise UserError("--model-prob is a share: between 0 and 1")
    if args.temperature is not None and args.temperature <= 0:
        raise UserError("--temperature must be positive")
    try:
        template = json.loads(args.template.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{args.template} cannot be read as JSON ({error})") from None
    filling = Filling(
        args.train,
        args.valid,
        args.aux_train,
        args.aux_valid,
        checkpoint=args.checkpoint,
        aux_head=args.aux_head,
        steps=args.steps,
        batch_size=args.batch_size,
        aux_batch_size=args.aux_batch_size,
        share=args.model_prob,
        temperature=args.temperature,
        stat_files=args.stat_files,
        property_name=args.property,
        intensive=args.intensive,
        type_map=args.type_map,
        save_freq=args.save_freq,
    )
    with staged_file(args.out, read, overwrite=args.overwrite) as partial:
        config = fill(template, filling, args.out)
        partial.write_text(json.dumps(config, indent=2) + "\n")
    for note in filling.notes:
        print(note, file=sys.stderr)
    finetune = f" --finetune {args.checkpoint.resolve()}" if args.checkpoint else ""
    print(f"wrote {args.out}; next, in {args.out.absolute().parent}:", file=sys.stderr)
    print(f"  dp-mft check {args.out.name}{finetune}", file=sys.stderr)
    print(f"  dp --pt train {args.out.name}{finetune}", file=sys.stderr)
    return 0
