"""Small models with one of the package's heads, and frames for them."""

import copy

import numpy as np
import torch
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from deepmd.utils.argcheck import model_args

from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, PROPERTY_NET, TYPE_MAP


def build_property(model_type="mft", **net):
    fitting_net = {**PROPERTY_NET, **net}
    if model_type == "standard":
        fitting_net["type"] = "property"
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": fitting_net}
    model = get_model(copy.deepcopy({**params, "type": model_type}))
    return model.eval()


def frame(natoms=9, seed=0, periodic=False):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)[:natoms]
    coord = 1.4 * grid + 0.2 * rng.normal(size=(natoms, 3))
    atype = rng.integers(0, 5, size=natoms)
    box = torch.tensor(6.0 * np.eye(3)).reshape(1, 9) if periodic else None
    return torch.tensor(coord).reshape(1, -1), torch.tensor(atype).reshape(1, -1), box


def with_statistics(model, seed=5):
    rng = np.random.default_rng(seed)
    model.atomic_model.out_bias.copy_(torch.tensor(rng.normal(size=(1, 5, 1))))
    model.atomic_model.out_std.fill_(0.37)
    return model


NETS = {
    "spatial_extent": {"type": "mft_spatial_extent", "property_name": "r2"},
    "dipole_norm": {"type": "mft_dipole_norm", "property_name": "mu"},
    "two_classes": {"type": "mft_classification", "property_name": "is_metal"},
    "three_classes": {"type": "mft_classification", "property_name": "phase", "num_classes": 3},
    "two_properties": {
        "type": "mft_property",
        "property_name": ["homo", "alpha"],
        "task_dim": [1, 3],
        "intensive": [True, False],
    },
    "attention": {
        "type": "mft_property",
        "property_name": "gap",
        "intensive": True,
        "readout": "attention",
    },
    "variance": {
        "type": "mft_property",
        "property_name": "alpha",
        "task_dim": 2,
        "predict_variance": True,
    },
}


def build_head(net, descriptor=DESCRIPTOR):
    fitting_net = {"neuron": [12, 12], "seed": 1, **net}
    params = {"type": "mft", "type_map": TYPE_MAP, "descriptor": descriptor}
    return get_model(copy.deepcopy({**params, "fitting_net": fitting_net})).eval()


def save_checkpoint(path, **parts):
    """Write a checkpoint with random weights, as `dp --pt train` does."""
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET, **parts}
    params = model_args().normalize_value(copy.deepcopy(params), trim_pattern="_*")
    wrapper = ModelWrapper(get_model(copy.deepcopy(params)), model_params=params)
    torch.save({"model": wrapper.state_dict()}, path)
    return path


def structure_set(*atoms):
    structures = [
        Structure(a.numbers, a.positions, np.array(a.cell) if a.pbc.any() else None) for a in atoms
    ]
    return StructureSet.of("set", structures)
