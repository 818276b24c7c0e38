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
from deepmd.utils.data import DeepmdData

from deepmd_mft.bridge import reading
from deepmd_mft.bridge.reading import label_or_nan
from deepmd_mft.bridge.training import all_batches, change_models
from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTPropertyLoss
from tests.helpers.deepmd_data import LAYOUTS, write_layout
from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, TYPE_MAP
from tests.helpers.labels import gaps, write_lmdb, write_npy
from tests.helpers.models import NETS, build_head, build_property
from tests.helpers.systems import as_hdf5


def get_loss(model, **loss_params):
    return training.get_loss(loss_params, 1e-3, 5, model)


def requirement(loss):
    """Columns of the labels that a loss asks for; it also asks for their groups."""
    asked = {item["key"]: item["ndof"] for item in loss.label_requirement}
    assert asked.pop("group") == 1
    return asked


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


def test_some_frames_are_drawn_of_each_system(data):
    """For predictions, which cost more than reading."""
    packed = sample(data)

    def drawn(most):
        found = [batch["gap"].numpy() for batch in all_batches(packed, most=most)]
        return np.concatenate(found)[:, 0]

    some, every = drawn(20), drawn(10**6)
    assert 20 <= len(some) <= 20 + len(packed.loaders), "each system rounds up"
    assert len(every) >= len(gaps())
    left = every[np.isfinite(every)].tolist()
    for value in some[np.isfinite(some)].tolist():
        left.remove(value)  # raises if a frame comes twice
    assert not np.array_equal(some, every[: len(some)], equal_nan=True), "not only the first ones"
    np.testing.assert_array_equal(some, drawn(20))


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
    assert list(all_batches([{"gap": 1}])) == [{"gap": 1, "sid": 0}]


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


# --- sets read as wholes ------------------------------------------------------------------------

#: The types of the data, in another order and among others.
OTHER_TYPE_MAP = ["O", "N", "H", "C"]


def layout_batches(folder, kind, arrays, *, type_map, **options):
    systems = sorted({path.parent for path in folder.rglob("set.*")}, key=str)
    if kind == "linked systems":  # rglob follows no links
        systems = [folder / "a", folder / "b"]
    data = DpLoaderSet(list(map(str, systems)), 2, type_map)
    data.add_data_requirement(
        MFTPropertyLoss(["pair", "gap"], task_dim=[2, 1], missing_labels="mask").label_requirement
    )
    with torch.device("cpu"):
        packed = training.make_stat_input(data.systems, data.dataloaders, 1, **options)
    return list(all_batches(packed, arrays))


def frames_of(batches, ntypes):
    """Return labels, numbers of types, types and coordinates of every frame in turn."""
    rows = []
    for batch in batches:
        counts = batch.get("real_natoms_vec", batch["natoms"])
        assert counts.shape[1] <= 2 + ntypes
        labels = [label_or_nan(batch, name) for name in ("pair", "gap")]
        arrays = [*labels, counts, batch["atype"], batch["coord"].flatten(1)]
        rows.extend(zip(*(array.numpy() for array in arrays), strict=True))
    return rows


@pytest.mark.parametrize("block", [3, 8192])
@pytest.mark.parametrize("type_map", [["H", "C", "O"], OTHER_TYPE_MAP])
@pytest.mark.parametrize("kind", [one for one in LAYOUTS if not one.startswith("lmdb")])
def test_sets_read_as_wholes_equal_frames(tmp_path, monkeypatch, kind, type_map, block):
    frames = write_layout(kind, tmp_path / "data")
    monkeypatch.setattr(reading, "BLOCK", block)
    arrays = ["pair", "gap", "coord"]
    one_by_one = frames_of(layout_batches(tmp_path / "data", kind, None, type_map=type_map), 4)
    batches = layout_batches(tmp_path / "data", kind, arrays, type_map=type_map)
    nsets = 2 if kind == "linked systems" else len([*(tmp_path / "data").rglob("coord.npy")])
    assert block == 3 or len(batches) == nsets, "read frame by frame"
    wholes = frames_of(batches, 4)
    assert len(wholes) == len(one_by_one) == len(frames)
    for whole, single, frame in zip(wholes, one_by_one, frames, strict=True):
        for one, other in zip(whole, single, strict=True):
            assert one.dtype == other.dtype or one.dtype.kind == "i"
            np.testing.assert_array_equal(one, other)
        for name, found in zip(("pair", "gap"), whole, strict=False):
            by_hand = frame.labels[name]
            np.testing.assert_array_equal(
                found, np.full(found.shape, np.nan) if by_hand is None else by_hand
            )


@pytest.mark.parametrize("arrays", [["gap"], ["gap", "not_loaded"]])
@pytest.mark.parametrize("closest", [0.0, 0.5])
def test_frames_are_read_one_by_one_where_a_set_does_not_say_enough(tmp_path, arrays, closest):
    """Frames too close to train on are found frame by frame; an array was not asked for."""
    write_layout("npy", tmp_path / "data")
    options = {"type_map": ["H", "C", "O"], "min_pair_dist": closest}
    batches = layout_batches(tmp_path / "data", "npy", arrays, **options)
    assert len(batches) == (1 if closest == 0 and arrays == ["gap"] else 3)


def test_a_set_read_as_a_whole_names_types_that_the_system_does_not_list(tmp_path):
    write_layout("mixed", tmp_path / "data")
    system = DeepmdData(str(tmp_path / "data"), type_map=OTHER_TYPE_MAP)
    types = tmp_path / "data" / "set.000" / "real_atom_types.npy"
    np.save(types, np.where(np.load(types) == 2, 7, np.load(types)))
    with pytest.raises(IndexError, match=r"set\.000 are not contained in 4 types"):
        list(reading.read_sets(system, []))


@pytest.mark.parametrize("kind", ["mixed with padding", "label missing in a set"])
def test_sets_of_an_hdf5_file_are_read_as_wholes(tmp_path, kind):
    write_layout(kind, tmp_path / "data")
    name = as_hdf5(tmp_path / "data", tmp_path / "data.hdf5")
    found = []
    for system in (str(tmp_path / "data"), name):
        data = DeepmdData(system, type_map=OTHER_TYPE_MAP)
        data.add("pair", 2, high_prec=True, default=np.nan)
        data.add("gap", 1, high_prec=True, default=np.nan)
        assert reading.can_read_sets(data, ["pair", "gap", "coord"])
        found.append(frames_of(reading.read_sets(data, ["pair", "gap", "coord"]), 4))
    assert len(found[0]) == 5
    for folder, file in zip(*found, strict=True):
        for one, other in zip(folder, file, strict=True):
            np.testing.assert_array_equal(one, other)
