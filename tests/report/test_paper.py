"""The paper's figures stand beside its own targets only, in its own unit."""

import pytest

from deepmd_mft.report.paper import published


def test_qm9():
    found = published("gap", "Ha", "boom")
    assert found.metric == "rmse"
    assert found.errors["mft"] == (0.0034, 0.0171)
    gains = found.improvements()
    assert gains["mft", "OOD"] == pytest.approx(29.9, abs=0.05)
    assert gains["lp", "ID"] == pytest.approx(-71.1, abs=0.05)


def test_mean_improvements_over_the_eight_targets():
    """The paper's abstract and section 2.2: FT 17.8 / 5.6 %, LP -37 / 7.8 %, MFT 17.3 / 17.1 %."""
    units = dict.fromkeys(("homo", "lumo", "gap", "zpve"), "Hartree")
    units |= {"r2": "a0^2", "alpha": "bohr^3", "mu": "Debye", "cv": "cal/mol/K"}
    means = {
        key: sum(published(name, unit, None).improvements()[key] for name, unit in units.items())
        / len(units)
        for key in [(s, k) for s in ("ft", "lp", "mft") for k in ("ID", "OOD")]
    }
    assert means["ft", "ID"] == pytest.approx(17.8, abs=1.0)
    assert means["ft", "OOD"] == pytest.approx(5.6, abs=1.0)
    assert means["lp", "ID"] == pytest.approx(-37, abs=1.0)
    assert means["lp", "OOD"] == pytest.approx(7.8, abs=1.0)
    assert means["mft", "ID"] == pytest.approx(17.3, abs=1.0)
    assert means["mft", "OOD"] == pytest.approx(17.1, abs=1.0)


def test_matbench():
    found = published("n", "1", "loco")
    assert found.metric == "mae"
    assert found.errors == {"ft": (0.3082, 0.5305), "mft": (0.2639, 0.4690)}
    assert not found.improvements()
    assert published("n", "1", "element-out").errors["mft"] == (0.2639, None)


@pytest.mark.parametrize(
    ("name", "unit"), [("gap", "eV"), ("solubility", "1"), ("zpve", "eV"), ("gap", None)]
)
def test_other_targets_and_units(name, unit):
    assert published(name, unit, "boom") is None
