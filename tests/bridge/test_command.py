"""The command line of `dp --pt` that the checks stand before."""

import argparse
import inspect

import pytest
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.pt.entrypoints import main as entrypoints

from deepmd_mft.bridge import command
from deepmd_mft.errors import UserError
from deepmd_mft.training.losses import MFTPropertyLoss
from tests.helpers.dp import TYPE_MAP
from tests.helpers.labels import gaps, write_lmdb


def test_main_is_wrapped_and_keeps_its_signature():
    assert entrypoints.main.__wrapped__ is not None
    assert "args" in inspect.signature(entrypoints.main).parameters


@pytest.fixture
def main(monkeypatch):
    """Wrap a `main` that raises what it is given."""

    def deepmd_main(args):
        raise args.error

    monkeypatch.setattr(entrypoints, "main", deepmd_main)
    seen = []
    command.check_before_commands(seen.append)

    def run(error):
        entrypoints.main(argparse.Namespace(error=error))

    run.seen = seen
    return run


def test_a_users_mistake_ends_a_command_without_traceback(main):
    with pytest.raises(SystemExit, match="deepmd_mft: the key is wrong"):
        main(UserError("the key is wrong"))
    assert len(main.seen) == 1


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("shapes")])
def test_other_errors_keep_their_traceback(main, error):
    with pytest.raises(type(error), match=str(error)):
        main(error)


def test_deepmds_errors_about_a_frame_of_an_lmdb_are_the_users(main, tmp_path):
    """By how the messages begin, which name the field, the frame and the file."""
    labels = [None, *gaps()[1:]]
    reader = LmdbDataReader(str(write_lmdb(tmp_path / "bad.lmdb", labels)), TYPE_MAP)
    reader.add_data_requirement(MFTPropertyLoss("gap").label_requirement)
    with pytest.raises(RuntimeError) as caught:
        reader[0]
    with pytest.raises(SystemExit, match=r"'gap' is unavailable in frame 0 of .*bad\.lmdb"):
        main(caught.value)
