"""Names that come from a file and become part of a path."""

from __future__ import annotations

from pathlib import PurePosixPath

from deepmd_mft.errors import UserError

__all__ = ["path_below", "path_component"]

_LONGEST = 200  # bytes; file systems allow 255, and temporary names are longer than final ones


def path_component(name: object, where: str) -> str:
    """Return ``name`` if it can name one file or folder.

    Parameters
    ----------
    name : object
        What the file says.
    where : str
        File and key, for the message.

    Raises
    ------
    UserError
        If it is no text, empty, too long, hidden, or would lead to another folder.
    """
    if not isinstance(name, str):
        raise UserError(f"{where}: a name is a text, not {name!r}")
    wrong = (
        not name
        or name.startswith(".")
        or name != name.strip()
        or any(mark in name for mark in "/\\:")
        or not name.isprintable()
        or len(name.encode(errors="surrogatepass")) > _LONGEST
    )
    if wrong:
        raise UserError(
            f"{where}: {name[:80]!r} cannot name a folder; give it a name without slashes, "
            "colons, line ends and a dot or blank at its start"
        )
    return name


def path_below(name: str, where: str) -> str:
    """Return ``name`` if it is a relative path that stays below its folder.

    Parameters
    ----------
    name : str
        What the file says; empty for the folder itself.
    where : str
        File and row, for the message.

    Raises
    ------
    UserError
        If it is absolute or climbs with ``..``.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise UserError(
            f"{where}: {name[:80]!r} does not lie below its set; name the system by its path "
            "relative to that folder"
        )
    return name
