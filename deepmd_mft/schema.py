"""The JSON options of every registered type, as dargs arguments.

deepmd-kit checks an input against them, and ``dp-mft doc`` prints them; nothing about an option is
written twice. Where a native option exists, its name, default and meaning are deepmd-kit's own.
"""

from __future__ import annotations

from typing import Any

from dargs import Argument, Variant
from deepmd.utils.argcheck import (
    descrpt_variant_type_args,
    loss_args_plugin,
    lr_args_plugin,
    model_args_plugin,
)

from deepmd_mft.bridge.registration import native_arguments
from deepmd_mft.names import (
    BIASES,
    CLASS_METRICS,
    FORCE_REDUCTIONS,
    LOSS_FUNCTIONS,
    METRICS,
    MISSING_LABELS,
    NATIVE_SCHEDULES,
    READOUTS,
    REDUCTIONS,
    RESERVED_NAMES,
)


def _choice(name: str, choices: tuple[str, ...], default: str | None, doc: str) -> Argument:
    return Argument(
        name,
        str,
        optional=True,
        default=default,
        extra_check=lambda value: value is None or value in choices,
        extra_check_errmsg=f"must be one of {', '.join(choices)}",
        doc=doc,
    )


def _at_least(name: str, dtype: Any, least: float, default: Any, doc: str) -> Argument:
    return Argument(
        name,
        dtype,
        optional=True,
        default=default,
        extra_check=lambda value: (
            value is None
            or all(item >= least for item in (value if isinstance(value, list) else [value]))
        ),
        extra_check_errmsg=f"must be at least {least:g}",
        doc=doc,
    )


def _metric(choices: tuple[str, ...], default: list[str], doc: str) -> Argument:
    return Argument(
        "metric",
        list[str],
        optional=True,
        default=default,
        extra_check=lambda names: all(name in choices for name in names),
        extra_check_errmsg=f"must be a list of {', '.join(choices)}",
        doc=doc,
    )


#: What a loss says about an option that its fitting net has too.
_OF_THE_HEAD = " Left out, it is the fitting net's; given, it must be the same."


def _property_name(*, several: bool, loss: bool = False) -> Argument:
    doc = (
        "Name of the property: labels are read from `set.*/<property_name>.npy`, one row per "
        "frame, and the model's output has this name."
    )
    if loss:
        doc += _OF_THE_HEAD
    if several:
        doc += (
            " A list makes one head for several properties, each with its own file, bias and "
            "scale; `dp test` then tests the first."
        )
    return Argument(
        "property_name",
        [str, list[str]] if several else str,
        optional=loss,
        default=None,
        extra_check=lambda names: (
            not (set([names] if isinstance(names, str) else names or []) & set(RESERVED_NAMES))
        ),
        extra_check_errmsg=(
            "is taken by deepmd-kit, whose `dp test` would read the output as its own; choose "
            f"another name (taken: {', '.join(RESERVED_NAMES)}) and rename the label file"
        ),
        doc=doc,
    )


def _task_dim(*, loss: bool = False) -> Argument:
    return _at_least(
        "task_dim",
        [int, list[int]],
        1,
        None if loss else 1,
        "Number of components of the property, the columns of its label file; a list for several "
        "properties." + (_OF_THE_HEAD if loss else ""),
    )


def _num_classes(*, loss: bool = False) -> Argument:
    return _at_least(
        "num_classes",
        int,
        2,
        None if loss else 2,
        "Number of classes; labels are whole numbers from 0." + (_OF_THE_HEAD if loss else ""),
    )


def _bias() -> Argument:
    return _choice(
        "bias",
        BIASES,
        None,
        "The constant added to every atom's output, computed from the training labels before the "
        "first step. element: one p(Z) per element by least squares (MFT, Eq. 17); an element "
        "without training data gets the value of an average element. mean: one value for all "
        "elements. none: no bias. The scale of the output is the rms of what the bias leaves. For "
        "readout max the bias is the mean whatever elements there are. Left out, it is element.",
    )


def _weight(doc: str) -> Argument:
    return Argument(
        "weight",
        [float, int],
        extra_check=lambda value: value >= 0,
        extra_check_errmsg="must not be negative",
        doc=f"{doc} 0 leaves the term out.",
    )


def _reference() -> Argument:
    return Argument(
        "reference",
        str,
        doc="FILE or FILE:BRANCH: the checkpoint whose weights are held on to, that of --finetune. "
        "It is read again at a restart.",
    )


def _regularizers() -> Argument:
    l2_sp = Argument(
        "l2_sp",
        dict,
        [
            _weight("Lambda of lambda ||w - w0||^2."),
            _reference(),
            _choice(
                "on", ("backbone", "all"), "backbone", "The descriptor alone, or the head too."
            ),
        ],
        doc="Squared distance of the trained weights to the checkpoint's (L2-SP, Li et al. 2018). ",
    )
    spectral = Argument(
        "spectral_shrinkage",
        dict,
        [
            _weight("Weight of the squared singular values."),
            _at_least("k", int, 1, 1, "How many singular values, the smallest first."),
        ],
        doc="Squares of the k smallest singular values of the batch's pooled descriptor output "
        "(batch spectral shrinkage, Chen et al. 2019). ",
    )
    drift = Argument(
        "feature_drift",
        dict,
        [_weight("Weight of the relative drift."), _reference()],
        doc="Squared distance of the atoms' descriptor output to that of the frozen checkpoint on "
        "the same batch, in units of the latter's mean square; costs one more forward pass. ",
    )
    return Argument(
        "regularizers",
        list,
        [],
        [Variant("type", [l2_sp, spectral, drift])],
        repeat=True,
        optional=True,
        default=[],
        doc="Terms that hold on to the pretrained backbone, added to this loss; each has a column "
        "in `lcurve.out`.",
    )


def _missing_labels() -> Argument:
    return _choice(
        "missing_labels",
        MISSING_LABELS,
        "error",
        "error: a label file that is absent, or has NaN, stops the run before its first step. "
        "mask: systems without the file and NaN entries are left out of the loss, and counted "
        "once at the start.",
    )


def _native_net(*replaced: str) -> list[Argument]:
    """Return deepmd-kit's options of a property net, without those that a head replaces."""
    ours = {"property_name", "task_dim", "distinguish_types", *replaced}
    return [arg for arg in native_arguments("fitting", "property") if arg.name not in ours]


# --- heads ------------------------------------------------------------------------------------


def fitting_mft_property() -> Argument:
    """Options of the fitting net ``mft_property``."""
    intensive = Argument(
        "intensive",
        [bool, list[bool]],
        optional=True,
        default=False,
        doc="Whether the property does not grow with the number of atoms; a list for several "
        "properties.",
    )
    fields = [
        _property_name(several=True),
        _task_dim(),
        intensive,
        _choice(
            "readout",
            READOUTS,
            None,
            "How per-atom outputs become the property of a frame. mean: average over the atoms "
            "(intensive). sum: sum over the atoms (extensive). max: the largest per-atom output "
            "(intensive; for peak-like properties, as JMP does for the highest phonon frequency). "
            "attention: average with learned weights (intensive). Left out, it follows "
            "`intensive`: mean if true, sum if false.",
        ),
        _bias(),
        Argument(
            "distinguish_types",
            bool,
            optional=True,
            default=None,
            doc="deepmd-kit's name for `bias`: true is element, false is mean.",
        ),
        Argument(
            "predict_variance",
            bool,
            optional=True,
            default=False,
            doc="Also predict a variance of each component (output `<property_name>_variance`), "
            "for the loss function gaussian_nll.",
        ),
        *_native_net("intensive"),
    ]
    return Argument(
        "mft_property", dict, fields, doc="Scalars or vectors from a readout over the atoms."
    )


def fitting_mft_spatial_extent() -> Argument:
    """Options of the fitting net ``mft_spatial_extent``."""
    return Argument(
        "mft_spatial_extent",
        dict,
        [_property_name(several=False), _bias(), *_native_net("intensive")],
        doc="Electronic spatial extent <R^2> of molecules: sum_i x_i |r_i - r_com|^2 with the "
        "mass-weighted centre; the bias is that of x_i. Systems with a cell are refused.",
    )


def fitting_mft_dipole_norm() -> Argument:
    """Options of the fitting net ``mft_dipole_norm``."""
    parts = [
        Argument(
            "vectors",
            bool,
            optional=True,
            default=True,
            doc="Per-atom dipole vectors from the descriptor's equivariant vectors (rot_mat).",
        ),
        Argument(
            "charges",
            bool,
            optional=True,
            default=True,
            doc="Per-atom charges times r_i - r_com, with the mass-weighted centre.",
        ),
    ]
    return Argument(
        "mft_dipole_norm",
        dict,
        [_property_name(several=False), *parts, *_native_net("intensive")],
        doc="Dipole moment of molecules: the norm of a vector, |sum_i d_i + q_i (r_i - r_com)|. "
        "Systems with a cell are refused.",
    )


def fitting_mft_classification() -> Argument:
    """Options of the fitting net ``mft_classification``."""
    readouts = tuple(name for name in READOUTS if name != "sum")
    readout = _choice(
        "readout",
        readouts,
        "mean",
        "How per-atom logits become those of a frame: see mft_property.",
    )
    return Argument(
        "mft_classification",
        dict,
        [_property_name(several=False), _num_classes(), readout, *_native_net("intensive")],
        doc="Logits of classes: one (that of class 1) for two classes, else one a class. The label "
        "file has one column of class numbers.",
    )


HEADS = (
    fitting_mft_property,
    fitting_mft_spatial_extent,
    fitting_mft_dipole_norm,
    fitting_mft_classification,
)


# --- the model --------------------------------------------------------------------------------


@model_args_plugin.register("mft")
def model_mft() -> Argument:
    """Options of a branch of type ``mft``."""
    return Argument(
        "mft",
        dict,
        [
            Argument(
                "descriptor",
                dict,
                [],
                [descrpt_variant_type_args()],
                doc="Any registered descriptor, DPA-3 first. In `model_dict` it is usually the "
                "name of an entry of `shared_dict`, shared with the force-field branch. "
                "`trainable: false` freezes it (linear probing).",
            ),
            Argument(
                "fitting_net",
                dict,
                [],
                [Variant("type", [head() for head in HEADS])],
                doc="The property head.",
            ),
            Argument(
                "model_branch_alias",
                list[str],
                optional=True,
                default=[],
                doc="Other names of this branch, as for a standard model.",
            ),
            Argument(
                "info",
                dict,
                optional=True,
                default={},
                doc="Metadata kept in the checkpoint, as for a standard model.",
            ),
        ],
        doc="A descriptor and a property head. Use it as a branch of `model_dict` beside a "
        "force-field branch (multi-task fine-tuning) or alone (training from scratch, "
        "fine-tuning, linear probing).",
    )


# --- losses -----------------------------------------------------------------------------------


@loss_args_plugin.register(
    "mft_property", doc="Property loss: a function of the scaled difference of labels and output. "
)
def loss_mft_property() -> list[Argument]:
    """Options of the loss ``mft_property``."""
    return [
        _property_name(several=True, loss=True),
        _task_dim(loss=True),
        _at_least(
            "weight",
            [float, int, list[float], list[int]],
            0,
            1.0,
            "Weight of the property in the loss; a list for several properties.",
        ),
        _choice(
            "loss_func",
            LOSS_FUNCTIONS,
            "smooth_mae",
            "mse, mae, rmse, or smooth_mae (Huber with `beta`) of the difference divided by the "
            "scale of the head; extensive properties are compared per atom. gaussian_nll: negative "
            "log-likelihood of a normal distribution, with `predict_variance` in the fitting net. "
            "mape: mean absolute relative error, |label - output| / |label + 1e-3|, in the unit of "
            "the label.",
        ),
        Argument(
            "beta",
            [float, int],
            optional=True,
            default=1.0,
            doc="Where smooth_mae turns from quadratic to linear, in units of the scale.",
        ),
        _choice(
            "reduction",
            REDUCTIONS,
            "mean",
            "mean: average over the frames of a batch, so that the gradient does not follow the "
            "batch size. sum: deepmd-kit's native property loss (rmse and mape are always means). "
            "Under gradient clipping and in the balance with a force-field branch, a sum over n "
            "frames weighs n times as much.",
        ),
        Argument(
            "start_pref",
            [float, int],
            optional=True,
            default=1.0,
            doc="Prefactor of the property loss at the start of the training.",
        ),
        Argument(
            "limit_pref",
            [float, int],
            optional=True,
            default=1.0,
            doc="Prefactor when the learning rate goes to zero: like the energy and force "
            "prefactors, pref = limit_pref + (start_pref - limit_pref) * lr / start_lr.",
        ),
        _missing_labels(),
        _regularizers(),
        _metric(
            METRICS,
            ["mae", "rmse"],
            "What `lcurve.out` shows, in the unit of the label (per atom if extensive). r2 is that "
            "of the displayed batch.",
        ),
    ]


@loss_args_plugin.register("mft_classification", doc="Cross-entropy of class logits. ")
def loss_mft_classification() -> list[Argument]:
    """Options of the loss ``mft_classification``."""
    return [
        _property_name(several=False, loss=True),
        _num_classes(loss=True),
        Argument(
            "class_weights",
            list[float],
            optional=True,
            default=None,
            doc="Weight of each class in the loss; all 1 if left out.",
        ),
        _missing_labels(),
        _regularizers(),
        _metric(
            CLASS_METRICS,
            ["accuracy"],
            "What `lcurve.out` shows, over the displayed batch. roc_auc is for two classes.",
        ),
    ]


@loss_args_plugin.register(
    "mft_force_field",
    doc="deepmd-kit's energy, force and virial loss (`ener`, whose options it takes) times "
    "`lambda_reg`, for the auxiliary branch of multi-task fine-tuning. Unlike `ener` it requires "
    "the energy and force labels that its prefactors weigh. ",
)
def loss_mft_force_field() -> list[Argument]:
    """Options of the loss ``mft_force_field``."""
    return [
        _at_least(
            "lambda_reg",
            [float, int],
            0,
            1.0,
            "Weight of the force-field loss (MFT, Eq. 11). A step trains one branch, drawn with "
            "`model_prob`, so on average the training minimises model_prob[property] * pref * "
            "L_property + model_prob[force field] * lambda_reg * (pref_e L_E + pref_f L_F + "
            "pref_v L_V).",
        ),
        _choice(
            "force_reduction",
            FORCE_REDUCTIONS,
            "atom",
            "atom: deepmd-kit's mean over all atoms of a batch. structure: the mean over the atoms "
            "of a structure, then over structures (JMP, section 4.2); it differs where a batch "
            "holds structures of several sizes.",
        ),
        Argument(
            "energy_scale",
            [float, int],
            optional=True,
            default=1.0,
            doc="Unit in eV in which energy and virial differences are measured; JMP takes the "
            "spread of a data set's energies beyond their per-element reference (which deepmd-kit "
            "subtracts as the bias).",
        ),
        Argument(
            "force_scale",
            [float, int],
            optional=True,
            default=1.0,
            doc="Unit in eV/Angstrom in which force differences are measured; JMP takes the rms of "
            "a data set's forces.",
        ),
        *native_arguments("loss", "ener"),
    ]


@lr_args_plugin.register(
    "mft",
    doc="A native schedule for the heads, and rates by layer for the descriptor: layer-wise decay, "
    "freezing, linear probing first. For Adam and AdamW. ",
)
def learning_rate_mft() -> list[Argument]:
    """Options of the learning rate ``mft``."""
    return [
        Argument(
            "schedule",
            dict,
            [],
            [
                Variant(
                    "type",
                    [lr_args_plugin.get_argument(name) for name in NATIVE_SCHEDULES],
                    optional=True,
                    default_tag="exp",
                )
            ],
            optional=True,
            default={},
            doc="The heads' schedule: a native one with its options. start_lr, stop_lr and warm-up "
            "stay beside it.",
        ),
        _at_least(
            "backbone_factor",
            [float, int],
            0,
            1.0,
            "Rate of the descriptor's last layer, in units of the heads'.",
        ),
        _at_least(
            "layer_decay",
            [float, int],
            0,
            1.0,
            "What a layer gets of the rate of the layer above it, down to the embeddings (JMP "
            "fine-tunes with layer-wise decay; 1 is none).",
        ),
        Argument(
            "frozen",
            list[str],
            optional=True,
            default=[],
            doc="Shell patterns of parameter names that are not trained, for instance "
            "`*type_embedding*` or `*.layers.0.*`.",
        ),
        _at_least(
            "lp_steps",
            int,
            0,
            0,
            "In so many steps from the start only the heads are trained: linear probing, then "
            "fine-tuning (LP-FT).",
        ),
        _at_least(
            "unfreeze_every",
            int,
            0,
            0,
            "After lp_steps wake the layers one after the other, the last first, so many steps "
            "apart; 0 wakes all at once.",
        ),
    ]
