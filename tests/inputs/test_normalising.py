"""References and scales of force-field branches."""

import json

import numpy as np
import pytest
import torch
from deepmd.dpmodel.utils.training_utils import resolve_model_prob
from deepmd.infer import DeepPot

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.normalising import fit_reference
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, ROOT, Dp, pretrain_input


def by_hand():
    """Composition, energies and forces of the embedded auxiliary set, read with numpy."""
    counts, energies, squares, atoms = [], [], 0.0, 0
    for folder in sorted((DATA / "aux_valid").iterdir()):
        types = np.load(folder / "set.000" / "real_atom_types.npy")
        names = (folder / "type_map.raw").read_text().split()
        order = [names.index(one) for one in ("H", "C", "N", "O", "F")]
        counts.append(np.array([[(row == k).sum() for k in order] for row in types]))
        energies.append(np.load(folder / "set.000" / "energy.npy").ravel())
        force = np.load(folder / "set.000" / "force.npy").astype(float)
        squares += float((force**2).sum())  # padding has none
        atoms += int((types >= 0).sum())
    counts, energies = np.concatenate(counts).astype(float), np.concatenate(energies)
    return counts, energies, np.sqrt(squares / (3 * atoms)), atoms / len(energies)


def test_the_reference_is_numpys_least_squares():
    counts, energies, rms, atoms = by_hand()
    found = fit_reference(StructureSet("aux", [DATA / "aux_valid"]), ["H", "C", "N", "O", "F", "S"])
    fitted = np.linalg.lstsq(counts, energies, rcond=None)[0]
    np.testing.assert_allclose(list(found.energies.values()), fitted, rtol=1e-9)
    assert list(found.energies) == ["H", "C", "N", "O", "F"]  # no S in the set
    assert found.energy_scale == pytest.approx(np.std(energies - counts @ fitted), rel=1e-9)
    assert found.force_scale == pytest.approx(rms, rel=1e-6)
    assert found.atoms == pytest.approx(atoms)


def test_energies_that_compositions_fit_exactly():
    """Of as many compositions as elements, what is left is rounding, and no scale."""
    rng = np.random.default_rng(0)
    every = [[6, 1, 1, 1, 1], [8, 1, 1], [7, 1, 1, 1], [6, 6, 1, 1]]
    structures = [Structure(np.array(z), 3 * rng.random((len(z), 3))) for z in every]
    labels = [
        {"energy": -1000.0 * rng.random(1), "force": rng.normal(size=(1, 3 * len(z)))}
        for z in every
    ]
    with pytest.raises(UserError, match="energies that the composition alone determines"):
        fit_reference(StructureSet.of("few", structures, labels), ["H", "C", "N", "O"])


@pytest.fixture
def joint(tmp_path):
    """A pretraining of two branches, beside its data."""
    config = pretrain_input()
    model, training = config["model"], config["training"]
    (name,) = model["model_dict"]
    for parts in (model["model_dict"], config["loss_dict"], training["data_dict"]):
        parts["other"] = json.loads(json.dumps(parts[name]))
    for loss in config["loss_dict"].values():
        loss.update(type="mft_force_field", edge_dropout=0.1)
    training["model_prob"] = {name: 0.5, "other": 0.5}
    small, large = DATA / "aux_valid" / "17", DATA / "aux_valid" / "20"
    for branch, system in ((name, small), ("other", large)):
        for section in training["data_dict"][branch].values():
            section["systems"] = str(system)
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    return path, name


def test_a_joint_pretraining(joint, capsys):
    path, name = joint
    out = path.with_name("normalised.json")
    assert main(["normalise", str(path), "--temperature", "2", "-o", str(out)]) == 0
    config = json.loads(out.read_text())
    sizes = [len(np.load(DATA / "aux_valid" / n / "set.000" / "energy.npy")) for n in ("17", "20")]
    shares = np.sqrt(sizes) / np.sqrt(sizes).sum()
    given = list(config["training"]["model_prob"].values())
    np.testing.assert_allclose(given, shares, atol=1e-6)  # written with six decimals
    for branch in config["model"]["model_dict"].values():
        assert np.isfinite([e for e in branch["preset_out_bias"]["energy"] if e is not None]).all()
    names = list(config["training"]["model_prob"])
    by_deepmd = resolve_model_prob(names, dict(zip(names, np.sqrt(sizes), strict=True)), {})
    np.testing.assert_allclose(shares, by_deepmd)
    dp = Dp(path.parent)
    config["training"] |= {"enable_ema": True, "ema_decay": 0.9}
    dp.train(config)
    state = torch.load(path.parent / "model.ckpt-6.pt", weights_only=True)["model"]
    key = f"model.{name}.atomic_model.out_bias"
    wanted = config["model"]["model_dict"][name]["preset_out_bias"]["energy"]
    found = state[key].numpy().ravel()
    known = np.array([e is not None for e in wanted])
    np.testing.assert_allclose(found[known], [e for e in wanted if e is not None], rtol=1e-6)
    check_restart(dp, config)
    check_frozen(dp, name)


def check_frozen(dp, branch):
    """Edge dropout is in neither the frozen model nor the checkpoint as DeepPot evaluates it."""
    dp("freeze", "-c", "model.ckpt-6.pt", "-o", "frozen.pth", "--head", branch)
    coord = np.array([[0.0, 0, 0, 0, 0, 1.1, 1.0, 0, -0.4]])
    atypes = [1, 0, 0]
    frozen = DeepPot(str(dp.folder / "frozen.pth"))
    saved = DeepPot(str(dp.folder / "model.ckpt-6.pt"), head=branch)
    first, again = (frozen.eval(coord, None, atypes) for _ in range(2))
    for one, two, other in zip(first, again, saved.eval(coord, None, atypes), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def check_restart(dp, config):
    """A restart goes on with the mean of the weights that the checkpoint holds."""

    def averaged(step):
        file = torch.load(dp.folder / f"model.ckpt-{step}.pt", weights_only=True)
        return file["ema"]["model"]

    before = averaged(6)
    live = torch.load(dp.folder / "model.ckpt-6.pt", weights_only=True)["model"]
    config["training"] |= {"numb_steps": 7, "ema_decay": 1 - 1e-15}  # the mean stays as it is
    dp.train(config, "--restart", "model.ckpt-6.pt")
    after = averaged(7)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    assert any(not torch.equal(live[f"model.{key}"], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"type": "ener"}, [], "no branch has a loss of type mft_force_field"),
        ({}, ["--temperature", "0"], "must be positive"),
    ],
)
def test_what_cannot_be_normalised(joint, capsys, change, words, message):
    path, _ = joint
    config = json.loads(path.read_text())
    for loss in config["loss_dict"].values():
        del loss["edge_dropout"]  # deepmd-kit's own loss has none
        loss.update(change)
    path.write_text(json.dumps(config))
    out = path.with_name("normalised.json")
    assert main(["normalise", str(path), "-o", str(out), *words]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_forces_that_are_missing(joint, capsys):
    path, name = joint
    config = json.loads(path.read_text())
    config["training"]["data_dict"][name]["training_data"]["systems"] = str(DATA / "train")
    path.write_text(json.dumps(config))
    out = path.with_name("normalised.json")
    assert main(["normalise", str(path), "-o", str(out)]) == 1
    assert "energy" in capsys.readouterr().err


def test_edge_dropout_of_another_descriptor(joint, capsys):
    path, _ = joint
    config = json.loads(path.read_text())
    config["model"]["shared_dict"]["dpa3_descriptor"]["repflow"]["use_dynamic_sel"] = False
    path.write_text(json.dumps(config))
    assert main(["check", str(path)]) == 1
    assert "edge_dropout of the loss needs the faster DPA-3" in capsys.readouterr().out


@pytest.mark.parametrize("share", [1, -0.1, float("nan")])
def test_edge_dropout_outside_of_its_range(joint, share, capsys):
    path, name = joint
    config = json.loads(path.read_text())
    config["loss_dict"][name]["edge_dropout"] = share
    path.write_text(json.dumps(config))
    assert main(["check", str(path)]) == 1
    assert "must be at least 0 and less than 1" in capsys.readouterr().out


def test_the_template_has_the_shares_of_jmp():
    config = json.loads((ROOT / "input_templates" / "jmp_pretrain.json").read_text())
    shares = list(config["training"]["model_prob"].values())
    sizes = np.sqrt([100, 8, 2, 10])  # millions, JMP's Table 1
    np.testing.assert_allclose(shares, sizes / sizes.sum(), atol=1e-4)


def test_given_energies_beside_an_inherited_head(joint, pretrained, capsys):
    path, name = joint
    config = json.loads(path.read_text())
    config["model"]["model_dict"][name]["preset_out_bias"] = {"energy": [1.0, None, 2.0, 3.0, None]}
    config["model"]["model_dict"][name]["finetune_head"] = name
    path.write_text(json.dumps(config))
    assert main(["check", str(path), "--finetune", str(pretrained)]) == 1
    assert "preset_out_bias would be added to the energies" in capsys.readouterr().out
    config["model"]["model_dict"][name]["finetune_head"] = "RANDOM"
    path.write_text(json.dumps(config))
    main(["check", str(path), "--finetune", str(pretrained)])
    assert "preset_out_bias" not in capsys.readouterr().out
