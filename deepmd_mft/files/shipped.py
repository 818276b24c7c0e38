"""Files that come with the package: input templates and the embedded checkpoint.

Their homes are the folders ``input_templates`` and ``examples/qm9_gap/pretrained`` of the
repository. In a clone this package has links to them, in a wheel copies.
"""

from __future__ import annotations

from pathlib import Path

from deepmd_mft.errors import UserError

__all__ = ["CHECKPOINT", "find_template", "template_names"]

_TEMPLATES = Path(__file__).parents[1] / "input-templates"
#: The small DPA-3 of ``examples/qm9_gap``, pretrained on GFN2-xTB energies and forces of QM9.
CHECKPOINT = Path(__file__).parents[1] / "embedded-checkpoint" / "model.pt"


def find_template(path: Path) -> Path:
    """Return the path, or that of the template of this name.

    Parameters
    ----------
    path : Path
        A file of that name comes first; else a name of :func:`template_names`.

    Raises
    ------
    UserError
        If there is neither.
    """
    if path.exists():
        return path
    names = template_names()
    if str(path) not in names:
        raise UserError(
            f"{path} does not exist, and no template is called so; there are {', '.join(names)}"
        )
    return names[str(path)]


def template_names() -> dict[str, Path]:
    """Return the templates by name: ``mft``, ``small/ft``, ``qm9/homo/mft``."""
    found = {}
    for path in sorted(_TEMPLATES.rglob("*.json")):
        folder = path.relative_to(_TEMPLATES).parent
        found[(folder / path.stem.removeprefix("input_")).as_posix()] = path
    return found
