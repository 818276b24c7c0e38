"""Write every input template from one table; nothing in this folder is edited by hand.

    python input_templates/make_templates.py            # write the files
    python input_templates/make_templates.py --check    # say which ones differ, write nothing

Paths in the templates are relative to the folder in which `dp` runs: training data in `data/`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb "
    "Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm "
    "Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
).split()

STRATEGIES = ("scratch", "ft", "lp", "mft")
#: Of a target with cheap labels of many molecules beside it, in place of a force field.
MFT_CHEAP = "mft_cheap"


@dataclass(frozen=True)
class Target:
    """A property: how its head and loss are set (MFT, Tables 6 to 8 and section D.2)."""

    folder: str
    head: dict[str, Any]
    loss: dict[str, Any]
    auxiliary: str = "SPICE2"  # the branch of DPA-3.1-3M that MFT keeps
    virial: tuple[float, float] = (0.0, 0.0)  # start and limit of its prefactor
    steps: int = 100_000
    mft_steps: int = 100_000


def molecule(name: str, **head: Any) -> Target:
    """Return a QM9 target: mean squared error, SPICE2 beside it."""
    head = {"type": "mft_property", "property_name": name, **head}
    return Target(f"qm9/{name}", head, {"type": "mft_property", "loss_func": "mse"})


def crystal(folder: str, name: str, **head: Any) -> Target:
    """Return a MatBench target: smooth MAE, OMat24 beside it."""
    head = {"type": "mft_property", "property_name": name, **head}
    loss = {"type": "mft_property", "loss_func": "smooth_mae"}
    if head["type"] == "mft_classification":
        loss = {"type": "mft_classification", "num_classes": head["num_classes"]}
    return Target(f"matbench/{folder}", head, loss, "Omat24", virial=(0.02, 1.0), mft_steps=200_000)


MEAN = {"task_dim": 1, "intensive": True, "bias": "element"}
SUM = {"task_dim": 1, "intensive": False, "bias": "element"}
QM9_GAP = molecule("gap", **MEAN)  # the four files beside this one
TARGETS = (
    molecule("homo", **MEAN),
    molecule("lumo", **MEAN),
    molecule("alpha", **SUM),
    molecule("cv", **SUM),
    molecule("zpve", **SUM),
    molecule("r2", type="mft_spatial_extent", bias="element"),
    molecule("mu", type="mft_dipole_norm"),
    # no p(Z), since test elements may be absent from training: one mean for all
    crystal("dielectric", "n", **{**MEAN, "bias": "mean"}),
    crystal("log_gvrh", "log_gvrh", **MEAN),
    crystal("perovskites", "e_form", **MEAN),
    crystal("jdft2d", "exfoliation_en", **MEAN),
    crystal("phonons", "phdos_peak", task_dim=1, intensive=True, readout="max"),
    crystal("mp_is_metal", "is_metal", type="mft_classification", num_classes=2),
)
#: Structures of JMP's data sets (arXiv 2310.16802, Table 1), and of small ones.
JMP_DATA = {
    "OC20": 100_000_000,
    "OC22": 8_000_000,
    "ANI-1x": 2_000_000,
    "Transition-1x": 10_000_000,
}
SMALL_JMP_DATA = {"QM7-X": 2_250, "SPICE": 605, "MPtrj": 900, "MPF-TP": 962}
#: Templates of a small network for crystals: a number, and a class.
SMALL_CRYSTALS = {"crystals": "matbench/dielectric", "classes": "matbench/mp_is_metal"}


@dataclass(frozen=True)
class Size:
    """A network, its pretraining and its training: published or for a laptop."""

    folder: str
    type_map: list[str]
    descriptor: dict[str, Any]
    energy_net: dict[str, Any]
    property_net: dict[str, Any]
    learning_rate: dict[str, Any]
    force_field_loss: dict[str, Any]
    property_loss: dict[str, Any]
    training: dict[str, Any]
    property_batch: int | str
    force_field_batch: int | str
    validation: dict[str, Any]
    head: str | None = None  # the pretrained force-field branch; None: the target's
    model_prob: float = 0.5  # of the property branch
    cheap_prob: float = 0.2  # of the property branch beside cheap labels
    steps: int | None = None  # of the property; None: the target's
    dim_case_embd: int = 0


def published() -> Size:
    """DPA-3.1-3M as in Table 8 of the MFT paper and its published inputs."""
    net = {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1}
    return Size(
        folder=".",
        type_map=ELEMENTS,
        descriptor={
            "type": "dpa3",
            "repflow": {
                "n_dim": 128,
                "e_dim": 64,
                "a_dim": 32,
                "nlayers": 16,
                "e_rcut": 6.0,
                "e_rcut_smth": 5.3,
                "e_sel": 1200,
                "a_rcut": 4.0,
                "a_rcut_smth": 3.5,
                "a_sel": 300,
                "axis_neuron": 4,
                "fix_stat_std": 0.3,
                "a_compress_rate": 1,
                "a_compress_e_rate": 2,
                "a_compress_use_split": True,
                "update_angle": True,
                "smooth_edge_update": True,
                "use_dynamic_sel": True,
                "sel_reduce_factor": 10.0,
                "use_exp_switch": True,
                "update_style": "res_residual",
                "update_residual": 0.1,
                "update_residual_init": "const",
            },
            "activation_function": "silut:3.0",
            "precision": "float32",
            "use_tebd_bias": False,
            "concat_output_tebd": False,
        },
        energy_net={**net, "activation_function": "silut:3.0", "precision": "float32"},
        property_net={**net, "activation_function": "tanh"},
        learning_rate={"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1000},
        force_field_loss={
            "start_pref_e": 0.2,
            "limit_pref_e": 20,
            "start_pref_f": 100,
            "limit_pref_f": 60,
        },
        # deepmd-kit's property loss, with which the paper was made, sums over the batch
        property_loss={"reduction": "sum", "metric": ["mae", "rmse"]},
        training={
            "gradient_max_norm": 5.0,
            "max_ckpt_keep": 1000000,
            "seed": 10,
            "disp_file": "lcurve.out",
            "disp_freq": 200,
            "save_freq": 200,
        },
        property_batch="auto:512",
        force_field_batch="auto:128",
        validation={"batch_size": 1},
        dim_case_embd=31,
    )


def laptop() -> Size:
    """Return the network of small/pretrain.json; its checkpoint: examples/qm9_gap/pretrained.

    How the regime was chosen, on validation data: examples/qm9_gap/README.md.
    """
    pretrain = json.loads((HERE / "small" / "pretrain.json").read_text())
    (head,) = pretrain["model"]["model_dict"]
    shared = pretrain["model"]["shared_dict"]
    return Size(
        folder="small",
        type_map=shared["type_map_all"],
        descriptor=shared["dpa3_descriptor"],
        energy_net=pretrain["model"]["model_dict"][head]["fitting_net"],
        property_net={
            "neuron": [120, 120, 120],
            "resnet_dt": True,
            "activation_function": "tanh",
            "precision": "float32",
            "seed": 1,
        },
        learning_rate={"type": "cosine", "start_lr": 1e-3, "stop_lr": 1e-5, "warmup_steps": 50},
        force_field_loss={
            "start_pref_e": 100,
            "limit_pref_e": 100,
            "start_pref_f": 60,
            "limit_pref_f": 60,
        },
        property_loss={"loss_func": "smooth_mae", "reduction": "sum", "metric": ["mae", "rmse"]},
        training={
            "gradient_max_norm": 5.0,
            "seed": 1,
            "disp_file": "lcurve.out",
            "disp_freq": 100,
            "save_freq": 500,
        },
        property_batch=16,
        force_field_batch="auto:128",
        validation={"batch_size": 50, "numb_btch": 2},
        head=head,
        steps=1000,
    )


def laptop_crystals() -> Size:
    """Return a small network for crystals of any elements.

    As in benchmarks/heads.py: the laptop's network with the neighbours that crystals have.
    """
    small = laptop()
    flow = {"n_dim": 64, "nlayers": 3, "e_sel": 200, "a_rcut": 3.2, "a_rcut_smth": 2.4, "a_sel": 40}
    repflow = {**small.descriptor["repflow"], **flow, "sel_reduce_factor": 10.0}
    return replace(
        small,
        type_map=ELEMENTS,
        descriptor={**small.descriptor, "repflow": repflow},
        property_batch="auto:64",
        steps=1500,
        validation={"batch_size": "auto:64", "numb_btch": 2},
    )


def build(target: Target, size: Size, strategy: str) -> dict[str, Any]:
    """Return the input of one target, network and strategy.

    Parameters
    ----------
    target : Target
    size : Size
    strategy : {"scratch", "ft", "lp", "mft", "mft_cheap"}

    Returns
    -------
    dict
        For ``scratch`` run ``dp --pt train``, for the others with ``--finetune``.
    """
    name = target.head["property_name"]
    dims = {"dim_case_embd": size.dim_case_embd} if strategy == "mft" and size.dim_case_embd else {}
    property_net = {**target.head, **size.property_net, **dims}
    property_loss = {"type": target.loss["type"], "property_name": name, **target.loss}
    if target.loss["type"] == "mft_property":
        property_loss |= size.property_loss
    force_field_loss = {"type": "mft_force_field", "lambda_reg": 1.0, **size.force_field_loss}
    force_field_loss |= dict(zip(("start_pref_v", "limit_pref_v"), target.virial, strict=True))
    property_data = data_part("train", "valid", size.property_batch, size.validation)
    common = {"learning_rate": size.learning_rate}
    if strategy not in ("mft", MFT_CHEAP):
        descriptor = {**size.descriptor, **({"trainable": False} if strategy == "lp" else {})}
        model = {
            "type": "mft",
            "type_map": size.type_map,
            "descriptor": descriptor,
            "fitting_net": property_net,
        }
        if strategy != "scratch":
            model["finetune_head"] = "RANDOM"
        steps = {"numb_steps": size.steps or target.steps}
        training = {**property_data, **steps, **size.training}
        config = {"model": model, **common, "loss": property_loss, "training": training}
        return copy.deepcopy(config)
    property_model = {
        "type": "mft",
        "type_map": "type_map_all",
        "descriptor": "dpa3_descriptor",
        "fitting_net": property_net,
        "finetune_head": "RANDOM",
    }
    if strategy == MFT_CHEAP:
        head, share = "cheap", size.cheap_prob
        auxiliary_batch = size.property_batch
        auxiliary_model, auxiliary_loss = property_model, property_loss
        property_model = {**property_model, "info": {"main": True}}
    else:
        head, share = size.head or target.auxiliary, size.model_prob
        auxiliary_batch = size.force_field_batch
        auxiliary_model = {
            "type_map": "type_map_all",
            "descriptor": "dpa3_descriptor",
            "fitting_net": {"type": "ener", **size.energy_net, **dims},
            "finetune_head": head,
        }
        auxiliary_loss = force_field_loss
    auxiliary_data = data_part("aux_train", "aux_valid", auxiliary_batch, size.validation)
    steps = round(size.steps / share) if size.steps else target.mft_steps
    return copy.deepcopy(
        {
            "model": {
                "shared_dict": {"type_map_all": size.type_map, "dpa3_descriptor": size.descriptor},
                "model_dict": {head: auxiliary_model, "property": property_model},
            },
            **common,
            "loss_dict": {head: auxiliary_loss, "property": property_loss},
            "training": {
                "model_prob": {head: 1 - share, "property": share},
                "data_dict": {head: auxiliary_data, "property": property_data},
                "numb_steps": steps,
                **size.training,
            },
        }
    )


def data_part(
    train: str, valid: str, batch_size: int | str, validation: dict[str, Any]
) -> dict[str, Any]:
    """Return the training and validation data of one branch."""
    return {
        "training_data": {"systems": f"data/{train}", "batch_size": batch_size},
        "validation_data": {"systems": f"data/{valid}", **validation},
    }


def templates() -> dict[Path, str]:
    """Return the text of every template by its path below this folder."""
    texts = {}
    for name, folder in SMALL_CRYSTALS.items():
        target = next(one for one in TARGETS if one.folder == folder)
        for strategy in ("scratch", "ft"):
            config = build(target, laptop_crystals(), strategy)
            texts[Path("small") / f"{name}_{strategy}.json"] = json_text(config)
    for strategy in STRATEGIES:
        name = f"input_{strategy}.json"
        texts[Path(name)] = json_text(build(QM9_GAP, published(), strategy))
        texts[Path("small") / name] = json_text(build(QM9_GAP, laptop(), strategy))
        for target in TARGETS:
            texts[Path(target.folder) / name] = json_text(build(target, published(), strategy))
    texts[Path("small") / f"input_{MFT_CHEAP}.json"] = json_text(
        build(QM9_GAP, laptop(), MFT_CHEAP)
    )
    texts[Path("jmp_pretrain.json")] = json_text(joint(published(), JMP_DATA, 2_000_000, 3e-4))
    texts[Path("jmp_finetune.json")] = json_text(joint_finetuning(published(), QM9_GAP, 100_000))
    texts[Path("small") / "jmp_pretrain.json"] = json_text(
        joint(wide_angles(laptop_crystals()), SMALL_JMP_DATA, 1000, 2e-3)
    )
    return texts


def wide_angles(size: Size) -> Size:
    """Return a network that holds the neighbours of hot and compressed crystals, too."""
    repflow = {**size.descriptor["repflow"], "e_sel": 400, "a_sel": 80, "sel_reduce_factor": 20.0}
    return replace(size, descriptor={**size.descriptor, "repflow": repflow})


def joint(size: Size, branches: dict[str, int], steps: int, rate: float) -> dict[str, Any]:
    """Return the input of JMP's joint pre-training (arXiv 2310.16802, sections 4.1 and 4.3).

    Parameters
    ----------
    size : Size
        The network.
    branches : dict of str to int
        Number of structures by data set; shares are those of temperature 2.
    steps : int
        Of all branches together.
    rate : float
        Learning rate after the warm-up.
    """
    weights = {name: number**0.5 for name, number in branches.items()}
    shares = {name: round(weight / sum(weights.values()), 4) for name, weight in weights.items()}
    loss = {
        "type": "mft_force_field",
        "loss_func": "mae",
        "f_use_norm": True,
        "force_reduction": "structure",
        "edge_dropout": 0.1,
        "start_pref_e": 1.0,
        "limit_pref_e": 1.0,
        "start_pref_f": 1.0,
        "limit_pref_f": 1.0,
        "start_pref_v": 0.0,
        "limit_pref_v": 0.0,
    }
    return {
        "model": {
            "shared_dict": {
                "type_map_all": size.type_map,
                "dpa3_descriptor": {**size.descriptor, "seed": 1},
            },
            "model_dict": {
                name: {
                    "type_map": "type_map_all",
                    "descriptor": "dpa3_descriptor",
                    "fitting_net": {"type": "ener", **size.energy_net},
                }
                for name in branches
            },
        },
        "learning_rate": {
            "type": "cosine",
            "start_lr": rate,
            "stop_lr": round(rate / 10, 12),
            "warmup_steps": min(2000, steps // 20),
            "warmup_start_factor": 0.2,
        },
        "optimizer": {"type": "AdamW", "weight_decay": 0.1},
        "loss_dict": {name: dict(loss) for name in branches},
        "training": {
            "model_prob": shares,
            "data_dict": {
                name: data_part(
                    f"{name}/train", f"{name}/valid", size.force_field_batch, size.validation
                )
                for name in branches
            },
            "numb_steps": steps,
            "enable_ema": True,
            "ema_decay": 0.99,
            **size.training,
        },
    }


def joint_finetuning(size: Size, target: Target, steps: int) -> dict[str, Any]:
    """Return JMP's fine-tuning of one property: rates by layer, warm-up, cosine, plateaus."""
    config = build(target, size, "ft")
    config["learning_rate"] = {
        "type": "mft",
        "start_lr": 8e-5,
        "stop_lr": 8e-6,
        "warmup_steps": steps // 40,
        "schedule": {"type": "cosine"},
        "layer_decay": 0.9,
        "plateau": {"start": steps // 2, "factor": 0.8, "patience": 3},
    }
    config["optimizer"] = {"type": "AdamW", "weight_decay": 0.1}
    config["loss"]["validation"] = {"freq": steps // 500, "patience": 50}
    config["training"] |= {"numb_steps": steps, "enable_ema": True, "ema_decay": 0.99}
    return config


def json_text(config: dict[str, Any]) -> str:
    """Return indented JSON with lists of plain values on one line."""
    lists: list[str] = []

    def fold(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fold(item) for key, item in value.items()}
        if isinstance(value, list):
            lists.append(json.dumps(value))
            return f"@{len(lists) - 1}@"
        return value

    text = json.dumps(fold(config), indent=2)
    for number, line in enumerate(lists):
        text = text.replace(f'"@{number}@"', line, 1)
    return text + "\n"


def main() -> int:
    """Write the templates, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in templates().items():
        file = HERE / path
        if file.is_file() and file.read_text() == text:
            continue
        stale.append(str(path))
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    print(f"{len(stale)} template(s) {'differ' if check else 'written'}: {', '.join(stale)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
