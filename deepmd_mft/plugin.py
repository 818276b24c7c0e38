"""What deepmd-kit imports: the table of contents of everything this package registers.

===========  ======================  ========================================
kind         JSON ``type``           where
===========  ======================  ========================================
model        ``mft``                 :mod:`deepmd_mft.models.mft_model`
fitting net  ``mft_property``        :mod:`deepmd_mft.models.heads.property`
fitting net  ``mft_spatial_extent``  :mod:`deepmd_mft.models.heads.spatial_extent`
fitting net  ``mft_dipole_norm``     :mod:`deepmd_mft.models.heads.dipole_norm`
fitting net  ``mft_classification``  :mod:`deepmd_mft.models.heads.classification`
loss         ``mft_property``        :mod:`deepmd_mft.training.losses.property`
loss         ``mft_classification``  :mod:`deepmd_mft.training.losses.classification`
loss         ``mft_force_field``     :mod:`deepmd_mft.training.losses.force_field`
rates        ``mft``                 :mod:`deepmd_mft.training.rates`
===========  ======================  ========================================

Their JSON options are in :mod:`deepmd_mft.schema`, the checks that run before ``dp --pt train`` in
:mod:`deepmd_mft.inputs.gate`.

deepmd-kit imports a plugin before its own model and loss modules, which take seconds to load, and
in runs that never need them. So each registration waits for the module that it extends: importing
deepmd.pt stays as fast as without the plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from types import ModuleType


def _prepare_trainer(_module: ModuleType) -> None:
    from deepmd_mft.bridge import training  # noqa: PLC0415  (see above)
    from deepmd_mft.bridge.optimizer import let_schedules_group_parameters  # noqa: PLC0415
    from deepmd_mft.training.losses.base import with_options_of_head  # noqa: PLC0415

    training.complete_losses(with_options_of_head)
    training.keep_data_of_statistics()
    import_module("deepmd_mft.training.rates")
    let_schedules_group_parameters()


def _draw_groups(_module: ModuleType) -> None:
    from deepmd_mft.bridge.groups import draw_whole_groups  # noqa: PLC0415  (see above)

    draw_whole_groups()


def _check_before_training(_module: ModuleType) -> None:
    from deepmd_mft.bridge.command import check_before_commands  # noqa: PLC0415  (see above)
    from deepmd_mft.inputs.gate import check_command  # noqa: PLC0415

    check_before_commands(check_command)


register_post_import_hook(lambda _: import_module("deepmd_mft.schema"), "deepmd.utils.argcheck")
register_post_import_hook(lambda _: import_module("deepmd_mft.models"), "deepmd.pt.model.model")
register_post_import_hook(lambda _: import_module("deepmd_mft.training.losses"), "deepmd.pt.loss")
register_post_import_hook(_draw_groups, "deepmd.pt.utils.dataloader")
register_post_import_hook(_prepare_trainer, "deepmd.pt.train.training")
register_post_import_hook(_check_before_training, "deepmd.pt.entrypoints.main")
