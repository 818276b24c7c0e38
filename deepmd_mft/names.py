"""The words that JSON options may take, each list in one place."""

READOUTS = ("mean", "sum", "max", "attention")
BIASES = ("element", "mean", "none")

LOSS_FUNCTIONS = ("smooth_mae", "mae", "mse", "rmse", "mape", "gaussian_nll")
REDUCTIONS = ("mean", "sum")
METRICS = ("mae", "rmse", "mse", "smooth_mae", "mape", "r2")
CLASS_METRICS = ("accuracy", "roc_auc", "cross_entropy")
#: Errors of a whole set, of values and of classes.
REGRESSION = ("rmse", "mae", "r2", "max_error", "spearman")
CLASSES = ("accuracy", "roc_auc", "f1", "cross_entropy")
MISSING_LABELS = ("error", "mask")
FORCE_REDUCTIONS = ("atom", "structure")
NATIVE_SCHEDULES = ("exp", "cosine", "wsd")

#: Output names by which `dp test` and `DeepEval` recognise deepmd-kit's own models, and the keys
#: of its data files: a property of such a name would be taken for something else.
RESERVED_NAMES = (
    "energy",
    "force",
    "virial",
    "dos",
    "dipole",
    "polar",
    "polarizability",
    "global_polar",
    "wfc",
    "population",
    "mask",
    "coord",
    "box",
    "fparam",
    "aparam",
    "type",
    "spin",
    "hessian",
    "group",
)

#: Label file of a system whose labels belong to groups of frames: the number of each frame's group.
GROUP = "group"
