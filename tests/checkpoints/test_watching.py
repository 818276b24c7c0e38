"""Validation while training: the best checkpoint, early stopping, plateaus, restarts."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from deepmd_mft.bridge.validation import StopTraining
from deepmd_mft.checkpoints.watching import NOTES, Watch
from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.validation import check_validation
from deepmd_mft.training.rates import MFTRate
from tests.helpers.dp import single_input

CURVE = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 2.25, 3.0, 1.0]


class Scripted(Watch):
    """A watch that reads its errors from a list: look number n at step 10 n."""

    def _prepare(self, branch, systems, where):
        self.metric = "rmse"
        return SimpleNamespace()

    def _look(self, step, lr):
        return CURVE[step // 10 - 1]

    def _publish(self, path, before):
        self.training.published.append(path.name)


class FakeTraining:
    """As far as a watch sees it."""

    is_chief, num_steps, prefix, changes_bias_at_the_end = True, 10_000, "model.ckpt", False

    def __init__(self, restarted=False):
        plateau = {"factor": 0.5, "patience": 2, "start": 0}
        self.schedule = MFTRate(1.0, 10_000, stop_lr=0.1, plateau=plateau)
        self.notes = {}  # at a restart too: deepmd-kit loads the weights alone
        self.restarted = restarted
        self.published, self.last = [], None

    def agree(self, value):
        return value

    def apply_schedule(self):
        pass

    def save_last(self, display_step, lr):
        self.last = display_step


def watch(training, patience, restart=None):
    options = {"freq": 10, "patience": patience, "metric": None}
    return Scripted(training, "", [], options, "the model", Path("nowhere"), restart)


def steps(one, first, last):
    for step in range(first, last + 1):
        one.run(step_id=step - 1, display_step=step, lr=1e-3, save_checkpoint=lambda *_, **__: None)


def test_the_minimum_of_a_known_curve_is_kept_and_patience_ends_the_training():
    training = FakeTraining()
    one = watch(training, patience=4)
    with pytest.raises(StopTraining, match=r"at step 80: .* best at step 40 \(2\)"):
        steps(one, 1, 90)
    assert training.published == ["best.ckpt-10.pt", "best.ckpt-20.pt", "best.ckpt-40.pt"]
    assert training.last == 80  # an equal error (step 60) is not better


@pytest.mark.parametrize("interrupted", [10, 35, 55, 70])
def test_a_restart_goes_on_as_if_nothing_had_happened(tmp_path, interrupted):
    whole = FakeTraining()
    with pytest.raises(StopTraining):
        steps(watch(whole, patience=4), 1, 90)
    first = FakeTraining()
    steps(watch(first, patience=4), 1, interrupted)
    checkpoint = tmp_path / "model.ckpt.pt"
    state = {"_extra_state": {"model_params": {}, "train_infos": first.notes}}
    torch.save({"model": state}, checkpoint)
    second = FakeTraining(restarted=True)
    with pytest.raises(StopTraining):
        steps(watch(second, patience=4, restart=checkpoint), interrupted, 90)  # once more
    assert second.notes == whole.notes
    assert first.published + second.published == whole.published
    assert second.last == whole.last
    assert second.schedule.factor == whole.schedule.factor == 0.25  # plateaus at 60 and 80


def test_without_patience_it_goes_on():
    training = FakeTraining()
    steps(watch(training, patience=0), 1, 90)
    assert training.notes[NOTES]["step"] == 90


def test_rates_after_a_plateau():
    rate = MFTRate(
        1.0, 100, stop_lr=0.1, schedule={"type": "cosine"},
        plateau={"factor": 0.5, "patience": 2, "start": 40},
    )  # fmt: skip
    native = MFTRate(1.0, 40, stop_lr=0.1, schedule={"type": "cosine"})
    assert rate.value(20) == native.value(20)
    assert rate.value(40) == rate.value(99) == pytest.approx(0.1)
    assert rate.see_validation(39, 2) == 1.0  # the schedule has not ended
    assert rate.see_validation(40, 1) == 1.0
    assert rate.see_validation(50, 2) == 0.5
    assert rate.see_validation(60, 3) == 0.5
    assert rate.see_validation(70, 4) == 0.25
    assert rate.value(80) == pytest.approx(0.025)


def test_a_warm_up_is_part_of_the_schedule_before_plateaus():
    """Also one that is given as a share of the steps: the schedule ends where plateaus begin."""
    rates = [
        MFTRate(1.0, 100, stop_lr=0.1, schedule={"type": "cosine"}, plateau={"start": 40}, **warmup)
        for warmup in ({"warmup_ratio": 0.25}, {"warmup_steps": 10})
    ]
    for step in (5, 10, 20, 40, 99):
        assert rates[0].value(step) == rates[1].value(step)
    assert rates[0].value(40) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of twelve steps, and its restart from the sixth."""
    from tests.helpers.dp import Dp

    folder = tmp_path_factory.mktemp("watched")
    config = single_input()
    config["loss"]["validation"] = {"freq": 3, "patience": 50}
    config["learning_rate"] = {
        "type": "mft", "start_lr": 0.01, "stop_lr": 0.01, "schedule": {"type": "cosine"},
        "layer_decay": 0.5, "plateau": {"factor": 0.5, "patience": 1},
    }  # fmt: skip
    config["training"] |= {"numb_steps": 12, "save_freq": 6, "disp_freq": 1}
    dp = Dp(folder)
    dp.train(config)
    return dp


def test_a_training_keeps_its_best(run, capsys):
    table = pd.read_csv(run.folder / "validation.csv")
    assert table["step"].tolist() == [3, 6, 9, 12]
    record = json.loads((run.folder / "selection.json").read_text())
    best = int(table["step"][table["rmse"].idxmin()])
    assert record["best"] == f"best.ckpt-{best}.pt"
    assert (run.folder / "model.best.pt").resolve().name == record["best"]
    assert len(list(run.folder.glob("best.ckpt-*.pt"))) == 1
    # select sees the same numbers, and the best among its checkpoints
    assert main(["select", str(run.folder), "-q"]) == 0
    chosen = pd.read_csv(run.folder / "selection.csv").set_index("file")
    assert chosen.loc[record["best"], "rmse"] == pytest.approx(table["rmse"].min(), rel=1e-12)
    last = table.set_index("step").loc[12, "rmse"]
    assert chosen.loc["model.ckpt-12.pt", "rmse"] == pytest.approx(last, rel=1e-12)


def test_a_restart_has_the_state_and_the_rates(run):
    state = torch.load(run.folder / "model.ckpt-6.pt", weights_only=True)
    notes = state["model"]["_extra_state"]["train_infos"][NOTES]
    assert notes["step"] in (3, 6)
    log = run.train(
        json.loads((run.folder / "input.json").read_text()), "--restart", "model.ckpt-6.pt"
    )
    table = pd.read_csv(run.folder / "validation.csv")
    assert table["step"].tolist() == [3, 6, 9, 12]  # the steps that were given up are replaced
    lines = (run.folder / "lcurve.out").read_text().splitlines()
    column = lines[0].lstrip("# ").split().index("lr")
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert float(rows[-6][column]) == pytest.approx(0.01 * notes["factor"])
    assert notes["factor"] < 1 or notes["step"] == 6
    assert "Validation of the model on" in log


def test_a_restart_of_a_training_that_ended_early(tmp_path):
    """The best is still the best, and the look at the checkpoint's step counts once."""
    from tests.helpers.dp import Dp

    config = single_input()
    config["loss"]["validation"] = {"freq": 1, "patience": 1}
    config["learning_rate"] = {"type": "exp", "start_lr": 0.3, "stop_lr": 0.3}
    config["training"] |= {"numb_steps": 40, "save_freq": 50}
    dp = Dp(tmp_path)
    assert "Training ended early" in dp.train(config)
    before = pd.read_csv(tmp_path / "validation.csv").set_index("step")["rmse"]
    last = before.index[-1]
    log = dp.train(config, "--restart", f"model.ckpt-{last}.pt")
    assert "had ended early" in log
    table = pd.read_csv(tmp_path / "validation.csv").set_index("step")["rmse"]
    pd.testing.assert_series_equal(table.loc[:last], before)
    record = json.loads((tmp_path / "selection.json").read_text())
    assert record["best"] == f"best.ckpt-{table.idxmin()}.pt"
    assert table[record_step(record)] <= before.min()


def record_step(record):
    return int(record["best"].split("-")[1].split(".")[0])


def test_a_restart_after_select_keeps_the_best(run):
    """`select` writes its own record; the best checkpoint stays known by the one restarted."""
    for path in run.folder.glob("best.ckpt-*.pt"):
        path.unlink()
    state = torch.load(run.folder / "model.ckpt-6.pt", weights_only=True)
    step = state["model"]["_extra_state"]["train_infos"][NOTES]["step"]
    best = run.folder / f"best.ckpt-{step}.pt"
    best.write_bytes((run.folder / "model.ckpt-6.pt").read_bytes())
    assert main(["select", str(run.folder), "-q", "--overwrite"]) == 0
    config = json.loads((run.folder / "input.json").read_text())
    config["loss"]["validation"]["freq"] = 100  # one look, after the last step
    log = run.train(config, "--restart", "model.ckpt-6.pt")
    assert "not in the folder any more" not in log
    left = list(run.folder.glob("best.ckpt-*.pt"))
    assert len(left) == 1  # it, or the one that is better


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("validation.csv", "id,gap\na,1\n"),
        ("selection.json", '{"mine": 1}'),
        ("selection.json", "no"),
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    one = watch(FakeTraining(), patience=0)
    one.folder = tmp_path
    with pytest.raises(UserError, match=f"{name} was not written by dp-mft select or a training"):
        one._check_files()
    assert (tmp_path / name).read_text() == text


def test_all_processes_count_from_where_the_first_does():
    class Second(FakeTraining):
        is_chief = False

        def agree(self, value):
            return {**value, "best": 3.0, "step": 20} if isinstance(value, dict) else value

    assert watch(Second(), patience=1).notes["step"] == 20


BRANCH = {"name": "", "where": "the model", "data": {"validation_data": {"systems": ["valid"]}}}


@pytest.mark.parametrize(
    ("loss", "data", "rate", "message"),
    [
        ({}, {}, {"plateau": {"factor": 0.5}}, "learning_rate/plateau .* validation"),
        ({"validation": {"freq": 2}}, {"validation_data": None}, {}, "no validation_data/systems"),
    ],
)
def test_what_does_not_go_together(loss, data, rate, message):
    branch = SimpleNamespace(**{**BRANCH, "loss": loss, "data": {**BRANCH["data"], **data}})
    with pytest.raises(UserError, match=message):
        check_validation({"learning_rate": rate}, [branch])


def test_two_branches_cannot_both_have_the_best_checkpoint():
    two = [SimpleNamespace(**BRANCH, loss={"validation": {"freq": 2}}) for _ in range(2)]
    with pytest.raises(UserError, match="one branch only"):
        check_validation({"learning_rate": {}}, two)
