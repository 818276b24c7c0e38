"""Parse the verb of ``dp-mft`` and call its module.

A verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``; it is
imported only when it is called, so that ``dp-mft doc`` does not wait for scikit-learn.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from deepmd_mft.cli.stopping import Stopped, stoppable
from deepmd_mft.errors import UserError
from deepmd_mft.files.disk import is_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERBS = {
    "fetch": "download a public data set",
    "convert": "turn a public data set or a folder of structures into deepmd-kit systems",
    "split": "divide a converted set into train, val, id_test and ood_test",
    "replay": "label structures by a teacher: an auxiliary set without the original data",
    "input": "fill a template from a checkpoint and data folders",
    "plan": "fill and check the inputs of folds, strategies and seeds; a Makefile that trains them",
    "normalise": "common units and shares for several force-field data sets (joint pre-training)",
    "tighten": "make neighbour lists as narrow as the data allow, for the same network",
    "prune": "a checkpoint with the chosen branches and elements, without the optimizer",
    "check": "list what would fail or mislead in an input, before the training",
    "select": "find the best checkpoint of a run on its validation set",
    "interpolate": "models between two checkpoints, and soups; the best on validation data",
    "evaluate": "errors of models on split folders",
    "calibrate": "how far to believe models: intervals or probabilities from validation data",
    "predict": "structures without labels: value, interval, distance from the training set",
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
        The exit status: 0, 1 after a user's mistake (one message, no traceback), 130 after Ctrl-C
        and 143 after SIGTERM, as a shell counts signals.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in argv if not word.startswith("-")), "")
    try:
        with stoppable():
            status = _run(argv, verb)
            sys.stdout.flush()
    except UserError as error:
        return _fail(verb, error)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        name = "interrupted" if number == signal.SIGINT else f"stopped ({signal.strsignal(number)})"
        print(f"\ndp-mft {verb}: {'; '.join([name, *map(str, stop.args)])}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # the reader of a pipe, `head` for instance, has seen enough
        _give_up_output()
        return 141  # SIGPIPE
    except MemoryError as error:
        return _fail(verb, f"not enough memory ({error})" if str(error) else "not enough memory")
    except OSError as error:
        if is_full(error):
            _give_up_output()
            return _fail(verb, f"the disk is full ({error.filename or error})")
        if isinstance(error, PermissionError):
            return _fail(verb, f"no permission for {error.filename}")
        raise
    return status


def _give_up_output() -> None:
    """Drop what cannot be printed; Python would try again at its end, and fail with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(verb: str, error: object) -> int:
    print(f"dp-mft {verb}: {error}", file=sys.stderr)
    return 1


def _run(argv: list[str], called: str) -> int:
    """Parse the command line and run the verb ``called``."""
    args = build_parser([called]).parse_args(argv)
    return int(args.run(args))


def build_parser(verbs: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Parameters
    ----------
    verbs : iterable of str
        Those that have their arguments; of the others, whose modules are not imported, only the
        summary is there.
    """
    parser = argparse.ArgumentParser(
        prog="dp-mft",
        description="Tools around multi-task fine-tuning with DeePMD-kit. "
        "Training, freezing and testing stay with `dp --pt`.",
    )
    complete = set(verbs)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        subparser = subparsers.add_parser(verb, help=summary, description=summary)
        if verb in complete:
            module = importlib.import_module(f"deepmd_mft.cli.{verb}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser
