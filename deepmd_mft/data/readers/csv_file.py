"""CSV files line by line, with one message for whatever is wrong with them."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from typing import IO, TYPE_CHECKING, Any

from deepmd_mft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["csv_rows", "require_header"]

# A cell may hold a CIF, but not the rest of a file whose quotation mark is never closed.
_LARGEST_CELL = 2**24
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line, the header's too.

    UTF-8 with or without a byte-order mark, and UTF-16 with one, plain or gzipped. Blank
    lines, and the lines of commas alone that spreadsheets leave behind, are passed over.

    Raises
    ------
    UserError
        With file and line, if the file is in another encoding, truncated, or no text.
    """
    csv.field_size_limit(_LARGEST_CELL)  # the limit of the whole process; 128 kB by default
    line = 0
    try:
        with _open(path) as handle:
            table = csv.reader(_lines(handle))
            for cells in table:
                line = table.line_num
                if any(cell.strip() for cell in cells):
                    yield line, cells
    except UnicodeError as error:
        raise UserError(
            f"{path}, after line {line}: not UTF-8 ({error}); save the table as UTF-8, for "
            f"example iconv -f latin1 -t utf-8 {path.name} > utf8.csv"
        ) from error
    except csv.Error as error:
        raise UserError(
            f"{path}, after line {line}: {error}; is a quotation mark not closed?"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}, after line {line}: truncated or damaged ({error}); fetch it again"
        ) from error


def _open(path: Path) -> IO[str]:
    with path.open("rb") as handle:
        zipped = handle.read(2) == _GZIP or path.suffix == ".gz"
    binary: Any = gzip.open(path, "rb") if zipped else path.open("rb")  # noqa: SIM115
    encoding = "utf-16" if binary.peek(2)[:2] in _BYTE_ORDER_MARKS else "utf-8-sig"
    return io.TextIOWrapper(binary, encoding=encoding, newline="")


def _lines(handle: IO[str]) -> Iterator[str]:
    """Yield lines; a file without line ends is not read whole."""
    for line in iter(lambda: handle.readline(_LARGEST_CELL + 1), ""):
        if "\0" in line:
            raise UnicodeError("it holds NUL characters, as UTF-16 does or what is no text")
        yield line


def require_header(path: Path, names: list[str]) -> None:
    """Refuse a header in which a name stands twice."""
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one of them")
