"""``dp-mft analyze``: representations of checkpoints, compared and drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError, missing_package

if TYPE_CHECKING:
    import argparse

    from deepmd_mft.structures.structure_set import StructureSet

QUESTIONS = {
    "collapse": "did fine-tuning spoil what pretraining learnt? clusters, drift, layers, elements",
    "domains": "which auxiliary set suits a target? map and ranking of data sets",
    "embed": "write node, edge and structure representations to an npz file",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three questions and their options."""
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    for name, summary in QUESTIONS.items():
        sub = questions.add_parser(name, help=summary, description=summary)
        globals()[f"_{name}_arguments"](sub)
        sub.add_argument("--structures", type=int, help="take so many structures of each set")
        sub.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
        sub.add_argument("--overwrite", action="store_true", help="replace an existing output")
        sub.set_defaults(answer=globals()[f"_{name}"])


def run(args: argparse.Namespace) -> int:
    """Answer one question."""
    for module, package in (("ase", "ase"), ("matplotlib", "matplotlib"), ("ot", "POT")):
        _require(module, package)
    args.answer(args)
    return 0


def _require(module: str, package: str) -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec(module) is None:
        raise missing_package(f"this needs {package}", "analysis")


_MODEL = "[NAME=]FILE[:BRANCH], a .pt checkpoint, or the folder of a run"
_SET = "NAME=PATH: deepmd systems (npy or LMDB) or a file that ase reads"


def _collapse_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", action="append", required=True, help=f"{_MODEL}; the first: reference")
    add("-s", "--set", action="append", required=True, help=f"{_SET}; repeat for train, id, ood")
    add("-o", "--out", type=Path, required=True, help="folder to write")
    add("--clusters-on", help="set whose atoms and edges are clustered (default: the last)")
    add("--property", help="label of the sets, for TransRate")
    add("--pairs", nargs="*", default=["C-H", "C-O"], help="pairs of elements (default C-H C-O)")
    add("--middle", nargs=2, type=float, default=(3, 4), help="middle edges, Angstrom (3 4)")
    add("--far", nargs=2, type=float, default=(5, 6), help="far edges, Angstrom (5 6)")
    add("--per-class", type=int, default=2000, help="atoms or edges drawn of a class (2000)")
    add("--least", type=int, default=20, help="leave out classes with fewer members (20)")
    add("--atoms", type=int, default=5000, help="atoms drawn of a set for the drift (5000)")
    add("--bins", type=int, default=10, help="bins of the property (10)")
    add("--bootstrap", type=int, default=100, help="resamples of the cluster scores (100)")
    add("--drift-bootstrap", type=int, default=5, help="resamples of the exact distance (5)")


def _collapse(args: argparse.Namespace) -> None:
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_folder  # noqa: PLC0415
    from deepmd_mft.representations.backbone import load_checkpoint  # noqa: PLC0415
    from deepmd_mft.representations.classes import Windows  # noqa: PLC0415
    from deepmd_mft.representations.collapse import Options, analyse_collapse  # noqa: PLC0415
    from deepmd_mft.representations.output import write_collapse  # noqa: PLC0415

    models = [ModelFile.parse(text) for text in args.model]
    _distinct("--model", [model.name for model in models])
    read = [*(model.path for model in models), *map(_path, args.set)]
    with staged_folder(args.out, "analyze", read, overwrite=args.overwrite) as folder:
        sets = [_read(text, args) for text in args.set]
        _distinct("--set", [s.name for s in sets])
        if args.property:
            for one in sets:
                one.label(args.property)  # told before the long work
        backbones = [load_checkpoint(m.name, m.path, m.branch) for m in models]
        sets = [one.with_type_map(backbones[0].type_map) for one in sets]
        options = Options(
            clusters_on=args.clusters_on or sets[-1].name,
            pairs=args.pairs,
            windows=Windows(tuple(args.middle), tuple(args.far)),
            per_class=args.per_class,
            least=args.least,
            drift_atoms=args.atoms,
            bootstrap=args.bootstrap,
            drift_bootstrap=args.drift_bootstrap,
            label=args.property or "",
            nbins=args.bins,
            seed=args.seed,
        )
        result = analyse_collapse(backbones, sets, options, say=_say)
        record = {
            "models": {b.name: b.record for b in backbones},
            "sets": {s.name: s.record for s in sets},
            "property": args.property,
            "options": options,
        }
        write_collapse(folder, result, record)
        print((folder / "summary.md").read_text())
    print(f"written: {args.out}")


def _domains_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", required=True, help=_MODEL)
    add("--target", required=True, help=_SET)
    add("-s", "--set", action="append", required=True, help=f"a candidate, {_SET}")
    add("-o", "--out", type=Path, required=True, help="folder to write")
    add("--atoms", type=int, default=2000, help="atoms drawn of a set (2000)")


def _domains(args: argparse.Namespace) -> None:
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.staging import staged_folder  # noqa: PLC0415
    from deepmd_mft.representations.backbone import load_checkpoint  # noqa: PLC0415
    from deepmd_mft.representations.domains import analyse_domains  # noqa: PLC0415
    from deepmd_mft.representations.output import write_domains  # noqa: PLC0415

    model = ModelFile.parse(args.model)
    read = [model.path, *map(_path, (args.target, *args.set))]
    with staged_folder(args.out, "analyze", read, overwrite=args.overwrite) as folder:
        target, *others = (_read(text, args) for text in (args.target, *args.set))
        _distinct("--target and --set", [target.name, *(s.name for s in others)])
        backbone = load_checkpoint(model.name, model.path, model.branch)
        target = target.with_type_map(backbone.type_map)
        others = [one.with_type_map(backbone.type_map) for one in others]
        result = analyse_domains(backbone, target, others, natoms=args.atoms, seed=args.seed)
        record: dict[str, Any] = {
            "model": {backbone.name: backbone.record},
            "target": {target.name: target.record},
            "sets": {s.name: s.record for s in others},
            "options": {"atoms": args.atoms, "structures": args.structures, "seed": args.seed},
        }
        write_domains(folder, result, record)
    print("\n".join(result.words))
    print(f"written: {args.out}")


def _embed_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", required=True, help=_MODEL)
    add("-s", "--set", action="append", required=True, help=f"{_SET}; may be repeated")
    add("-o", "--out", type=Path, required=True, help="npz file; of several sets a folder of them")
    add("--layers", action="store_true", help="also every atom after every layer")
    add("--pairs", nargs="*", default=[], help="also the edges of these pairs, like C-H")
    add("--middle", nargs=2, type=float, default=(3, 4), help="middle edges, Angstrom (3 4)")
    add("--far", nargs=2, type=float, default=(5, 6), help="far edges, Angstrom (5 6)")


def _embed(args: argparse.Namespace) -> None:
    from deepmd_mft.checkpoints.model_file import ModelFile  # noqa: PLC0415
    from deepmd_mft.files.names import path_component  # noqa: PLC0415
    from deepmd_mft.files.staging import (  # noqa: PLC0415
        check_file,
        check_folder,
        staged_file,
        staged_folder,
    )
    from deepmd_mft.representations.backbone import load_checkpoint  # noqa: PLC0415
    from deepmd_mft.representations.classes import Windows, find_edges  # noqa: PLC0415
    from deepmd_mft.representations.output import (  # noqa: PLC0415
        write_embedding,
        write_summary,
    )

    model = ModelFile.parse(args.model)
    read = [model.path, *map(_path, args.set)]
    names = [path_component(text.partition("=")[0], "--set") for text in args.set]
    _distinct("--set", names)
    if len(names) == 1:
        check_file(args.out, read, overwrite=args.overwrite)
    else:
        check_folder(args.out, "analyze", read, overwrite=args.overwrite)
    sets = [_read(text, args) for text in args.set]
    backbone = load_checkpoint(model.name, model.path, model.branch)
    windows = Windows(tuple(args.middle), tuple(args.far))

    def write(path: Path, one: StructureSet) -> None:
        structures = one.with_type_map(backbone.type_map)
        edges = find_edges(structures, args.pairs, windows) if args.pairs else None
        write_embedding(path, backbone, structures, edges, layers=args.layers)

    if len(sets) == 1:
        with staged_file(args.out, read, overwrite=args.overwrite) as partial:
            write(partial, sets[0])
    else:
        with staged_folder(args.out, "analyze", read, overwrite=args.overwrite) as folder:
            for name, one in zip(names, sets, strict=True):
                write(folder / f"{name}.npz", one)
            records = {name: one.record for name, one in zip(names, sets, strict=True)}
            write_summary(folder, {"models": {model.name: backbone.record}, "sets": records})
    print(f"written: {args.out}")


def _path(text: str) -> Path:
    return Path(text.partition("=")[2])


def _read(text: str, args: argparse.Namespace) -> StructureSet:
    from deepmd_mft.structures.structure_set import StructureSet  # noqa: PLC0415

    name, equals, path = text.partition("=")
    if not (equals and name and path):
        raise UserError(f"'{text}': write a set as NAME=PATH")
    return StructureSet(name, [Path(path)], most=args.structures, seed=args.seed)


def _distinct(option: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise UserError(f"{option}: every name must be used once ({', '.join(names)})")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
