"""The options of the learning rate."""

from __future__ import annotations

from dargs import Argument, Variant
from deepmd.utils.argcheck import lr_args_plugin

from deepmd_mft.names import NATIVE_SCHEDULES
from deepmd_mft.schema.common import at_least


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
        at_least(
            "backbone_factor",
            [float, int],
            0,
            1.0,
            "Rate of the descriptor's last layer, in units of the heads'.",
        ),
        at_least(
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
        at_least(
            "lp_steps",
            int,
            0,
            0,
            "In so many steps from the start only the heads are trained: linear probing, then "
            "fine-tuning (LP-FT).",
        ),
        at_least(
            "unfreeze_every",
            int,
            0,
            0,
            "After lp_steps wake the layers one after the other, the last first, so many steps "
            "apart; 0 wakes all at once.",
        ),
        Argument(
            "plateau",
            [dict, None],
            [
                Argument(
                    "factor",
                    float,
                    optional=True,
                    default=0.8,
                    extra_check=lambda value: 0 < value < 1,
                    extra_check_errmsg="must be between 0 and 1",
                    doc="What the rate is multiplied by.",
                ),
                at_least("patience", int, 1, 10, "Looks at the validation data without a best."),
                at_least(
                    "start",
                    int,
                    0,
                    0,
                    "Step at which the schedule has ended and plateaus begin to count; 0: "
                    "the schedule takes the whole training, and they count from the first look.",
                ),
            ],
            optional=True,
            default=None,
            doc="Reduce the rate where the validation error gets no better (JMP fine-tunes with "
            "warm-up, cosine, then this). Needs `validation` in the loss of the property.",
        ),
    ]
