"""`dp-mft input` takes label, elements and steps from the data, or refuses."""

import json

import numpy as np
import pytest
import torch

from deepmd_mft.cli import main
from tests.helpers.dp import DATA, DESCRIPTOR, mft_input, single_input
from tests.helpers.models import save_checkpoint
from tests.helpers.systems import record, write_lmdb, write_system

N = 4
GAP = np.arange(N, dtype=float)[:, None]
DPA4 = {"type": "dpa4", "sel": 20, "rcut": 4.0, "channels": 8, "n_blocks": 1, "lmax": 1}
DPA4_MODEL = {"type": "dpa4", "fitting_net": {"type": "dpa4_ener", "neuron": [8]}}


@pytest.fixture
def fill(fill_template):
    return fill_template


def test_label_and_elements_of_the_data(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, symbols="C S Cl H H", dG=GAP)
    valid = write_system(tmp_path / "v", nframes=N, symbols="C Br H H", dG=GAP, seed=1)
    config, told = fill(single_input(), "--train", train, "--valid", valid)
    assert config["model"]["fitting_net"]["property_name"] == "dG"
    assert config["loss"]["property_name"] == "dG"
    assert config["model"]["type_map"] == ["H", "C", "S", "Cl", "Br"]
    assert "property_name is dG (the template has gap)" in told
    assert "type_map is H C S Cl Br" in told


def test_the_templates_label_is_kept_where_it_is(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, symbols="C H", gap=GAP, homo=GAP)
    config, told = fill(single_input(), "--train", train)
    assert config["model"]["fitting_net"]["property_name"] == "gap"
    assert config["model"]["type_map"] == ["H", "C", "N", "O", "F"]
    assert " is " not in told


def test_several_labels_are_a_choice(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, dG=GAP, dH=GAP, energy=GAP)
    told = fill(single_input(), "--train", train, ok=False)
    assert "the labels there are: dG, dH. Choose one with --property" in told
    config, _ = fill(single_input(), "--train", train, "--property", "dH")
    assert config["model"]["fitting_net"]["property_name"] == "dH"
    assert "dS" in fill(single_input(), "--train", train, "--property", "dS", ok=False)


def test_a_label_that_is_called_as_an_array_of_atoms_begins(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, atomization=GAP, atom_ener=np.ones((N, 3)))
    config, _ = fill(single_input(), "--train", train)
    assert config["model"]["fitting_net"]["property_name"] == "atomization"


def test_paths_of_an_input_in_another_folder(tmp_path):
    """They lead to the same data; what is not there, or absolute, stays."""
    config = single_input()
    write_system(tmp_path / "one" / "data", nframes=N, gap=GAP)
    training = config["training"]
    training["training_data"]["systems"] = ["data", "none", str(DATA / "train")]
    training["validation_data"]["systems"] = "data"
    (tmp_path / "one" / "input.json").write_text(json.dumps(config))
    out = tmp_path / "two" / "deep" / "input.json"
    out.parent.mkdir(parents=True)
    words = ["input", str(tmp_path / "one" / "input.json"), "-o", str(out), "--no-tighten"]
    assert main(words) == 0
    found = json.loads(out.read_text())["training"]
    assert found["training_data"]["systems"] == [
        *("../../one/data", "none", str(DATA / "train")),
    ]
    assert found["validation_data"]["systems"] == "../../one/data"


def test_a_label_that_one_system_lacks_is_none(fill, tmp_path):
    write_system(tmp_path / "set" / "1", nframes=N, gap=GAP, dG=GAP)
    write_system(tmp_path / "set" / "2", nframes=N, dG=GAP)
    config, _ = fill(single_input(), "--train", tmp_path / "set")
    assert config["model"]["fitting_net"]["property_name"] == "dG"


def test_columns_and_classes_of_the_data(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, spectrum=np.ones((N, 7)))
    config, _ = fill(single_input(), "--train", train)
    assert config["model"]["fitting_net"]["task_dim"] == 7
    template = single_input()
    template["model"]["fitting_net"] = {"type": "mft_classification", "property_name": "metal"}
    template["loss"] = {"type": "mft_classification", "num_classes": 2}
    train = write_system(tmp_path / "c", nframes=N, phase=np.array([0, 3, 1, 3])[:, None])
    config, _ = fill(template, "--train", train)
    assert config["model"]["fitting_net"]["num_classes"] == config["loss"]["num_classes"] == 4


def test_an_lmdb(fill, tmp_path):
    records = [record(n, dG=np.array([0.1]), energies=np.array(1.0)) for n in (3, 4, 5)]
    train = write_lmdb(tmp_path / "a.lmdb", records, type_map="H O Xe")
    config, _ = fill(single_input(), "--train", train)
    assert config["model"]["fitting_net"]["property_name"] == "dG"
    assert config["model"]["type_map"] == ["H", "O", "Xe"]


def test_a_folder_without_systems(fill, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no deepmd-kit systems" in fill(
        single_input(), "--train", tmp_path / "empty", ok=False
    )


def test_elements_are_added_to_those_of_a_checkpoint(fill, tmp_path):
    checkpoint = save_checkpoint(tmp_path / "model.pt")
    train = write_system(tmp_path / "t", nframes=N, symbols="C S H H H", gap=GAP)
    config, _ = fill(single_input(), "--train", train, "--checkpoint", checkpoint)
    assert config["model"]["type_map"] == ["H", "C", "N", "O", "F", "S"]


def test_type_map_as_asked_for(fill, tmp_path):
    train = write_system(tmp_path / "t", nframes=N, gap=GAP)
    config, _ = fill(mft_input(), "--train", train, "--type-map", "Cu", "C", "H")
    assert config["model"]["shared_dict"]["type_map_all"] == ["Cu", "C", "H"]
    told = fill(mft_input(), "--train", train, "--type-map", "Cu", "H", ok=False)
    assert "--type-map lacks C" in told


def test_what_goes_by_steps_follows_them(fill):
    template = single_input()
    template["learning_rate"] |= {"warmup_steps": 50}
    template["training"] |= {"save_freq": 500, "disp_freq": 100}
    config, told = fill(template, "--steps", 40)
    training = config["training"]
    assert training["save_freq"] == training["disp_freq"] == 8
    assert config["learning_rate"]["warmup_steps"] == 4
    for key in ("save_freq", "disp_freq", "warmup_steps"):
        assert f"{key} is" in told
    config, told = fill(template, "--steps", 4000)
    assert config["training"] == template["training"] | {"numb_steps": 4000}
    assert "is" not in told.split()
    config, _ = fill(template, "--steps", 4000, "--save-freq", 50)
    assert (config["training"]["save_freq"], config["training"]["disp_freq"]) == (50, 50)


@pytest.mark.parametrize(
    ("readout", "option", "kept"),
    [
        ("attention", "--intensive", "attention"),
        ("sum", "--intensive", None),
        ("max", "--no-intensive", None),
    ],
)
def test_intensive(fill, readout, option, kept):
    template = single_input()
    template["model"]["fitting_net"] |= {"readout": readout, "intensive": None}
    net = fill(template, option)[0]["model"]["fitting_net"]
    assert net["intensive"] == (option == "--intensive")
    assert net.get("readout") == kept


def checked(tmp_path, capsys, config, *arguments):
    path = tmp_path / "checked.json"
    path.write_text(json.dumps(config))
    main(["check", str(path), "--json", *map(str, arguments)])
    return json.loads(capsys.readouterr().out)


def test_a_branch_of_another_model_type(fill, tmp_path, capsys, monkeypatch):
    """DPA-4's energy branch is a model type of its own; without it the training dies."""
    monkeypatch.chdir(tmp_path)  # where the input lies, to which its paths are relative
    checkpoint = save_checkpoint(tmp_path / "dpa4.pt", descriptor=DPA4, **DPA4_MODEL)
    data = [w for k in ("train", "valid") for w in (f"--{k}", DATA / "valid")]
    data += [w for k in ("aux-train", "aux-valid") for w in (f"--{k}", DATA / "aux_valid")]
    config, _ = fill(mft_input(), "--checkpoint", checkpoint, *data)
    branch = config["model"]["model_dict"]["Default"]
    assert branch["type"] == "dpa4"
    assert branch["fitting_net"]["type"] == "dpa4_ener"
    assert checked(tmp_path, capsys, config, "--finetune", checkpoint)["errors"] == []
    del branch["type"]
    (error,) = checked(tmp_path, capsys, config, "--finetune", checkpoint)["errors"]
    assert "branch 'Default'" in error
    assert "dpa4_ener" in error


def test_options_of_the_branch_are_kept(fill, tmp_path):
    options = {"pair_exclude_types": [[0, 1]], "data_stat_protect": 0.05}
    checkpoint = save_checkpoint(tmp_path / "model.pt", **options)
    config, _ = fill(mft_input(), "--checkpoint", checkpoint)
    branch = config["model"]["model_dict"]["Default"]
    assert {key: branch.get(key) for key in options} == options
    assert "data_stat_nbatch" not in branch  # a default


# --- elements that the checkpoint never saw ------------------------------------------------------


def with_bias(path, bias, **parts):
    checkpoint = save_checkpoint(path, **parts)
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["model.Default.atomic_model.out_bias"][0, :, 0] = torch.tensor(bias)
    torch.save(state, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("bias", "parts", "new"),
    [
        ([-1.0, -2.0, 0.0, -4.0, 0.0], {}, "F, N"),
        ([-1.0, -2.0, -3.0, -4.0, -5.0], {}, ""),
        ([0.0] * 5, {"info": {"observed_type": ["H", "C", "O"]}}, "F, N"),
        # a property head's bias is that of an average element where there is none
        ([1.0] * 5, {"type": "mft", "fitting_net": {"type": "mft_property", "property_name": "x"}},
         ""),
    ],
)  # fmt: skip
def test_elements_that_the_checkpoint_never_saw(tmp_path, capsys, bias, parts, new):
    checkpoint = with_bias(tmp_path / "model.pt", bias, **parts)
    config = single_input()
    config["model"]["finetune_head"] = "RANDOM"
    found = checked(tmp_path, capsys, config, "--finetune", checkpoint)
    told = [text for text in found["warnings"] if "shows that it was trained on" in text]
    assert bool(told) == bool(new)
    assert all(f"trained on {new} (its branches saw" in text for text in told)


def test_elements_beyond_the_checkpoints_type_map(tmp_path, capsys):
    checkpoint = with_bias(tmp_path / "model.pt", [-1.0, -2.0, -3.0, -4.0, -5.0])
    train = write_system(tmp_path / "t", nframes=N, symbols="C S Br H H", gap=GAP)
    config = single_input()
    config["model"] |= {"type_map": ["H", "C", "S", "Br"], "descriptor": DESCRIPTOR}
    for section in ("training_data", "validation_data"):
        config["training"][section]["systems"] = str(train)
    found = checked(tmp_path, capsys, config, "--finetune", checkpoint)
    assert any("trained on Br, S (its" in text for text in found["warnings"])
