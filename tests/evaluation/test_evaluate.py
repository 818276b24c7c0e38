"""`dp-mft evaluate` gives the numbers of `dp --pt test`, and says what is wrong."""

import json
import re
import shutil
from pathlib import Path

import ase
import ase.io
import numpy as np
import pandas as pd
import pytest
import torch

from deepmd_mft.bridge.neighbours import NeighbourLists
from deepmd_mft.cli import main
from deepmd_mft.evaluation.tables import read_evaluation
from deepmd_mft.inference.network import Network
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp, single_input
from tests.helpers.models import build_property


def test_equals_dp_test(mft_run, tmp_path, capsys):
    run = Dp(mft_run)
    log = run("test", "-m", "property.pth", "-s", str(DATA / "valid"), "-n", "0", "-d", "detail")
    files = sorted(mft_run.glob("detail.property.out.*"), key=lambda p: int(p.suffix[1:]))
    theirs = np.array([np.loadtxt(path) for path in files])
    out = tmp_path / "out"
    models = [str(mft_run / "property.pth"), f"{mft_run / 'model.ckpt-6.pt'}:property"]
    assert main(["evaluate", *models, "--split", str(DATA / "valid"), "-o", str(out)]) == 0
    table = pd.read_csv(out / "predictions.csv")
    for _, part in table.groupby("file"):
        np.testing.assert_allclose(part["prediction"], theirs[:, 1], rtol=1e-6)
    metrics = pd.read_csv(out / "metrics.csv")
    rmse = float(re.search(r"PROPERTY RMSE\s*: (\S+)", log).group(1))
    assert metrics["rmse"].to_numpy() == pytest.approx([rmse, rmse], rel=1e-6)
    assert {"r2", "spearman", "rmse_low", "max_error"} <= set(metrics)
    assert set(pd.read_csv(out / "groups.csv")["kind"]) == {"element", "natoms", "target decile"}
    assert "rmse" in capsys.readouterr().out


def test_files_of_one_name_are_seeds(mft_run, tmp_path, capsys):
    out = tmp_path / "out"
    models = [f"mft={mft_run / name}" for name in ("model.ckpt-3.pt", "model.ckpt-6.pt")]
    arguments = ["--split", str(DATA / "valid"), "-o", str(out), "--format", "parquet"]
    assert main(["evaluate", *models, *arguments]) == 0
    assert list(pd.read_csv(out / "seeds.csv")["files"]) == [2]
    assert len(pd.read_parquet(out / "predictions.parquet")) == 2 * len(
        StructureSet.open(DATA / "valid")
    )
    assert main(["evaluate", *models, *arguments]) == 1
    assert "exists" in capsys.readouterr().err


def test_a_set_without_labels_is_predicted(mft_run, copied_data, tmp_path, capsys):
    (copied_data / "valid" / "set.000" / "gap.npy").unlink()
    out = tmp_path / "out"
    arguments = ["--split", str(copied_data / "valid"), "-o", str(out)]
    assert main(["evaluate", str(mft_run / "property.pth"), *arguments]) == 0
    assert "valid has no labels of gap: predicted only" in capsys.readouterr().err
    table = pd.read_csv(out / "predictions.csv")
    assert table["label"].isna().all()
    assert table["prediction"].notna().all()


def test_nan_predictions_are_said(mft_run, tmp_path, capsys):
    broken = tmp_path / "broken.pt"
    state = torch.load(mft_run / "model.ckpt-6.pt", weights_only=True)
    state["model"]["model.property.atomic_model.out_bias"].fill_(float("nan"))
    torch.save(state, broken)
    arguments = ["--split", str(DATA / "valid"), "-o", str(tmp_path / "out")]
    assert main(["evaluate", str(broken), *arguments]) == 1
    assert "predictions are NaN or inf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing", "does not exist"),
        ("cut", "cut off while copying"),
        ("branch", "has no branch 'homo'; it has GFN2, property"),
    ],
)
def test_models_that_cannot_be_evaluated(model, message, mft_run, pretrained, tmp_path, capsys):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(pretrained.read_bytes()[:5000])
    path = {
        "missing": "nowhere.pt",
        "cut": str(cut),
        "branch": f"{mft_run / 'model.ckpt-6.pt'}:homo",
    }[model]
    out = tmp_path / "out"
    assert main(["evaluate", path, "--split", str(DATA / "valid"), "-o", str(out)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_unknown_element(mft_run, copied_data, tmp_path, capsys):
    path = copied_data / "valid" / "type_map.raw"
    path.write_text(path.read_text().replace("F", "Cl"))
    arguments = ["--split", str(copied_data / "valid"), "-o", str(tmp_path / "out")]
    assert main(["evaluate", str(mft_run / "property.pth"), *arguments]) == 1
    assert "has Cl, which the model's type_map lacks" in capsys.readouterr().err


def test_frame_parameters(dp, copied_data, tmp_path, capsys):
    text = json.dumps(single_input()).replace(str(DATA), str(copied_data))
    config = json.loads(text)
    config["model"]["fitting_net"]["numb_fparam"] = 2
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        for path in (copied_data / name).rglob("gap.npy"):
            np.save(path.with_name("fparam.npy"), rng.normal(size=(len(np.load(path)), 2)))
    dp.train(config)
    dp("freeze", "-o", "model")
    valid = copied_data / "valid"
    log = dp("test", "-m", "model.pth", "-s", str(valid), "-n", "0")
    rmse = float(re.search(r"PROPERTY RMSE\s*: (\S+)", log).group(1))
    models = [str(tmp_path / "model.pth"), str(tmp_path / "model.ckpt-6.pt")]
    arguments = [*models, "--split", str(valid), "-o", str(tmp_path / "out"), "--overwrite"]
    assert main(["evaluate", *arguments]) == 0
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert metrics["rmse"].to_numpy() == pytest.approx([rmse, rmse], rel=1e-6)
    next(valid.rglob("fparam.npy")).unlink()
    assert main(["evaluate", *arguments]) == 1
    assert (
        "takes 2 frame parameter(s), but structure valid:0 has none (fparam.npy"
        in capsys.readouterr().err
    )


def test_default_frame_parameters():
    """What deepmd-kit trains a structure without frame parameters with, also once frozen."""
    model = build_property(numb_fparam=2, default_fparam=[0.3, -1.0])
    for one in (model, torch.jit.script(model)):
        network = Network(one)
        structures = StructureSet("valid", [DATA / "valid"])
        (batch, *_) = network.batches(structures)
        coord, atype, box, fparam = network.inputs(batch)
        assert fparam.tolist() == [[0.3, -1.0]] * len(batch.rows)
        expected = model(coord, atype, box)["gap"]  # none given
        torch.testing.assert_close(one(coord, atype, box, fparam)["gap"], expected)


def test_lmdb(mft_run, tmp_path):
    """The same structures from deepmd/npy and from LMDB, both made by dp-mft convert."""
    structures = StructureSet("valid", [DATA / "valid"])
    label = structures.labels("gap", 1)[:, 0]
    atoms = [
        ase.Atoms(one.numbers, one.positions, info={"gap": value})
        for one, value in zip(structures, label, strict=True)
    ]
    ase.io.write(tmp_path / "valid.xyz", atoms[:40])
    for name in ("npy", "set.lmdb"):
        convert = ["convert", str(tmp_path / "valid.xyz"), str(tmp_path / "sets" / name), "--quiet"]
        assert main([*convert, "--property", "gap=gap:Hartree"]) == 0
    model, out = str(mft_run / "property.pth"), tmp_path / "out"
    assert main(["evaluate", model, "--split", str(tmp_path / "sets"), "-o", str(out)]) == 0
    metrics = pd.read_csv(out / "metrics.csv").set_index("set")
    assert list(metrics["labelled"]) == [40, 40]
    assert metrics.loc["npy", "rmse"] == pytest.approx(metrics.loc["set.lmdb", "rmse"], rel=1e-12)
    some = [
        StructureSet("some", [tmp_path / "sets" / name], most=7) for name in ("npy", "set.lmdb")
    ]
    assert some[0].total == some[1].total == 40
    np.testing.assert_array_equal(some[0].labels("gap", 1), some[1].labels("gap", 1))


def test_a_draw_keeps_structures_labels_and_names_together():
    folders = [DATA / "valid", DATA / "valid_tail"]
    whole, some = StructureSet("all", folders), StructureSet("some", folders, most=150)
    assert (len(some), some.total) == (150, len(whole))
    coords = {one.positions.tobytes(): row for row, one in enumerate(whole)}
    rows = [coords[one.positions.tobytes()] for one in some]
    assert rows == sorted(rows)
    assert rows[-1] >= 400 > rows[0]  # from both folders
    np.testing.assert_array_equal(some.labels("gap", 1), whole.labels("gap", 1)[rows])
    assert some.ids == [whole.ids[row] for row in rows]


@pytest.mark.parametrize("name", ["property.pth", "model.ckpt-6.pt"])
def test_threads_change_nothing(name, mft_run):
    structures = StructureSet("valid", [DATA / "valid"])
    predictor = Predictor.load(mft_run / name)
    batches = structures.batches(predictor.type_map, atoms=64)
    alone = predictor.predict(batches)["gap"]
    lists = NeighbourLists() if name.endswith(".pt") else None
    torch.set_num_threads(3)
    try:
        for _ in range(2):  # building the neighbour lists, then using them
            together = predictor.predict(batches, neighbours=lists)["gap"]
            np.testing.assert_array_equal(together, alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["property.pth", "model.ckpt-6.pt"])
def test_unused_parts_change_nothing(name, mft_run, monkeypatch):
    structures = StructureSet("valid", [DATA / "valid"])
    whole = Predictor.load(mft_run / name)
    expected = whole.predict(whole.batches(structures))["gap"]
    monkeypatch.setattr("deepmd_mft.inference.predictor.MANY_ATOMS", 0)
    found = whole.predict(whole.batches(structures))["gap"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_how_a_set_was_split(tmp_path):
    shutil.copytree(DATA / "valid", tmp_path / "fold_00" / "id_test")
    structures = StructureSet("id_test", [tmp_path / "fold_00" / "id_test"])
    assert structures.split_method is None
    (tmp_path / "split.json").write_text('{"method": "loco"}')
    assert structures.split_method == "loco"
    (tmp_path / "split.json").write_text("[1, 2]")
    assert structures.split_method is None


@pytest.fixture
def unpadded(tmp_path):
    """The frames of a mixed system that fill it: dp test counts padding as atoms."""
    folder = tmp_path / "full"
    shutil.copytree(DATA / "aux_valid" / "17", folder)
    for part in folder.glob("set.*"):
        full = (np.load(part / "real_atom_types.npy") >= 0).all(axis=1)
        for path in part.glob("*.npy"):
            np.save(path, np.load(path)[full])
    return folder


@pytest.mark.parametrize("frozen", [False, True])
def test_a_force_field_equals_dp_test(frozen, unpadded, mft_run, tmp_path):
    if frozen:
        path = tmp_path / "ff.pth"
        Dp(mft_run)("freeze", "-c", "model.ckpt-6.pt", "--head", "GFN2", "-o", str(path))
        model, options = str(path), ["-m", str(path)]
    else:
        model, options = f"{mft_run / 'model.ckpt-6.pt'}:GFN2", ["-m", "model.ckpt-6.pt"]
        options += ["--head", "GFN2"]
    log = Dp(mft_run)("test", *options, "-s", str(unpadded), "-n", "0")
    out = tmp_path / "out"
    assert main(["evaluate", model, "--split", str(unpadded), "-o", str(out)]) == 0
    metrics = pd.read_csv(out / "metrics.csv").set_index("property")
    lines = {"energy": "Energy {}", "energy_per_atom": "Energy {}/Natoms", "force": "Force +{}"}
    for name, line in lines.items():
        for metric in ("MAE", "RMSE"):
            theirs = re.findall(rf"{line.format(metric)} *: (\S+)", log)[-1]
            assert metrics.loc[name, metric.lower()] == pytest.approx(float(theirs), rel=1e-5)
    force = metrics.loc["force"]
    assert force["rmse_low"] < force["rmse"] < force["rmse_high"]
    table = pd.read_csv(out / "predictions.csv")
    assert len(table) == force["frames"]
    whole = np.sqrt((table["force_rmse"] ** 2).mean())  # all have 17 atoms
    assert whole == pytest.approx(force["rmse"])


def test_the_only_branch_of_a_pretrained_checkpoint(pretrained, tmp_path):
    out = tmp_path / "out"
    arguments = ["--split", str(DATA / "valid"), "-o", str(out)]
    assert main(["evaluate", str(pretrained), *arguments, "-q"]) == 0
    metrics = pd.read_csv(out / "metrics.csv").set_index("property")
    assert (metrics["labelled"] == 0).all()  # the property's data have neither energy nor force
    assert pd.read_csv(out / "predictions.csv")["prediction"].notna().all()


def test_names_that_look_like_numbers(mft_run, tmp_path):
    """A set called 29 and ids like 001 or NA come back as they were."""
    atoms = [
        ase.Atoms(one.numbers, one.positions, info={"gap": 0.2, "name": name})
        for one, name in zip(
            StructureSet("v", [DATA / "valid"]).structures[:3], ("001", "NA", "1e5"), strict=True
        )
    ]
    ase.io.write(tmp_path / "three.xyz", atoms)
    convert = ["convert", str(tmp_path / "three.xyz"), str(tmp_path / "29"), "--quiet"]
    assert main([*convert, "--property", "gap=gap:Hartree"]) == 0
    table = tmp_path / "29" / "rows.csv"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows["id"], rows["smiles"] = ["001", "NA", "1e5"], ["C", "N", "O"]
    rows.to_csv(table, index=False)
    out = tmp_path / "out"
    model = str(mft_run / "property.pth")
    assert main(["evaluate", model, "--split", str(tmp_path / "29"), "-o", str(out), "-q"]) == 0
    found, _ = read_evaluation(out)
    assert list(found["set"].unique()) == ["29"]
    assert list(found["id"]) == ["001", "NA", "1e5"]
    assert list(found["smiles"]) == ["C", "N", "O"]
    assert set(found["unit"]) == {"Hartree"}
    assert found["label"].to_numpy() == pytest.approx(0.2)
    assert list(found["natoms"]) == [len(one) for one in atoms]


@pytest.fixture
def folds(tmp_path):
    """Two folds with test sets of their own."""
    for fold, test in (("fold_00", "valid"), ("fold_01", "valid_tail")):
        (tmp_path / "folds" / fold).mkdir(parents=True)
        (tmp_path / "folds" / fold / "train").symlink_to(DATA / "train")
        shutil.copytree(DATA / test, tmp_path / "folds" / fold / "ood_test")
    return tmp_path / "folds"


def test_each_fold_with_its_own_model(mft_run, folds, tmp_path, capsys):
    shutil.copy(mft_run / "model.ckpt-3.pt", tmp_path / "a.pt")
    shutil.copy(mft_run / "model.ckpt-6.pt", tmp_path / "b.pt")
    models = [f"mft={tmp_path / name}:property" for name in ("a.pt", "b.pt")]
    for split in ([folds], [folds / "fold_00", folds / "fold_01"]):
        out = tmp_path / f"out{len(split)}"
        assert main(["evaluate", *models, "--split", *map(str, split), "-o", str(out)]) == 0
        metrics = pd.read_csv(out / "metrics.csv")
        assert list(metrics["set"]) == ["fold_00/ood_test", "fold_01/ood_test"]
        assert [Path(one).name for one in metrics["file"]] == ["a.pt", "b.pt"]
        (mean,) = pd.read_csv(out / "folds.csv").to_dict("records")
        assert (mean["set"], mean["folds"], mean["files"]) == ("ood_test", 2, 2)
        assert mean["rmse_mean"] == pytest.approx(metrics["rmse"].mean())
        assert mean["rmse_std"] == pytest.approx(metrics["rmse"].std(ddof=0))
        assert not (out / "seeds.csv").exists()  # two folds are no seeds
    told = capsys.readouterr().out
    assert "over folds, each fold once" in told
    assert "over seeds" not in told
    arguments = ["--split", str(folds), "-o", str(tmp_path / "out")]
    assert main(["evaluate", models[0], *arguments]) == 1
    assert "which fold" in capsys.readouterr().err


def test_a_model_goes_with_the_fold_it_was_trained_on(mft_run, folds, tmp_path):
    """The order on the command line does not matter where the runs say their training data."""
    for fold in ("fold_00", "fold_01"):
        run = tmp_path / f"of_{fold}"
        run.mkdir()
        shutil.copy(mft_run / "model.ckpt-6.pt", run / "model.best.pt")
        config = json.loads((mft_run / "out.json").read_text())
        part = config["training"]["data_dict"]["property"]["training_data"]
        (folds / fold / "train").unlink()
        shutil.copytree(DATA / "train", folds / fold / "train")
        part["systems"] = str(folds / fold / "train")
        (run / "out.json").write_text(json.dumps(config))
    runs = [str(tmp_path / "of_fold_01"), str(tmp_path / "of_fold_00")]
    out = tmp_path / "out"
    assert main(["evaluate", *runs, "--split", str(folds), "-o", str(out), "-q"]) == 0
    metrics = pd.read_csv(out / "metrics.csv")
    assert list(metrics["set"]) == ["fold_01/ood_test", "fold_00/ood_test"]


def test_an_interrupt_leaves_nothing_behind(mft_run, tmp_path, monkeypatch, capsys):
    done = []

    def interrupt(*args):
        done.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("deepmd_mft.evaluation.tables.tqdm.update", interrupt)
    arguments = ["--split", str(DATA / "valid"), "-o", str(tmp_path / "out")]
    assert main(["evaluate", str(mft_run / "property.pth"), *arguments]) == 130
    assert len(done) == 1
    assert "interrupted" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
