"""``dp-mft split``: train, val, id_test and ood_test of a converted set."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.files.staging import check_folder
from deepmd_mft.splits import write
from deepmd_mft.splits.columns import Columns
from deepmd_mft.splits.fold import Fold, leaks
from deepmd_mft.splits.record import read_record
from deepmd_mft.splits.registry import METHODS, OPTIONS, REQUIRED, Method, settle
from deepmd_mft.structures.duplicates import duplicate_groups
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dp-mft split``."""
    import argparse  # noqa: PLC0415

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "methods, with the options that each uses:\n" + "\n".join(
        f"  {name:<17} {method.summary}\n{'':<20}{_usage(method)}"
        for name, method in METHODS.items()
    )
    add = parser.add_argument
    add("method", choices=METHODS, metavar="METHOD", help="one of the methods below")
    add("data", type=Path, help="converted set: deepmd/npy folder or deepmd LMDB")
    add("out", type=Path, help="folder to write")
    for name, option in OPTIONS.items():
        choices = option.choices or None
        add(option.flag, dest=name, type=option.kind, choices=choices, help=option.help)
    add("--write", help="only these folds' folders, separated by commas; 'none' for split.json")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes for features and SMILES")
    add("--overwrite", action="store_true", help="replace an existing folder")
    add("-q", "--quiet", action="store_true", help="no progress bars and remarks on standard error")


def _usage(method: Method) -> str:
    words = []
    for name, default in method.arguments.items():
        flag = OPTIONS[name].flag
        if name == "target" or default is REQUIRED:
            words.append(f"{flag} {name.upper()}")
        elif default is None:
            words.append(f"[{flag}]")
        elif name != "duplicates":
            words.append(f"{flag} {default}")
    return " ".join(words)


def run(args: argparse.Namespace) -> int:
    """Split, write and print the sizes and target ranges."""
    start = time.perf_counter()
    method = METHODS[args.method]
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    options = settle(args.method, given)
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least one process is needed")
    inputs = [
        options[name] for name in ("test_file", "val_file", "split_json") if options.get(name)
    ]
    check_folder(args.out, "split", [args.data, *inputs], overwrite=args.overwrite)
    data = StructureSet.open(args.data)
    progress = not args.quiet and sys.stderr.isatty()

    def tell(remark: str) -> None:
        if not args.quiet:
            print(f"  {remark}", file=sys.stderr)

    # What is divided are labels: a group of frames that has one counts once, wherever it is large.
    pooling = Pooling(data)
    _refuse_given_rows(pooling, args.method, method)
    groups = np.arange(len(data))
    if options["duplicates"] == "together":
        rows, structures = data.rows, data.with_some_names()
        groups = duplicate_groups(rows.groups, rows.smiles, structures, jobs=args.jobs, tell=tell)
    given_rows = args.method == "rebuild"
    divided = data if given_rows else pooling.structures
    groups = groups if given_rows else pooling.joined(groups)
    columns = Columns(
        divided,
        target=options.get("target"),
        jobs=args.jobs,
        cache=args.cache,
        tell=tell,
        progress=progress,
    )
    made = method.folds(columns, groups, options)
    folds = made if given_rows else [_of_frames(fold, pooling) for fold in made]
    original = read_record(options["split_json"]) if "split_json" in options else None
    record = write.write_split(
        data,
        folds,
        args.out,
        method=original["method"] if original else args.method,
        parameters=original["parameters"] if original else _parameters(options),
        only=None if args.write is None else [w for w in args.write.split(",") if w != "none"],
        original=original,
        inputs=inputs,
        overwrite=args.overwrite,
        progress=progress,
    )
    print(
        f"{args.method}: {_counted(divided, data)} of {args.data} -> {args.out} "
        f"({time.perf_counter() - start:.1f} s)"
    )
    if options["duplicates"] == "together":
        _report_duplicates(made, groups, moved=not method.keeps)
    _report_sizes(divided, made, options.get("target"))
    if original is not None:
        _report_checksums(original, record, args.split_json)
    return 0


def _refuse_given_rows(pooling: Pooling, name: str, method: Method) -> None:
    """Refuse published rows for data whose groups they may divide; a split.json divides none."""
    if pooling.of_groups and method.keeps and name != "rebuild":
        raise UserError(
            f"{name} takes test sets as they were published, by row; {pooling.frames.path} has one "
            "label for each group of structures, which those may divide. Take another method"
        )


def _of_frames(fold: Fold, pooling: Pooling) -> Fold:
    """Return a fold of groups as one of their frames."""
    return Fold(fold.name, **{part: pooling.rows(rows) for part, rows in fold.parts().items()})


def _counted(divided: StructureSet, data: StructureSet) -> str:
    if len(divided) == len(data):
        return f"{len(data):,} rows"
    return f"{len(divided):,} groups of {len(data):,} rows"


def _parameters(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that shaped the split, for ``split.json``."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if name != "cache"
    }


def _report_duplicates(made: list[Fold], groups: np.ndarray, *, moved: bool) -> None:
    joined = len(groups) - len(np.unique(groups))
    fate = "stay with it" if moved else "stay where they were published"
    print(f"  duplicates  {joined:,} rows belong to an earlier row and {fate}")
    found = [(fold, leaks(fold, groups)) for fold in made] if joined else []
    leaking = [(fold, counts) for fold, counts in found if counts]
    for fold, counts in leaking[:5]:
        listed = ", ".join(f"{count:,} of {part}" for part, count in counts.items())
        name = f"fold {fold.name}: " if fold.name else ""
        print(f"  leakage     {name}{listed} have an equal row in train")
    if len(leaking) > 5:
        print(f"  leakage     and so do rows of {len(leaking) - 5} more folds")


def _report_sizes(data: StructureSet, made: list[Fold], target: str | None) -> None:
    if len(made) > 1:
        print(f"  {len(made)} folds; rows per fold:")
        for part in made[0].parts():
            numbers = [len(fold.parts()[part]) for fold in made]
            print(f"  {part:<10} {min(numbers):,} to {max(numbers):,}")
        return
    values = data.label(target) if target else None
    for part, rows in made[0].parts().items():
        text = f"  {part:<10} {len(rows):>9,}"
        if values is not None and len(rows):
            low, high = values[rows].min(), values[rows].max()
            text += f"   {target} {low:.6g} to {high:.6g} {data.units.get(target or '', '')}"
        print(text)


def _report_checksums(original: dict[str, Any], rebuilt: dict[str, Any], file: Path) -> None:
    known = [
        part in old["sha256"]
        for old, new in zip(original["folds"], rebuilt["folds"], strict=True)
        for part in new["sha256"]
    ]
    print(f"  checksums agree with {file}: {sum(known)} of {len(known)} folders")
    if not all(known):
        print("  (the others were not written when it was made, so it has none of them)")
