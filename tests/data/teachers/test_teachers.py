"""Labels of teachers are those of the programs behind them."""

import numpy as np
import pytest
from ase.calculators.emt import EMT
from deepmd.infer import DeepPot
from tblite.interface import Calculator

from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.data.teachers import open_teacher
from deepmd_mft.errors import UserError
from deepmd_mft.structures.structure import Structure
from tests.helpers.dp import DATA
from tests.helpers.models import NETS, save_checkpoint

BOHR, HARTREE = 0.529177210903, 27.211386245988  # CODATA 2018
WATER = Structure(
    np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
)
METHYL = Structure(
    np.array([6, 1, 1, 1]),
    np.array([[0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0.0]]),
)
SALT = Structure(
    np.array([11, 17, 1, 1]),
    np.array([[0, 0, 0], [2.8, 0.1, 0], [1.2, 1.5, 1.6], [1.9, 1.5, 1.7]]),
    np.array([[5.6, 0.2, 0], [0, 5.4, 0.3], [0.1, 0, 5.8]]),
)
NO_CHARGE = np.zeros(1)


def teacher(name, properties=(), path=None):
    return open_teacher(name, ModelFile("", path), properties)


@pytest.fixture(scope="module")
def force_field(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("teacher") / "model.pt")


@pytest.mark.parametrize("name", ["gfn2", "gfn1"])
def test_xtb_labels_are_tblites(name):
    found = teacher(name, ["gap", "homo", "lumo", "dipole"]).label([WATER], NO_CHARGE)
    method = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}[name]
    calculator = Calculator(method, WATER.numbers, WATER.positions / BOHR)
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    np.testing.assert_allclose(found["energy"][0], result.get("energy") * HARTREE, rtol=1e-8)
    gradient = result.get("gradient") * HARTREE / BOHR
    np.testing.assert_allclose(found["force"], -gradient, rtol=1e-6, atol=1e-6)
    orbitals = result.get("orbital-energies")  # eight valence electrons of H2O
    np.testing.assert_allclose(found["homo"], orbitals[3], rtol=1e-7)
    np.testing.assert_allclose(found["lumo"], orbitals[4], rtol=1e-7)
    np.testing.assert_allclose(found["gap"], orbitals[4] - orbitals[3], rtol=1e-7)
    debye = np.linalg.norm(result.get("dipole")) * 2.541746473
    np.testing.assert_allclose(found["mu"], debye, rtol=1e-6)
    assert found["reason"].tolist() == [""]
    assert np.isnan(found["virial"]).all()


def test_the_polarizability_is_minus_the_curvature_of_the_energy_in_a_field():
    found = teacher("gfn2", ["polarizability"]).label([WATER], NO_CHARGE)["alpha"][0]

    def energy(field):
        calculator = Calculator("GFN2-xTB", WATER.numbers, WATER.positions / BOHR)
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 1e-3)
        calculator.add("electric-field", field)
        return calculator.singlepoint().get("energy")

    step, tensor = 5e-3, []
    for axis in range(3):
        up, still, down = (
            energy([sign * step * (k == axis) for k in range(3)]) for sign in (1, 0, -1)
        )
        tensor.append(-(up - 2 * still + down) / step**2)
    assert found == pytest.approx(np.mean(tensor), rel=1e-2)
    assert found > 2


def test_the_extent_is_that_of_the_populations_about_the_centre_of_mass():
    moved = WATER._replace(positions=WATER.positions + 7.0)
    here, there = teacher("gfn2", ["extent"]).label([WATER, moved], np.zeros(2))["r2"]
    calculator = Calculator("GFN2-xTB", WATER.numbers, WATER.positions / BOHR)
    calculator.set("verbosity", 0)
    electrons = WATER.numbers - calculator.singlepoint().get("charges")
    masses = np.array([15.999, 1.008, 1.008])
    away = (WATER.positions - masses @ WATER.positions / masses.sum()) / BOHR
    assert here == pytest.approx(electrons @ (away**2).sum(axis=1), rel=1e-5)
    assert there == pytest.approx(here, rel=1e-5)


@pytest.mark.parametrize("name", ["dipole", "polarizability", "extent"])
def test_a_crystal_has_no_label_of_molecules(name):
    reasons = teacher("gfn1", [name]).label([SALT], NO_CHARGE)["reason"]
    assert reasons.tolist() == [f"--label {name} is for molecules, and this is a crystal"]


def test_the_virial_of_a_crystal_is_minus_the_derivative_by_strain():
    gfn1 = teacher("gfn1")
    found = gfn1.label([SALT], NO_CHARGE)
    numerical = np.zeros((3, 3))
    step = 1e-4
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step
                moved = Structure(SALT.numbers, SALT.positions @ strain, SALT.cell @ strain)
                energies.append(gfn1.label([moved], NO_CHARGE)["energy"][0])
            numerical[i, j] = -(energies[0] - energies[1]) / (2 * step)
    np.testing.assert_allclose(found["virial"].reshape(3, 3), numerical, atol=2e-3)
    assert np.abs(numerical).max() > 0.1


def test_a_radical_has_its_unpaired_electron():
    found = teacher("gfn2", ["homo"]).label([METHYL], NO_CHARGE)
    calculator = Calculator("GFN2-xTB", METHYL.numbers, METHYL.positions / BOHR, uhf=1)
    calculator.set("verbosity", 0)
    assert found["energy"][0] == pytest.approx(calculator.singlepoint().get("energy") * HARTREE)


def test_lanthanides_have_three_electrons():
    for element in (58, 59):  # Ce, Pr: even and odd
        numbers = np.array([element, 9, 9, 9])
        flat = np.array([[0, 0, 0], [2.1, 0, 0], [-1.05, 1.82, 0], [-1.05, -1.82, 0.0]])
        found = teacher("gfn1").label([Structure(numbers, flat)], NO_CHARGE)
        calculator = Calculator("GFN1-xTB", numbers, flat / BOHR, uhf=0)  # 3 + 3 x 7 electrons
        calculator.set("verbosity", 0)
        energy = calculator.singlepoint().get("energy") * HARTREE
        assert found["reason"].tolist() == [""]
        assert found["energy"][0] == pytest.approx(energy, rel=1e-9)


def test_a_charge_counts():
    ammonium = Structure(
        np.array([7, 1, 1, 1, 1]),
        np.array(
            [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]]
        ),
    )
    found = teacher("gfn2").label([ammonium] * 2, np.array([1.0, 0.0]))
    calculator = Calculator("GFN2-xTB", ammonium.numbers, ammonium.positions / BOHR, charge=1.0)
    calculator.set("verbosity", 0)
    assert found["energy"][0] == pytest.approx(calculator.singlepoint().get("energy") * HARTREE)
    assert abs(found["energy"][1] - found["energy"][0]) > 1
    reasons = teacher("gfn2", ["dipole"]).label([ammonium], np.array([1.0]))["reason"]
    assert reasons.tolist() == ["the dipole of a charged molecule depends on the origin"]


def test_what_cannot_be_computed_says_why(monkeypatch):
    whole = Calculator.singlepoint

    def impatient(calculator):
        if len(calculator.numbers_given) == len(METHYL.numbers):
            calculator.set("max-iter", 1)
        return whole(calculator)

    made = Calculator.__init__

    def remember(calculator, method, numbers, *args, **kwargs):
        calculator.numbers_given = numbers
        made(calculator, method, numbers, *args, **kwargs)

    monkeypatch.setattr(Calculator, "__init__", remember)
    monkeypatch.setattr(Calculator, "singlepoint", impatient)
    heavy = WATER._replace(numbers=np.array([88, 1, 1]))
    found = teacher("gfn2").label([WATER, METHYL, heavy, SALT], np.zeros(4))
    sound, collapsed, radium, crystal = found["reason"].tolist()
    assert sound == ""
    assert "GFN2-xTB does not converge" in collapsed
    assert radium == "Ra is beyond the elements of GFN2-xTB, H to Rn"
    assert "take --teacher gfn1" in crystal
    assert np.isfinite(found["energy"]).tolist() == [True, False, False, False]
    assert np.isnan(found["force"][3:]).all()


def test_a_checkpoints_labels_are_deep_pots(force_field):
    cell = np.eye(3) * 7.0 + 0.3 * np.eye(3, k=1)
    crystal = Structure(WATER.numbers, WATER.positions, cell)
    found = teacher("pretrained", path=force_field).label([crystal, WATER], np.zeros(2))
    theirs = DeepPot(str(force_field))
    types = [theirs.get_type_map().index(one) for one in ("O", "H", "H")]
    for row, one in enumerate((crystal, WATER)):
        box = None if one.cell is None else one.cell.reshape(1, 9)
        energy, force, virial = theirs.eval(one.positions.reshape(1, -1), box, types)
        np.testing.assert_allclose(found["energy"][row], energy[0, 0], rtol=1e-10)
        np.testing.assert_allclose(found["force"][3 * row : 3 * row + 3], force[0], atol=1e-10)
        if box is not None:
            np.testing.assert_allclose(found["virial"][row], virial[0].ravel(), atol=1e-9)
    assert np.isnan(found["virial"][1]).all()


def test_an_ase_calculator():
    gold = Structure(np.array([79, 79]), np.array([[0, 0, 0], [0, 0, 2.6]]), np.diag([4.0, 4, 5]))
    found = teacher("ase.calculators.emt:EMT").label([gold, WATER._replace(cell=None)], np.zeros(2))
    atoms = gold.atoms()
    atoms.calc = EMT()
    assert found["energy"][0] == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(found["force"][:2], atoms.get_forces())
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(found["virial"][0].reshape(3, 3), -stress * 80.0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "properties", "message"),
    [
        ("gfn3", [], "no such teacher; there are pretrained, gfn2, gfn1"),
        ("gfn2", ["colour"], "no label 'colour'; there are gap, homo, lumo, dipole, polar"),
        ("pretrained", ["gap"], "take --teacher gfn2"),
        ("no.such:Thing", [], "write MODULE:CLASS"),
        ("ase.calculators.emt:Nothing", [], "write MODULE:CLASS"),
    ],
)
def test_a_teacher_that_is_none(name, properties, message):
    with pytest.raises(UserError, match=message):
        teacher(name, properties, DATA)


def test_a_property_model_is_no_teacher(tmp_path):
    path = save_checkpoint(tmp_path / "gap.pt", type="mft", fitting_net=NETS["attention"])
    with pytest.raises(UserError, match="no force field"):
        teacher("pretrained", path=path)
