"""The four strategies on the QM9 gap at several training sizes and seeds, and their report.

    python benchmarks/strategies.py --qm9 DIR --work DIR [--labels 64 256 1024] [--seeds 1 2]

Scratch, FT, LP and MFT with the small templates and the embedded network; equal property steps
(MFT takes as many force-field steps on top), training sets nested in each other, validation and
test sets those of the example. The checkpoint of each run is chosen on validation data by `dp-mft
select`, then `dp-mft report` reads the test sets once and writes DIR/report.html.

Runs go on where they stopped, two at a time (--jobs).
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = ["dp_mft", "model_of", "train"]  # of `runs`, for adaptation.py

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "study"))

from runs import CHECKPOINTS, dp_mft, model_of, set_seed, train  # noqa: E402

EXAMPLE = ROOT / "examples" / "qm9_gap"
STRATEGIES = ("scratch", "ft", "lp", "mft")
PROPERTY_STEPS = 1500


def main() -> int:
    """Prepare, train, select, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, required=True, help="folder of qm9pack's CSV files")
    parser.add_argument("--work", type=Path, required=True, help="where to train")
    parser.add_argument("--labels", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    args = parser.parse_args()
    prepare_training_sets(args.qm9, args.work, args.labels)
    folders = [
        prepare_run(
            args.work / f"{strategy}-{labels}-s{seed}",
            strategy,
            args.work / f"train{labels}",
            seed,
        )
        for seed in args.seeds
        for labels in args.labels
        for strategy in STRATEGIES
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(train, folders, [checkpoint_of(folder) for folder in folders]))
    for folder in folders:
        dp_mft("select", str(folder), "-q")
    dp_mft(
        "report", *map(str, folders), "--split", str(EXAMPLE / "data"), "--unit", "Hartree",
        "-o", str(args.work / "report.html"), "--overwrite",
    )  # fmt: skip
    print((args.work / "report_files" / "errors.csv").read_text())
    return 0


def prepare_training_sets(qm9: Path, work: Path, sizes: list[int]) -> None:
    """Write the first molecules of the example's training pool."""
    missing = [n for n in sizes if not (work / f"train{n}").is_dir()]
    if not missing:
        return
    sys.path.insert(0, str(EXAMPLE))
    import make_data  # noqa: PLC0415

    table = make_data.read_qm9(qm9)
    gap = table["gap"].to_numpy()
    split = make_data.boom_split(gap)
    for n in missing:
        settings = make_data.parse(["--qm9", str(qm9), "--labels", str(n)])
        rows = make_data.draw_subsets(gap, split, settings)["train"]
        make_data.write_mixed(
            work / f"train{n}",
            make_data.molecules(table, rows),
            make_data.PAD_PROPERTY,
            {"gap": gap[rows]},
        )


def prepare_run(
    folder: Path,
    template: str,
    train_set: Path,
    seed: int,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write the input of a run, and links to its data.

    Parameters
    ----------
    folder : Path
        Of the run.
    template : str
        One of :data:`STRATEGIES`.
    train_set : Path
        Labels of the property.
    seed : int
        Of everything.
    edit : callable, optional
        Changes the input; the steps are set after it, for its share of the property.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    link(folder / "data" / "train", train_set)
    link(folder / "pretrained", EXAMPLE / "pretrained")
    for name in ("valid", "aux_train", "aux_valid"):
        link(folder / "data" / name, EXAMPLE / "data" / name)
    path = ROOT / "input_templates" / "small" / f"input_{template}.json"
    config = json.loads(path.read_text())
    set_seed(config, seed)
    if edit is not None:
        edit(config)
    training = config["training"]
    share = training.get("model_prob", {}).get("property", 1.0)
    training["numb_steps"] = round(PROPERTY_STEPS / share)
    training["save_freq"] = training["numb_steps"] // CHECKPOINTS
    training["max_ckpt_keep"] = CHECKPOINTS
    (folder / "input.json").write_text(json.dumps(config, indent=1))
    return folder


def checkpoint_of(folder: Path) -> Path | None:
    """Return what a run of this name starts from."""
    return None if "scratch" in folder.name else Path("pretrained/model.pt")


def link(place: Path, target: Path) -> None:
    """Make a link, if it is not there, or its target has moved."""
    if not place.exists():
        place.unlink(missing_ok=True)
        place.symlink_to(target.resolve())


if __name__ == "__main__":
    sys.exit(main())
