"""The inputs of examples/study are sound, for every strategy and target."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import DATA, ROOT

STUDY = ROOT / "examples" / "study"
CHECKPOINT = ROOT / "examples" / "broad" / "pretrained" / "model.pt"
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
    [("mft-both", "gap"), ("mft-cheap", "homo"), ("mft", "alpha"), ("lp-ft", "mu"), ("ft", "r2")],
)
def test_inputs_pass_the_check(tmp_path, monkeypatch, capsys, study, sets, name, target):
    strategy = study.STRATEGIES[name]
    auxiliary = {
        one: {part: sets / "aux" / part for part in ("train", "valid")}
        for one in strategy.auxiliary
    }
    folder = tmp_path / "run"
    study.write_input(
        folder,
        strategy.template,
        target,
        CHECKPOINT,
        {part: sets / part for part in ("train", "valid")},
        auxiliary=auxiliary,
        share=study.SHARE if auxiliary else 1.0,
        steps=100,
        seed=7,
        edit=strategy.edit,
    )
    config = json.loads((folder / "input.json").read_text())
    if auxiliary:
        assert set(config["model"]["model_dict"]) == {*strategy.auxiliary, "property"}
        assert config["training"]["model_prob"]["property"] == pytest.approx(0.5)
    assert config["training"]["numb_steps"] == (200 if auxiliary else 100)
    assert config["training"]["seed"] == 7
    assert ("lp_steps" in config["learning_rate"]) == (name == "lp-ft")
    monkeypatch.chdir(folder)
    main(["check", "input.json", "--finetune", str(CHECKPOINT), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert not found["errors"]
