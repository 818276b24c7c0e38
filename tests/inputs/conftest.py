"""Filling templates as a user does."""

import json

import pytest

from deepmd_mft.cli import main


@pytest.fixture
def fill_template(tmp_path, capsys):
    """Fill a template; return the input and what was told, or the message."""

    def run(template, *arguments, ok=True):
        path = tmp_path / "template.json"
        path.write_text(json.dumps(template))
        out = tmp_path / "input.json"
        words = [str(path), *map(str, arguments), "-o", str(out), "--overwrite"]
        assert main(["input", *words]) == (0 if ok else 1)
        told = capsys.readouterr().err
        return (json.loads(out.read_text()), told) if ok else told

    return run
