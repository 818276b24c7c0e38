"""One small LMDB through every verb that takes data, and through `dp`."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.cli import main
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp, mft_input

ase = pytest.importorskip("ase")
from ase.calculators.singlepoint import SinglePointCalculator  # noqa: E402
from ase.io import write  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def dp_mft(*words: Any) -> None:
    assert main([str(word) for word in words]) == 0


def assert_refused(told: str, *words: Any) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main([str(word) for word in words]) == 1
    assert told in errors.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """``all.lmdb`` with a gap, its split, and ``aux.lmdb`` with energies and forces."""
    root = tmp_path_factory.mktemp("lmdb")
    structures = StructureSet("valid", [DATA / "valid"])
    labels = structures.labels("gap", 1)[:, 0]
    frames = [
        ase.Atoms(one.numbers, one.positions, info={"gap": label})
        for one, label in zip(structures, labels.tolist(), strict=True)
    ]
    write(root / "all.xyz", frames[:60])
    quiet = ("--jobs", "1", "-q")
    gap = ("--property", "gap=gap:Hartree")
    dp_mft("convert", root / "all.xyz", root / "all.lmdb", *gap, *quiet)
    auxiliary = StructureSet("aux", [DATA / "aux_valid" / "17"])  # padded by virtual atoms
    energies, forces = auxiliary.labels("energy", 1), auxiliary.labels("force", 51)
    frames = [ase.Atoms(one.numbers, one.positions) for one in auxiliary]
    for atoms, energy, force in zip(frames, energies, forces, strict=True):
        known = {"energy": float(energy[0]), "forces": force.reshape(-1, 3)[: len(atoms)]}
        atoms.calc = SinglePointCalculator(atoms, **known)
    write(root / "aux.xyz", frames[:40])
    dp_mft("convert", root / "aux.xyz", root / "aux.lmdb", *quiet)
    boom = ("--target", "gap", "--ood", "12", "--id", "12", "--val", "12")
    dp_mft("split", "boom", root / "all.lmdb", root / "split", *boom, *quiet)
    return root


@pytest.fixture(scope="module")
def run(sets, pretrained) -> Path:
    """The folder of an MFT on LMDBs in both branches, from `input` to `select`."""
    folder = sets / "run"
    folder.mkdir()
    (sets / "template.json").write_text(json.dumps(mft_input()))
    split, aux = sets / "split", sets / "aux.lmdb"
    data = ("--train", split / "train", "--valid", split / "val")
    data += ("--aux-train", aux, "--aux-valid", aux, "--batch-size", "auto:64")
    filled = folder / "input.json"
    template = sets / "template.json"
    dp_mft("input", template, "--checkpoint", pretrained, *data, "--no-tighten", "-o", filled)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        dp_mft("check", "input.json", "--finetune", pretrained, "--test", split / "id_test")
    Dp(folder)("train", "input.json", "--skip-neighbor-stat", "--finetune", str(pretrained))
    dp_mft("select", folder, "-q")
    return folder


def test_parts_hold_every_structure_once(sets):
    parts = ("train", "val", "id_test", "ood_test")
    labels = {part: StructureSet(part, [sets / "split" / part]).labels("gap", 1) for part in parts}
    assert all((sets / "split" / part / "data.mdb").is_file() for part in parts)
    every = StructureSet("all", [sets / "all.lmdb"]).labels("gap", 1)
    np.testing.assert_array_equal(np.sort(np.concatenate([*labels.values()]), 0), np.sort(every, 0))


def test_evaluate_agrees_with_dp_test(sets, run):
    out = sets / "evaluation"
    dp_mft("evaluate", f"m={run}", "--split", sets / "split", "-o", out, "-q")
    metrics = pd.read_csv(out / "metrics.csv").set_index("set")
    assert metrics["labelled"].to_dict() == {"id_test": 12, "ood_test": 12, "train": 24, "val": 12}
    system = str(sets / "split" / "id_test")
    dp = Dp(run)
    log = dp("test", "-m", "model.best.pt", "--head", "property", "-s", system, "-n", "0")
    (told,) = [line for line in log.splitlines()[-6:] if "PROPERTY RMSE" in line]
    assert float(told.split(":")[-1].split()[0]) == pytest.approx(
        metrics.loc["id_test", "rmse"], rel=1e-5
    )


def test_calibrate_predict_and_report(sets, run):
    split, best, out = sets / "split", run / "model.best.pt", sets / "calibration.npz"
    dp_mft("calibrate", best, "--train", split / "train", "--valid", split / "val", "-o", out)
    table = sets / "predictions.csv"
    on = ("--on", split / "ood_test", "--calibration", out)
    dp_mft("predict", best, *on, "-o", table)
    assert len(pd.read_csv(table)) == 12
    dp_mft("report", run, "--split", split, "-o", sets / "report.html", "-q")
    errors = pd.read_csv(sets / "report_files" / "errors.csv")
    assert set(errors["set"]) == {"id_test", "ood_test"}


def test_representations(sets, run, pretrained):
    models = ("-m", f"before={pretrained}", "-m", f"after={run / 'model.best.pt'}:property")
    few = ("--least", "3", "--atoms", "100", "--bootstrap", "3", "--drift-bootstrap", "1")
    split = sets / "split"
    test = ("-s", f"id={split / 'id_test'}", "-s", f"ood={split / 'ood_test'}")
    dp_mft("analyze", "collapse", *models, *test, *few, "-o", sets / "collapse")
    aim = ("--target", f"gap={split / 'train'}", "-s", f"aux={sets / 'aux.lmdb'}")
    dp_mft("analyze", "domains", *models[:2], *aim, "--atoms", "100", "-o", sets / "domains")
    embedded = sets / "embedded.npz"
    dp_mft("analyze", "embed", *models[:2], "-s", f"aux={sets / 'aux.lmdb'}", "-o", embedded)
    assert len(np.unique(np.load(embedded)["structure"])) == 40


def test_replay_tighten_and_normalise(sets, run, pretrained, monkeypatch):
    teacher = ("replay", f"{pretrained}:GFN2", sets / "split" / "train", "--max-force", "1e6")
    dp_mft(*teacher, "--jobs", "1", "-q", "-o", sets / "replay")
    assert_refused("a name without .lmdb", *teacher, "-o", sets / "replay.lmdb")
    made = [StructureSet(part, [sets / "replay" / part]) for part in ("train", "valid")]
    assert sum(map(len, made)) == 24
    data = ("--data", sets / "split" / "train", sets / "aux.lmdb")
    dp_mft("tighten", run / "input.json", *data, "-o", run / "tight.json")
    monkeypatch.chdir(run)
    dp_mft("normalise", "input.json", "-o", "normalised.json")


def test_a_plan_of_folds(sets, pretrained):
    folds = sets / "folds"
    dp_mft("split", "kfold", sets / "all.lmdb", folds, "--folds", "2", "--jobs", "1", "-q")
    aux = ("--aux-train", sets / "aux.lmdb", "--aux-valid", sets / "aux.lmdb")
    start = ("--template", f"mft={sets / 'template.json'}", "--checkpoint", pretrained)
    dp_mft("plan", folds, *start, *aux, "--steps", "6", "-q", "-o", sets / "plan")
    config = json.loads((sets / "plan" / "fold_00-mft-s1" / "input.json").read_text())
    system = config["training"]["data_dict"]["property"]["training_data"]["systems"]
    assert (sets / "plan" / "fold_00-mft-s1" / system / "data.mdb").is_file()
