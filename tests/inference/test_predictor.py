"""One predictor for any head: its numbers are DeepPot's and DeepProperty's."""

import numpy as np
import pytest
import torch
from deepmd.infer import DeepPot
from deepmd.pt.infer.deep_eval import DeepEval

from deepmd_mft.backbones.fast_dpa3 import FastRepflows
from deepmd_mft.errors import UserError
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp
from tests.helpers.models import NETS, save_checkpoint


@pytest.fixture(scope="module")
def force_field(mft_run, tmp_path_factory):
    """The force-field branch, frozen."""
    path = tmp_path_factory.mktemp("frozen") / "ff.pth"
    Dp(mft_run)("freeze", "-c", "model.ckpt-6.pt", "--head", "GFN2", "-o", str(path))
    return path


@pytest.fixture(scope="module")
def molecules():
    return StructureSet("some", [DATA / "aux_valid"], most=30)


@pytest.mark.parametrize("kind", ["pt", "pth"])
@pytest.mark.parametrize("periodic", [False, True])
def test_energy_force_and_virial_are_deep_pots(kind, periodic, mft_run, force_field, molecules):
    if periodic:
        cell = np.eye(3) * 9.0 + 0.3 * np.eye(3, k=1)
        mixed = [one._replace(cell=cell if i % 2 else None) for i, one in enumerate(molecules)]
        molecules = StructureSet.of("mixed", mixed)
    path, branch = (mft_run / "model.ckpt-6.pt", "GFN2") if kind == "pt" else (force_field, None)
    predictor = Predictor.load(path, branch)
    assert predictor.is_force_field
    torch.set_num_threads(2)
    try:
        found = predictor.predict(predictor.batches(molecules))
    finally:
        torch.set_num_threads(1)
    theirs = DeepPot(str(path), head=branch)
    types = theirs.get_type_map()
    symbols = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
    for row, (start, structure) in enumerate(zip(molecules.starts, molecules, strict=True)):
        numbers, coord, cell = structure
        atype = [types.index(symbols[z]) for z in numbers.tolist()]
        box = None if cell is None else cell.reshape(1, 9)
        energy, force, virial = theirs.eval(coord.reshape(1, -1), box, atype)
        np.testing.assert_allclose(found["energy"][row], energy[0], rtol=1e-10)
        own = found["force"][start : start + len(numbers)]
        np.testing.assert_allclose(own, force[0], rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(found["virial"][row], virial[0].ravel(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [*NETS, "energy"])
def test_representations_are_deep_evals(name, tmp_path, molecules):
    parts = {}
    if name in NETS:
        parts = {"type": "mft", "fitting_net": {"neuron": [12, 7], "seed": 1, **NETS[name]}}
    path = save_checkpoint(tmp_path / "m.pt", **parts)
    predictor = Predictor.load(path)
    batches = predictor.batches(molecules)
    found = {what: predictor.represent(batches, what) for what in ("descriptor", "last_layer")}
    theirs = DeepEval(str(path), None, auto_batch_size=False)
    for batch in batches[::3]:
        descriptor, feature, _ = theirs.eval_embedding(batch.coord, None, batch.atype, dtype="fp64")
        for own, values in (("descriptor", descriptor), ("last_layer", feature)):
            np.testing.assert_allclose(found[own][batch.rows], values.mean(axis=1), rtol=1e-6)
    assert found["last_layer"].shape == (len(molecules), 7 if name in NETS else 12)


def test_a_frozen_model_has_representations(mft_run, molecules):
    frozen = Predictor.load(mft_run / "property.pth")
    whole = Predictor.load(mft_run / "model.ckpt-6.pt", "property")
    batches = whole.batches(molecules)
    for what in ("descriptor", "last_layer"):
        np.testing.assert_allclose(
            frozen.represent(batches, what), whole.represent(batches, what), rtol=1e-6
        )


def test_which_branch_is_meant(mft_run, pretrained, tmp_path):
    assert Predictor.load(mft_run / "model.ckpt-6.pt").branch == "property"
    assert Predictor.load(pretrained).branch == "GFN2"
    dipole = {"type": "dipole", "neuron": [8], "seed": 1}
    path = save_checkpoint(tmp_path / "m.pt", fitting_net=dipole)
    with pytest.raises(UserError, match="fitting net of type 'dipole'"):
        Predictor.load(path)
    with pytest.raises(UserError, match="single-task checkpoint and has no branch 'GFN2'"):
        Predictor.load(path, "GFN2")


def test_many_structures_run_on_the_faster_network(force_field, molecules, monkeypatch):
    model = Predictor.load(force_field)
    batches = model.batches(molecules)
    expected = model.predict(batches)
    monkeypatch.setattr("deepmd_mft.inference.predictor.MANY_ATOMS", 0)
    found = model.predict(batches)
    assert type(model._quicker.get_descriptor().repflows) is FastRepflows
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-9, equal_nan=True)


def test_the_switch_leaves_a_frozen_model_frozen(force_field, monkeypatch):
    monkeypatch.setenv("DP_MFT_FAST", "0")
    model = Predictor.load(force_field)
    assert model._quicker is model.model
