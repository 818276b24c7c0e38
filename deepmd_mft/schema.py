"""The JSON options of every registered type, as dargs arguments.

deepmd-kit checks an input against them, and ``dp-mft doc`` prints them; nothing about an option is
written twice. Where a native option exists, its name, default and meaning are deepmd-kit's own.
"""

from __future__ import annotations

from dargs import Argument, Variant
from deepmd.utils.argcheck import (
    descrpt_variant_type_args,
    loss_args_plugin,
    model_args_plugin,
)

from deepmd_mft.compat import native_arguments
from deepmd_mft.names import BIASES, LOSS_FUNCTIONS, METRICS, READOUTS, REDUCTIONS, RESERVED_NAMES


def _one_of(choices: tuple[str, ...]) -> dict[str, object]:
    return {
        "extra_check": lambda value: value is None or value in choices,
        "extra_check_errmsg": f"must be one of {', '.join(choices)}",
    }


def _property_name_argument() -> Argument:
    return Argument(
        "property_name",
        str,
        extra_check=lambda name: name not in RESERVED_NAMES,
        extra_check_errmsg=(
            "is taken by deepmd-kit, whose `dp test` would read the output as its own; choose "
            f"another name (taken: {', '.join(RESERVED_NAMES)}) and rename the label file"
        ),
        doc="Name of the property: labels are read from `set.*/<property_name>.npy`, of shape "
        "nframes x task_dim, and the model's output has this name. The loss and the fitting net "
        "of a branch must agree on it.",
    )


def _task_dim_argument() -> Argument:
    return Argument(
        "task_dim",
        int,
        optional=True,
        default=1,
        extra_check=lambda dim: dim >= 1,
        extra_check_errmsg="must be at least 1",
        doc="Number of components of the property. The loss and the fitting net of a branch must "
        "agree on it.",
    )


def fitting_mft_property() -> list[Argument]:
    """Options of the fitting net ``mft_property``."""
    replaced = {"property_name", "task_dim", "distinguish_types"}
    native = [arg for arg in native_arguments("fitting", "property") if arg.name not in replaced]
    return [
        _property_name_argument(),
        _task_dim_argument(),
        Argument(
            "readout",
            str,
            optional=True,
            default=None,
            **_one_of(READOUTS),
            doc="How per-atom outputs become the property of a frame. mean: average over the "
            "atoms (intensive). sum: sum over the atoms (extensive). max: the largest per-atom "
            "output (intensive; for peak-like properties, as JMP does for the highest phonon "
            "frequency). Left out, it follows `intensive`: mean if true, sum if false.",
        ),
        Argument(
            "bias",
            str,
            optional=True,
            default="element",
            **_one_of(BIASES),
            doc="The constant added to every atom's output, computed from the training labels "
            "before the first step. element: one p(Z) per element by least squares (MFT, Eq. 17); "
            "an element without training data gets the value of an average element. mean: one "
            "value for all elements. none: no bias. The scale of the output is the rms of what "
            "the bias leaves. For readout max the bias is the mean whatever elements there are.",
        ),
        *native,
    ]


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
                [Variant("type", [Argument("mft_property", dict, fitting_mft_property())])],
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


@loss_args_plugin.register(
    "mft_property", doc="Property loss: a function of the scaled difference of labels and output. "
)
def loss_mft_property() -> list[Argument]:
    """Options of the loss ``mft_property``."""
    return [
        _property_name_argument(),
        _task_dim_argument(),
        Argument(
            "loss_func",
            str,
            optional=True,
            default="smooth_mae",
            **_one_of(LOSS_FUNCTIONS),
            doc="mse, mae, rmse, or smooth_mae (Huber with `beta`) of the difference divided by "
            "the scale of the head; extensive properties are compared per atom. mape: mean "
            "absolute relative error, |label - output| / |label + 1e-3|, in the unit of the label.",
        ),
        Argument(
            "beta",
            [float, int],
            optional=True,
            default=1.0,
            doc="Where smooth_mae turns from quadratic to linear, in units of the scale.",
        ),
        Argument(
            "reduction",
            str,
            optional=True,
            default="mean",
            **_one_of(REDUCTIONS),
            doc="mean: average over the frames of a batch, so that the gradient does not follow "
            "the batch size. sum: deepmd-kit's native property loss (rmse and mape are always "
            "means). Under gradient clipping and in the balance with a force-field branch, a sum "
            "over n frames weighs n times as much.",
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
        Argument(
            "metric",
            list[str],
            optional=True,
            default=["mae", "rmse"],
            extra_check=lambda names: all(name in METRICS for name in names),
            extra_check_errmsg=f"must be a list of {', '.join(METRICS)}",
            doc="What `lcurve.out` shows, in the unit of the label (per atom if extensive).",
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
        Argument(
            "lambda_reg",
            [float, int],
            optional=True,
            default=1.0,
            extra_check=lambda value: value >= 0,
            extra_check_errmsg="must not be negative",
            doc="Weight of the force-field loss (MFT, Eq. 11). A step trains one branch, drawn "
            "with `model_prob`, so on average the training minimises model_prob[property] * pref "
            "* L_property + model_prob[force field] * lambda_reg * (pref_e L_E + pref_f L_F + "
            "pref_v L_V).",
        ),
        *native_arguments("loss", "ener"),
    ]


def reference() -> dict[str, str]:
    """Return the printed reference of every registered type.

    Returns
    -------
    dict of str
        Text by ``kind/type``, for instance ``loss/mft_property``.
    """
    model = model_mft()
    heads = model.sub_fields["fitting_net"].sub_variants["type"].choice_dict.values()
    texts = {"model/mft": _text(Argument("mft", dict, _without_native(model), doc=model.doc))}
    for head in heads:
        texts[f"fitting_net/{head.name}"] = _text(head)
    for name, fields in (
        ("mft_property", loss_mft_property()),
        ("mft_force_field", loss_mft_force_field()),
    ):
        texts[f"loss/{name}"] = _text(Argument(name, dict, fields))
    return texts


def _without_native(model: Argument) -> list[Argument]:
    """Return the fields of a branch, the descriptor's and the heads' own pages left out."""
    return [
        Argument(arg.name, arg.dtype, optional=arg.optional, default=arg.default, doc=arg.doc)
        for arg in model.sub_fields.values()
    ]


def _text(argument: Argument) -> str:
    return argument.gen_doc(make_anchor=False, make_link=False)
