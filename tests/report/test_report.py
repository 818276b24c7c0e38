"""`dp-mft report` makes one page without links to the network, or says why not."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.report.errors import digits
from deepmd_mft.report.strategy import strategy_of
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp, mft_input, single_input

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(mft_run, tmp_path_factory):
    """A run from scratch and one of MFT, evaluated on small sets."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "scratch").mkdir()
    Dp(folder / "scratch").train(single_input())
    shutil.copytree(mft_run, folder / "mft", symlinks=True)
    (folder / "sets").mkdir()
    (folder / "sets" / "id_test").symlink_to(DATA / "valid")
    (folder / "sets" / "ood_test").symlink_to(DATA / "valid_tail")
    arguments = [str(folder / "scratch"), str(folder / "mft"), "--split", str(folder / "sets")]
    out = folder / "report.html"
    assert main(["report", *arguments, "-o", str(out), "--unit", "Hartree", "-q"]) == 0
    return folder


def test_the_page_is_self_contained(runs):
    page = (runs / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "multi-task fine-tuning (MFT)" in page
    assert "0.0171" in page  # the paper's figure for the gap
    table = pd.read_csv(runs / "report_files" / "errors.csv")
    assert set(table["kind"]) == {"ID", "OOD"}
    names = {path.stem for path in (runs / "report_files").glob("*.csv")}
    assert {
        "improvement",
        "rmse",
        "parity_mft",
        "distance_label",
        "distance_structure",
        "learning_property",
    } <= names
    for name in names - {"errors", "gains"}:
        assert (runs / "report_files" / f"{name}.png").stat().st_size > 1000


def test_the_page_says_no_more_than_its_files(runs):
    """No split.json, no selection: the page says so, and from where the strategies are known."""
    page = (runs / "report.html").read_text()
    assert "id_test: no split.json says how" in page
    assert "all runs: how the checkpoint was chosen is not recorded" in page
    assert "no part in choosing" not in page
    assert page.count("Strategy according to dp_mft_start.json") == 2


def test_each_set_has_its_own_rows(runs):
    """Two test sets of one run are no two seeds: no spread, an interval in each table."""
    page = (runs / "report.html").read_text()
    assert "(seeds)" not in page
    for name in ("id_test", "ood_test"):
        assert f"<h2>{name}: errors (Hartree)" in page
    table = pd.read_csv(runs / "report_files" / "errors.csv")
    mine = table[table["run"] == "mft"].set_index("set")["rmse"]
    shown = re.findall(r"<td>(0\.\d+)<small>0\.\d+ to 0\.\d+</small></td>", page)
    assert {digits(mine[name], 300) for name in mine.index} <= set(shown)


def test_baselines_are_those_of_numpy(runs):
    table = pd.read_csv(runs / "report_files" / "errors.csv")
    table = table[table["set"] == "ood_test"].set_index("strategy")
    train, test = (StructureSet(n, [DATA / n]) for n in ("train", "valid_tail"))
    known, label = train.labels("gap", 1), test.labels("gap", 1)
    expected = np.sqrt(np.mean((label - known.mean()) ** 2))
    assert table.loc["mean", "rmse"] == pytest.approx(expected)
    fractions = [
        np.array([[np.mean(s.numbers == z) for z in (1, 6, 7, 8, 9)] for s in part])
        for part in (train, test)
    ]
    weights = np.linalg.lstsq(fractions[0], known, rcond=None)[0]
    expected = np.sqrt(np.mean((label - fractions[1] @ weights) ** 2))
    assert table.loc["composition", "rmse"] == pytest.approx(expected)


def copied(runs, tmp_path, *names, of="scratch"):
    for name in names:
        shutil.copytree(runs / of, tmp_path / name, symlinks=True)
    return [tmp_path / name for name in names]


def change(folder, edit):
    """Edit deepmd-kit's record of what was trained."""
    config = json.loads((folder / "out.json").read_text())
    edit(config)
    (folder / "out.json").write_text(json.dumps(config))


def test_seeds_and_training_sizes(runs, tmp_path, capsys):
    folders = copied(runs, tmp_path, "a", "b", "c")
    shutil.copytree(DATA / "train", tmp_path / "fewer")
    for path in (tmp_path / "fewer" / "set.000").glob("*.npy"):
        np.save(path, np.load(path)[:40])
    systems = {"systems": str(tmp_path / "fewer"), "batch_size": 1}
    change(folders[2], lambda config: config["training"].update(training_data=systems))
    out = tmp_path / "report.html"
    assert main(["report", *map(str, folders), "-o", str(out), "--unit", "eV", "-q"]) == 0
    few_shot = pd.read_csv(tmp_path / "report_files" / "few_shot.csv")
    assert sorted(few_shot["labels"].unique()) == [40, 128]
    assert len(few_shot) == 6  # three runs, two sets
    parity = list((tmp_path / "report_files").glob("parity_*.csv"))
    assert [path.stem for path in parity] == ["parity_a"]  # one seed of the largest size
    page = out.read_text()
    assert "(seeds)" in page
    assert "0.0171" not in page  # the paper's Hartree do not belong beside eV


def test_an_unknown_unit_is_not_the_papers(runs, tmp_path):
    (folder,) = copied(runs, tmp_path, "a")
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(out), "-q"]) == 0
    assert "paper RMSE" not in out.read_text()


def test_seeds_that_differ_in_more_than_the_seed(runs, tmp_path, capsys):
    folders = copied(runs, tmp_path, "a", "b", "c")
    for folder, seed, neurons in zip(folders, (1, 2, 3), ([12, 12], [12, 12], [24]), strict=True):
        net = {"seed": seed, "neuron": neurons}
        change(folder, lambda config, net=net: config["model"]["fitting_net"].update(net))
    out = tmp_path / "report.html"
    assert main(["report", *map(str, folders), "-o", str(out), "-q"]) == 0
    told = "c and a are averaged as one recipe (SCRATCH, 128 labels), but their inputs differ in "
    told += "model/fitting_net/neuron"
    printed = capsys.readouterr().err
    assert printed.count("averaged as one recipe") == 1
    assert told in printed
    assert told in out.read_text()


def test_an_evaluation_of_two_models(runs, tmp_path, capsys):
    """Only the rows of the run's own model count."""
    (folder,) = copied(runs, tmp_path, "a")
    shutil.rmtree(folder / "evaluation")
    models = [str(folder / "model.ckpt-3.pt"), str(folder / "model.ckpt-6.pt")]
    sets = ["--split", str(runs / "sets"), "-o", str(folder / "evaluation")]
    assert main(["evaluate", *models, *sets, "-q"]) == 0
    assert main(["report", str(folder), "-o", str(tmp_path / "report.html"), "-q"]) == 0
    tables = [pd.read_csv(one / "report_files" / "errors.csv") for one in (tmp_path, runs)]
    mine, alone = (table[table["strategy"] == "scratch"] for table in tables)
    assert list(mine["structures"]) == list(alone["structures"])
    np.testing.assert_allclose(mine["rmse"], alone["rmse"])


def test_how_a_run_started_is_asked_not_guessed(runs, tmp_path, capsys):
    (folder,) = copied(runs, tmp_path, "a", of="mft")
    for path in (folder / "dp_mft_start.json", folder / "train.log"):
        path.unlink()
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(out), "-q"]) == 1
    assert f"write {folder}:STRATEGY" in capsys.readouterr().err
    assert main(["report", f"{folder}:ft", "-o", str(out), "-q"]) == 0
    assert "Strategy according to command line" in out.read_text()
    assert main(["report", f"{folder}:best", "-o", str(out), "-q"]) == 1
    assert "no strategy 'best'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def odd_starts(pretrained, tmp_path_factory):
    """FT without finetune_head, and two branches from random weights."""
    folder = tmp_path_factory.mktemp("odd")
    for name in ("ft", "two"):
        (folder / name).mkdir()
    Dp(folder / "ft").train(single_input(), "--finetune", str(pretrained))
    Dp(folder / "two").train(mft_input())
    return folder


def test_strategies_are_recorded(odd_starts, runs):
    found = {}
    for folder in (odd_starts / "ft", odd_starts / "two", runs / "mft", runs / "scratch"):
        run = TrainingRun(folder)
        found[folder.name] = strategy_of(run, run.property_branch())[0]
    expected = {"ft": "ft", "two": "multitask", "mft": "mft", "scratch": "scratch"}
    assert found == expected
    (odd_starts / "ft" / "dp_mft_start.json").unlink()
    assert "finetune_head" not in (odd_starts / "ft" / "out.json").read_text()
    run = TrainingRun(odd_starts / "ft")
    with pytest.raises(UserError, match="is not recorded"):
        strategy_of(run, run.property_branch())
    config = json.loads((odd_starts / "ft" / "input.json").read_text())
    config["_dp_mft_input"] = {"strategy": "lp"}  # as dp-mft input writes it
    (odd_starts / "ft" / "input.json").write_text(json.dumps(config))
    assert strategy_of(run, run.property_branch()) == ("lp", "_dp_mft_input")


def test_training_data_that_moved(runs, tmp_path, capsys):
    (folder,) = copied(runs, tmp_path, "a")
    gone = {"systems": str(tmp_path / "gone"), "batch_size": 1}
    change(folder, lambda config: config["training"].update(training_data=gone))
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(out), "-q"]) == 0
    assert "the training data of a are not where they were" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "report_files" / "errors.csv")
    assert set(table["labels"]) == {128}  # from the record of the start
    assert {"scratch", "mean"} == set(table["strategy"])
    (folder / "dp_mft_start.json").unlink()
    assert main(["report", f"{folder}:scratch", "-o", str(out), "--overwrite", "-q"]) == 0
    assert "labels unknown" in out.read_text()


def test_a_fold_each(runs, tmp_path):
    """Runs of two folds, one fold without id_test: means over folds, no clash of names."""
    folds = tmp_path / "folds"
    for fold, test in (("fold_00", "valid"), ("fold_01", "valid_tail")):
        shutil.copytree(DATA / "train", folds / fold / "train")
        shutil.copytree(DATA / test, folds / fold / "ood_test")
        (folds / fold / "id_test").mkdir()  # an empty part, as a LOCO split leaves it
    folders = copied(runs, tmp_path, "one", "two")
    for folder, fold in zip(folders, ("fold_01", "fold_00"), strict=True):
        shutil.rmtree(folder / "evaluation")
        data = {"systems": str(folds / fold / "train"), "batch_size": 1}
        change(folder, lambda config, data=data: config["training"].update(training_data=data))
    out = tmp_path / "report.html"
    split = ["--split", str(folds / "fold_00"), str(folds / "fold_01")]
    assert main(["report", *map(str, folders), *split, "-o", str(out), "-q"]) == 0
    table = pd.read_csv(tmp_path / "report_files" / "errors.csv")
    own = table[table["strategy"] == "scratch"].set_index("run")["set"]
    assert own.to_dict() == {"one": "fold_01/ood_test", "two": "fold_00/ood_test"}
    page = out.read_text()
    assert "structures in 2 folds" in page
    assert "(folds)" in page
    assert "(seeds)" not in page
    assert "<h2>ood_test" in page
    assert "<h2>ood_test: fold by fold" in page
    (mean,) = pd.read_csv(tmp_path / "report_files" / "folds.csv")[
        lambda t: t["strategy"] == "scratch"
    ].to_dict("records")
    assert mean["mae_std"] == pytest.approx(np.std(table[table["strategy"] == "scratch"]["mae"]))
    assert (tmp_path / "report_files" / "parity_scratch-in-2-folds.png").is_file()


def test_a_checkpoint_chosen_on_the_test_set(runs, tmp_path):
    (folder,) = copied(runs, tmp_path, "a")
    shutil.rmtree(folder / "evaluation")
    assert main(["select", str(folder), "-q"]) == 0  # on DATA / valid, which is id_test here
    out = tmp_path / "report.html"
    arguments = ["--split", str(runs / "sets"), "-o", str(out), "-q"]
    assert main(["report", str(folder), *arguments]) == 0
    page = out.read_text()
    assert "chosen on validation data by dp-mft select" in page
    assert "the checkpoint of a was chosen on id_test itself" in page


def test_an_evaluation_of_other_data(runs, tmp_path, capsys):
    """The folder that --split names was passed over, and the old numbers shown."""
    (tmp_path / "sets").mkdir()
    for name, source in (("id_test", "valid"), ("ood_test", "ood_test")):
        (tmp_path / "sets" / name).symlink_to(DATA / source)
    arguments = [str(runs / "mft"), "-o", str(tmp_path / "report.html"), "-q", "--split"]
    assert main(["report", *arguments, str(tmp_path / "sets")]) == 1
    message = capsys.readouterr().err
    assert f"was not made with {tmp_path}/sets/ood_test, which --split names" in message
    assert main(["report", *arguments, str(runs / "sets")]) == 0


@pytest.mark.parametrize("rows", [3, None])
def test_a_seed_that_has_diverged(runs, tmp_path, rows):
    """All of its predictions are NaN, or some: a traceback, or errors of the other seed alone."""
    folders = copied(runs, tmp_path, "a", "b")
    place = folders[1] / "evaluation" / "predictions.csv"
    table = pd.read_csv(place, dtype=str, keep_default_na=False)
    table.loc[: rows and rows - 1, "prediction"] = ""
    table.to_csv(place, index=False)
    out = tmp_path / "report.html"
    assert main(["report", *map(str, folders), "-o", str(out), "-q"]) == 0
    errors = pd.read_csv(tmp_path / "report_files" / "errors.csv")
    errors = errors[errors["set"] == "id_test"].set_index("run")
    assert np.isnan(errors.loc["b", "rmse"])
    assert errors.loc[["a", "b"], "improvement_percent"].isna().all()  # of a mean that is none
    page = out.read_text()
    assert f"b predicts no number for {rows or 400} of 400 structures of id_test" in page
    assert "± nan (seeds)" in page


def test_nothing_is_overwritten(runs, capsys):
    arguments = [str(runs / "scratch"), str(runs / "mft"), "-o", str(runs / "report.html"), "-q"]
    assert main(["report", *arguments]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["report", *arguments, "--overwrite"]) == 0


def test_runs_of_different_properties(runs, tmp_path, capsys):
    other = tmp_path / "homo"
    shutil.copytree(runs / "scratch", other, symlinks=True)
    for name in ("out.json", "evaluation/predictions.csv"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace('"gap"', '"homo"').replace(",gap,", ",homo,"))
    arguments = [str(runs / "mft"), str(other), "-o", str(tmp_path / "report.html"), "-q"]
    assert main(["report", *arguments]) == 1
    assert "learn different properties: gap" in capsys.readouterr().err


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    """A run that learns whether the gap is above the median."""
    folder = tmp_path_factory.mktemp("classes")
    for name in ("train", "valid"):
        shutil.copytree(DATA / name, folder / name)
        for path in (folder / name).rglob("gap.npy"):
            gap = np.load(path)
            np.save(path.with_name("wide.npy"), (gap > np.quantile(gap, 0.3)).astype(float))
    (folder / "run").mkdir()
    config = json.loads(json.dumps(single_input()).replace(f"{DATA}/", "../"))
    net = {"type": "mft_classification", "property_name": "wide", "neuron": [12], "seed": 1}
    config["model"]["fitting_net"] = net
    config["loss"] = {"type": "mft_classification", "property_name": "wide"}
    Dp(folder / "run").train(config)
    return folder


def test_runs_that_learn_classes(of_classes, tmp_path):
    other = tmp_path / "b"
    shutil.copytree(of_classes / "run", other, symlinks=True)
    for name in ("train", "valid"):
        (tmp_path / name).symlink_to(of_classes / name)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "id_test").symlink_to(of_classes / "valid")
    runs = [f"{of_classes / 'run'}:scratch", f"{other}:ft"]
    out = tmp_path / "report.html"
    arguments = [*runs, "--split", str(tmp_path / "sets"), "-o", str(out), "-q"]
    assert main(["report", *arguments]) == 0
    table = pd.read_csv(tmp_path / "report_files" / "errors.csv").set_index("strategy")
    metrics = pd.read_csv(other / "evaluation" / "metrics.csv").loc[0]
    for name in ("accuracy", "roc_auc"):
        assert table.loc["ft", name] == pytest.approx(metrics[name])
    label = np.load(next((of_classes / "valid").rglob("wide.npy")))
    train = np.load(next((of_classes / "train").rglob("wide.npy")))
    chosen = float(train.mean() > 0.5)
    assert table.loc["majority", "accuracy"] == pytest.approx(np.mean(label == chosen))
    page = out.read_text()
    assert "ROC-AUC" in page
    assert "cannot be told apart" in page  # the two are one model
    gains = pd.read_csv(tmp_path / "report_files" / "gains.csv")
    assert gains[["gain", "gain_low", "gain_high"]].to_numpy() == pytest.approx(0.0)


def test_evaluation_of_another_model(runs, tmp_path, capsys):
    other = tmp_path / "scratch"
    shutil.copytree(runs / "scratch", other, symlinks=True)
    record = json.loads((other / "evaluation" / "evaluation.json").read_text())
    record["models"][0]["sha256"] = "0" * 64
    (other / "evaluation" / "evaluation.json").write_text(json.dumps(record))
    assert main(["report", str(other), "-o", str(tmp_path / "report.html"), "-q"]) == 1
    assert "belongs to another model" in capsys.readouterr().err


def test_a_run_without_evaluation_needs_the_split(runs, tmp_path, capsys):
    other = tmp_path / "scratch"
    shutil.copytree(runs / "scratch", other, symlinks=True)
    shutil.rmtree(other / "evaluation")
    assert main(["report", str(other), "-o", str(tmp_path / "report.html"), "-q"]) == 1
    assert "give --split DIR" in capsys.readouterr().err
