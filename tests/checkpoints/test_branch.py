"""What a branch is: the same answer for inputs, checkpoints and predictors."""

from types import SimpleNamespace

import pytest

from deepmd_mft.checkpoints.branch import (
    head_type,
    intensive_properties,
    is_property,
    property_columns,
)
from deepmd_mft.errors import UserError
from deepmd_mft.inference.predictor import Output
from deepmd_mft.uncertainty.models import Ensemble


@pytest.mark.parametrize(
    ("net", "kind", "learns"),
    [
        ({"type": "property"}, "property", True),
        ({"type": "mft_classification"}, "mft_classification", True),
        ({"type": "dos"}, "dos", False),
        ({"neuron": [8]}, "ener", False),  # deepmd-kit's default
        (None, "ener", False),
    ],
)
def test_kind_of_a_branch(net, kind, learns):
    branch = {"fitting_net": net}
    assert (head_type(branch), is_property(branch)) == (kind, learns)


@pytest.mark.parametrize(
    ("net", "columns"),
    [
        ({"property_name": "gap"}, {"gap": 1}),
        ({"property_name": ["gap"], "task_dim": [3]}, {"gap": 3}),
        ({"property_name": ["homo", "alpha"], "task_dim": 2}, {"homo": 2, "alpha": 2}),
        ({"property_name": ["homo", "alpha"], "task_dim": [1, 6]}, {"homo": 1, "alpha": 6}),
        ({"type": "mft_classification", "property_name": "m", "num_classes": 4}, {"m": 1}),
        ({"type": "ener"}, {}),
    ],
)
def test_columns_of_the_label_files(net, columns):
    assert property_columns({"fitting_net": {"type": "mft_property", **net}}) == columns


@pytest.mark.parametrize(
    ("net", "flags"),
    [
        ({"property_name": "gap"}, {"gap": False}),
        ({"property_name": "gap", "intensive": [True]}, {"gap": True}),
        ({"property_name": ["u", "h"], "intensive": False}, {"u": False, "h": False}),
        ({"property_name": ["gap", "u"], "intensive": [True, False]}, {"gap": True, "u": False}),
        ({"type": "mft_dipole_norm", "property_name": "mu"}, {"mu": True}),
        ({"type": "mft_spatial_extent", "property_name": "r2"}, {"r2": False}),
        ({"type": "property", "property_name": "u", "intensive": True}, {"u": True}),
    ],
)
def test_which_properties_are_intensive(net, flags):
    """A list was taken for true, and a dipole for a sum, whose std grows with the atoms."""
    model = {"fitting_net": {"type": "mft_property", **net}}
    assert intensive_properties(model) == flags
    outputs = [Output(name, 1) for name in flags]
    ensemble = SimpleNamespace(predictors=[SimpleNamespace(params=model)], outputs=outputs)
    assert Ensemble._sums(ensemble) == [not flag for flag in flags.values()]


def test_dimensions_that_do_not_go_with_the_names():
    net = {"type": "mft_property", "property_name": ["a", "b", "c"], "task_dim": [1, 3]}
    with pytest.raises(UserError, match="task_dim has 2 entries for 3 properties"):
        property_columns({"fitting_net": net})
