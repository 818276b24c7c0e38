"""A small descriptor of every family, as an input gives it."""

from __future__ import annotations

from typing import Any

from tests.helpers.dp import DESCRIPTOR, TYPE_MAP

DPA2: dict[str, Any] = {
    "type": "dpa2",
    "repinit": {"rcut": 4.0, "rcut_smth": 3.0, "nsel": 20, "neuron": [4, 8], "axis_neuron": 2},
    "repformer": {
        "rcut": 3.0, "rcut_smth": 2.0, "nsel": 10, "nlayers": 2, "g1_dim": 8, "g2_dim": 4,
        "attn2_hidden": 4, "attn2_nhead": 1, "attn1_hidden": 4, "attn1_nhead": 1, "axis_neuron": 2,
    },
    "concat_output_tebd": False,
}  # fmt: skip
DPA2_THREE_BODY: dict[str, Any] = {
    **DPA2,
    "repinit": {
        **DPA2["repinit"],
        "use_three_body": True,
        "three_body_rcut": 3.5,
        "three_body_rcut_smth": 3.0,
        "three_body_sel": 15,
        "three_body_neuron": [2, 4],
    },
}
DPA1: dict[str, Any] = {
    "type": "dpa1", "rcut": 4.0, "rcut_smth": 3.0, "sel": 30, "neuron": [4, 8], "axis_neuron": 2,
    "attn_layer": 1, "attn": 8,
}  # fmt: skip
DPA4: dict[str, Any] = {
    "type": "dpa4", "rcut": 4.0, "sel": 30, "channels": 8, "n_blocks": 2, "precision": "float64",
}  # fmt: skip
SE_E2_A: dict[str, Any] = {
    "type": "se_e2_a", "rcut": 4.0, "rcut_smth": 3.0, "sel": [10] * len(TYPE_MAP),
    "neuron": [4, 8], "axis_neuron": 2,
}  # fmt: skip
STATIC: dict[str, Any] = {
    **DESCRIPTOR,
    "repflow": {**DESCRIPTOR["repflow"], "use_dynamic_sel": False},
}
