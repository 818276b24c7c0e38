"""dp-mft tighten: the same network with narrower neighbour lists."""

import copy
import json

import numpy as np
import pytest
import torch
from deepmd.pt.model.model import get_model

from deepmd_mft.checkpoints.edit.tighten import Selection, tighten, tighten_state
from deepmd_mft.cli.main import main
from deepmd_mft.errors import UserError
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.neighbours import most_neighbours
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, DESCRIPTOR, TYPE_MAP, Dp, mft_input
from tests.helpers.models import save_checkpoint

WIDE = {"e_sel": 1200, "a_sel": 300, "sel_reduce_factor": 10.0}
SETS = [DATA / name for name in ("train", "valid", "aux_train", "aux_valid")]


def wide_input(**repflow):
    config = mft_input()
    config["model"]["shared_dict"]["dpa3_descriptor"]["repflow"].update({**WIDE, **repflow})
    return config


def data_arguments(folders=SETS):
    return ["--data", *map(str, folders)]


def test_the_published_selection_of_a_small_molecule():
    found = Selection(1200, 300, 10.0).tightened(28, 20, margin=0.2)
    assert found.ratios == (120.0, 30.0)
    assert (found.e_sel, found.a_sel) == (96, 24)
    assert found.sel_reduce_factor == pytest.approx(0.8)


@pytest.mark.parametrize("old", [(1200, 300, 10.0), (120, 40, 7.0), (500, 77, 3.3), (60, 60, 0.1)])
@pytest.mark.parametrize("most", [(1, 1), (17, 9), (40, 3), (59, 39)])
def test_ratios_are_kept_exactly_and_neighbours_held(old, most):
    found = Selection(*old).tightened(*most, margin=0.0)
    assert found.ratios == Selection(*old).ratios
    assert found.e_sel >= most[0]
    assert found.a_sel >= most[1]
    assert found.e_sel <= old[0]
    assert found.e_sel * old[1] == found.a_sel * old[0]


@pytest.mark.parametrize("most", [(31, 9), (12, 21), (400, 9)])
def test_lists_that_hold_too_few_are_widened(most):
    old = Selection(30, 20, 1.0)
    found = old.tightened(*most)
    assert found.ratios == old.ratios
    assert found.holds(1.2 * most[0], 1.2 * most[1])
    assert not Selection(found.e_sel - 3, found.a_sel - 2, 1.0).holds(1.2 * most[0], 1.2 * most[1])


def test_a_narrow_checkpoint_is_widened_for_larger_structures(tmp_path, capsys):
    """On what its lists held it is the same network; on the rest nothing is left out any more."""
    narrow = copy.deepcopy(DESCRIPTOR)
    narrow["repflow"] |= {"e_sel": 12, "a_sel": 9, "sel_reduce_factor": 1.0}
    path = save_checkpoint(tmp_path / "narrow.pt", descriptor=narrow)
    assert main(["tighten", str(path), *data_arguments()]) == 0
    compared = int(capsys.readouterr().out.split("the same network on ")[1].split()[0])
    assert 0 < compared < 40
    params = torch.load(tmp_path / "narrow.tight.pt", weights_only=True)["model"]["_extra_state"]
    repflow = params["model_params"]["descriptor"]["repflow"]
    assert repflow["e_sel"] / repflow["sel_reduce_factor"] == 12
    predictor = Predictor.load(tmp_path / "narrow.tight.pt")
    structures = StructureSet("train", [DATA / "train"])
    assert np.isfinite(predictor.predict(predictor.batches(structures))["energy"]).all()
    predictor = Predictor.load(path)
    batches = predictor.batches(structures)
    with pytest.raises(UserError, match="keeps only the nearest"):
        predictor.predict(batches)


def test_neighbours_are_those_of_a_double_loop():
    generator = np.random.default_rng(4)
    structures = [(np.full(n, 6), 5 * generator.random((n, 3)), None) for n in (5, 9, 9, 2)]
    cell = np.diag([3.0, 3.2, 9.0])
    structures.append((np.full(3, 8), generator.random((3, 3)) @ cell, cell))
    expected = [0, 0]
    for numbers, positions, box in structures:
        shifts = [np.zeros(3)]
        if box is not None:
            shifts = [np.array(s) @ box for s in np.ndindex(7, 7, 7)]
            shifts = [shift - 3 * box.sum(0) for shift in shifts]
        for i in range(len(numbers)):
            images = [positions[j] + s for j in range(len(numbers)) for s in shifts]
            distance = np.sort([np.linalg.norm(image - positions[i]) for image in images])[1:]
            for place, cutoff in enumerate((4.0, 2.0)):
                expected[place] = max(expected[place], int((distance < cutoff).sum()))
    assert most_neighbours(structures, [4.0, 2.0]) == (5, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dynamic_sel": False}, "without use_dynamic_sel"),
        ({"fix_stat_std": 0.0}, "with fix_stat_std 0"),
        ({"e_sel": "auto:1.1"}, "e_sel is not a number"),
    ],
)
def test_what_would_change_the_network_is_refused(tmp_path, capsys, change, message):
    path = tmp_path / "input.json"
    path.write_text(json.dumps(wide_input(**change)))
    assert main(["tighten", str(path), *data_arguments()]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_without_dpa3_is_refused():
    with pytest.raises(UserError, match="no descriptor of type dpa3"):
        tighten({"descriptor": {"type": "se_e2_a"}}, SETS[:1])


def test_statistics_that_differ_between_neighbours_are_refused():
    state = {"model.x.repflows.mean": torch.arange(12.0).reshape(1, 3, 4)}
    with pytest.raises(UserError, match="differs between neighbours"):
        tighten_state(state, {3: 2})


def test_an_input_changes_in_the_selection_alone(tmp_path, capsys):
    path = tmp_path / "input.json"
    config = wide_input()
    path.write_text(json.dumps(config))
    assert main(["tighten", str(path), *data_arguments()]) == 0
    found = json.loads((tmp_path / "input.tight.json").read_text())
    repflow = found["model"]["shared_dict"]["dpa3_descriptor"]["repflow"]
    assert repflow["e_sel"] <= 104
    assert repflow["e_sel"] / repflow["sel_reduce_factor"] == 120.0
    assert repflow["a_sel"] / repflow["sel_reduce_factor"] == 30.0
    repflow.update(WIDE)
    assert found == config
    assert "the same network on" in capsys.readouterr().out
    assert main(["tighten", str(path), *data_arguments()]) == 1
    assert "exists" in capsys.readouterr().err


def test_a_checkpoint_goes_on_training_tests_and_freezes(tmp_path):
    dp = Dp(tmp_path)
    config = wide_input()
    config["training"].update(numb_steps=2, save_freq=2)
    dp.train(config)
    checkpoint, out = tmp_path / "model.ckpt.pt", tmp_path / "tight.pt"
    assert main(["tighten", str(checkpoint), *data_arguments(), "-o", str(out)]) == 0
    assert main(["tighten", str(tmp_path / "input.json"), *data_arguments()]) == 0
    tight = json.loads((tmp_path / "input.tight.json").read_text())

    old, new = (torch.load(path, weights_only=True)["model"] for path in (checkpoint, out))
    assert old.keys() == new.keys()
    for name, value in old.items():
        if name.endswith(("repflows.mean", "repflows.stddev")):
            assert new[name].shape[1] <= 104 < value.shape[1]
        elif name != "_extra_state":
            assert torch.equal(value, new[name])
    outputs = []
    for state in (old, new):
        params = state["_extra_state"]["model_params"]["model_dict"]["property"]
        model = get_model(copy.deepcopy(params))
        prefix = "model.property."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        model.load_state_dict(own)
        coord = torch.tensor(np.load(DATA / "train" / "set.000" / "coord.npy")[:4, :27])
        types = torch.tensor(np.load(DATA / "train" / "set.000" / "real_atom_types.npy")[:4, :9])
        outputs.append(model(coord.double(), types.long())["gap"])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=0)

    tight["training"]["numb_steps"] = 4
    dp.train(tight, "--restart", "tight.pt")
    dp.train(tight, "--finetune", "tight.pt")
    dp("freeze", "-c", "tight.pt", "-o", "frozen", "--head", "property")
    tested = dp("test", "-m", "frozen.pth", "-s", str(DATA / "valid"), "-n", "3")
    assert "PROPERTY RMSE" in tested
    assert tight["model"]["shared_dict"]["type_map_all"] == TYPE_MAP
