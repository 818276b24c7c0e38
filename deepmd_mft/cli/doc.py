"""``dp-mft doc``: print the reference of every registered JSON option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    import argparse

    from dargs import Argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "type",
        nargs="?",
        help="one registered type, for instance `loss/mft_property`; all if left out",
    )


def run(args: argparse.Namespace) -> int:
    """Print the reference."""
    texts = reference()
    if args.type is not None and args.type not in texts:
        raise UserError(f"no type '{args.type}'; there are {', '.join(texts)}")
    chosen = texts if args.type is None else {args.type: texts[args.type]}
    for heading, text in chosen.items():
        print(f"{heading}\n{'=' * len(heading)}\n\n{text}\n")
    return 0


def reference() -> dict[str, str]:
    """Return the printed reference of every registered type.

    Returns
    -------
    dict of str
        Text by ``kind/type``, for instance ``loss/mft_property``.
    """
    from dargs import Argument  # noqa: PLC0415

    from deepmd_mft import schema  # noqa: PLC0415  (needs deepmd-kit)

    model = schema.model_mft()
    fields = [  # of a branch; the descriptor's and the heads' own pages are left out
        Argument(arg.name, arg.dtype, optional=arg.optional, default=arg.default, doc=arg.doc)
        for arg in model.sub_fields.values()
    ]
    texts = {"model/mft": _text(Argument("mft", dict, fields, doc=model.doc))}
    for head in schema.HEADS:
        texts[f"fitting_net/{head().name}"] = _text(head())
    for name, loss in (
        ("mft_property", schema.loss_mft_property()),
        ("mft_classification", schema.loss_mft_classification()),
        ("mft_force_field", schema.loss_mft_force_field()),
    ):
        texts[f"loss/{name}"] = _text(Argument(name, dict, loss))
    texts["learning_rate/mft"] = _text(Argument("mft", dict, schema.learning_rate_mft()))
    return texts


def _text(argument: Argument) -> str:
    return str(argument.gen_doc(make_anchor=False, make_link=False))
