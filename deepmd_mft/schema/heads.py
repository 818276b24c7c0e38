"""The options of the fitting nets."""

from __future__ import annotations

from dargs import Argument

from deepmd_mft.bridge.registration import native_arguments
from deepmd_mft.names import BIASES, READOUTS
from deepmd_mft.schema.common import choice, num_classes, property_name, task_dim


def _bias() -> Argument:
    return choice(
        "bias",
        BIASES,
        None,
        "The constant added to every atom's output, computed from the training labels before the "
        "first step. element: one p(Z) per element by least squares (MFT, Eq. 17); an element "
        "without training data gets the value of an average element. mean: one value for all "
        "elements. none: no bias. The scale of the output is the rms of what the bias leaves. For "
        "readout max the bias is the mean whatever elements there are. Left out, it is element.",
    )


def _native_net(*replaced: str) -> list[Argument]:
    """Return deepmd-kit's options of a property net, without those that a head replaces."""
    ours = {"property_name", "task_dim", "distinguish_types", *replaced}
    return [arg for arg in native_arguments("fitting", "property") if arg.name not in ours]


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
        property_name(several=True),
        task_dim(),
        intensive,
        choice(
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
        [property_name(several=False), _bias(), *_native_net("intensive")],
        doc="Electronic spatial extent <R^2> of molecules: `sum_i x_i |r_i - r_com|^2` with the "
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
        [property_name(several=False), *parts, *_native_net("intensive")],
        doc="Dipole moment of molecules: the norm of a vector, `|sum_i d_i + q_i (r_i - r_com)|`. "
        "Systems with a cell are refused.",
    )


def fitting_mft_classification() -> Argument:
    """Options of the fitting net ``mft_classification``."""
    readouts = tuple(name for name in READOUTS if name != "sum")
    readout = choice(
        "readout",
        readouts,
        "mean",
        "How per-atom logits become those of a frame: see mft_property.",
    )
    return Argument(
        "mft_classification",
        dict,
        [property_name(several=False), num_classes(), readout, *_native_net("intensive")],
        doc="Logits of classes: one (that of class 1) for two classes, else one a class. The label "
        "file has one column of class numbers.",
    )


HEADS = (
    fitting_mft_property,
    fitting_mft_spatial_extent,
    fitting_mft_dipole_norm,
    fitting_mft_classification,
)
