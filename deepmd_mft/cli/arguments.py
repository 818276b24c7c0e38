"""Arguments that several verbs have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """Declare the models whose predictions are looked at together, and their branch."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="FILE[:BRANCH]: checkpoints (.pt), frozen models (.pth) or folders of runs; several "
        "are seeds of an ensemble",
    )
    parser.add_argument("--head", help="branch of multi-task checkpoints")
