"""One label for a group of frames: loss, batches, statistics, a run of `dp` to its errors."""

import collections

import numpy as np
import pandas as pd
import pytest
import torch
from deepmd.infer import DeepPot  # noqa: F401  (registers the evaluators)
from deepmd.infer.deep_property import DeepProperty
from deepmd.pt.utils.dataloader import DpLoaderSet

from deepmd_mft.bridge.groups import WholeGroups
from deepmd_mft.cli import main
from deepmd_mft.models.statistics import StatisticsData, fit_output_statistics
from deepmd_mft.structures.groups import number_groups
from deepmd_mft.training.losses import MFTPropertyLoss
from tests.helpers.dp import TYPE_MAP, single_input
from tests.helpers.labels import NFRAMES, gaps, write_npy
from tests.helpers.models import build_property, frame, with_statistics

#: Of five frames: 3 and 2 of two groups that lie across each other.
GROUPS = torch.tensor([7.0, 2.0, 7.0, 7.0, 2.0], dtype=torch.float64)[:, None]
ATOMS = (9, 9, 5, 7, 6)


@pytest.fixture
def padded():
    """Frames of unequal numbers of atoms, filled up with virtual ones; and they one by one."""
    frames = [frame(natoms, seed) for seed, natoms in enumerate(ATOMS)]
    coord, atype = torch.zeros(5, 27, dtype=torch.float64), torch.full((5, 9), -1)
    for number, (position, types, _) in enumerate(frames):
        coord[number, : position.shape[1]] = position[0]
        atype[number, : types.shape[1]] = types[0]
    return {"coord": coord, "atype": atype}, frames


@pytest.mark.parametrize("intensive", [True, False])
def test_the_loss_compares_the_mean_over_a_group(padded, intensive):
    inputs, frames = padded
    model = with_statistics(build_property(intensive=intensive))
    labels = torch.tensor([1.3, -0.4, 1.3, 1.3, -0.4], dtype=torch.float64)[:, None]
    label = {"gap": labels, "group": GROUPS, "find_group": 1.0}
    loss = MFTPropertyLoss("gap", loss_func="mse", metric=["mae", "rmse"])
    _, value, shown = loss(inputs, model, label, 9, learning_rate=1.0)
    each = np.array([float(model(x, t)["gap"].detach()) for x, t, _ in frames])
    atoms = np.array(ATOMS)
    errors = []
    for rows, target in (([0, 2, 3], 1.3), ([1, 4], -0.4)):
        size = 1.0 if intensive else atoms[rows].mean()
        errors.append((each[rows].mean() - target) / size)
    assert float(value.detach()) == pytest.approx(np.mean((np.array(errors) / 0.37) ** 2), rel=1e-9)
    assert float(shown["mae"]) == pytest.approx(np.abs(errors).mean(), rel=1e-9)


def test_frames_without_a_group_count_as_ever(padded):
    inputs, _ = padded
    model = with_statistics(build_property())
    loss = MFTPropertyLoss("gap", loss_func="mse")
    label = {"gap": torch.arange(5.0, dtype=torch.float64)[:, None]}
    none = torch.full((5, 1), torch.nan, dtype=torch.float64)
    plain = loss(inputs, model, label, 9, learning_rate=1.0)[1]
    same = loss(inputs, model, {**label, "group": none, "find_group": 0.0}, 9, learning_rate=1.0)[1]
    assert plain == same


def test_batches_hold_whole_groups_of_equal_number():
    sizes = [1, 2, 3, 4, 5, 3, 3]
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(7), sizes))
    sampler = WholeGroups(groups, batch_size=6)
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler) == 4
        assert sorted(row for batch in batches for row in batch) == list(range(21))
        drawn = [collections.Counter(groups[batch].tolist()) for batch in batches]
        assert [len(one) for one in drawn] == [2, 2, 2, 1]
        assert all(one[group] == sizes[group] for one in drawn for group in one)


def test_processes_of_a_distributed_training_share_the_groups():
    groups = np.repeat(np.arange(7), 2)
    samplers = [WholeGroups(groups, 4, rank, 2) for rank in range(2)]
    parts = [list(one) for one in samplers]
    assert [len(one) for one in parts] == [len(samplers[0])] * 2
    seen = [{*groups[[row for batch in part for row in batch]].tolist()} for part in parts]
    assert seen[0] | seen[1] == set(range(7))
    assert len(seen[0]) == len(seen[1]) == 4


def groups_of_frames():
    """Numbers of the groups of the embedded frames, some on their own, and a label for each."""
    numbers = np.random.default_rng(3).integers(0, 18, NFRAMES).astype(float)
    numbers[::13] = np.nan
    groups = number_groups(numbers)
    firsts = np.unique(groups, return_index=True)[1]
    return numbers[:, None], gaps()[firsts][groups], groups


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    numbers, labels, _ = groups_of_frames()
    folder = write_npy(tmp_path_factory.mktemp("grouped") / "split" / "id_test", labels)
    np.save(folder / "set.000" / "group.npy", numbers)
    return folder


def test_deepmd_kits_loader_draws_whole_groups(system):
    _, _, groups = groups_of_frames()
    loaders = DpLoaderSet([str(system)], 8, TYPE_MAP)
    assert loaders.index == [len(loaders.dataloaders[0])] == [loaders.total_batch]
    frames: list[int] = []
    for _ in range(loaders.index[0]):
        batch = loaders[0]["fid"]
        frames += batch
        for group in np.unique(groups[batch]):
            assert set(np.flatnonzero(groups == group)) <= set(batch)
    assert sorted(frames) == list(range(NFRAMES))


@pytest.mark.parametrize(("readout", "intensive"), [("mean", True), ("sum", False)])
def test_statistics_count_a_group_once(readout, intensive):
    rng = np.random.default_rng(0)
    groups = np.array([0, 1, 1, 1, 2, 2, 3, 4, 4, 5])
    counts = rng.integers(1, 6, (6, 3)).astype(float)  # conformers have the same atoms
    values = rng.normal(size=(6, 1))
    data = StatisticsData([values[groups]], counts[groups], counts[groups], groups)
    options = {"readout": readout, "bias": "element", "property_name": "gap"}
    found = fit_output_statistics(*data.of_groups(0, intensive=intensive), **options)
    expected = fit_output_statistics(values, counts, **options)
    np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-10)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-10)


@pytest.mark.parametrize("intensive", [True, False])
def test_what_a_bias_adds_to_a_group_of_unequal_sizes(intensive):
    """Whatever the bias: the row of a group times it is the mean of what the frames get."""
    counts = np.array([[2.0, 1.0], [4.0, 6.0], [1.0, 0.0]])
    data = StatisticsData([np.zeros((3, 1))], counts, counts, np.array([0, 0, 0]))
    _, rows, weights = data.of_groups(0, intensive=intensive)
    bias = np.array([0.3, -1.7])
    sizes = counts.sum(axis=1) if intensive else np.ones(3)
    expected = (counts @ bias / sizes).mean()
    got = weights @ bias / (rows.sum(axis=1) if intensive else 1.0)
    np.testing.assert_allclose(got, [expected], rtol=1e-12)


def test_a_run_from_training_to_its_errors(dp, system):
    _, labels, groups = groups_of_frames()
    ngroups = int(groups.max()) + 1
    config = single_input()
    for section in ("training_data", "validation_data"):
        config["training"][section] = {"systems": str(system), "batch_size": "auto:128"}
    log = dp.train(config)
    assert f"from {ngroups} labelled groups of {NFRAMES} frames of {ngroups}" in log
    dp("freeze", "-o", "frozen")
    assert main(["select", str(dp.folder)]) == 0
    out = dp.folder / "errors"
    model = dp.folder / "model.ckpt-6.pt"
    assert main(["evaluate", str(model), "--split", str(system.parent), "-o", str(out)]) == 0
    table = pd.read_csv(out / "predictions.csv")
    assert len(table) == ngroups

    coord, types = (np.load(system / "set.000" / f"{n}.npy") for n in ("coord", "real_atom_types"))
    evaluator = DeepProperty(str(dp.folder / "frozen.pth"))
    each = evaluator.eval(coord, None, types, mixed_type=True)[0][:, 0]
    pooled = np.array([each[groups == group].mean() for group in range(ngroups)])
    np.testing.assert_allclose(table["prediction"], pooled, rtol=1e-7)
    errors = pooled - np.array([labels[groups == group][0, 0] for group in range(ngroups)])
    rmse = np.sqrt(np.mean(errors**2))
    assert pd.read_csv(out / "metrics.csv")["rmse"][0] == pytest.approx(rmse, rel=1e-7)
    guess = dp.folder / "predictions.csv"
    assert main(["predict", str(model), "--on", str(system), "-o", str(guess)]) == 0
    np.testing.assert_allclose(pd.read_csv(guess)["gap"], pooled, rtol=1e-7)
    selected = pd.read_csv(dp.folder / "selection.csv").set_index("step")
    assert selected["rmse"][6] == pytest.approx(rmse, rel=1e-7)


def test_labels_that_differ_within_a_group_end_a_run(dp, tmp_path):
    numbers = groups_of_frames()[0]
    folder = write_npy(tmp_path / "system", gaps())
    np.save(folder / "set.000" / "group.npy", numbers)
    config = single_input()
    for section in ("training_data", "validation_data"):
        config["training"][section] = {"systems": str(folder), "batch_size": "auto:128"}
    log = dp.train(config, ok=False)
    assert "are of one group by group.npy, but their gap differs" in log
    assert "Traceback" not in log
