"""What the learning curves of a report are of."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deepmd_mft.plots.report import _curves, _of_curve, errors


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (["rmse_val_p", "rmse_val_q", "rmse_e_val_q"], "rmse_val_p"),
        (
            ["mae_val_p", "rmse_gap_val_p", "rmse_u_val_p"],
            "rmse_gap_val_p",
        ),
        (["accuracy_val_p"], "accuracy_val_p"),
        (["rmse_u_val_p"], None),
    ],
)
def test_the_column_of_a_property(columns, wanted):
    """Where a column has the name of its property, there was no curve."""
    curve = pd.DataFrame({"step": [1.0, 2.0], **{name: [1.0, 2.0] for name in columns}})
    run = SimpleNamespace(
        branch="p",
        property_name="gap",
        curve=curve,
        share=0.5,
        strategy="mft",
        folder=SimpleNamespace(name="a"),
    )
    found = _curves([run], forces=False)
    assert (None if found is None else found["column"].iloc[0]) == wanted
    assert found is None or np.array_equal(found["step"], [0.5, 1.0])


def test_the_unit_of_a_sum_is_per_atom():
    """deepmd-kit shows it so, and the axis said it was the error of a structure."""
    assert _of_curve("rmse_val", "Hartree", intensive=False).endswith("(Hartree per atom)")
    assert _of_curve("mae_val", "Hartree", intensive=True).endswith("(Hartree)")
    assert _of_curve("accuracy_val", "classes", intensive=True) == "validation accuracy"


def test_an_interval_that_rounding_puts_beside_its_value():
    """Of structures with equal errors; matplotlib draws no negative bars."""
    run = SimpleNamespace(strategy="ft", classes=False)
    above = np.nextafter(1.0, 2.0)
    row = {"strategy": "ft", "test": "id_test", "rmse": 1.0, "rmse_low": above, "rmse_high": above}
    assert errors([run], pd.DataFrame([row]), "eV").images["light"]
