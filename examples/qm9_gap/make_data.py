"""Make the embedded data of the QM9 gap example.

Reads QM9 from the wheel ``qm9pack`` (MIT), applies the BOOM rule to the HOMO-LUMO
gap, draws small subsets, labels rattled conformers with GFN2-xTB (tblite) and
writes everything as deepmd/npy mixed systems, with ``provenance.json`` beside.

    pip download --no-deps qm9pack==1.0.3 && unzip qm9pack-*.whl
    pip install -e ".[labels]"    # in a clone of this repository
    python make_data.py --qm9 qm9pack/data

The labels (about three minutes on two cores) are kept in the cache of dp-mft
piece by piece, so an interrupted run goes on where it stopped. Equal seeds and
versions give equal files; the labels in this folder were made with CODATA 2018
constants, and differ by up to 4e-8 eV from those of CODATA 2022 (scipy 1.15).
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from deepmd_mft.data.labelling import labelled
from deepmd_mft.data.pool import Pool
from deepmd_mft.data.teachers.xtb import XtbTeacher
from deepmd_mft.splits.density import lowest_density, scott_bandwidth
from deepmd_mft.structures.structure import Structure

HERE = Path(__file__).resolve().parent
ELEMENTS = ("H", "C", "N", "O", "F")
ATOMIC_NUMBERS = (1, 6, 7, 8, 9)
QM9PACK = "1.0.3"
QM9_FILES = tuple(f"qm9_part{i}.csv" for i in (1, 2, 3))

BOOM_OOD = 10_000  # molecules of lowest density
BOOM_ID_FRACTION = 0.05
BOOM_SEED = 42
TAIL = 5_000  # lowest-density molecules of the train pool, of which valid_tail is drawn
TRAIN_POOL = 1_024  # molecules drawn for training before all others; larger sets go on after them
MOST_LABELS = 100_000  # of some 110,000 that are left to train on
VIRTUAL_SPACING = 50.0  # Angstrom, between the atoms that fill up a frame
PAD_PROPERTY = (29,)  # one padded system a subset
PAD_AUX = (17, 20, 29)  # three, to waste less
MAX_AMPLITUDE = 0.10  # Angstrom, standard deviation of the displacements
MAX_FORCE = 30.0  # eV/Angstrom

Molecules = list[tuple[np.ndarray, np.ndarray]]  # (types, coordinates in Angstrom)


def read_qm9(folder: Path) -> pd.DataFrame:
    """Read the CSV files of qm9pack, one row a SMILES string."""
    missing = [name for name in QM9_FILES if not (folder / name).is_file()]
    if missing:
        sys.exit(
            f"make_data.py: {folder} has no {', '.join(missing)}.\n"
            "QM9 comes from a wheel on PyPI. Get and unpack it, then say where it is:\n"
            f"    pip download --no-deps qm9pack=={QM9PACK}\n"
            f"    unzip qm9pack-{QM9PACK}-py3-none-any.whl 'qm9pack/data/*'\n"
            "    python make_data.py --qm9 qm9pack/data"
        )
    columns = ["Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang", "HOMO_LUMO_gap_au"]
    table = pd.concat(pd.read_csv(folder / name, usecols=columns) for name in QM9_FILES)
    table = table.sort_values("Index", kind="stable").reset_index(drop=True)
    # BOOM keeps the place of the first and the value of the last of equal SMILES.
    last = table.groupby("SMILES", sort=False)["HOMO_LUMO_gap_au"].last()
    table = table.drop_duplicates("SMILES").reset_index(drop=True)
    table["gap"] = last.loc[table["SMILES"]].to_numpy(dtype=np.float64)
    return table


def boom_split(gap: np.ndarray) -> dict[str, np.ndarray]:
    """Split as the script released with BOOM does.

    The lowest densities are out-of-distribution; then, molecule by molecule in
    order, one random number decides between the ID test set and training.
    """
    ood = np.zeros(gap.size, dtype=bool)
    ood[lowest_density(gap, BOOM_OOD)] = True
    rng = random.Random(BOOM_SEED)  # noqa: S311 (BOOM's own generator)
    in_id = np.array([not o and rng.random() < BOOM_ID_FRACTION for o in ood])
    return {
        "ood": np.flatnonzero(ood),
        "id": np.flatnonzero(in_id),
        "train": np.flatnonzero(~ood & ~in_id),
    }


def draw_subsets(
    gap: np.ndarray, split: dict[str, np.ndarray], args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Draw the rows of every shipped subset; the same seed, the same rows."""
    rng = np.random.default_rng(args.seed)
    pool = rng.permutation(split["train"])
    train_pool, rest = pool[:TRAIN_POOL], pool[TRAIN_POOL:]
    tail = split["train"][lowest_density(gap[split["train"]], TAIL)]
    tail = tail[~np.isin(tail, train_pool)]
    valid_tail = rng.choice(tail, args.valid_tail, replace=False)
    rest = rest[~np.isin(rest, valid_tail)]
    valid, rest = rest[: args.valid], rest[args.valid :]
    # Auxiliary molecules: anything of the train pool that is not in a valid set.
    # More than asked for, since frames with large forces are dropped.
    candidates = rng.permutation(np.concatenate([train_pool, rest]))
    subsets = {
        "train": np.concatenate([train_pool, rest])[: args.labels],
        "valid": valid,
        "valid_tail": valid_tail,
        "id_test": rng.choice(split["id"], args.test, replace=False),
        "ood_test": rng.choice(split["ood"], args.test, replace=False),
    }
    subsets["aux"] = candidates[: int(1.06 * (args.aux + args.aux_valid)) + 50]
    return subsets


def molecules(table: pd.DataFrame, rows: np.ndarray) -> Molecules:
    """Types (index into ELEMENTS) and centred coordinates of some molecules."""
    found = []
    for elements, text in zip(
        table["Elements"].to_numpy()[rows], table["XYZ_Ang"].to_numpy()[rows], strict=True
    ):
        names = elements.strip("[]").replace("'", "").split(",")
        types = np.array([ELEMENTS.index(name.strip()) for name in names])
        # Mathematica's "-0." and "2.*^-6" are not JSON.
        flat = text.replace("*^", "e").replace("[", " ").replace("]", " ").replace(",", " ")
        coord = np.array(flat.split(), dtype=np.float64).reshape(types.size, 3)
        found.append((types, coord - coord.mean(axis=0)))
    return found


def write_mixed(
    folder: Path,
    frames: Molecules,
    widths: tuple[int, ...],
    per_frame: dict[str, np.ndarray],
    force: list[np.ndarray] | None = None,
) -> None:
    """Write deepmd/npy mixed systems without a cell.

    A frame goes into the narrowest of ``widths`` that holds it, filled up with
    virtual atoms (type -1), far from the molecule and from each other: deepmd-kit's
    neighbour statistics, which see them, would take two at one place for an error.
    One width: the system is ``folder`` itself; several: its subfolders, named by
    the width.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    sizes = np.array([t.size for t, _ in frames])
    home = np.searchsorted(widths, sizes)
    for i, width in enumerate(widths):
        mine = np.flatnonzero(home == i)
        if mine.size == 0:
            continue
        system = partial if len(widths) == 1 else partial / f"{width}"
        data = system / "set.000"
        data.mkdir(parents=True)
        types = np.full((mine.size, width), -1, dtype=np.int8)
        coord = np.zeros((mine.size, width, 3), dtype=np.float32)
        coord[:, :, 0] = VIRTUAL_SPACING * np.arange(1, width + 1)
        padded_force = np.zeros((mine.size, width, 3), dtype=np.float32)
        for row, frame in enumerate(mine):
            n = sizes[frame]
            types[row, :n], coord[row, :n] = frames[frame]
            if force is not None:
                padded_force[row, :n] = force[frame]
        np.save(data / "real_atom_types.npy", types)
        np.save(data / "coord.npy", coord.reshape(mine.size, -1))
        if force is not None:
            np.save(data / "force.npy", padded_force.reshape(mine.size, -1))
        for name, values in per_frame.items():
            np.save(data / f"{name}.npy", values[mine].reshape(mine.size, 1))
        (system / "type.raw").write_text("0\n" * width)
        (system / "type_map.raw").write_text("\n".join(ELEMENTS) + "\n")
        (system / "nopbc").write_text("")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def check(folder: Path, frames: Molecules, labels: dict[str, np.ndarray]) -> None:
    """Read a written subset back with dpdata and with deepmd, and compare."""
    import dpdata  # noqa: PLC0415
    from deepmd.utils.data import DeepmdData  # noqa: PLC0415

    wanted = sorted(_fingerprint(types) for types, _ in frames)
    by_dpdata: list[str] = []
    by_deepmd: list[str] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in labels}
    for system in sorted(p.parent for p in folder.rglob("type.raw")):
        mixed = dpdata.MultiSystems(type_map=list(ELEMENTS))
        mixed.load_systems_from_file(
            str(system), fmt="deepmd/npy/mixed", labeled="energy" in labels
        )
        for part in mixed:
            names = np.array(part["atom_names"])[part["atom_types"]]
            types = np.array([ELEMENTS.index(name) for name in names])
            by_dpdata += [_fingerprint(types)] * part.get_nframes()
        data = DeepmdData(str(system), shuffle_test=False, type_map=list(ELEMENTS))
        for name in labels:
            data.add(name, 1, atomic=False, must=True, high_prec=True)
        stored = data.get_test()
        by_deepmd += [_fingerprint(types) for types in stored["type"]]
        for name in labels:
            found[name].append(np.asarray(stored[name]).reshape(-1))
    for reader, seen in (("dpdata", by_dpdata), ("deepmd", by_deepmd)):
        if sorted(seen) != wanted:
            sys.exit(f"make_data.py: {reader} reads other molecules from {folder} than written")
    for name, values in labels.items():
        if not np.array_equal(np.sort(np.concatenate(found[name])), np.sort(values)):
            sys.exit(f"make_data.py: deepmd reads another {name} from {folder} than written")


def _fingerprint(types: np.ndarray) -> str:
    """Composition of one frame, virtual atoms left out."""
    return ",".join(str(int((types == t).sum())) for t in range(len(ELEMENTS)))


def composition_baseline(
    train: tuple[Molecules, np.ndarray], others: dict[str, tuple[Molecules, np.ndarray]]
) -> dict[str, float]:
    """RMSE (Hartree) of least squares on the atomic fractions of a molecule."""

    def fractions(frames: Molecules) -> np.ndarray:
        return np.array(
            [np.bincount(types, minlength=len(ELEMENTS)) / types.size for types, _ in frames]
        )

    coefficients = np.linalg.lstsq(fractions(train[0]), train[1], rcond=None)[0]
    return {
        name: float(np.sqrt(np.mean((fractions(frames) @ coefficients - gap) ** 2)))
        for name, (frames, gap) in others.items()
    }


def sha256(paths: list[Path], root: Path) -> dict[str, str]:
    """Checksum of every file, by its path below ``root``."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def dump(record: dict, path: Path) -> None:
    """Write JSON with every list of numbers on one line."""
    lists: list[str] = []

    def fold(value: object) -> object:
        if isinstance(value, dict):
            return {key: fold(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            lists.append(json.dumps(list(value)))
            return f"@{len(lists) - 1}@"
        return value

    text = json.dumps(fold(record), indent=2)
    for i, line in enumerate(lists):
        text = text.replace(f'"@{i}@"', line, 1)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n")
    partial.replace(path)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--qm9", type=Path, required=True, help="folder with qm9pack's CSV files")
    parser.add_argument("--out", type=Path, default=HERE / "data", help="where to write")
    parser.add_argument("--labels", type=int, default=128, help="molecules in train")
    parser.add_argument("--valid", type=int, default=400, help="molecules in valid")
    parser.add_argument("--valid-tail", type=int, default=300, help="molecules in valid_tail")
    parser.add_argument("--test", type=int, default=1000, help="molecules in each test set")
    parser.add_argument("--aux", type=int, default=19_500, help="frames in aux_train")
    parser.add_argument("--aux-valid", type=int, default=500, help="frames in aux_valid")
    parser.add_argument("--seed", type=int, default=20260108, help="of every draw but BOOM's")
    parser.add_argument("--processes", type=int, default=2, help="for the labels")
    args = parser.parse_args(argv)
    if not 1 <= args.labels <= MOST_LABELS:
        parser.error(f"--labels must lie between 1 and {MOST_LABELS}")
    return args


def label_auxiliary(
    resting: Molecules, args: argparse.Namespace
) -> tuple[Molecules, dict[str, np.ndarray], list[np.ndarray], np.ndarray]:
    """Shake every molecule once and label it; the last array says which to keep."""
    rng = np.random.default_rng(args.seed + 1)
    amplitude = rng.uniform(0.0, MAX_AMPLITUDE, size=len(resting))
    rattled: Molecules = [
        (types, coord + a * rng.standard_normal(coord.shape))
        for (types, coord), a in zip(resting, amplitude, strict=True)
    ]
    # Labels belong to the coordinates as they are written.
    rattled = [(types, coord.astype(np.float32).astype(np.float64)) for types, coord in rattled]
    pool = Pool()
    for row, (types, coord) in enumerate(rattled):
        pool.add(Structure(np.array(ATOMIC_NUMBERS)[types], coord), str(row), "")
    labels = labelled(pool, XtbTeacher("gfn2", ["gap"]), args.processes, progress=True)
    scalars = {name: labels[name] for name in ("energy", "gap")}
    force = np.split(labels["force"], np.cumsum([types.size for types, _ in rattled])[:-1])
    largest = np.array([np.linalg.norm(f, axis=1).max() for f in force])
    kept = np.flatnonzero(largest <= MAX_FORCE)  # NaN is dropped too
    print(f"{len(rattled) - kept.size} frames dropped (|F| > {MAX_FORCE} eV/A or not converged)")
    if kept.size < args.aux + args.aux_valid:
        sys.exit("make_data.py: too many frames were dropped; ask for fewer --aux")
    return rattled, scalars, force, kept


def assert_disjoint(rows: dict[str, np.ndarray], split: dict[str, np.ndarray]) -> None:
    """Stop if a molecule is where it must not be."""
    tested = np.concatenate([split["id"], split["ood"]])
    for name, mine in rows.items():
        if np.unique(mine).size != mine.size:
            raise AssertionError(f"{name} repeats a molecule")
        if not name.endswith("_test") and np.isin(mine, tested).any():
            raise AssertionError(f"{name} overlaps a BOOM test set")
        for other, theirs in rows.items():
            shared = "train" in {name, other} and {"aux_train", "aux_valid"} & {name, other}
            if other != name and not shared and np.isin(mine, theirs).any():
                raise AssertionError(f"{name} overlaps {other}")


def main(argv: list[str] | None = None) -> None:
    """Make every subset."""
    args = parse(argv)
    print("reading QM9")
    table = read_qm9(args.qm9)
    gap = table["gap"].to_numpy()
    split = boom_split(gap)
    rows = draw_subsets(gap, split, args)
    print(f"{gap.size} molecules; BOOM: " + ", ".join(f"{k} {v.size}" for k, v in split.items()))

    rattled, scalars, force, kept = label_auxiliary(molecules(table, rows["aux"]), args)
    frames_of = {
        "aux_valid": kept[: args.aux_valid],
        "aux_train": kept[args.aux_valid : args.aux_valid + args.aux],
    }
    for name, frames in frames_of.items():
        rows[name] = rows["aux"][frames]
    del rows["aux"]

    assert_disjoint(rows, split)

    statistics: dict[str, dict] = {}
    properties: dict[str, tuple[Molecules, np.ndarray]] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, mine in rows.items():
        if name in frames_of:
            frames = [rattled[i] for i in frames_of[name]]
            forces = [force[i] for i in frames_of[name]]
            labels = {key: values[frames_of[name]] for key, values in scalars.items()}
            write_mixed(args.out / name, frames, PAD_AUX, labels, forces)
            statistics[name] = {
                "frames": len(frames),
                "force_rms_ev_per_angstrom": float(np.sqrt(np.mean(np.concatenate(forces) ** 2))),
            }
        else:
            frames = molecules(table, mine)
            labels = {"gap": gap[mine]}
            write_mixed(args.out / name, frames, PAD_PROPERTY, labels)
            properties[name] = (frames, gap[mine])
            statistics[name] = {
                "frames": len(frames),
                "gap_mean_hartree": float(gap[mine].mean()),
                "gap_std_hartree": float(gap[mine].std()),
                "gap_min_hartree": float(gap[mine].min()),
                "gap_max_hartree": float(gap[mine].max()),
            }
        statistics[name]["atoms_mean"] = float(np.mean([t.size for t, _ in frames]))
        check(args.out / name, frames, labels)
        print(f"{name}: {len(frames)} frames written and read back")
    baseline = composition_baseline(properties["train"], properties)

    index = table["Index"].to_numpy()
    packages = ("qm9pack", "tblite", "numpy", "scipy", "scikit-learn", "dpdata", "deepmd-kit")
    record = {
        "made_by": "examples/qm9_gap/make_data.py",
        "command": {key: value for key, value in vars(args).items() if not isinstance(value, Path)},
        "sources": {
            "molecules": "QM9, Ramakrishnan et al., Sci. Data 1, 140022 (2014), "
            f"B3LYP/6-31G(2df,p), from the wheel qm9pack {QM9PACK} (MIT) on PyPI",
            "auxiliary_labels": "GFN2-xTB by tblite, single points; it stands in for SPICE2",
        },
        "units": {"gap": "Hartree", "energy": "eV", "force": "eV/Angstrom", "coord": "Angstrom"},
        "versions": {name: version(name) for name in packages if name != "qm9pack"}
        | {"qm9pack": QM9PACK, "python": sys.version.split()[0]},
        "qm9_sha256": sha256([args.qm9 / name for name in QM9_FILES], args.qm9),
        "boom": {
            "rule": "lowest kernel density of the gap in Hartree is OOD; then each other "
            "molecule in order of its QM9 index is an ID test molecule if "
            f"random.random() < {BOOM_ID_FRACTION}",
            "bandwidth_hartree": scott_bandwidth(gap.size),
            "seed": BOOM_SEED,
            "molecules": int(gap.size),
            **{f"{name}_molecules": int(mine.size) for name, mine in split.items()},
        },
        "auxiliary": {
            "displacement": "independent normal per coordinate; one standard deviation a "
            f"frame, uniform in 0 to {MAX_AMPLITUDE} Angstrom; one frame a molecule",
            "largest_force_kept_ev_per_angstrom": MAX_FORCE,
        },
        "subsets": statistics,
        "composition_baseline_rmse_hartree": baseline,
        "sha256": sha256(
            [p for p in args.out.rglob("*") if p.suffix in {".npy", ".raw"}], args.out
        ),
        "qm9_index": {name: index[mine].tolist() for name, mine in rows.items()},
    }
    dump(record, args.out / "provenance.json")
    total = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print("composition baseline RMSE (Ha): " + json.dumps(baseline))
    print(f"{total / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
