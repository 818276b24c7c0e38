"""A tiny DPA-3 on the embedded QM9 molecules, and `dp` run as a user runs it."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import forked

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "qm9_gap" / "data"
TYPE_MAP = ["H", "C", "N", "O", "F"]

# Two processes that each start as many threads as there are cores slow each other several-fold.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "DP_INTRA_OP_PARALLELISM_THREADS": "1",
    "DP_INTER_OP_PARALLELISM_THREADS": "1",
    "DP_INTERFACE_PREC": "high",
    "NUM_WORKERS": "0",  # loader processes time out on a loaded machine
}
os.environ.update(ONE_THREAD)

DESCRIPTOR: dict[str, Any] = {
    "type": "dpa3",
    "repflow": {
        "n_dim": 12,
        "e_dim": 8,
        "a_dim": 4,
        "nlayers": 2,
        "e_rcut": 4.0,
        "e_rcut_smth": 3.0,
        "e_sel": 40,
        "a_rcut": 3.0,
        "a_rcut_smth": 2.0,
        "a_sel": 30,
        "axis_neuron": 4,
        "update_style": "res_residual",
        "update_residual": 0.1,
        "update_residual_init": "const",
        "smooth_edge_update": True,
        "use_dynamic_sel": True,
        "sel_reduce_factor": 1.0,
        "use_exp_switch": True,
        "a_compress_rate": 1,
        "a_compress_e_rate": 2,
        "a_compress_use_split": True,
    },
    "activation_function": "tanh",
    "precision": "float64",
    "use_tebd_bias": False,
    "concat_output_tebd": False,
    "seed": 1,
}
ENERGY_NET = {"type": "ener", "neuron": [12, 12], "seed": 1}
PROPERTY_NET = {
    "type": "mft_property",
    "property_name": "gap",
    "intensive": True,
    "neuron": [12, 12],
    "seed": 1,
}
FORCE_FIELD_LOSS = {
    "type": "mft_force_field",
    "start_pref_e": 0.2,
    "limit_pref_e": 20,
    "start_pref_f": 100,
    "limit_pref_f": 60,
    "start_pref_v": 0,
    "limit_pref_v": 0,
}
PROPERTY_LOSS = {"type": "mft_property", "property_name": "gap", "loss_func": "mse"}
LEARNING_RATE = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 5}
TRAINING = {"numb_steps": 6, "disp_freq": 2, "save_freq": 3, "seed": 1}


def data_part(train: str, valid: str, batch_size: str = "auto:64") -> dict[str, Any]:
    return {
        "training_data": {"systems": str(DATA / train), "batch_size": batch_size},
        "validation_data": {"systems": str(DATA / valid), "batch_size": batch_size},
    }


def pretrain_input() -> dict[str, Any]:
    loss = {k: v for k, v in FORCE_FIELD_LOSS.items() if k != "type"}
    return copy.deepcopy(
        {
            "model": {
                "shared_dict": {"type_map_all": TYPE_MAP, "dpa3_descriptor": DESCRIPTOR},
                "model_dict": {
                    "GFN2": {
                        "type_map": "type_map_all",
                        "descriptor": "dpa3_descriptor",
                        "fitting_net": ENERGY_NET,
                    }
                },
            },
            "learning_rate": LEARNING_RATE,
            "loss_dict": {"GFN2": {**loss, "type": "ener"}},
            "training": {
                **TRAINING,
                "model_prob": {"GFN2": 1.0},
                "data_dict": {"GFN2": data_part("aux_train", "aux_valid")},
            },
        }
    )


def mft_input() -> dict[str, Any]:
    config = pretrain_input()
    branches = config["model"]["model_dict"]
    branches["GFN2"]["finetune_head"] = "GFN2"
    branches["property"] = {
        "type": "mft",
        "type_map": "type_map_all",
        "descriptor": "dpa3_descriptor",
        "fitting_net": dict(PROPERTY_NET),
        "finetune_head": "RANDOM",
    }
    config["loss_dict"] = {"GFN2": dict(FORCE_FIELD_LOSS), "property": dict(PROPERTY_LOSS)}
    training = config["training"]
    training["model_prob"] = {"GFN2": 0.5, "property": 0.5}
    training["data_dict"]["property"] = data_part("train", "valid")
    return config


def single_input() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "model": {
                "type": "mft",
                "type_map": TYPE_MAP,
                "descriptor": DESCRIPTOR,
                "fitting_net": PROPERTY_NET,
            },
            "learning_rate": LEARNING_RATE,
            "loss": PROPERTY_LOSS,
            "training": {**TRAINING, **data_part("train", "valid")},
        }
    )


@dataclass
class Dp:
    """Runs `dp --pt` in a folder."""

    folder: Path

    def __call__(self, *args: str, ok: bool = True) -> str:
        """Run a command; return what it printed, after checking its status."""
        status, output = forked.run(("--pt", *args), self.folder, {**os.environ, **ONE_THREAD})
        assert (status == 0) == ok, f"dp {' '.join(args)}: {status}\n{output}"
        return output

    def train(self, config: dict[str, Any], *args: str, ok: bool = True) -> str:
        (self.folder / "input.json").write_text(json.dumps(config, indent=1))
        return self("train", "input.json", "--skip-neighbor-stat", *args, ok=ok)
