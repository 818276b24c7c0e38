"""What is wrapped in deepmd-kit's trainer: get_loss, and the sampling of data for statistics."""

import copy
import inspect

import numpy as np
import pytest
import torch
from deepmd.pt.entrypoints import main as entrypoints
from deepmd.pt.train import training
from deepmd.pt.utils.dataloader import DpLoaderSet
from deepmd.pt.utils.lmdb_dataset import LmdbDataset

from deepmd_mft.bridge.training import all_batches, change_models
from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTPropertyLoss
from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, TYPE_MAP
from tests.helpers.labels import gaps, write_lmdb, write_npy
from tests.helpers.models import NETS, build_head, build_property


def get_loss(model, **loss_params):
    return training.get_loss(loss_params, 1e-3, 5, model)


def requirement(loss):
    return {item["key"]: item["ndof"] for item in loss.label_requirement}


def test_the_trainer_gives_get_loss_the_model():
    assert training.get_loss.__wrapped__ is not None
    source = inspect.getsource(training.Trainer.__init__)
    assert source.count("= get_loss(") == 2
    assert "loss_param, lr_param, ntypes, self.model[model_key]" in source


@pytest.mark.parametrize("left_out", [{}, {"property_name": None, "task_dim": None}])
def test_a_property_loss_takes_names_and_dimensions_of_the_head(left_out):
    loss = get_loss(build_head(NETS["two_properties"]), type="mft_property", **left_out)
    assert requirement(loss) == {"homo": 1, "alpha": 3}
    assert loss.starter_learning_rate == 1e-3


def test_dimensions_follow_the_order_of_the_loss():
    model = build_head(NETS["two_properties"])
    loss = get_loss(model, type="mft_property", property_name=["alpha", "homo"], weight=[2.0, 1.0])
    assert requirement(loss) == {"alpha": 3, "homo": 1}


def test_a_classification_loss_takes_name_and_classes_of_the_head():
    loss = get_loss(build_head(NETS["three_classes"]), type="mft_classification", num_classes=None)
    assert requirement(loss) == {"phase": 1}
    assert loss.num_classes == 3


def test_what_is_given_stands():
    loss = get_loss(build_property(), type="mft_property", property_name="homo", task_dim=2)
    assert requirement(loss) == {"homo": 2}


def test_a_native_head_is_refused():
    with pytest.raises(UserError, match="belongs to a model of type mft"):
        get_loss(build_property("standard"), type="mft_property")


def test_deepmds_own_losses_are_as_before():
    loss = get_loss(build_property("standard"), type="property", loss_func="mse")
    assert (loss.var_name, loss.task_dim, loss.intensive) == ("gap", 1, True)
    assert get_loss(build_property("standard"), inference=True).has_e


@pytest.mark.parametrize(
    ("name", "labels"),
    [("two_properties", {"homo": 1, "alpha": 3}), ("three_classes", {"phase": 1})],
)
def test_change_bias_loads_the_labels_of_the_head(name, labels):
    """It asks get_loss for a loss without a type."""
    assert requirement(get_loss(build_head(NETS[name]), inference=True)) == labels
    assert '{"inference": True}' in inspect.getsource(entrypoints.change_bias)


# --- statistics ---------------------------------------------------------------------------------


def sample(data, nbatches=1, **options):
    data.add_data_requirement(MFTPropertyLoss("gap", missing_labels="mask").label_requirement)
    with torch.device("cpu"):
        return training.make_stat_input(data.systems, data.dataloaders, nbatches, **options)


@pytest.fixture(params=["npy", "lmdb"])
def data(request, tmp_path):
    """Two systems as npy, or one LMDB, with the labels of each frame once."""
    if request.param == "lmdb":
        return LmdbDataset(str(write_lmdb(tmp_path / "all.lmdb", list(gaps()))), TYPE_MAP, 4)
    half = len(gaps()) // 2
    nothing = np.full((half, 1), np.nan)
    parts = (np.vstack([gaps()[:half], nothing]), np.vstack([nothing, gaps()[half:]]))
    systems = [write_npy(tmp_path / str(i), part) for i, part in enumerate(parts)]
    return DpLoaderSet([str(path) for path in systems], 4, TYPE_MAP)


def test_statistics_see_every_frame_once(data):
    packed = sample(data)
    assert sum(len(system["gap"]) for system in packed) < len(gaps())
    state = torch.get_rng_state()
    batches = list(all_batches(packed))
    assert torch.equal(torch.get_rng_state(), state), "the training's data order must not change"
    labels = np.concatenate([batch["gap"].numpy() for batch in batches])
    np.testing.assert_array_equal(np.sort(labels[np.isfinite(labels)]), np.sort(gaps()[:, 0]))
    assert max(len(batch["gap"]) for batch in batches) <= 4


def test_frames_that_are_not_trained_on_do_not_count(tmp_path):
    """min_pair_dist of the training data."""
    data = DpLoaderSet([str(write_npy(tmp_path / "set", gaps()))], 4, TYPE_MAP)
    data.add_data_requirement(
        [training.DataRequirementItem("min_pair_dist", 1, default=1.05, source_policy="derived")]
    )
    everything = sum(len(batch["gap"]) for batch in all_batches(sample(data)))
    kept = list(all_batches(sample(data, min_pair_dist=1.05)))
    assert 0 < sum(len(batch["gap"]) for batch in kept) < everything
    assert all((batch["min_pair_dist"] >= 1.05).all() for batch in kept)


def test_a_sample_packed_elsewhere_is_taken_as_it_is():
    assert list(all_batches([{"gap": 1}])) == [{"gap": 1}]


def test_models_are_changed_before_they_share_and_load(monkeypatch):
    source = inspect.getsource(training.Trainer.__init__)
    built, shared = "self.model = get_model_for_wrapper(", "self.wrapper.share_params("
    assert 0 < source.index(built) < source.index(shared)
    monkeypatch.setattr(training, "get_model_for_wrapper", training.get_model_for_wrapper)
    seen = []
    change_models(seen.extend)
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET}
    one = training.get_model_for_wrapper(copy.deepcopy(params))
    two = training.get_model_for_wrapper({"model_dict": {"a": copy.deepcopy(params)}})
    assert seen == [one, two["a"]]
