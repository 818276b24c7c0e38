"""Calibrate and predict with what heads and data there are, beside one number of a molecule."""

import numpy as np
import pandas as pd
import pytest
from ase.io import write

from deepmd_mft.cli.main import main
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.deepmd_data import TYPE_MAP, make_frames, write_system
from tests.helpers.dp import Dp, single_input

COLUMNS = ["gap", "pair_0", "pair_1"]


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """A head of two properties, three columns, a mean and a sum, with variances; of crystals."""
    folder = tmp_path_factory.mktemp("crystals")
    for name, n, seed in (("train", 24, 0), ("valid", 20, 1), ("id_test", 6, 2)):
        frames = make_frames(n, periodic=True, seed=seed, equal=False)
        write_system(folder / name, [frames], mixed=True, padding=1)
    config = single_input()
    names = ["gap", "pair"]
    net = {"property_name": names, "task_dim": [1, 2], "intensive": [True, False]}
    config["model"]["type_map"] = TYPE_MAP
    config["model"]["fitting_net"] |= {**net, "predict_variance": True}
    config["loss"] = {"type": "mft_property", "loss_func": "gaussian_nll"}
    for part, name in (("training_data", "train"), ("validation_data", "valid")):
        config["training"][part] = {"systems": str(folder / name), "batch_size": 4}
    dp = Dp(folder)
    dp.train(config)
    dp("freeze", "-o", "model")
    return folder


def predicted(folder, model, out, *words):
    on = ["--on", str(folder / "id_test"), "-o", str(out)]
    assert main(["predict", str(folder / model), *on, *words]) == 0
    return pd.read_csv(out)


def test_crystals_with_several_columns_and_variances(crystals, tmp_path):
    """The checkpoint's calibration serves the frozen model; LLPR of a sum is per atom."""
    kept = tmp_path / "c.npz"
    sets = ["--train", str(crystals / "train"), "--valid", str(crystals / "valid")]
    assert main(["calibrate", str(crystals / "model.ckpt-6.pt"), *sets, "-o", str(kept)]) == 0
    tables = {}
    for std in ("variance", "llpr"):
        words = ("--calibration", str(kept), "--std", std)
        found = [
            predicted(crystals, model, tmp_path / f"{std}-{model}.csv", *words)
            for model in ("model.ckpt-6.pt", "model.pth")
        ]
        pd.testing.assert_frame_equal(*found, rtol=1e-5, atol=1e-8)
        tables[std] = found[0]
        for name in COLUMNS:
            assert (found[0][f"{name}_low"] < found[0][f"{name}_high"]).all()
    assert not np.allclose(tables["variance"]["gap_std"], tables["llpr"]["gap_std"])
    out = tmp_path / "evaluation"
    model = str(crystals / "model.ckpt-6.pt")
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "id_test").symlink_to(crystals / "id_test")
    words = ["--split", str(tmp_path / "split"), "--calibration", str(kept), "-o", str(out), "-q"]
    assert main(["evaluate", model, *words]) == 0
    table = pd.read_csv(out / "trust.csv")
    assert set(zip(table["column"], table["std"], strict=True)) == {
        (name, std) for name in COLUMNS for std in ("variance", "llpr")
    }
    each = pd.read_csv(out / "estimates.csv").set_index("column")
    assert each.loc["pair_1", "id"].tolist() == tables["llpr"]["id"].tolist()
    np.testing.assert_allclose(each.loc["pair_1", "std_llpr"], tables["llpr"]["pair_1_std"])


def test_variance_is_the_heads_without_a_calibration(crystals, tmp_path):
    """What dp's own model gives as variance is the square of the std."""
    from deepmd_mft.inference.predictor import Predictor

    table = predicted(crystals, "model.ckpt-6.pt", tmp_path / "p.csv", "--std", "variance")
    one = Predictor.load(crystals / "model.ckpt-6.pt")
    some = StructureSet("id_test", [crystals / "id_test"]).with_type_map(one.type_map)
    found = one.predict(one.batches(some), variances=True)
    variances = np.hstack([found[output.name] for output in one.variances])
    np.testing.assert_allclose(table[[f"{c}_std" for c in COLUMNS]] ** 2, variances, rtol=1e-5)


def test_a_crystal_repeated_is_the_same_crystal(crystals, tmp_path):
    """Of a supercell the mean stays and the sum grows; so do the uncertainties by LLPR."""
    kept = tmp_path / "c.npz"
    sets = ["--train", str(crystals / "train"), "--valid", str(crystals / "valid")]
    assert main(["calibrate", str(crystals / "model.ckpt-6.pt"), *sets, "-o", str(kept)]) == 0
    some = [one.atoms() for one in StructureSet("some", [crystals / "id_test"])]
    tables = []
    for name, cells in (("one", some), ("two", [one.repeat((2, 1, 1)) for one in some])):
        write(tmp_path / f"{name}.extxyz", cells)
        words = ["--on", str(tmp_path / f"{name}.extxyz"), "--calibration", str(kept)]
        out = ["--std", "llpr", "-o", str(tmp_path / f"{name}.csv")]
        assert main(["predict", str(crystals / "model.ckpt-6.pt"), *words, *out]) == 0
        tables.append(pd.read_csv(tmp_path / f"{name}.csv"))
    one, two = tables
    for column, times in {"gap": 1, "gap_std": 1, "pair_0": 2, "pair_0_std": 2}.items():
        np.testing.assert_allclose(two[column], times * one[column], rtol=1e-5)


def test_a_table_of_smiles(mft_run, tmp_path, capsys):
    pytest.importorskip("rdkit")
    (tmp_path / "some.csv").write_text("smiles\nCCO\nnonsense(\nCCN\nCS\n")
    words = ["--on", str(tmp_path / "some.csv"), "-o", str(tmp_path / "p.csv")]
    model = str(mft_run / "model.ckpt-6.pt")
    assert main(["predict", model, *words]) == 1
    assert "has S, which the model's type_map" in capsys.readouterr().err
    (tmp_path / "some.csv").write_text("smiles\nCCO\nnonsense(\nCCN\n")
    assert main(["predict", model, *words]) == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2
    assert "left out" in capsys.readouterr().err
