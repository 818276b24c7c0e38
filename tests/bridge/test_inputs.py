"""Fails when deepmd-kit moves what deepmd_mft.bridge.inputs and .reading rely on."""

import inspect

import numpy as np
import pytest
from deepmd.pt.train import training
from deepmd.pt.utils.dataloader import DpLoaderSet
from deepmd.pt.utils.lmdb_dataset import LmdbDataset
from deepmd.utils.finetune import get_finetune_rules_from_model_params

from deepmd_mft.bridge import inputs as bridge
from deepmd_mft.bridge import reading
from tests.helpers.dp import TYPE_MAP, mft_input, pretrain_input, single_input
from tests.helpers.systems import record, write_lmdb, write_system


def test_what_the_trainer_calls():
    source = inspect.getsource(training.Trainer)
    assert "resolve_step_schedule(" in source
    assert "BaseLR(**lr_params)" in source
    assert "compute_total_numb_batch(" in source
    assert list(inspect.signature(training.get_loss).parameters)[:2] == ["loss_params", "start_lr"]
    assert "get_sampler_from_params(" in inspect.getsource(training)
    names = inspect.signature(DpLoaderSet).parameters
    assert list(names)[:3] == ["systems", "batch_size", "type_map"]
    names = inspect.signature(LmdbDataset).parameters
    assert list(names)[:4] == ["lmdb_path", "type_map", "batch_size", "auto_prob_style"]
    names = inspect.signature(get_finetune_rules_from_model_params).parameters
    assert {"model_branch", "change_model_params"} <= set(names)


def test_an_input_is_normalised_as_a_whole():
    written = mft_input()
    full = bridge.normalise(written)
    assert written == mft_input()  # not changed
    assert full["model"]["model_dict"]["GFN2"]["type_map"] == TYPE_MAP
    assert full["loss_dict"]["GFN2"]["huber_delta"] is not None
    assert full["training"]["data_dict"]["property"]["training_data"]["auto_prob"]


def test_batches_are_those_that_the_loader_gives(tmp_path):
    """The mean over an epoch of deepmd-kit's own loaders."""
    systems = [
        str(write_system(tmp_path / name, symbols=" ".join(["C"] * n), nframes=frames))
        for name, n, frames in (("a", 4, 10), ("b", 9, 5))
    ]
    data = bridge.TrainingData({"batch_size": "auto:12"}, systems, ["C"])
    sizes = [len(batch["coord"]) for one in data.data.dataloaders for batch in one]
    assert sorted(sizes) == [1, 1, 2, 2, 3, 3, 3]
    assert data.epoch() == len(sizes)
    assert data.batches().frames == pytest.approx(np.mean(sizes))


def test_batches_of_an_lmdb_are_those_of_its_sampler(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", [record(n) for n in (3, 3, 3, 6, 6)])
    data = bridge.TrainingData({"batch_size": "auto:6"}, [str(path)], TYPE_MAP)
    sizes = [len(batch) for batch in data.data._batch_sampler]
    data.close()
    assert data.epoch() == len(sizes)
    assert data.batches().frames == pytest.approx(np.mean(sizes))
    assert len(list(reading.lmdb_frames(str(path)))) == 5  # it is closed


def test_records_have_the_names_of_npy_files(tmp_path):
    forces = np.arange(9.0).reshape(3, 3)
    written = record(3, energies=np.array(-1.5), forces=forces, gap=0.3)
    path = str(write_lmdb(tmp_path / "a.lmdb", [written]))
    (found,) = reading.lmdb_frames(path)
    assert {"coord", "atype", "energy", "force", "gap"} <= found.keys()
    np.testing.assert_array_equal(found["force"], forces)
    assert reading.lmdb_type_map(path) == TYPE_MAP


@pytest.mark.parametrize(
    ("loss", "keys"),
    [
        ({}, ["energy", "force"]),
        ({"start_pref_v": 1.0, "limit_pref_v": 1.0}, ["energy", "force", "virial"]),
    ],
)
@pytest.mark.parametrize("kind", ["ener", "mft_force_field"])
def test_labels_of_an_energy_loss(kind, loss, keys):
    config = pretrain_input()
    config["loss_dict"]["GFN2"] = {"type": kind, **loss}
    full = bridge.normalise(config)["loss_dict"]["GFN2"]
    assert [item.key for item in bridge.label_requirement(full)] == keys


def test_pretrained_model():
    """`--use-pretrain-script` takes the descriptor of the checkpoint, or the whole model."""
    pretrained = bridge.normalise(pretrain_input())["model"]
    config = single_input()
    config["model"] = {"type": "mft", "type_map": TYPE_MAP, "fitting_net": {"trainable": False}}
    taken = bridge.take_pretrained_model(config, pretrained, "", finetune=True)["model"]
    assert taken["descriptor"] == pretrained["model_dict"]["GFN2"]["descriptor"]
    assert bridge.take_pretrained_model(config, pretrained, "", finetune=False)["model"] == (
        pretrained
    )
