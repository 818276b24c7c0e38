"""dp-mft prune: what is left of a checkpoint gives what the whole gave."""

import copy

import numpy as np
import pytest
import torch
from ase.build import molecule
from deepmd.infer import DeepPot
from deepmd.pt.model.model import get_model
from deepmd.pt.train.training import get_model_for_wrapper
from deepmd.pt.train.wrapper import ModelWrapper
from deepmd.utils.argcheck import model_args

from deepmd_mft.checkpoints.edit.prune import molecules, prune
from deepmd_mft.cli.main import main
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inputs.checkpoint import check_checkpoint
from deepmd_mft.inputs.findings import Findings
from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, PROPERTY_NET, ROOT, TYPE_MAP, Dp, mft_input
from tests.helpers.models import NETS, frame, save_checkpoint

EMBEDDED = ROOT / "examples" / "qm9_gap" / "pretrained" / "model.pt"
CASES = 31


def save_branches(path, **branches):
    """Write a multi-task checkpoint with random weights; the descriptor is shared."""
    parts = {}
    for number, (name, branch) in enumerate(branches.items()):
        params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, **copy.deepcopy(branch)}
        params["fitting_net"]["seed"] = number
        parts[name] = model_args().normalize_value(params, trim_pattern="_*")
    params = {"model_dict": parts, "shared_dict": {"type_map_all": TYPE_MAP}}
    models = get_model_for_wrapper(copy.deepcopy(params))
    first = next(iter(models.values())).atomic_model
    for model in models.values():
        model.atomic_model.descriptor = first.descriptor
        model.atomic_model.out_bias.normal_()
    torch.save({"model": ModelWrapper(models, model_params=params).state_dict()}, path)
    return path


def branch_model(path, name, **changes):
    """Build a branch of a checkpoint by deepmd-kit's own means."""
    state = torch.load(path, weights_only=True)["model"]
    params = state["_extra_state"]["model_params"]
    params = params["model_dict"][name] if "model_dict" in params else params
    model = get_model(copy.deepcopy({**params, **changes}))
    prefix = f"model.{name}."
    own = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    model.load_state_dict(own)
    return model.eval()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A checkpoint of three branches with a case embedding of 31."""
    net = {**ENERGY_NET, "dim_case_embd": CASES}
    return save_branches(
        tmp_path_factory.mktemp("many") / "many.pt",
        SPICE2={"fitting_net": net, "model_branch_alias": ["molecules"]},
        OMat24={"fitting_net": net},
        gap={"type": "mft", "fitting_net": {**PROPERTY_NET, "dim_case_embd": CASES}},
    )


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SPICE2", "gap"])
def test_a_branch_of_many_keeps_its_place_in_the_case_embedding(many, tmp_path, name):
    out = tmp_path / "one.pt"
    assert main(["prune", f"{many}:{name}", "-o", str(out)]) == 0
    whole, left = branch_model(many, name), branch_model(out, name)
    assert list(torch.load(out, weights_only=True)["model"]["_extra_state"]["model_params"]) == [
        "model_dict",
        "shared_dict",
    ]
    place = left.atomic_model.fitting_net.case_embd.argmax().item()
    assert place == sorted(["SPICE2", "OMat24", "gap"]).index(name)
    for seed in range(3):
        coord, atype, box = frame(seed=seed, periodic=seed == 2)
        expected, found = whole(coord, atype, box), left(coord, atype, box)
        for key, value in expected.items():
            assert torch.equal(value, found[key]), key


def test_two_of_three_share_their_descriptor_in_the_file(many, tmp_path, capsys):
    out = tmp_path / "two.pt"
    arguments = ["--branch", "gap", "molecules", "--type-map", "O", "H", "C"]
    assert main(["prune", str(many), *arguments, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "branches: SPICE2, gap (2 of 3)" in text
    assert "type map: O H C" in text
    state = torch.load(out, weights_only=True)["model"]
    places = {
        key.partition(".descriptor.")[2]: set()
        for key in state
        if ".atomic_model.descriptor." in key
    }
    for key, value in state.items():
        name = key.partition(".descriptor.")[2]
        if name in places and value.numel():
            places[name].add(value.data_ptr())
    assert max(map(len, places.values())) == 1
    assert state["_extra_state"]["model_params"]["shared_dict"]["type_map_all"] == ["O", "H", "C"]


@pytest.mark.parametrize("head", ["energy", *NETS])
def test_fewer_elements_in_another_order(tmp_path, head):
    """Every head gives for O, H and C what it gave when it knew N and F too."""
    parts = {} if head == "energy" else {"type": "mft", "fitting_net": dict(NETS[head])}
    path = save_checkpoint(
        tmp_path / "model.pt", pair_exclude_types=[[1, 3], [0, 4], [0, 1]], **parts
    )
    whole = torch.load(path, weights_only=True)
    bias, scale = (whole["model"][f"model.Default.atomic_model.out_{k}"] for k in ("bias", "std"))
    bias.copy_(torch.rand(bias.shape, dtype=bias.dtype))
    scale.copy_(torch.rand(scale[:, :1].shape, dtype=scale.dtype))  # one for all types
    torch.save(whole, path)
    out = tmp_path / "pruned.pt"
    assert main(["prune", str(path), "--type-map", "O", "H", "C", "-o", str(out)]) == 0
    before, after = branch_model(path, "Default"), branch_model(out, "Default")
    assert after.get_type_map() == ["O", "H", "C"]
    params = torch.load(out, weights_only=True)["model"]["_extra_state"]["model_params"]
    assert params["pair_exclude_types"] == [[2, 0], [1, 2]]
    coord, _, _ = frame(natoms=9)
    old = torch.tensor([[0, 1, 3, 3, 1, 0, 0, 0, 1]])
    new = torch.tensor([[{3: 0, 0: 1, 1: 2}[int(one)] for one in old[0]]])
    expected, found = before(coord, old), after(coord, new)
    assert expected
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12)


def test_the_embedded_checkpoint_without_fluorine_by_deeppot(tmp_path):
    out = tmp_path / "pruned.pt"
    arguments = ["--branch", "GFN2", "--type-map", "H", "C", "N", "O", "-o", str(out)]
    assert main(["prune", str(EMBEDDED), *arguments]) == 0
    whole, left = (DeepPot(str(path), head="GFN2") for path in (EMBEDDED, out))
    assert left.get_type_map() == ["H", "C", "N", "O"]
    for name in ("CH3CONH2", "HCOOH", "C6H6"):
        atoms = molecule(name)
        types = [["H", "C", "N", "O"].index(one) for one in atoms.get_chemical_symbols()]
        coord = atoms.positions.reshape(1, -1)
        for expected, found in zip(
            whole.eval(coord, None, types), left.eval(coord, None, types), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # float32


def test_the_record_is_in_the_file_and_the_optimiser_is_not(tmp_path, capsys):
    path = save_checkpoint(tmp_path / "model.pt")
    whole = torch.load(path, weights_only=True)
    whole["optimizer"] = {"state": torch.zeros(10**6)}
    torch.save(whole, path)
    out = tmp_path / "stripped.pt"
    assert main(["prune", str(path), "-o", str(out)]) == 0
    assert "MB, was 4." in capsys.readouterr().out
    found = torch.load(out, weights_only=True)
    assert found["optimizer"] is None
    assert found["dp_mft"]["inputs"] == [{"path": str(path), "sha256": file_checksum(path)}]
    for key, value in whole["model"].items():
        if key != "_extra_state":
            assert torch.equal(found["model"][key], value)
    assert found["model"]["_extra_state"] == whole["model"]["_extra_state"]


def test_an_output_that_changes_is_refused(tmp_path, monkeypatch):
    """As where a later deepmd-kit forgets a part of the model."""
    import deepmd_mft.checkpoints.edit.prune as module

    path = save_checkpoint(tmp_path / "model.pt")

    def forgetful(model, type_map):
        model.change_type_map(type_map)
        state = dict(model.state_dict())
        for key in [key for key in state if "type_embedding" in key]:
            state[key] = state[key].flip(0)
        return state

    monkeypatch.setattr(module, "change_types", forgetful)
    with pytest.raises(UserError, match=r"its output \w+ changes by"):
        prune(path, type_map=["C", "H"])


def test_molecules_have_every_element_and_no_atoms_on_each_other():
    elements = [f"X{i}" for i in range(100)]
    found = molecules(elements)
    assert {one for symbols, _ in found for one in symbols} == set(elements)
    for _, positions in found:
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        assert distance[np.triu_indices(len(positions), 1)].min() > 0.7
    assert {one for symbols, _ in molecules(["H", "C"]) for one in symbols} == {"H", "C"}


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--branch", "OMol"], "has no branch 'OMol'; it has SPICE2, OMat24, gap"),
        (["--type-map", "H", "Si"], "does not know Si; --type-map chooses among H C N O F"),
        (["--type-map", "H", "C", "H"], "--type-map has H twice"),
        (["-o", "model"], "-o model: deepmd-kit knows a checkpoint by its ending"),
    ],
)
def test_what_is_not_there(many, tmp_path, capsys, arguments, message):
    out = tmp_path / "out.pt"
    assert main(["prune", str(many), "-o", str(out), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_model_whose_nets_are_of_types_keeps_them(tmp_path, capsys):
    descriptor = {"type": "se_e2_a", "sel": [4] * 5, "rcut": 4.0, "neuron": [4, 8], "seed": 1}
    path = save_checkpoint(tmp_path / "model.pt", descriptor=descriptor)
    out = tmp_path / "out.pt"
    assert main(["prune", str(path), "--type-map", "H", "C", "-o", str(out)]) == 1
    assert "deepmd-kit cannot change the type map" in capsys.readouterr().err
    assert main(["prune", str(path), "-o", str(out)]) == 0


@pytest.mark.parametrize("name", ["frozen.pth", "notes.txt"])
def test_other_files(tmp_path, capsys, name):
    (tmp_path / name).write_text("something")
    assert main(["prune", str(tmp_path / name), "-o", str(tmp_path / "out.pt")]) == 1
    assert "not a complete checkpoint" in capsys.readouterr().err


def test_the_checkpoint_itself_is_not_replaced(tmp_path, capsys):
    path = save_checkpoint(tmp_path / "model.pt")
    before = file_checksum(path)
    assert main(["prune", str(path), "-o", str(path), "--overwrite"]) == 1
    assert "is read here" in capsys.readouterr().err
    assert file_checksum(path) == before


@pytest.mark.parametrize(("option", "refused"), [("restart", True), ("init_model", False)])
def test_no_training_goes_on_without_an_optimiser(tmp_path, option, refused):
    path = save_checkpoint(tmp_path / "model.pt")
    findings = Findings(stop=False)
    check_checkpoint(path, [], findings, option)
    assert bool(findings.errors) == refused
    assert all("holds no optimiser" in one for one in findings.errors)


# --- as deepmd-kit reads it ----------------------------------------------------------------------


def test_trainings_start_from_what_is_left(mft_run, tmp_path):
    """--finetune takes one branch of two, of four elements; --init-model both."""
    whole = mft_run / "model.ckpt-6.pt"
    for arguments in (
        ["--branch", "GFN2", "--type-map", "H", "C", "N", "O", "-o", str(tmp_path / "one.pt")],
        ["-o", str(tmp_path / "both.pt")],
    ):
        assert main(["prune", str(whole), *arguments]) == 0
    dp, config = Dp(tmp_path), mft_input()
    config["training"].update(numb_steps=1, save_freq=1, disp_freq=1)
    dp("freeze", "-c", "one.pt", "--head", "GFN2", "-o", "one")
    dp.train(config, "--finetune", "one.pt")
    dp.train(config, "--init-model", "both.pt")
    assert (tmp_path / "one.pth").is_file()
    assert (tmp_path / "model.ckpt-1.pt").is_file()


@pytest.mark.parametrize("type_map", [[], ["C", "H", "N", "O"]])
def test_the_shared_network_stays_where_other_tools_read_it(mft_run, tmp_path, type_map):
    out = tmp_path / "pruned.pt"
    words = ["--branch", "GFN2", *(["--type-map", *type_map] if type_map else [])]
    assert main(["prune", str(mft_run / "model.ckpt-6.pt"), *words, "-o", str(out)]) == 0
    params = torch.load(out, weights_only=True)["model"]["_extra_state"]["model_params"]
    (branch,) = params["model_dict"].values()
    assert params["shared_dict"]["type_map_all"] == (type_map or TYPE_MAP)
    shared = params["shared_dict"]["dpa3_descriptor"]["repflow"]
    assert shared  # without the defaults that deepmd-kit filled in
    assert shared.items() <= branch["descriptor"]["repflow"].items()
