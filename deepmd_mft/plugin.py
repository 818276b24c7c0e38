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
===========  ======================  ========================================

:mod:`deepmd_mft.schema` holds their JSON options and :mod:`deepmd_mft.inputs.gate` the checks that
run before ``dp --pt train``. Each line below waits for the deepmd module that it extends, so that
``import deepmd.pt`` stays as fast as without the plugin.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

from deepmd_mft.bridge.registration import after_import


def _check_before_training() -> None:
    from deepmd_mft.bridge.command import check_before_commands  # noqa: PLC0415  (see above)
    from deepmd_mft.inputs.gate import check_command  # noqa: PLC0415

    check_before_commands(check_command)


def _rate_layers() -> None:
    from deepmd_mft.bridge.optimizer import let_schedules_group_parameters  # noqa: PLC0415

    import_module("deepmd_mft.training.rates")
    let_schedules_group_parameters()


after_import("deepmd.utils.argcheck", partial(import_module, "deepmd_mft.schema"))
after_import("deepmd.pt.model.model", partial(import_module, "deepmd_mft.models"))
after_import("deepmd.pt.loss", partial(import_module, "deepmd_mft.training.losses"))
after_import("deepmd.pt.train.training", _rate_layers)
after_import("deepmd.pt.entrypoints.main", _check_before_training)
