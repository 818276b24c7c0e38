"""The logic of the study's other two scripts: dpa_adapt beside ours, and crystals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.dp import DATA, ROOT

STUDY = ROOT / "examples" / "study"


@pytest.fixture(scope="module", autouse=True)
def _on_path():
    sys.path.insert(0, str(STUDY))
    yield
    sys.path.remove(str(STUDY))


@pytest.fixture(scope="module")
def beside():
    import beside_dpa_adapt

    return beside_dpa_adapt


@pytest.fixture(scope="module")
def crystals():
    import crystals

    return crystals


def _distances(coords: np.ndarray) -> np.ndarray:
    return np.sort(np.linalg.norm(coords[:, None] - coords[None], axis=-1).ravel())


def test_plain_systems_are_the_same_molecules(tmp_path, beside):
    source = DATA / "valid"
    systems = beside.plain(source, tmp_path / "plain", "gap")
    types = np.load(source / "set.000" / "real_atom_types.npy")
    coords = np.load(source / "set.000" / "coord.npy")
    labels = np.load(source / "set.000" / "gap.npy").ravel()
    assert np.allclose(np.sort(beside.labels_of(systems, "gap").ravel()), np.sort(labels))
    first = Path(systems[0])
    formula = np.loadtxt(first / "type.raw", dtype=int)
    molecule = np.load(first / "set.000" / "coord.npy")[0].reshape(-1, 3)
    label = np.load(first / "set.000" / "gap.npy").ravel()[0]
    where = [
        i
        for i in np.flatnonzero(np.isclose(labels, label))
        if np.array_equal(np.sort(types[i][types[i] >= 0]), formula)
    ]
    mine = coords[where[0]].reshape(-1, 3)[types[where[0]] >= 0]
    assert np.allclose(_distances(molecule), _distances(mine))
    elements = np.sort(types[where[0]][types[where[0]] >= 0])
    for element in set(elements):  # each position has kept its element
        assert np.allclose(
            _distances(molecule[formula == element]),
            _distances(mine[_real(types, where) == element]),
        )


def _real(types, where):
    row = types[where[0]]
    return row[row >= 0]


def test_what_dpa_adapt_makes_of_a_mixed_set(tmp_path, beside):
    """As DPA_ADAPT.md says; where this fails, it reads mixed sets now."""
    load_data = pytest.importorskip("dpa_adapt.data.loader").load_data
    mixed = load_data(str(DATA / "valid"))[0]
    assert set(mixed.data["atom_types"]) == {0}
    systems = load_data(beside.plain(DATA / "valid", tmp_path / "plain", "gap"))
    assert {name for s in systems for name in np.array(s["atom_names"])[s["atom_types"]]} > {"H"}
    assert sum(len(s) for s in systems) == len(mixed)


@pytest.mark.parametrize("example", ["broad", "qm9_gap"])
def test_dpa_adapt_finds_the_network_of_a_shipped_checkpoint(beside, example):
    trainer = pytest.importorskip("dpa_adapt.trainer")
    checkpoint = ROOT / "examples" / example / "pretrained" / "model.pt"
    settings = {"train_systems": "x", "valid_systems": "x", "type_map": ["H"]}
    found = trainer.DPATrainer(pretrained=str(checkpoint), **settings)._get_descriptor()
    own = beside.branch_of(checkpoint, "GFN2")["descriptor"]
    assert found["repflow"]["n_dim"] == own["repflow"]["n_dim"]
    assert own["activation_function"] == "tanh"
    assert found["activation_function"] == "silut:3.0"  # as DPA_ADAPT.md says


def test_mending_changes_descriptor_case_embedding_and_seed_alone(beside):
    net = {"type": "property", "neuron": [240], "dim_case_embd": 31, "seed": 1}
    config = {
        "model": {
            "shared_dict": {"dpa3_descriptor": {"nlayers": 16, "trainable": True}},
            "model_dict": {
                "GFN2": {"fitting_net": {"type": "ener"}},
                "property": {"fitting_net": net},
            },
        },
        "learning_rate": {"start_lr": 0.001},
        "training": {"numb_steps": 10, "save_ckpt": "/elsewhere/model.ckpt"},
    }
    beside.mend(config, {"nlayers": 4}, 7)
    assert config["model"]["shared_dict"]["dpa3_descriptor"] == {
        "nlayers": 4, "trainable": True, "seed": 7
    }  # fmt: skip
    assert config["model"]["model_dict"]["property"]["fitting_net"] == {
        "type": "property", "neuron": [240], "seed": 7
    }  # fmt: skip
    assert config["training"] == {"numb_steps": 10, "save_ckpt": "model.ckpt", "seed": 7}
    assert config["learning_rate"] == {"start_lr": 0.001}
    single = {
        "model": {"descriptor": {"nlayers": 4, "trainable": False}, "fitting_net": {}},
        "training": {},
    }
    beside.mend(single, {"nlayers": 4, "trainable": True}, 1)
    assert not single["model"]["descriptor"]["trainable"]  # a linear probe stays one


def test_failures_are_told_in_a_line(tmp_path, beside):
    log = tmp_path / "train.log"
    log.write_text("DEEPMD INFO x\nKeyError: 'no such key'\n")
    error = RuntimeError(f"dp --pt train failed\nSee {log} for full output.")
    assert beside.last_line(error) == "RuntimeError: KeyError: 'no such key'"
    assert beside.last_line(AssertionError("Branch 'x' not found")) == (
        "AssertionError: Branch 'x' not found"
    )


def test_a_row_that_is_there_is_kept_and_replaced_by_a_new_one(tmp_path, beside):
    path = tmp_path / "table.csv"
    row = {"strategy": "ft", "seed": 1, "set": "valid", "structures": 3, "rmse": 0.5, "mae": 0.4}
    beside.Table(path, beside.FIELDS).add([row, {**row, "set": "valid_tail"}])
    again = beside.Table(path, beside.FIELDS)
    assert again.has("ft", 1)
    assert not again.has("ft", 2)
    again.add([{**row, "rmse": 0.25}])
    found = pd.read_csv(path)
    assert found["rmse"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("strategy", ["scratch", "ft", "lp", "mft"])
def test_templates_for_crystals(crystals, strategy):
    pretrained = {"type_map": ["Si", "O"], "descriptor": {"type": "dpa3", "nlayers": 9}}
    config = crystals.template_of(strategy, crystals.TARGETS["dielectric"], pretrained, 1500)
    assert config["training"]["numb_steps"] == (3000 if strategy == "mft" else 1500)
    model = config["model"]
    if strategy == "mft":
        assert set(model["model_dict"]) == {"property", "CHGNet"}
        assert set(config["loss_dict"]) == set(config["training"]["data_dict"]) == {
            "property", "CHGNet"
        }  # fmt: skip
        assert model["model_dict"]["CHGNet"]["finetune_head"] == "CHGNet"
        net = model["model_dict"]["property"]["fitting_net"]
    else:
        net = model["fitting_net"]
        assert ("finetune_head" in model) == (strategy != "scratch")
        assert (model["descriptor"].get("nlayers") == 9) == (strategy == "scratch")
        assert model["descriptor"].get("trainable", True) == (strategy != "lp")
    assert net["property_name"] == "n"


def test_errors_of_folds_are_collected_and_averaged_as_matbench_does(tmp_path, crystals):
    study = tmp_path / "jdft2d" / "study"
    runs = {}
    for fold, seed, mae in ((0, 1, 1.0), (0, 2, 3.0), (1, 1, 4.0)):
        name = f"fold_0{fold}-ft-s{seed}"
        runs[name] = {"fold": f"fold_0{fold}", "strategy": "ft", "seed": seed}
        out = study / name / "evaluation"
        out.mkdir(parents=True)
        (out / "metrics.csv").write_text(
            f"set,labelled,rmse,mae\nid_test,5,9.0,{mae}\ntrain,50,0.1,0.1\n"
        )
    (study / "plan.json").write_text(json.dumps({"runs": runs}))
    table = crystals.collect(tmp_path)
    assert len(table) == 3
    assert set(table["set"]) == {"id_test"}
    row = crystals.summary(table).loc[("jdft2d", "id_test", "ft")]
    assert row["mae"] == pytest.approx(3.0)  # of folds 2.0 and 4.0, not of runs
    assert row["spread"] == pytest.approx(np.std([2.0, 4.0], ddof=1))
    one = crystals.summary(table[table["fold"] == "fold_00"]).loc[("jdft2d", "id_test", "ft")]
    assert one["spread"] == pytest.approx(np.std([1.0, 3.0], ddof=1))  # over the seeds
    assert crystals.collect(tmp_path / "nothing").empty


def test_a_plan_of_one_fold_names_it_after_its_split(tmp_path, crystals):
    out = tmp_path / "dielectric" / "study" / "ft-s1" / "evaluation"
    out.mkdir(parents=True)
    (out / "metrics.csv").write_text("set,labelled,rmse,mae\nid_test,5,9.0,1.0\n")
    plan = {
        "split": ["../split/fold_03"],
        "runs": {"ft-s1": {"fold": "", "strategy": "ft", "seed": 1}},
    }
    (out.parents[1] / "plan.json").write_text(json.dumps(plan))
    assert crystals.collect(tmp_path)["fold"].tolist() == ["fold_03"]
