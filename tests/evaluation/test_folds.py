"""Which sets are tested, and which fold a run was trained on."""

import json

import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation import folds as of_folds
from deepmd_mft.evaluation.folds import match_folds
from tests.helpers.systems import write_system


def run_on(folder, system):
    """What is looked at of a run: the record of what it was trained on."""
    folder.mkdir()
    net = {"type": "property", "property_name": "gap"}
    training = {"training_data": {"systems": str(system)}}
    config = {"model": {"type_map": ["H"], "fitting_net": net}, "loss": {}, "training": training}
    (folder / "out.json").write_text(json.dumps(config))
    return folder


def test_moved_runs_are_of_the_fold_that_their_paths_name(tmp_path):
    """They were matched by their order: each model was tested on what it was trained on."""
    folds = {name: tmp_path / "folds" / name for name in ("fold_00", "fold_01")}
    runs = [run_on(tmp_path / f"r{n}", f"/gone/folds/fold_0{n}/train") for n in range(2)]
    assert match_folds(runs[::-1], folds) == ["fold_01", "fold_00"]
    assert match_folds(runs[1:], folds) == ["fold_01"]
    elsewhere = write_system(tmp_path / "other" / "fold_00" / "train", symbols="H")
    with pytest.raises(UserError, match="is not known"):
        match_folds([run_on(tmp_path / "r2", elsewhere)], folds)


def test_a_set_beside_a_split_is_tested_too(tmp_path):
    """Where one folder had test sets of its own, others were passed over."""
    for name in ("split/train", "split/ood_test", "far"):
        write_system(tmp_path / name, symbols="C H")
    found = of_folds.test_sets([tmp_path / "split", tmp_path / "far"], None)
    assert [one.name for one in found] == ["ood_test", "far"]
    assert [one.name for one in of_folds.test_sets([tmp_path / "split"], None)] == ["ood_test"]
