"""``dp-mft split``: train, val, id_test and ood_test of a converted set."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.errors import UserError
from deepmd_mft.splits import boom, chemistry, omee, published, random_folds, write
from deepmd_mft.structures.dataset import open_dataset
from deepmd_mft.structures.duplicates import duplicate_groups

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.splits import Fold
    from deepmd_mft.structures.dataset import DataSet

METHODS = {
    "boom": "lowest kernel density of the target out (--target)",
    "loco": "crystals: each k-means cluster of orbital-field matrices out once",
    "sparse-x-single": "crystals: isolated structures, one a fold",
    "sparse-x-cluster": "crystals: isolated structures with their neighbours",
    "sparse-y-single": "crystals: isolated target values, one a fold (--target)",
    "sparse-y-cluster": "crystals: isolated target values with structural neighbours (--target)",
    "random": "at random; no OOD set",
    "kfold": "k random folds; no OOD set",
    "matbench": "MatBench's five official folds; no OOD set (--target)",
    "scaffold": "molecules: rare Bemis-Murcko scaffolds out",
    "element-out": "every structure with one of --elements out",
    "size-out": "the largest structures out",
    "from-file": "published folds (--test-file, --val-file)",
    "rebuild": "exactly as a split.json says (--from)",
}
#: Default sizes: OOD, ID test, validation. BOOM's own for boom; Omee's for the folds.
_DEFAULTS = {
    "boom": (10_000, 0.05, 0.05),
    "random": (0, 0.1, 0.1),
    "kfold": (0, 0, 0.1),
    "matbench": (0, 0, 0.1),
    "scaffold": (0.1, 0.05, 0.05),
    "element-out": (0, 0.05, 0.05),
    "size-out": (0.1, 0.05, 0.05),
}
_FOLD_DEFAULTS = (0, 0, 0.2)
_KEEP_PUBLISHED = {"matbench", "from-file", "rebuild"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dp-mft split``."""
    import argparse  # noqa: PLC0415

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "methods:\n" + "\n".join(f"  {k:<17} {v}" for k, v in METHODS.items())
    add = parser.add_argument
    add("method", choices=METHODS, metavar="METHOD", help="one of the methods below")
    add("data", type=Path, help="converted set: deepmd/npy folder or deepmd LMDB")
    add("out", type=Path, help="folder to write")
    add("--target", help="label that the method looks at")
    add("--ood", type=float, help="size of the OOD set: a count, or a fraction below 1")
    add("--id-test", type=float, help="size of the ID test set: count or fraction of the rest")
    add("--val", type=float, help="size of the validation set: count or fraction of the rest")
    add("--seed", type=int, help="seed of every random draw (default 42 for boom, else 0)")
    add("--folds", type=int, default=5, help="kfold: number of folds")
    add("--clusters", type=int, default=50, help="loco and sparse-*: number of clusters")
    add("--neighbours", type=int, default=10, help="sparse-*-cluster: neighbours a target")
    add("--candidates", type=int, default=500, help="sparse-*: how many sparsest samples")
    add("--elements", help="element-out: symbols, separated by commas")
    add("--larger-than", type=int, help="size-out: OOD are structures of more atoms")
    add("--test-file", type=Path, help="from-file: JSON of fold -> rows of the OOD test set")
    add("--val-file", type=Path, help="from-file: JSON of fold -> validation rows")
    add("--from", dest="split_json", type=Path, help="rebuild: the split.json")
    add(
        "--duplicates",
        choices=["together", "ignore"],
        default="together",
        help="keep equal molecules and structures on one side (default), or do not look",
    )
    add("--write", help="only these folds' folders, separated by commas; 'none' for split.json")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes for the features")
    add("--cache", type=Path, help="folder of features (default ~/.cache/deepmd_mft)")
    add("--overwrite", action="store_true", help="replace an existing folder")
    add("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Split, write and print the sizes and target ranges."""
    start = time.perf_counter()
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; choose another name or give --overwrite")
    data = open_dataset(args.data)
    progress = not args.quiet and sys.stderr.isatty()
    sizes = _DEFAULTS.get(args.method, _FOLD_DEFAULTS)
    for name, default in zip(("ood", "id_test", "val"), sizes, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, default)
    if args.seed is None:
        args.seed = 42 if args.method == "boom" else 0
    groups = np.arange(len(data))
    if args.duplicates == "together" and args.method not in _KEEP_PUBLISHED:
        groups = duplicate_groups(data.rows.groups, data.rows.smiles, data.structures())
    only = None if args.write is None else [w for w in args.write.split(",") if w != "none"]
    original = None
    method, parameters = args.method, _parameters(args)
    if args.method == "rebuild":
        if args.split_json is None:
            raise UserError("rebuild needs --from SPLIT.json")
        made, original = write.read_split(args.split_json, data)
        method, parameters = original["method"], original["parameters"]
    else:
        made = _folds(args, data, groups, progress)
    write.write_split(
        data,
        made,
        args.out,
        method=method,
        parameters=parameters,
        only=only,
        original=original,
        overwrite=args.overwrite,
        progress=progress,
    )
    _report(args, data, made, groups, time.perf_counter() - start)
    if original is not None:
        print(f"  the folders' checksums agree with {args.split_json}")
    return 0


_USED = {
    "boom": ("target", "ood"),
    "loco": ("clusters",),
    "sparse-x-single": ("clusters", "candidates"),
    "sparse-x-cluster": ("clusters", "candidates", "neighbours"),
    "sparse-y-single": ("target", "clusters", "candidates"),
    "sparse-y-cluster": ("target", "clusters", "candidates", "neighbours"),
    "kfold": ("folds",),
    "matbench": ("target",),
    "scaffold": ("ood",),
    "element-out": ("elements",),
    "size-out": ("ood", "larger_than"),
    "from-file": ("test_file", "val_file"),
}


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that shaped the split, for ``split.json``."""
    names = (*_USED.get(args.method, ()), "id_test", "val", "seed", "duplicates")
    values = {name: getattr(args, name) for name in names}
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def _folds(  # noqa: C901 - one branch a method, in the order of METHODS
    args: argparse.Namespace, data: DataSet, groups: np.ndarray, progress: bool
) -> list[Fold]:
    method = args.method
    common = {"id_test": args.id_test, "val": args.val, "seed": args.seed}
    if method == "boom":
        return boom.boom(_target(args, data), groups, n_ood=args.ood, **common)
    if method == "loco":
        features = _features(args, data, progress)
        return omee.loco(features, groups, clusters=args.clusters, **common)
    if method.startswith("sparse-"):
        _, space, kind = method.split("-")
        return omee.sparse(
            space,
            _target(args, data) if space == "y" else np.empty(0),
            _features(args, data, progress) if method != "sparse-y-single" else np.empty(0),
            groups,
            neighbours=args.neighbours if kind == "cluster" else 0,
            clusters=args.clusters,
            candidates=args.candidates,
            **common,
        )
    if method == "random":
        return random_folds.random_split(groups, **common)
    if method == "kfold":
        return random_folds.kfold(groups, folds=args.folds, val=args.val, seed=args.seed)
    if method == "matbench":
        values = _target(args, data)
        return random_folds.matbench(values, data.rows.source_rows, val=args.val, seed=args.seed)
    if method == "scaffold":
        return chemistry.scaffold(data.rows.smiles, groups, n_ood=args.ood, **common)
    if method == "element-out":
        if not args.elements:
            raise UserError("element-out needs --elements, for example --elements F,Cl")
        numbers = (structure[0] for structure in data.structures())
        return chemistry.element_out(numbers, groups, args.elements.split(","), **common)
    if method == "size-out":
        natoms = np.array([len(structure[0]) for structure in data.structures()])
        return chemistry.size_out(
            natoms, groups, larger_than=args.larger_than, n_ood=args.ood, **common
        )
    if args.test_file is None:
        raise UserError("from-file needs --test-file FOLDS.json (and, if published, --val-file)")
    source = data.rows.source_rows
    test = published.read_fold_file(args.test_file, source)
    validation = published.read_fold_file(args.val_file, source) if args.val_file else None
    return published.from_file(test, validation, len(data), val=args.val, seed=args.seed)


def _target(args: argparse.Namespace, data: DataSet) -> np.ndarray:
    if not args.target:
        raise UserError(f"{args.method} needs --target; the set has {', '.join(data.units)}")
    return data.label(args.target)


def _features(args: argparse.Namespace, data: DataSet, progress: bool) -> np.ndarray:
    from deepmd_mft.splits.ofm import orbital_field_matrices  # noqa: PLC0415

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return orbital_field_matrices(
        data.structures(),
        total=len(data),
        jobs=args.jobs,
        cache=args.cache or home / "deepmd_mft",
        progress=progress,
    )


def _report(
    args: argparse.Namespace, data: DataSet, made: list[Fold], groups: np.ndarray, seconds: float
) -> None:
    print(f"{args.method}: {len(data):,} rows of {args.data} -> {args.out} ({seconds:.1f} s)")
    joined = len(groups) - int(groups.max()) - 1
    if args.duplicates == "together" and args.method not in _KEEP_PUBLISHED:
        print(f"  duplicates  {joined:,} rows belong to an earlier row and stay with it")
    values = data.label(args.target) if args.target else None
    unit = data.units.get(args.target or "", "")
    if len(made) == 1:
        for part, rows in made[0].parts().items():
            text = f"  {part:<10} {len(rows):>9,}"
            if values is not None and len(rows):
                low, high = values[rows].min(), values[rows].max()
                text += f"   {args.target} {low:.6g} to {high:.6g} {unit}"
            print(text)
        return
    print(f"  {len(made)} folds; rows a fold:")
    for part in made[0].parts():
        numbers = [len(fold.parts()[part]) for fold in made]
        print(f"  {part:<10} {min(numbers):,} to {max(numbers):,}")
