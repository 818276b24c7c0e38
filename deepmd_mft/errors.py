"""The one exception of this package for a user's mistake."""

__all__ = ["UserError", "missing_package"]


class UserError(ValueError):
    """Something in the user's input is wrong.

    The message names the file, key, branch or element and says what to do. Command-line
    tools print it without a traceback.
    """


def missing_package(what: str, extra: str) -> UserError:
    """Return the error that says how to install what a command needs.

    Parameters
    ----------
    what : str
        What is missing and for what, for example "SMILES need RDKit".
    extra : str
        Optional dependencies in ``pyproject.toml`` that bring it.
    """
    return UserError(f"{what}: pip install -e '.[{extra}]' in a clone of this repository")
