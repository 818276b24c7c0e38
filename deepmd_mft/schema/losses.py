"""The options of the losses."""

from __future__ import annotations

from dargs import Argument
from deepmd.utils.argcheck import loss_args_plugin

from deepmd_mft.bridge.registration import native_arguments
from deepmd_mft.names import (
    CLASS_METRICS,
    CLASSES,
    FORCE_REDUCTIONS,
    LOSS_FUNCTIONS,
    METRICS,
    MISSING_LABELS,
    REDUCTIONS,
    REGRESSION,
)
from deepmd_mft.schema.common import at_least, choice, metric, num_classes, property_name, task_dim
from deepmd_mft.schema.regularizers import regularizers


def _missing_labels() -> Argument:
    return choice(
        "missing_labels",
        MISSING_LABELS,
        "error",
        "error: a label file that is absent, or has NaN, stops the run before its first step. "
        "mask: systems without the file and NaN entries are left out of the loss, and counted "
        "once at the start.",
    )


def _validation(metrics: tuple[str, ...]) -> Argument:
    return Argument(
        "validation",
        [dict, None],
        [
            at_least("freq", int, 1, 200, "Steps of the whole training between two looks."),
            at_least(
                "patience",
                int,
                0,
                0,
                "End the training when so many looks brought nothing better; 0: never.",
            ),
            choice(
                "metric",
                metrics,
                None,
                "What counts; left out, as in `dp-mft select`: rmse, of two classes roc_auc, of "
                "more accuracy.",
            ),
        ],
        optional=True,
        default=None,
        doc="Look at the whole validation set of this branch while training: `validation.csv`, the "
        "best checkpoint (`best.ckpt-STEP.pt`, with `model.best.pt` pointing at it), early "
        "stopping, and plateaus of the learning rate `mft`. For one branch.",
    )


def _edge_dropout() -> Argument:
    return Argument(
        "edge_dropout",
        [float, int],
        optional=True,
        default=0.0,
        extra_check=lambda value: 0 <= value < 1,
        extra_check_errmsg="must be at least 0 and less than 1",
        doc="Share p of DPA-3's edges whose messages are left out of a training step, the others "
        "weighing 1 / (1 - p) (JMP takes 0.1). Never in validation, tests and frozen models.",
    )


@loss_args_plugin.register(
    "mft_property",
    doc="Property loss: a function of the scaled difference of labels and output. Where labels "
    "belong to groups of frames (`group.npy`), the mean of the output over a group is compared. ",
)
def loss_mft_property() -> list[Argument]:
    """Options of the loss ``mft_property``."""
    return [
        property_name(several=True, loss=True),
        task_dim(loss=True),
        at_least(
            "weight",
            [float, int, list[float], list[int]],
            0,
            1.0,
            "Weight of the property in the loss; a list for several properties.",
        ),
        choice(
            "loss_func",
            LOSS_FUNCTIONS,
            "smooth_mae",
            "mse, mae, rmse, or smooth_mae (Huber with `beta`) of the difference divided by the "
            "scale of the head; extensive properties are compared per atom. gaussian_nll: negative "
            "log-likelihood of a normal distribution, with `predict_variance` in the fitting net. "
            "mape: mean absolute relative error, `|label - output| / |label + 1e-3|`, in the "
            "unit of the label.",
        ),
        at_least(
            "beta",
            [float, int],
            0,
            1.0,
            "Where smooth_mae turns from quadratic to linear, in units of the scale.",
        ),
        choice(
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
        regularizers(),
        _validation(REGRESSION),
        _edge_dropout(),
        metric(
            METRICS,
            ["mae", "rmse"],
            "What `lcurve.out` shows, in the unit of the label (per atom if extensive). r2 is that "
            "of the displayed batch.",
        ),
    ]


@loss_args_plugin.register(
    "mft_classification", doc="Cross-entropy of class logits, of groups of their means. "
)
def loss_mft_classification() -> list[Argument]:
    """Options of the loss ``mft_classification``."""
    return [
        property_name(several=False, loss=True),
        num_classes(loss=True),
        at_least(
            "class_weights",
            list[float],
            0,
            None,
            "Weight of each class in the loss; all 1 if left out.",
        ),
        _missing_labels(),
        regularizers(),
        _validation(CLASSES),
        _edge_dropout(),
        metric(
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
        at_least(
            "lambda_reg",
            [float, int],
            0,
            1.0,
            "Weight of the force-field loss (MFT, Eq. 11). A step trains one branch, drawn with "
            "`model_prob`, so on average the training minimises model_prob[property] * pref * "
            "L_property + model_prob[force field] * lambda_reg * (pref_e L_E + pref_f L_F + "
            "pref_v L_V).",
        ),
        choice(
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
        _edge_dropout(),
        *native_arguments("loss", "ener"),
    ]
