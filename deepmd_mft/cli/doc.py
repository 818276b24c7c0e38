"""``dp-mft doc``: print the reference of every registered JSON option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "type",
        nargs="?",
        help="one registered type, for instance `loss/mft_property`; all if left out",
    )


def run(args: argparse.Namespace) -> int:
    """Print the reference."""
    from deepmd_mft.schema import reference  # noqa: PLC0415  (needs deepmd-kit)

    texts = reference()
    if args.type is not None and args.type not in texts:
        raise UserError(f"no type '{args.type}'; there are {', '.join(texts)}")
    chosen = texts if args.type is None else {args.type: texts[args.type]}
    for heading, text in chosen.items():
        print(f"{heading}\n{'=' * len(heading)}\n\n{text}\n")
    return 0
