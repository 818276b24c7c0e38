"""The part of a report on calibrated ensembles: what it shows, and what it refuses."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from deepmd_mft.cli import main
from deepmd_mft.report.errors import digits
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def calibrated(mft_run, tmp_path_factory):
    """A run, its calibration, and a calibrated evaluation on small test sets."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(mft_run, folder / "run", symlinks=True)
    for name, source in (("id_test", "id_test"), ("ood_test", "ood_test")):
        part = StructureSet(name, [DATA / source])
        part.write_part(np.arange(30), folder / "sets" / name)
    run, kept = str(folder / "run"), str(folder / "c.npz")
    sets = ["--train", str(DATA / "train"), "--valid", str(DATA / "valid")]
    assert main(["calibrate", run, *sets, "-o", kept]) == 0
    words = ["--split", str(folder / "sets"), "-q", "-o"]
    with_it = ["--calibration", kept]
    assert main(["evaluate", run, *words, str(folder / "trust"), *with_it]) == 0
    assert main(["evaluate", run, *words, str(folder / "run" / "evaluation")]) == 0
    return folder


def report(folder, out, *words):
    return main(["report", str(folder / "run"), "-o", str(out), "-q", *map(str, words)])


def test_page_shows_the_scores_of_the_evaluation(calibrated, tmp_path):
    out = tmp_path / "report.html"
    assert report(calibrated, out, "--calibrated", calibrated / "trust") == 0
    page = out.read_text()
    assert "How far to believe it" in page
    table = pd.read_csv(calibrated / "trust" / "trust.csv").set_index("set")
    for test in ("id_test", "ood_test"):
        assert f"{100 * table.loc[test, 'coverage_normalised']:.1f} %" in page
        assert f"width {digits(table.loc[test, 'width_absolute'], 30)}" in page
        assert f"<td>{digits(table.loc[test, 'nll'], 30)}<" in page
    files = tmp_path / "report_files"
    rest = pd.read_csv(files / "sparsification_llpr.csv")
    assert (rest["rmse_oracle"] <= rest["rmse"] + 1e-12).all()
    each = pd.read_csv(calibrated / "trust" / "estimates.csv")
    own = each[each["set"] == "ood_test"]
    first = rest[(rest["set"] == "ood_test") & (rest["taken"] == 0)]["rmse"]
    rmse = np.sqrt(np.mean((own["prediction"] - own["label"]) ** 2))
    np.testing.assert_allclose(first, rmse)
    covered = pd.read_csv(files / "calibration_llpr.csv").query("set == 'ood_test'")
    half = covered[np.isclose(covered["expected"], 0.5)]["observed"].iloc[0]
    z = np.abs(own["prediction"] - own["label"]) / own["std_llpr"]
    assert half == pytest.approx(np.mean(z <= 0.674489750196082))
    told = pd.read_csv(files / "telling_mft.csv").query("score == 'knn'")
    truth = each["set"] == "ood_test"
    area = np.trapezoid(told["outside"], told["inside"])
    assert area == pytest.approx(roc_auc_score(truth, each["ood_knn"]), abs=0.02)
    assert (files / "error_by_std_llpr.png").is_file()


def test_a_run_whose_own_evaluation_is_calibrated(calibrated, tmp_path):
    shutil.copytree(calibrated / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "evaluation")
    shutil.copytree(calibrated / "trust", tmp_path / "run" / "evaluation")
    assert report(tmp_path, tmp_path / "report.html") == 0
    assert "How far to believe it" in (tmp_path / "report.html").read_text()


def test_a_run_that_was_evaluated_on_its_training_data_too(calibrated, tmp_path):
    """As `dp-mft plan` does; the calibrated evaluation is of the test sets alone."""
    shutil.copytree(calibrated / "run", tmp_path / "run", symlinks=True)
    shutil.copytree(calibrated / "sets", tmp_path / "sets")
    StructureSet("val", [DATA / "valid"]).write_part(np.arange(30), tmp_path / "sets" / "val")
    words = ["--split", str(tmp_path / "sets"), "-q", "--overwrite"]
    own = str(tmp_path / "run" / "evaluation")
    assert main(["evaluate", str(tmp_path / "run"), *words, "-o", own]) == 0
    out = tmp_path / "report.html"
    assert report(tmp_path, out, "--calibrated", calibrated / "trust") == 0
    page = out.read_text()
    assert "<h2>val: errors" in page
    assert "ood_test: calibrated" in page
    assert "val: calibrated" not in page


def changed(calibrated, tmp_path, change):
    """A copy of the calibrated evaluation with another record."""
    folder = tmp_path / "changed"
    shutil.copytree(calibrated / "trust", folder)
    record = json.loads((folder / "evaluation.json").read_text())
    change(record)
    (folder / "evaluation.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["models"][0].update(sha256="0"), "is the model of no run here"),
        (lambda record: record.pop("calibration"), "without a calibration; make one with"),
        (lambda record: record["sets"].pop("ood_test"), "not evaluated on the data of ood_test"),
    ],
)
def test_an_evaluation_that_does_not_belong(calibrated, tmp_path, capsys, change, message):
    folder = changed(calibrated, tmp_path, change)
    assert report(calibrated, tmp_path / "report.html", "--calibrated", folder) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_what_a_user_gets_wrong(calibrated, tmp_path, capsys):
    shutil.copytree(calibrated / "trust", tmp_path / "again")
    cases = {
        "is not a folder of `dp-mft evaluate`": [calibrated / "c.npz"],
        "are of the same runs; give one": [calibrated / "trust", tmp_path / "again"],
    }
    for message, folders in cases.items():
        assert report(calibrated, tmp_path / "report.html", "--calibrated", *folders) == 1
        assert message in capsys.readouterr().err
