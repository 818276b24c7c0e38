"""What a report knows of a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.errors import UserError
from deepmd_mft.report.runs import check_comparable, note_of_later_checkpoints, share_of_steps


@pytest.mark.parametrize(
    ("prob", "names", "share"),
    [
        ({"p": 1.0, "ff": 3.0}, ("p", "ff"), 0.25),
        ({"p": 0.5, "ff": 0.5, "old": 1.0}, ("p", "ff"), 0.5),  # deepmd-kit takes no other
        (None, ("p", "ff"), float("nan")),  # deepmd-kit goes by the numbers of systems
        (None, ("p",), 1.0),
    ],
)
def test_share_of_the_steps(prob, names, share):
    """Left out, it was taken for 1: all steps were the property branch's."""
    branches = [SimpleNamespace(name=name) for name in names]
    run = SimpleNamespace(config={"training": {"model_prob": prob}}, branches=branches)
    assert share_of_steps(run, branches[0]) == pytest.approx(share, nan_ok=True)


def test_a_test_set_in_another_unit_than_the_training_data():
    sets = {"id_test": {"unit": {"gap": "Hartree"}, "folders": [{"sha256": "1"}]}}
    common = {"property_name": "gap", "classes": False, "record": {"sets": sets}, "sets": [*sets]}
    run = SimpleNamespace(**common, folder=Path("a"), training=SimpleNamespace(unit="eV"))
    with pytest.raises(UserError, match="is in eV in the training data of a, but in Hartree in id"):
        check_comparable([run])
    run.training.unit = None  # the data do not say it
    check_comparable([run])


def test_a_training_that_went_on_after_its_checkpoint_was_chosen(tmp_path):
    """Its report said "chosen on validation data", of half of the training."""
    (tmp_path / "out.json").write_text('{"model": {}, "training": {}}')
    for step in (3, 6):
        (tmp_path / f"model.ckpt-{step}.pt").touch()
    run = TrainingRun(tmp_path)
    assert not note_of_later_checkpoints(run)  # nothing was selected
    (tmp_path / "selection.csv").write_text("file,step\nmodel.ckpt-3.pt,3\n")
    (note,) = note_of_later_checkpoints(run)
    assert "among those up to step 3, but there is one of step 6" in note
    (tmp_path / "selection.csv").write_text("file,step\nmodel.ckpt-3.pt,3\nmodel.ckpt-6.pt,6\n")
    assert not note_of_later_checkpoints(run)
