"""`dp-mft report` makes one page without links to the network, or says why not."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import DATA, Dp, single_input

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
    for name in names - {"errors"}:
        assert (runs / "report_files" / f"{name}.png").stat().st_size > 1000


def test_seeds_and_training_sizes(runs, tmp_path, capsys):
    folders = []
    for name, size in (("a", None), ("b", None), ("c", 40)):
        folder = tmp_path / name
        shutil.copytree(runs / "scratch", folder, symlinks=True)
        config = json.loads((folder / "input.json").read_text())
        if size:
            shutil.copytree(DATA / "train", tmp_path / "fewer")
            for path in (tmp_path / "fewer" / "set.000").glob("*.npy"):
                np.save(path, np.load(path)[:size])
            config["training"]["training_data"]["systems"] = str(tmp_path / "fewer")
        (folder / "input.json").write_text(json.dumps(config))
        folders.append(str(folder))
    out = tmp_path / "report.html"
    assert main(["report", *folders, "-o", str(out), "--unit", "eV", "-q"]) == 0
    assert "averaged as seeds" not in capsys.readouterr().err
    few_shot = pd.read_csv(tmp_path / "report_files" / "few_shot.csv")
    assert sorted(few_shot["labels"].unique()) == [40, 128]
    parity = list((tmp_path / "report_files").glob("parity_*.csv"))
    assert [path.stem for path in parity] == ["parity_a"]  # one seed of the largest size
    page = out.read_text()
    assert "(seeds)" in page
    assert "0.0171" not in page  # the paper's Hartree do not belong beside eV


def test_seeds_that_differ_in_more_than_the_seed(runs, tmp_path, capsys):
    for name, seed, neurons in (("a", 1, [12, 12]), ("b", 2, [12, 12]), ("c", 3, [24])):
        shutil.copytree(runs / "scratch", tmp_path / name, symlinks=True)
        config = json.loads((tmp_path / name / "input.json").read_text())
        config["model"]["fitting_net"] |= {"seed": seed, "neuron": neurons}
        (tmp_path / name / "input.json").write_text(json.dumps(config))
    folders = [str(tmp_path / name) for name in "abc"]
    out = tmp_path / "report.html"
    assert main(["report", *folders, "-o", str(out), "-q"]) == 0
    told = "c and a are averaged as seeds (SCRATCH, 128 labels), but their inputs differ in "
    told += "model/fitting_net/neuron"
    printed = capsys.readouterr().err
    assert printed.count("averaged as seeds") == 1
    assert told in printed
    assert told in out.read_text()


def test_nothing_is_overwritten(runs, capsys):
    arguments = [str(runs / "scratch"), str(runs / "mft"), "-o", str(runs / "report.html"), "-q"]
    assert main(["report", *arguments]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["report", *arguments, "--overwrite"]) == 0


def test_runs_of_different_properties(runs, tmp_path, capsys):
    other = tmp_path / "homo"
    shutil.copytree(runs / "scratch", other, symlinks=True)
    for name in ("input.json", "evaluation/predictions.csv"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace('"gap"', '"homo"').replace(",gap,", ",homo,"))
    arguments = [str(runs / "mft"), str(other), "-o", str(tmp_path / "report.html"), "-q"]
    assert main(["report", *arguments]) == 1
    assert "learn different properties: gap" in capsys.readouterr().err


def test_runs_that_learn_classes(runs, tmp_path, capsys):
    other = tmp_path / "classes"
    shutil.copytree(runs / "scratch", other, symlinks=True)
    text = (other / "input.json").read_text().replace('"mft_property"', '"mft_classification"')
    (other / "input.json").write_text(text)
    assert main(["report", str(other), "-o", str(tmp_path / "report.html"), "-q"]) == 1
    assert "learns classes" in capsys.readouterr().err


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
