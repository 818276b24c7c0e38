"""Systems as deepmd-kit reads them: cells, shapes of labels, type maps."""

import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.structures import arrays, npy
from tests.helpers.dp import single_input
from tests.helpers.gate import run_gate
from tests.helpers.systems import as_hdf5, write_system

N = 4
GAP = np.arange(N, dtype=float)[:, None]
CELL = np.array([[0.0, 8.0, 8.0], [8.0, 0.0, 8.0], [8.0, 8.0, 0.0]])  # right-handed fcc


def property_input(train, valid=None):
    config = single_input()
    for section, system in (("training_data", train), ("validation_data", valid or train)):
        config["training"][section] = {"systems": str(system), "batch_size": 2}
    return config


def crystal(path, cells, gap=GAP):
    return write_system(path, nframes=N, cell=np.asarray(cells), gap=gap)


def test_right_handed_cells_pass(tmp_path):
    run_gate(property_input(crystal(tmp_path / "c", CELL)), tmp_path)


@pytest.mark.parametrize("wrong", ["training_data", "validation_data"])
def test_left_handed_cells(tmp_path, wrong):
    cells = np.stack([CELL] * N)
    cells[2] = CELL[:, [1, 0, 2]]
    good, bad = crystal(tmp_path / "good", CELL), crystal(tmp_path / "bad", cells)
    systems = (bad, good) if wrong == "training_data" else (good, bad)
    with pytest.raises(UserError, match=r"1 of 4 frames \(frame 2, .* left-handed") as caught:
        run_gate(property_input(*systems), tmp_path)
    assert str(bad / "set.000" / "box.npy") in str(caught.value)
    path = bad / "set.000" / "box.npy"
    box = np.load(path)
    np.save(path, np.where(np.linalg.det(box.reshape(-1, 3, 3))[:, None] < 0, -box, box))
    run_gate(property_input(*systems), tmp_path)  # the way out that the message names


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (None, "add an empty file `nopbc`"),
        (np.zeros((N, 9)), "cell without volume"),
        (np.full((N, 9), np.nan), "cell without volume"),
        (np.ones((N - 1, 9)), "4 frames .* need 4 x 9 numbers"),
    ],
)
def test_cells_that_are_none(tmp_path, box, message):
    system = crystal(tmp_path / "c", CELL)
    path = system / "set.000" / "box.npy"
    path.unlink()
    if box is not None:
        np.save(path, box)
    with pytest.raises(UserError, match=message):
        run_gate(property_input(system), tmp_path)


def objects(values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        (GAP.T, r"1 rows, but the set has 4 frames .* transpose it"),
        (GAP[:, 0], ""),
        (GAP.reshape(N, 1, 1), ""),
        (GAP.astype(np.int32), ""),
        (objects(GAP), "Python objects"),
        (objects([[1.0], [None], [2.0], [3.0]]), "Python objects"),
        (GAP.astype(str), "holds <U"),
        (GAP.astype(complex), "holds complex"),
    ],
)
def test_shapes_and_kinds_of_labels(tmp_path, gap, message):
    config = property_input(write_system(tmp_path / "m", nframes=N, gap=gap))
    if not message:
        run_gate(config, tmp_path)
        return
    with pytest.raises(UserError, match=message):
        run_gate(config, tmp_path)


def test_one_frame_may_lack_its_axis(tmp_path):
    system = write_system(tmp_path / "m", nframes=1, gap=np.array([1.0, 2.0, 3.0]))
    np.save(system / "set.000" / "coord.npy", np.load(system / "set.000" / "coord.npy")[0])
    config = property_input(system)
    config["model"]["fitting_net"]["task_dim"] = 3
    run_gate(config, tmp_path)


def test_a_broken_label_hides_nothing_else(tmp_path, capsys):
    bad = write_system(tmp_path / "set" / "1", nframes=N, gap=objects(GAP))
    other = write_system(tmp_path / "set" / "2", nframes=N, gap=np.full((N, 1), np.nan))
    path = tmp_path / "input.json"
    path.write_text(json.dumps(property_input(tmp_path / "set")))
    assert main(["check", str(path), "--json"]) == 1
    errors = "\n".join(json.loads(capsys.readouterr().out)["errors"])
    assert f"{bad}/set.000/gap.npy is no array of numbers (it is pickled Python objects)" in errors
    assert f"{other}/set.000/gap.npy has NaN or inf in 4 of 4 rows" in errors


def test_no_type_map_means_the_models(tmp_path):
    system = write_system(tmp_path / "m", nframes=N, gap=GAP)
    (system / "type_map.raw").unlink()
    run_gate(property_input(system), tmp_path)
    (system / "type.raw").write_text("0 1 1 7 1\n")
    with pytest.raises(UserError, match=r"type\.raw lists type 7, which type_map"):
        run_gate(property_input(system), tmp_path)


@pytest.mark.parametrize("packed", [False, True], ids=["npy", "hdf5"])
def test_no_coordinates_are_read(tmp_path, monkeypatch, packed):
    """Of them the shape is enough, of an array in a file or in HDF5."""
    system = write_system(tmp_path / "m", nframes=N, gap=GAP)
    if packed:
        system = as_hdf5(system, tmp_path / "m.hdf5")
    load, header = arrays._load, arrays.shape_of

    def load_labels(path):
        assert path.name != "coord.npy"
        return load(path)

    def shape_of(path):
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "_load", load)  # mapped, no more
            return header(path)

    monkeypatch.setattr(arrays, "_load", load_labels)
    monkeypatch.setattr(npy, "shape_of", shape_of)
    run_gate(property_input(system), tmp_path)


def test_systems_in_hdf5(tmp_path, capsys):
    """deepmd-kit reads groups of a file like folders, and so do all checks."""
    crystals = as_hdf5(crystal(tmp_path / "c", CELL), tmp_path / "c.hdf5")
    path = tmp_path / "input.json"
    path.write_text(json.dumps(property_input(crystals)))
    main(["check", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert not found["errors"]
    assert found["facts"]["model"]["frames"] == N
    assert found["facts"]["model"]["elements"] == ["C", "H"]
    left = as_hdf5(crystal(tmp_path / "l", CELL[[1, 0, 2]], gap=GAP.T), tmp_path / "l.hdf5")
    path.write_text(json.dumps(property_input(left)))
    assert main(["check", str(path), "--json"]) == 1
    errors = "\n".join(json.loads(capsys.readouterr().out)["errors"])
    assert f"{left}/set.000/box.npy: 4 of 4 frames" in errors
    assert f"{left}/set.000/gap.npy has 1 rows, but the set has 4 frames" in errors


def test_coordinates_of_another_number_of_atoms(tmp_path):
    system = write_system(tmp_path / "m", nframes=N, gap=GAP)
    (system / "type.raw").write_text("0 1 1 1 1 1\n")
    with pytest.raises(UserError, match=r"coord\.npy has the shape .* type\.raw lists 6 atoms"):
        run_gate(property_input(system), tmp_path)


def test_sets_of_one_system(tmp_path):
    """A second set without the label is found, whatever the first has."""
    system = write_system(tmp_path / "m", nframes=N, gap=GAP)
    second = system / "set.001"
    second.mkdir()
    np.save(second / "coord.npy", np.load(system / "set.000" / "coord.npy")[:2])
    with pytest.raises(UserError, match=r"set\.001/gap\.npy does not exist"):
        run_gate(property_input(system), tmp_path)
    np.save(second / "gap.npy", GAP)
    with pytest.raises(UserError, match=r"set\.001/gap\.npy has 4 rows, but the set has 2 frames"):
        run_gate(property_input(system), tmp_path)


def test_what_is_printed_about_a_broken_input(tmp_path, capsys):
    """Without --json, too: facts that cannot be known are left out."""
    bad = crystal(tmp_path / "bad", CELL[[1, 0, 2]])
    path = tmp_path / "input.json"
    path.write_text(json.dumps(property_input(bad)))
    assert main(["check", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "model: 4 training structures of C, H" in printed
    assert "error: " in printed
    assert "do not start the training" in printed


def test_a_truncated_hdf5_file(tmp_path):
    name = as_hdf5(write_system(tmp_path / "m", nframes=N, gap=GAP), tmp_path / "m.hdf5")
    path = tmp_path / "m.hdf5"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"systems = '.*m\.hdf5#/system' cannot be read"):
        run_gate(property_input(name), tmp_path)
