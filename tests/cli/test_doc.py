"""``dp-mft doc`` and the verb table."""

import importlib
import subprocess
import sys

import pytest

from deepmd_mft.cli import main
from deepmd_mft.cli.main import VERBS


def test_prints_every_registered_type(capsys):
    assert main(["doc"]) == 0
    printed = capsys.readouterr().out
    for name in ("model/mft", "fitting_net/mft_property", "loss/mft_property", "lambda_reg"):
        assert name in printed


def test_prints_one_type(capsys):
    assert main(["doc", "loss/mft_property"]) == 0
    assert "fitting_net/" not in capsys.readouterr().out


def test_unknown_type_is_a_message(capsys):
    assert main(["doc", "loss/other"]) == 1
    assert "there are model/mft" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    importlib.import_module(f"deepmd_mft.cli.{verb}")
    with pytest.raises(SystemExit) as status:
        main([verb, "--help"])
    assert status.value.code == 0
    assert VERBS[verb] in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


def test_a_reader_that_has_seen_enough():
    command = [sys.executable, "-m", "deepmd_mft", "doc"]
    pipe = f"set -o pipefail; {' '.join(command)} | head -n 1"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert done.stdout == "model/mft\n"
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 141}  # 0 if everything fitted into the pipe
