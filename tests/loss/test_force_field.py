"""The loss mft_force_field against deepmd-kit's energy loss."""

import copy

import pytest
import torch
from deepmd.pt.loss.ener import EnergyStdLoss
from deepmd.pt.model.model import get_model

from deepmd_mft.loss import MFTForceFieldLoss
from tests.conftest import DESCRIPTOR, ENERGY_NET, FORCE_FIELD_LOSS, TYPE_MAP
from tests.model.test_property_model import frame

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


def test_serialization_round_trip():
    loss = MFTForceFieldLoss(starter_learning_rate=1e-3, lambda_reg=0.2, **PREFACTORS)
    assert MFTForceFieldLoss.deserialize(loss.serialize()).serialize() == loss.serialize()
