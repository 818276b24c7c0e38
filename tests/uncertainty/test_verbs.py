"""``dp-mft calibrate`` and ``dp-mft predict`` on a trained model, frozen or not."""

import shutil

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io import write

from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.cli.main import main
from deepmd_mft.structures.structure_set import StructureSet
from deepmd_mft.uncertainty.models import Ensemble
from tests.helpers.dp import DATA


@pytest.fixture(scope="module")
def calibrated(mft_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "c.npz"
    models = [str(mft_run / "model.ckpt-3.pt"), str(mft_run / "model.ckpt-6.pt")]
    for out, given in ((path, models), (path.with_name("one.npz"), models[1:])):
        sets = ["--train", str(DATA / "train"), "--valid", str(DATA / "valid")]
        assert main(["calibrate", *given, *sets, "-o", str(out)]) == 0
    return path


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    path = tmp_path_factory.mktemp("molecules") / "some.extxyz"
    some = StructureSet("some", [DATA / "ood_test"], most=6)
    write(path, [one.atoms() for one in some])
    return path


def predict(*words):
    assert main(["predict", *map(str, words)]) == 0
    return pd.read_csv(words[-1])


def test_frozen_model_has_the_intervals_of_its_checkpoint(mft_run, calibrated, molecules, tmp_path):
    kept = calibrated.with_name("one.npz")
    found = [
        predict(mft_run / name, "--on", molecules, "--calibration", kept, "-o", tmp_path / name)
        for name in ("model.ckpt-6.pt", "property.pth")
    ]
    assert list(found[0]) == [
        "id",
        "gap",
        "gap_std",
        "gap_low",
        "gap_high",
        "ood_mahalanobis",
        "ood_knn",
        "ood_structural",
        "nearest_training_structure",
    ]
    pd.testing.assert_frame_equal(*found, rtol=1e-5)
    assert (found[0]["gap_low"] < found[0]["gap"]).all()


def test_types_without_names_are_those_of_the_model(mft_run, tmp_path):
    """dp-mft evaluate takes such a set, as dp does; calibrations refused it."""
    shutil.copytree(DATA / "valid", tmp_path / "valid")
    (tmp_path / "valid" / "type_map.raw").unlink()
    ensemble = Ensemble([ModelFile.parse(str(mft_run / "model.ckpt-6.pt"))])
    bare, named = (
        ensemble.look(StructureSet("valid", [path / "valid"], most=5)) for path in (tmp_path, DATA)
    )
    np.testing.assert_array_equal(bare.predictions, named.predictions)
    assert (bare.fingerprints != named.fingerprints).nnz == 0


def test_order_of_atoms_does_not_matter(mft_run, calibrated, molecules, tmp_path):
    models = [mft_run / "model.ckpt-3.pt", mft_run / "model.ckpt-6.pt"]
    rng = np.random.default_rng(0)
    some = [one.atoms() for one in StructureSet("some", [molecules])]
    write(tmp_path / "mixed.extxyz", [one[rng.permutation(len(one))] for one in some])
    tables = [
        predict(*models, "--on", on, "--calibration", calibrated, "-o", tmp_path / f"{on.stem}.csv")
        for on in (molecules, tmp_path / "mixed.extxyz")
    ]
    first, second = (one.drop(columns="id") for one in tables)
    pd.testing.assert_frame_equal(first, second, rtol=1e-5, atol=1e-7)


def test_evaluate_scores_what_predict_writes(mft_run, calibrated, tmp_path, capsys):
    models = [str(mft_run / "model.ckpt-3.pt"), str(mft_run / "model.ckpt-6.pt")]
    for name in ("id_test", "ood_test"):
        part = StructureSet(name, [DATA / name])
        part.write_part(np.arange(15), tmp_path / "split" / name)
    words = ["--split", str(tmp_path / "split"), "--calibration", str(calibrated)]
    assert main(["evaluate", *models, *words, "-o", str(tmp_path / "out")]) == 0
    assert "mahalanobis" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "trust.csv").set_index(["set", "std"])
    assert set(pd.read_csv(tmp_path / "out" / "telling.csv")["set"]) == {"ood_test"}
    each = pd.read_csv(tmp_path / "out" / "estimates.csv")
    on = tmp_path / "split" / "ood_test"
    own = predict(*models, "--on", on, "--calibration", calibrated, "-o", tmp_path / "own.csv")
    width = table.loc[("ood_test", "ensemble"), "width_normalised"]
    assert (own["gap_high"] - own["gap_low"]).mean() == pytest.approx(width, rel=1e-5)
    each = each[each["set"] == "ood_test"]
    assert each["id"].tolist() == own["id"].tolist()
    for mine, theirs in {
        "std_ensemble": "gap_std",
        "ood_knn": "ood_knn",
        "prediction": "gap",
    }.items():
        np.testing.assert_allclose(each[mine], own[theirs], rtol=1e-5)
    assert main(["evaluate", models[0], *words, "-o", str(tmp_path / "no")]) == 1
    assert "calibration of other models" in capsys.readouterr().err


def test_what_a_user_gets_wrong(mft_run, calibrated, molecules, tmp_path, capsys):
    model, out = str(mft_run / "model.ckpt-6.pt"), ["-o", str(tmp_path / "p.csv")]
    write(tmp_path / "s.extxyz", Atoms("SH2", positions=[[0, 0, 0], [1.3, 0, 0], [0, 1.3, 0]]))
    on = ["--on", str(molecules)]
    sets = ["--train", str(DATA / "train"), "--valid"]
    swapped = ["--train", str(DATA / "valid"), "--valid", str(DATA / "train")]  # against out.json
    valid = StructureSet("valid", [DATA / "valid"])
    valid.write_part(np.arange(8), tmp_path / "few")
    (tmp_path / "none").mkdir()
    shutil.copytree(tmp_path / "few", tmp_path / "unlabelled")
    next((tmp_path / "unlabelled").rglob("gap.npy")).unlink()
    cases = {
        "has S, which the model's type_map": ["predict", model, "--on", str(tmp_path / "s.extxyz")],
        "calibration of other models": ["predict", model, *on, "--calibration", str(calibrated)],
        "needs two models or more": ["predict", model, *on, "--std", "ensemble"],
        "are the same model": ["predict", model, model, *on],
        "predict_variance": ["predict", model, *on, "--std", "variance"],
        "energies and forces": ["predict", model, *on, "--head", "GFN2"],
        "is a test set": ["calibrate", model, *sets, str(DATA / "id_test")],
        "are in the training set": ["calibrate", model, *sets, str(DATA / "train")],
        "training set of ": ["calibrate", model, *swapped],
        "9 or more": ["calibrate", model, *sets, str(tmp_path / "few")],
        "holds no deepmd-kit systems": ["calibrate", model, *sets, str(tmp_path / "none")],
        "without the label gap": ["calibrate", model, *sets, str(tmp_path / "unlabelled")],
        "does not exist": ["predict", model, *on, "--calibration", str(tmp_path / "no.npz")],
    }
    for message, words in cases.items():
        assert main([*words, *out]) == 1, message
        assert message in capsys.readouterr().err
        assert not (tmp_path / "p.csv").exists()
