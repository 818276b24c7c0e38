"""What deepmd-kit imports: the table of contents of everything this package registers.

===========  ======================  ========================================
kind         JSON ``type``           where
===========  ======================  ========================================
model        ``mft``                 :mod:`deepmd_mft.model.mft_model`
fitting net  ``mft_property``        :mod:`deepmd_mft.model.property_head`
fitting net  ``mft_spatial_extent``  :mod:`deepmd_mft.model.spatial_extent`
fitting net  ``mft_dipole_norm``     :mod:`deepmd_mft.model.dipole_norm`
fitting net  ``mft_classification``  :mod:`deepmd_mft.model.classification`
loss         ``mft_property``        :mod:`deepmd_mft.loss.property_loss`
loss         ``mft_classification``  :mod:`deepmd_mft.loss.classification_loss`
loss         ``mft_force_field``     :mod:`deepmd_mft.loss.force_field`
===========  ======================  ========================================

:mod:`deepmd_mft.schema` holds their JSON options and :mod:`deepmd_mft.preflight` the checks that
run before ``dp --pt train``. Each line below waits for the deepmd module that it extends, so that
``import deepmd.pt`` stays as fast as without the plugin.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

from deepmd_mft.compat import after_import

after_import("deepmd.utils.argcheck", partial(import_module, "deepmd_mft.schema"))
after_import("deepmd.pt.model.model", partial(import_module, "deepmd_mft.model"))
after_import("deepmd.pt.loss", partial(import_module, "deepmd_mft.loss"))
after_import("deepmd.pt.entrypoints.main", partial(import_module, "deepmd_mft.preflight"))
