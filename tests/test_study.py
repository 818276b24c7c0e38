"""The inputs of examples/study are sound, for every strategy and target."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import DATA, ROOT

STUDY = ROOT / "examples" / "study"
#: Two that have learned the cheap labels, and one that has not.
CHECKPOINTS = [
    ROOT / "examples" / name / "model.pt"
    for name in ("broad/pretrained", "broad/larger", "qm9_gap/pretrained")
]
LABELS = ("gap", "homo", "lumo", "mu", "r2", "alpha")


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(STUDY))
    import study

    yield study
    sys.path.remove(str(STUDY))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Few molecules with every label, for property and auxiliary branches."""
    root = tmp_path_factory.mktemp("sets")
    for name, source in {
        "train": "train", "valid": "valid", "aux/train": "aux_valid", "aux/valid": "aux_valid",
    }.items():  # fmt: skip
        shutil.copytree(DATA / source, root / name)
    for path in root.rglob("coord.npy"):
        for number, label in enumerate(LABELS):
            rows = len(np.load(path))
            values = np.random.default_rng(number).normal(2.0, 0.1, (rows, 1))
            np.save(path.with_name(f"{label}.npy"), values)
    return root


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("mft-both", "gap"),
        ("mft-cheap", "homo"),
        ("mft-cheap", "mu"),
        ("mft-cheap", "r2"),
        ("mft-lambda-0.1", "alpha"),
        ("lp-ft", "mu"),
        ("ft-long", "r2"),
    ],
)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=["broad", "larger", "embedded"])
def test_inputs_pass_the_check(
    tmp_path, monkeypatch, capsys, study, sets, name, target, checkpoint
):
    runs = sys.modules["runs"]
    strategy = study.KNOWN[name]
    branches = strategy.branches(target)
    auxiliary = {
        one: {part: sets / "aux" / part for part in ("train", "valid")} for one in branches
    }
    folder = tmp_path / "run"
    study.write_input(
        folder,
        strategy.template,
        target,
        checkpoint,
        {part: sets / part for part in ("train", "valid")},
        auxiliary=auxiliary,
        share=strategy.share,
        steps=100,
        seed=7,
        edit=strategy.edit,
    )
    config = json.loads((folder / "input.json").read_text())
    if auxiliary:
        nets = {key: one["fitting_net"] for key, one in config["model"]["model_dict"].items()}
        assert set(nets) == {*branches, "property"}
        assert config["training"]["model_prob"]["property"] == pytest.approx(strategy.share)
        for one in set(branches) & set(runs.CHEAP):
            head = runs.CHEAP[one]
            assert nets[one]["type"] == head["type"]
            assert nets[one]["property_name"] == head["property_name"]
            assert nets[one].get("intensive") == head.get("intensive")
        if name in ("mft-cheap", "mft-both"):
            assert target in runs.CHEAP[study.CHEAP_FOR[target]]["property_name"]
    if "lambda" in name:
        assert config["loss_dict"]["GFN2"]["lambda_reg"] == 0.1
    assert config["training"]["numb_steps"] == round(100 / strategy.share)
    assert config["training"]["seed"] == 7
    assert ("lp_steps" in config["learning_rate"]) == (name == "lp-ft")
    monkeypatch.chdir(folder)
    main(["check", "input.json", "--finetune", str(checkpoint), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert not found["errors"]


ROWS = [
    # target, strategy, seed, valid, ood_test
    ("gap", "ft", 1, 10.0, 20.0),
    ("gap", "ft", 2, 12.0, 22.0),
    ("gap", "mft", 1, 8.0, 18.9),
    ("gap", "mft", 2, 8.2, 21.0),
    ("gap", "ft-long", 1, 1.0, 1.0),
    ("gap", "lp", 1, 5.0, 5.0),
    ("mu", "ft", 1, 1.0, 2.0),
    ("mu", "mft", 1, 1.1, 1.0),
    ("mu", "ft-long", 1, 0.1, 0.1),
    ("gap", "wise-ft", 1, 5.0, 5.0),  # better, but of one seed of the two
    ("mu", "wise-ft", 1, 0.5, 0.5),
]


def test_the_summary_compares_the_seeds_that_both_have(study, tmp_path, capsys, monkeypatch):
    import summary

    for number, one in enumerate(("valid", "ood_test"), start=3):
        rows = [(*row[:2], 128, row[2], one, row[number]) for row in ROWS]
        columns = ["target", "strategy", "labels", "seed", "set", "rmse"]
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / f"{one}.csv", index=False)
    words = ["summary.py", str(tmp_path / "valid.csv"), str(tmp_path / "ood_test.csv")]
    words += ["--json", str(tmp_path / "summary.json")]
    monkeypatch.setattr(sys, "argv", words)
    summary.main()
    lines = capsys.readouterr().out.splitlines()
    mft = [line.split() for line in lines if " mft " in line]
    # 16.2 / 22, apart (8.1 +- 0.1 from 11 +- 1.4); 39.9 / 42, not apart
    assert mft[0][-5:] == ["-26.4*", "(2)", "+10.0", "(1)", "-8.2"]
    assert mft[1][-5:] == ["-5.0", "(2)", "-50.0", "(1)", "-27.5"]
    lp = next(line.split() for line in lines if " lp " in line)
    assert lp[-2:] == ["-50.0", "(1)"]  # against the FT of its seed, and of one target alone
    assert lines[-2] == "128 labels: validation chooses mft"
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert kept["chosen"] == {"128": "mft"}
    mine = {(row["strategy"], row["target"], row["set"]): row for row in kept["changes"]}
    assert mine["mft", "gap", "valid"]["change"] == pytest.approx(100 * (16.2 / 22 - 1))
    assert mine["lp", "gap", "valid"]["std"] is None


def test_the_tables_keep_the_rows_of_earlier_calls(study, tmp_path):
    path = tmp_path / "validation.csv"
    row = {"target": "gap", "labels": 128, "strategy": "ft", "seed": 1, "set": "valid"}
    study.keep(pd.DataFrame([{**row, "rmse": 1.0}, {**row, "seed": 2, "rmse": 2.0}]), path)
    study.keep(pd.DataFrame([{**row, "rmse": 3.0}]), path)
    assert pd.read_csv(path)["rmse"].tolist() == [3.0, 2.0]
    assert [one.name for one in tmp_path.iterdir()] == ["validation.csv"]


def test_larger_training_sets_hold_the_smaller_ones_and_nothing_of_the_others(study):
    make_data = sys.modules["make_data"]
    values = np.random.default_rng(0).normal(size=8_000)
    split = {
        "train": np.arange(6_000), "id": np.arange(6_000, 7_000), "ood": np.arange(7_000, 8_000),
    }  # fmt: skip
    few, many = (
        make_data.draw_subsets(
            values, split, make_data.parse(["--qm9", ".", "--labels", str(labels)])
        )
        for labels in (128, 3_000)
    )
    assert len(few["train"]) == 128
    assert len(many["train"]) == 3_000
    assert np.array_equal(few["train"], many["train"][:128])
    for name in ("valid", "valid_tail", "id_test", "ood_test", "aux"):
        assert np.array_equal(few[name], many[name])
        if name != "aux":  # learns no label of the target
            assert not np.isin(many[name], many["train"]).any()
