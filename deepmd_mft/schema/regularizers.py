"""The options of the regularisers of a loss."""

from __future__ import annotations

from dargs import Argument, Variant

from deepmd_mft.schema.common import at_least, choice


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


def regularizers() -> Argument:
    """Return the option ``regularizers`` of a property loss."""
    l2_sp = Argument(
        "l2_sp",
        dict,
        [
            _weight("Lambda of `lambda ||w - w0||^2`."),
            _reference(),
            choice("on", ("backbone", "all"), "backbone", "The descriptor alone, or the head too."),
        ],
        doc="Squared distance of the trained weights to the checkpoint's (L2-SP, Li et al. 2018). ",
    )
    spectral = Argument(
        "spectral_shrinkage",
        dict,
        [
            _weight("Weight of the squared singular values."),
            at_least("k", int, 1, 1, "How many singular values, the smallest first."),
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
