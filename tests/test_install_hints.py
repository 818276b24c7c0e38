"""The package is not on PyPI: no page and no message may say so."""

from __future__ import annotations

import re
import subprocess

from tests.helpers.dp import ROOT


def test_nobody_is_sent_to_pypi_for_this_package():
    files = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.rst", "*.html", "*.yml", "Makefile", "*.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "README.md" in files
    wrong = re.compile(r"pip install +(-\S+ +)*[\"']?deepmd[-_]mft")
    found = [name for name in files if wrong.search((ROOT / name).read_text())]
    assert not found
