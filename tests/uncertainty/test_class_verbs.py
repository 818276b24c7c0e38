"""`dp-mft calibrate`, `predict`, `evaluate` and `report` on trained classifiers."""

import shutil

import numpy as np
import pandas as pd
import pytest
from ase.io import write

from deepmd_mft.cli.main import main
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp, single_input

CLASSES = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds that learn in which third the gap lies, their calibration, and small sets."""
    folder = tmp_path_factory.mktemp("thirds")
    sets = {"train": "train", "valid": "valid", "id_test": "id_test", "ood_test": "valid_tail"}
    edges = np.array([0.24, 0.265])
    for name, source in sets.items():
        part = StructureSet(name, [DATA / source])
        part.write_part(np.arange(min(len(part), 120)), folder / "sets" / name)
        for path in (folder / "sets" / name).rglob("gap.npy"):
            gap = np.load(path)
            np.save(path.with_name("third.npy"), np.digitize(gap, edges).astype(float))
    for seed in (1, 2):
        config = single_input()
        net = {"type": "mft_classification", "property_name": "third", "num_classes": CLASSES}
        config["model"]["fitting_net"] = {**net, "neuron": [12], "seed": seed}
        config["loss"] = {"type": "mft_classification", "property_name": "third"}
        config["training"]["numb_steps"] = 24
        for part, name in (("training_data", "train"), ("validation_data", "valid")):
            config["training"][part]["systems"] = str(folder / "sets" / name)
        (folder / f"s{seed}").mkdir()
        Dp(folder / f"s{seed}").train(config)
    assert main(["calibrate", *models(folder), *data(folder), "-o", str(folder / "c.npz")]) == 0
    return folder


def models(folder):
    return [str(folder / name / "model.ckpt-24.pt") for name in ("s1", "s2")]


def data(folder):
    return ["--train", str(folder / "sets" / "train"), "--valid", str(folder / "sets" / "valid")]


def predict(*words):
    assert main(["predict", *map(str, words)]) == 0
    return pd.read_csv(words[-1])


def test_predictions(trained, tmp_path, capsys):
    on = ["--on", trained / "sets" / "ood_test"]
    kept = ["--calibration", trained / "c.npz"]
    found = {
        name: predict(*models(trained), *on, *kept, *more, "-o", tmp_path / f"{name}.csv")
        for name, more in {
            "temperature": [],
            "isotonic": ["--probabilities", "isotonic"],
            "raw": ["--probabilities", "raw"],
        }.items()
    }
    columns = [f"third_p{number}" for number in range(CLASSES)]
    assert list(found["temperature"]) == [
        *("id", "third", *columns, "third_entropy", "probabilities"),
        *("ood_mahalanobis", "ood_knn", "ood_structural", "nearest_training_structure"),
    ]
    for name, table in found.items():
        assert set(table["probabilities"]) == {name}
        np.testing.assert_allclose(table[columns].sum(axis=1), 1)
        assert (table["third"] == table[columns].to_numpy().argmax(axis=1)).all()
        own = -(table[columns] * np.log(table[columns])).sum(axis=1)
        np.testing.assert_allclose(table["third_entropy"], own)
    alone = predict(*models(trained), *on, "-o", tmp_path / "alone.csv")
    assert list(alone) == ["id", "third", *columns, "third_entropy", "probabilities"]
    np.testing.assert_allclose(alone[columns], found["raw"][columns])
    each = [
        predict(model, *on, "-o", tmp_path / f"{number}.csv")[columns]
        for number, model in enumerate(models(trained))
    ]
    np.testing.assert_allclose((each[0] + each[1]) / 2, alone[columns])
    assert "probabilities: raw" in capsys.readouterr().out


def test_order_of_atoms_does_not_matter(trained, tmp_path):
    rng = np.random.default_rng(0)
    some = [one.atoms() for one in StructureSet("some", [trained / "sets" / "id_test"], most=6)]
    write(tmp_path / "one.extxyz", some)
    write(tmp_path / "other.extxyz", [one[rng.permutation(len(one))] for one in some])
    kept = ["--calibration", trained / "c.npz"]
    tables = [
        predict(*models(trained), "--on", tmp_path / f"{name}.extxyz", *kept, "-o", tmp_path / name)
        for name in ("one", "other")
    ]
    first, second = (one.drop(columns="id") for one in tables)
    pd.testing.assert_frame_equal(first, second, rtol=1e-5, atol=1e-7)


def test_evaluate_scores_what_predict_writes(trained, tmp_path, capsys):
    named = [f"a={model}" for model in models(trained)]
    words = ["--split", str(trained / "sets"), "--sets", "id_test", "ood_test"]
    kept = ["--calibration", str(trained / "c.npz")]
    assert main(["evaluate", *named, *words, *kept, "-o", str(tmp_path / "out")]) == 0
    assert "entropy temperature" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "trust.csv").set_index(["set", "probabilities"])
    on = trained / "sets" / "id_test"
    own = predict(*models(trained), "--on", on, *kept, "-o", tmp_path / "p.csv")
    label = StructureSet("id_test", [on]).labels("third", 1)[:, 0].astype(int)
    probability = own[[f"third_p{number}" for number in range(CLASSES)]].to_numpy()
    row = table.loc[("id_test", "temperature")]
    assert row["accuracy"] == pytest.approx(np.mean(own["third"] == label))
    expected = -np.log(probability[np.arange(len(label)), label]).mean()
    assert row["nll"] == pytest.approx(expected)
    bins = pd.read_csv(tmp_path / "out" / "reliability.csv")
    assert (bins.groupby(["set", "probabilities"])["structures"].sum() == 120).all()
    assert set(pd.read_csv(tmp_path / "out" / "telling.csv")["set"]) == {"ood_test"}


def test_report(trained, tmp_path):
    runs = [f"{trained / 's1'}:scratch", f"{trained / 's2'}:ft"]
    out = tmp_path / "report.html"
    words = ["--split", str(trained / "sets"), "--sets", "id_test", "ood_test", "-q"]
    assert main(["report", *runs, *words, "-o", str(out)]) == 0
    files = tmp_path / "report_files"
    names = {path.stem for path in files.glob("*.csv")} - {"errors", "gains"}
    assert names == {
        *("improvement", "accuracy", "confusion_scratch", "confusion_ft"),
        *("reliability", "distance_structure", "learning_property"),
    }
    page = out.read_text()
    for name in names:
        assert f"{name}.csv" in page
        assert (files / f"{name}_dark.png").stat().st_size > 1000
    assert "RMSE" not in page
    counts = pd.read_csv(files / "confusion_ft.csv").groupby("set")
    errors = pd.read_csv(files / "errors.csv").set_index(["strategy", "set"])
    for name, table in counts:
        right = table["structures"][table["label"] == table["predicted"]].sum()
        expected = errors.loc[("ft", name), "accuracy"]
        assert right / table["structures"].sum() == pytest.approx(expected)


def relabelled(trained, folder, change):
    """Copy the validation set with other labels."""
    shutil.copytree(trained / "sets" / "valid", folder)
    for path in folder.rglob("third.npy"):
        np.save(path, change(np.load(path)))
    return str(folder)


def test_what_a_user_gets_wrong(trained, mft_run, tmp_path, capsys):
    out = ["-o", str(tmp_path / "p.csv")]
    on = ["--on", str(trained / "sets" / "id_test")]
    both, train = models(trained), data(trained)[:2]
    number = str(mft_run / "model.ckpt-6.pt")
    without = relabelled(trained, tmp_path / "without", lambda label: np.minimum(label, 1))
    one = relabelled(trained, tmp_path / "one", np.zeros_like)
    beyond = relabelled(trained, tmp_path / "beyond", lambda label: label + 1)
    missing = relabelled(trained, tmp_path / "missing", lambda label: np.full_like(label, np.nan))
    cases = {
        "class 2 of third": ["calibrate", *both, *train, "--valid", without],
        "class 1, 2 of third": ["calibrate", *both, *train, "--valid", one],
        "tells 3 classes": ["calibrate", *both, *train, "--valid", beyond],
        "without the label third": ["calibrate", *both, *train, "--valid", missing],
        "leave out --coverage": ["calibrate", *both, *data(trained), "--coverage", "0.9"],
        "--std does not fit": ["predict", *both, *on, "--std", "ensemble"],
        "--interval does not fit": ["predict", *both, *on, "--interval", "normalised"],
        "needs a calibration": ["predict", *both, *on, "--probabilities", "isotonic"],
        "predicts numbers (gap)": ["predict", number, *on, "--probabilities", "raw"],
        "third (3 classes)": ["predict", number, both[0], *on],
        "of other models": ["predict", both[0], *on, "--calibration", str(trained / "c.npz")],
        "has the label third = 3": ["evaluate", both[0], "--split", beyond],
    }
    for message, words in cases.items():
        assert main([*words, *out]) == 1, message
        assert message in capsys.readouterr().err
        assert not (tmp_path / "p.csv").exists()
