"""What is wrong with an input."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers


class Findings:
    """What is wrong with an input, and what may mislead.

    Parameters
    ----------
    stop : bool
        Raise the first error (before a training), instead of listing all (``dp-mft check``).
    """

    def __init__(self, *, stop: bool) -> None:
        self.stop = stop
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def attempt(self, check: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """Call a check; list its ``UserError``, or raise it."""
        try:
            return check(*args, **kwargs)
        except UserError as error:
            self.error(str(error))
            return None

    def error(self, text: str) -> None:
        """List an error once; before a training, raise it."""
        if self.stop:
            raise UserError(text)
        if text not in self.errors:
            self.errors.append(text)

    def warn(self, text: str) -> None:
        """List a warning once; before a training, log it."""
        if text in self.warnings:
            return
        self.warnings.append(text)
        if self.stop:
            log.warning("%s", text)
