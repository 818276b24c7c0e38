"""The loss mft_force_field against deepmd-kit's energy loss."""

import copy

import pytest
import torch
from deepmd.pt.loss.ener import EnergyStdLoss
from deepmd.pt.model.model import get_model

from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTForceFieldLoss
from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, FORCE_FIELD_LOSS, TYPE_MAP
from tests.helpers.models import frame

PREFACTORS = {key: value for key, value in FORCE_FIELD_LOSS.items() if key != "type"}


@pytest.mark.parametrize("lambda_reg", [0.0, 0.3, 1.0])
def test_is_the_native_loss_times_lambda(lambda_reg):
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET}
    model = get_model(copy.deepcopy(params))
    coord, atype, _ = frame()
    label = {
        "energy": torch.ones(1, 1, dtype=torch.float64),
        "find_energy": 1.0,
        "force": torch.randn(1, 9, 3, dtype=torch.float64),
        "find_force": 1.0,
    }
    arguments = ({"coord": coord, "atype": atype}, model, label, 9, 5e-4)
    _, expected, _ = EnergyStdLoss(starter_learning_rate=1e-3, **PREFACTORS)(*arguments)
    ours = MFTForceFieldLoss(starter_learning_rate=1e-3, lambda_reg=lambda_reg, **PREFACTORS)
    _, got, _ = ours(*arguments)
    torch.testing.assert_close(got, lambda_reg * expected)


def test_energy_and_force_labels_are_required():
    loss = MFTForceFieldLoss(starter_learning_rate=1e-3, **PREFACTORS)
    assert {item["key"]: item["must"] for item in loss.label_requirement} == {
        "energy": True,
        "force": True,
    }


def requirements(**prefactors):
    loss = MFTForceFieldLoss(**{f"{end}_pref_e": 0 for end in ("start", "limit")} | prefactors)
    return {item["key"]: item["must"] for item in loss.label_requirement}


NO_FORCE = {"start_pref_f": 0, "limit_pref_f": 0}


@pytest.mark.parametrize(
    ("prefactors", "required"),
    [
        ({"start_pref_v": 0.1, "limit_pref_v": 1}, {"virial": True}),
        ({"start_pref_ae": 1, "limit_pref_ae": 1}, {"atom_ener": True}),
        ({"start_pref_pf": 1, "limit_pref_pf": 1}, {"force": True, "atom_pref": True}),
        (
            {"start_pref_pf": 1, "limit_pref_pf": 1, "use_default_pf": True},
            {"force": True, "atom_pref": False},
        ),
        ({"relative_f": 0.1}, {"force": False}),
        ({}, {}),
    ],
)
def test_every_label_is_required_if_its_prefactor_counts(prefactors, required):
    assert requirements(**NO_FORCE, **prefactors) == required


def test_serialization_round_trip():
    loss = MFTForceFieldLoss(starter_learning_rate=1e-3, lambda_reg=0.2, **PREFACTORS)
    assert MFTForceFieldLoss.deserialize(loss.serialize()).serialize() == loss.serialize()


def two_sizes():
    """Two structures of 9 and 5 atoms in one padded batch, with random labels."""
    coord, atype, _ = frame()
    other, other_type, _ = frame(natoms=5, seed=1)
    padding = torch.tensor([[90.0 + 20 * i, 0, 0] for i in range(4)]).reshape(1, -1).double()
    inputs = {
        "coord": torch.cat([coord, torch.cat([other, padding], dim=1)]),
        "atype": torch.cat([atype, torch.cat([other_type, -torch.ones(1, 4).long()], dim=1)]),
    }
    generator = torch.Generator().manual_seed(0)
    label = {
        "energy": torch.randn(2, 1, generator=generator, dtype=torch.float64),
        "force": torch.randn(2, 9, 3, generator=generator, dtype=torch.float64),
        "find_energy": 1.0,
        "find_force": 1.0,
    }
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET}
    return inputs, label, get_model(copy.deepcopy(params))


ONLY_FORCES = {"start_pref_e": 0, "limit_pref_e": 0, "start_pref_f": 2, "limit_pref_f": 2}
KINDS = [
    {"loss_func": "mse"},
    {"loss_func": "mae"},
    {"loss_func": "mae", "f_use_norm": True},
    {"loss_func": "mse", "use_huber": True, "huber_delta": 0.3},
    {"loss_func": "mse", "use_huber": True, "huber_delta": 0.3, "f_use_norm": True},
]


@pytest.mark.parametrize("kind", KINDS)
def test_structure_wise_is_a_mean_over_structures(kind):
    """Of the plain losses of each structure alone."""
    inputs, label, model = two_sizes()
    options = {**ONLY_FORCES, **kind, "starter_learning_rate": 1e-3}
    structure = MFTForceFieldLoss(force_reduction="structure", **options)
    _, got, _ = structure(inputs, model, label, 9, 1e-3)
    plain = EnergyStdLoss(**options)
    alone = []
    for number, natoms in enumerate((9, 5)):
        one = {
            "coord": inputs["coord"][number : number + 1, : 3 * natoms],
            "atype": inputs["atype"][number : number + 1, :natoms],
        }
        labels = {**label, "energy": label["energy"][number : number + 1]}
        labels["force"] = label["force"][number : number + 1, :natoms]
        alone.append(plain(one, model, labels, natoms, 1e-3)[1])
    torch.testing.assert_close(got, torch.stack(alone).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_scales_divide_the_differences(kind):
    """As labels and predictions divided by the scales would."""
    inputs, label, model = two_sizes()

    class Scaled(torch.nn.Module):
        def forward(self, **given):
            output = model(**given)
            return {**output, "energy": output["energy"] / 3.0, "force": output["force"] / 0.7}

    options = {**PREFACTORS, **kind, "starter_learning_rate": 1e-3}
    _, expected, _ = EnergyStdLoss(**options)(
        inputs,
        Scaled(),
        {**label, "energy": label["energy"] / 3.0, "force": label["force"] / 0.7},
        9,
        5e-4,
    )
    ours = MFTForceFieldLoss(energy_scale=3.0, force_scale=0.7, **options)
    torch.testing.assert_close(ours(inputs, model, label, 9, 5e-4)[1], expected)


def test_structure_wise_with_other_force_terms_is_refused():
    with pytest.raises(UserError, match="goes with the plain force term"):
        MFTForceFieldLoss(force_reduction="structure", relative_f=0.1, **PREFACTORS)
