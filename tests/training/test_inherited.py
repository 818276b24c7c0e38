"""What is said of an inherited force field before the first step."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deepmd.infer import DeepPot

from deepmd_mft.training.inherited import first_errors, problems, report_inherited
from tests.helpers.dp import DATA, TYPE_MAP, Dp, mft_input

NTYPES, NATOMS = 3, 5
TRUE = np.array([-0.5, -38.0, 7.0])


class FakeHead:
    """Predicts the label plus what is asked for."""

    type_map, branch, source = ["H", "C", "O"], "aux", "SPICE2"

    def __init__(self, shift=None, energy_error=0.0, force_factor=1.0):
        self.shift, self.energy_error, self.force_factor = shift, energy_error, force_factor

    def predict(self, batch, rows):
        energy = batch["energy"][rows].numpy()[:, 0] + self.energy_error
        force = batch["force"][rows].numpy().reshape(len(energy), -1, 3) * self.force_factor
        return energy, force

    def sample(self):
        return self.batches


def batches(nframes=40, nsystems=2, spread=0.1, types=None, **flags):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(nsystems):
        atype = rng.integers(0, NTYPES, size=(nframes, NATOMS)) if types is None else types
        atype = np.where(rng.random(atype.shape) < 0.2, -1, atype) if types is None else atype
        atype[:, 0] = 0
        counts = np.stack([(atype == i).sum(1) for i in range(NTYPES)], 1)
        energy = counts @ TRUE + spread * rng.normal(size=nframes)
        force = rng.normal(size=(nframes, NATOMS, 3)) * (atype >= 0)[..., None]
        force[atype < 0] = 1e3  # of padding: must not count
        found.append(
            {
                "atype": torch.tensor(atype),
                "energy": torch.tensor(energy)[:, None],
                "force": torch.tensor(force.reshape(nframes, -1)),
                **flags,
            }
        )
    return found


def test_errors_against_numpy():
    sample = batches()
    shift = np.array([1.0, -2.0, 0.5])
    errors = first_errors(FakeHead(shift, energy_error=0.3, force_factor=0.25), sample)
    atype = np.concatenate([one["atype"].numpy() for one in sample])
    counts = np.stack([(atype == i).sum(1) for i in range(NTYPES)], 1).astype(float)
    energy = np.concatenate([one["energy"].numpy()[:, 0] for one in sample])
    force = np.concatenate([one["force"].numpy().reshape(-1, NATOMS, 3) for one in sample])
    real, natoms = force[atype >= 0], counts.sum(1)
    fit = np.linalg.lstsq(counts, energy, rcond=None)[0]

    def rms(values):
        return np.sqrt(np.mean(values**2))

    assert errors.frames == 80
    assert errors.energy == pytest.approx(rms(0.3 / natoms))
    assert errors.uncorrected == pytest.approx(rms((-0.3 + counts @ shift) / natoms))
    assert errors.composition == pytest.approx(rms((energy - counts @ fit) / natoms))
    assert errors.force == pytest.approx(0.75 * rms(real))
    assert errors.no_force == pytest.approx(rms(real))


@pytest.mark.parametrize(
    ("head", "resumed", "said"),
    [
        (FakeHead(), False, []),
        (FakeHead(force_factor=0.1), False, []),
        (FakeHead(force_factor=-0.1), False, ["force error"]),
        (FakeHead(energy_error=5.0), False, ["Check the units"]),
        (FakeHead(energy_error=5.0, force_factor=27.0), True, ["force", "finetune_head set"]),
    ],
)
def test_a_head_that_is_worse_than_none_is_told(head, resumed, said):
    found = list(problems(first_errors(head, batches()), resumed=resumed))
    assert len(found) == len(said)
    assert all(word in line for word, line in zip(said, found, strict=True))


def test_too_few_frames_say_nothing_of_energies():
    errors = first_errors(FakeHead(energy_error=5.0), batches(nframes=2))
    assert np.isnan(errors.composition)
    assert not list(problems(errors, resumed=False))


def test_labels_that_are_not_there_are_not_compared():
    errors = first_errors(FakeHead(), batches(find_force=0.0, find_energy=np.float32(0.0)))
    assert np.isnan([errors.force, errors.no_force, errors.energy, errors.composition]).all()
    assert not list(problems(errors, resumed=False))


def test_frames_are_spread_over_many_systems():
    sample = batches(nframes=3, nsystems=600)
    assert first_errors(FakeHead(), sample).frames == 200  # one of each third system
    assert first_errors(FakeHead(), batches(nframes=900, nsystems=2)).frames == 256


def test_what_compositions_do_not_determine_is_told(caplog):
    head = FakeHead(shift=np.array([1.0, 1.0, 0.0]))
    head.batches = batches(types=np.tile([0, 0, 1, 1, -1], (40, 1)))
    with caplog.at_level("INFO"):
        report_inherited(head)
    assert "H +1, C +1; those of the other elements of its type map (1) stay" in caplog.text
    assert "determine 1 of 2 energies" in caplog.text


# --- dp -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Molecules with energies of another level of theory, and forces of the wrong sign."""
    system = tmp_path_factory.mktemp("foreign") / "17"
    (system / "set.000").mkdir(parents=True)
    source = DATA / "aux_train" / "17"
    for name in ("type.raw", "type_map.raw", "nopbc"):
        (system / name).write_bytes((source / name).read_bytes())
    arrays = {one.stem: np.load(one)[:60] for one in (source / "set.000").glob("*.npy")}
    types = arrays["real_atom_types"]
    shifts = np.array([1.0, -2.0, 3.0, -4.0, 5.0])
    arrays["energy"] = arrays["energy"] + sum(
        shifts[i] * (types == i).sum(axis=1, keepdims=True) for i in range(5)
    )
    arrays["force"] = -1.0 * arrays["force"]
    for name, array in arrays.items():
        np.save(system / "set.000" / f"{name}.npy", array)
    return SimpleNamespace(path=system, **arrays)


def train(folder, foreign, pretrained, **branch):
    config = mft_input()
    own = config["model"]["model_dict"]["GFN2"]
    del own["finetune_head"]
    own |= branch
    config["training"]["data_dict"]["GFN2"] = {
        "training_data": {"systems": [str(foreign.path)], "batch_size": 60}
    }
    config["training"]["numb_steps"] = 1
    return Dp(folder).train(config, "--finetune", str(pretrained))


def test_energies_of_elements_are_shifted_as_by_numpy(tmp_path, foreign, pretrained):
    log = train(tmp_path, foreign, pretrained, finetune_head="GFN2")
    (told,) = re.findall(r"branch 'GFN2': energies of the elements shifted .* in eV: (.*);", log)
    found = {name: float(value) for name, value in (one.split() for one in told.split(", "))}
    model = DeepPot(str(pretrained), head="GFN2")
    predicted, counts = [], []
    for coord, types in zip(foreign.coord, foreign.real_atom_types, strict=True):
        real = types >= 0
        xyz = coord.reshape(-1, 3)[real]
        predicted.append(float(model.eval(xyz.reshape(1, -1), None, types[real])[0].item()))
        counts.append(np.bincount(types[real], minlength=5))
    counts = np.array(counts, dtype=float)
    left = foreign.energy[:, 0] - predicted
    shift = np.linalg.lstsq(counts, left, rcond=None)[0]
    there = [name for name, any_ in zip(TYPE_MAP, counts.any(axis=0), strict=True) if any_]
    assert list(found) == there
    for number, name in enumerate(TYPE_MAP):
        assert found.get(name, 0.0) == pytest.approx(shift[number], rel=2e-3)
    natoms = counts.sum(axis=1)
    numbers = re.search(r"on 60 .* energy (\S+) eV/atom \((\S+) before", log)
    after = np.sqrt(np.mean(((left - counts @ shift) / natoms) ** 2))
    assert float(numbers[1]) == pytest.approx(after, rel=2e-3)
    assert float(numbers[2]) == pytest.approx(np.sqrt(np.mean((left / natoms) ** 2)), rel=2e-3)


def test_a_branch_that_resumes_is_told_how_to_be_corrected(tmp_path, foreign, pretrained):
    log = train(tmp_path, foreign, pretrained)
    assert "energies of the elements shifted" not in log
    assert "branch 'GFN2': the inherited head 'GFN2' is worth nothing" in log
    assert "With finetune_head set to its name" in log
