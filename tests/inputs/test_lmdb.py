"""Labels and cells of an LMDB are looked at before the training, as those of npy systems are."""

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from tests.helpers.dp import pretrain_input, single_input
from tests.helpers.gate import run_gate
from tests.helpers.systems import record, write_lmdb

GAP = np.array([0.25])
CELL = 8.0 * np.eye(3)


def property_input(path, **loss):
    config = single_input()
    part = {"systems": str(path), "batch_size": "auto"}
    config["training"] |= {"training_data": part, "validation_data": dict(part)}
    config["loss"] |= loss
    return config


def with_labels(*labels):
    return [record(gap=label) if label is not None else record() for label in labels]


def test_a_sound_lmdb_passes(tmp_path):
    records = [record(3, gap=GAP), record(5, gap=0.3), record(4, gap=np.array(1))]
    run_gate(property_input(write_lmdb(tmp_path / "a.lmdb", records)), tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((GAP, None, GAP), r"gap is not there in 1 of 3 frames \(frame 1"),
        ((GAP, GAP, np.array([np.nan])), r"gap is NaN or inf in 1 of 3 frames \(frame 2"),
        ((np.array([-np.inf]), GAP), r"gap is NaN or inf in 1 of 2 frames \(frame 0"),
        ((GAP, np.array([1.0, 2.0])), r"gap has 2 number\(s\), not the 1 that"),
        ((GAP, np.array([], dtype=float)), r"gap has 0 number\(s\)"),
        ((GAP, "0.3"), "gap is no number"),
    ],
)
def test_labels_that_are_wrong(tmp_path, labels, message):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(*labels))
    with pytest.raises(UserError, match=message) as caught:
        run_gate(property_input(path), tmp_path)
    assert str(path) in str(caught.value)


def test_a_label_that_says_it_is_not_there(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", [record(gap=GAP), record(gap=GAP, find_gap=0.0)])
    with pytest.raises(UserError, match="gap is not there in 1 of 2"):
        run_gate(property_input(path), tmp_path)


def test_masked_labels_are_counted(tmp_path, caplog):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(GAP, None, np.array([np.nan]), GAP))
    with caplog.at_level("WARNING"):
        run_gate(property_input(path, missing_labels="mask"), tmp_path)
    assert "2 of 4 labels of property gap are missing and masked" in caplog.text


@pytest.mark.parametrize("labels", [(None, None), (np.array([np.nan]),)])
def test_masked_labels_that_are_all(tmp_path, labels):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(*labels))
    with pytest.raises(UserError, match="property 'gap' has no label at all in training_data"):
        run_gate(property_input(path, missing_labels="mask"), tmp_path)


def test_inf_is_no_missing_label(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(GAP, np.array([np.inf])))
    with pytest.raises(UserError, match="gap is inf in 1 of 2"):
        run_gate(property_input(path, missing_labels="mask"), tmp_path)


def test_classes(tmp_path):
    config = property_input(write_lmdb(tmp_path / "a.lmdb", with_labels(np.array([0]), 1, 2)))
    config["model"]["fitting_net"] = {"type": "mft_classification", "property_name": "gap"}
    config["loss"] = {"type": "mft_classification"}
    with pytest.raises(UserError, match="has the label 2; with num_classes 2"):
        run_gate(config, tmp_path)
    config["model"]["fitting_net"]["num_classes"] = 3
    run_gate(config, tmp_path)


def force_field_input(path):
    config = pretrain_input()
    config["loss_dict"]["GFN2"] = {"type": "mft_force_field"}
    part = {"systems": str(path), "batch_size": 2}
    config["training"]["data_dict"]["GFN2"] = {"training_data": part}
    return config


def test_forces_have_three_numbers_per_atom(tmp_path):
    records = [
        record(n, energies=np.array(-1.0), forces=np.zeros((n - short, 3)))
        for n, short in ((3, 0), (4, 0), (5, 1))
    ]
    path = write_lmdb(tmp_path / "a.lmdb", records)
    with pytest.raises(UserError, match=r"force has 12 number\(s\), not the 15 .*frame 2"):
        run_gate(force_field_input(path), tmp_path)
    run_gate(force_field_input(write_lmdb(tmp_path / "b.lmdb", records[:2])), tmp_path)


def test_left_handed_cells(tmp_path):
    cells = [CELL, CELL[[1, 0, 2]], CELL]
    path = write_lmdb(tmp_path / "a.lmdb", [record(gap=GAP, cells=cell) for cell in cells])
    with pytest.raises(UserError, match=r"1 of 3 frames \(frame 1, .* left-handed cell"):
        run_gate(property_input(path), tmp_path)


def test_cells_of_zeros_are_no_cells(tmp_path):
    """deepmd-kit 3.2 trains on them and gets NaN in the first step."""
    records = [record(gap=GAP), record(gap=GAP, cells=np.zeros((3, 3)))]
    path = write_lmdb(tmp_path / "a.lmdb", records)
    with pytest.raises(UserError, match=r"\(frame 1.*cell without volume; .*no `cells`"):
        run_gate(property_input(path), tmp_path)


def test_cells_for_a_head_of_molecules(tmp_path):
    for name, given in (("a", {}), ("b", {"cells": CELL})):
        config = property_input(write_lmdb(tmp_path / f"{name}.lmdb", [record(gap=GAP, **given)]))
        config["model"]["fitting_net"] = {"type": "mft_spatial_extent", "property_name": "gap"}
        if not given:
            run_gate(config, tmp_path)
            continue
        with pytest.raises(UserError, match="has a periodic cell, but mft_spatial_extent"):
            run_gate(config, tmp_path)


def test_elements_outside_the_type_map(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(GAP), type_map="H C N O F S Cl")
    with pytest.raises(UserError, match="lists Cl, S, which type_map of the model does not have"):
        run_gate(property_input(path), tmp_path)


def test_an_lmdb_in_a_list(tmp_path):
    config = property_input(write_lmdb(tmp_path / "a.lmdb", with_labels(GAP)))
    part = config["training"]["training_data"]
    part["systems"] = [part["systems"]]
    with pytest.raises(UserError, match="an LMDB is written as a string"):
        run_gate(config, tmp_path)


def test_a_record_that_is_not_there(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", with_labels(GAP, GAP))
    import lmdb

    environment = lmdb.open(str(path), map_size=2**26)
    with environment.begin(write=True) as transaction:
        transaction.delete(b"000000000001")
    environment.close()
    with pytest.raises(UserError, match="cannot be read as a deepmd LMDB"):
        run_gate(property_input(path), tmp_path)


def test_a_file_that_was_cut_off(tmp_path):
    """Reading beyond its end would kill the process (SIGBUS)."""
    records = [record(9, gap=GAP, noise=np.arange(999.0)) for _ in range(40)]
    path = write_lmdb(tmp_path / "a.lmdb", records)
    file = path / "data.mdb"
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size // 2)
    with pytest.raises(UserError, match=r"data\.mdb"):
        run_gate(property_input(path), tmp_path)


def test_no_lmdb_at_all(tmp_path):
    with pytest.raises(UserError, match=r"b\.lmdb cannot be opened as LMDB"):
        run_gate(property_input(tmp_path / "b.lmdb"), tmp_path)
