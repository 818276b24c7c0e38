"""Parse the verb of ``dp-mft`` and call its module.

A verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``; it is
imported only when it is called, so that ``dp-mft doc`` does not wait for scikit-learn.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "fetch": "download a public data set",
    "convert": "turn a public data set or a folder of structures into deepmd-kit systems",
    "split": "divide a converted set into train, val, id_test and ood_test",
    "input": "fill a template from a checkpoint and data folders",
    "check": "list what would fail or mislead in an input, before the training",
    "select": "find the best checkpoint of a run on its validation set",
    "evaluate": "errors of models on split folders",
    "report": "one page that compares runs in and out of distribution",
    "analyze": "look into representations: collapse, drift, fitting auxiliary sets",
    "doc": "print the reference of every registered JSON option",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Parameters
    ----------
    argv : sequence of str, optional
        The command line after ``dp-mft``; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        The exit status: 0, 1 after a user's mistake (one message, no traceback), 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="dp-mft",
        description="Tools around multi-task fine-tuning with DeePMD-kit. "
        "Training, freezing and testing stay with `dp --pt`.",
    )
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    called = next((word for word in argv if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        subparser = subparsers.add_parser(verb, help=summary, description=summary)
        if verb == called:
            module = importlib.import_module(f"deepmd_mft.cli.{verb}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except UserError as error:
        print(f"dp-mft {args.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ndp-mft {args.verb}: interrupted", file=sys.stderr)
        return 130  # as a shell counts SIGINT
    except BrokenPipeError:  # the reader of a pipe, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # SIGPIPE
    return status
