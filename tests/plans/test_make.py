"""The Makefile and scripts of a plan: what is missing is done, with any paths, after any stop.

A stand-in for Python writes what `dp` and `dp-mft` would, in milliseconds.
"""

import subprocess
import sys

import pytest

#: Trains to step 30 in checkpoints of 10; stops where the file `stop` says.
STAND_IN = """#!/bin/sh
echo "$@" >>calls
case "$*" in
  -c*) exec {python} "$@" ;;
  *--version) ;;
  *train*)
    from=0
    case "$*" in *--restart*) from=${{5##*-}}; from=${{from%.pt}} ;; esac
    for step in 10 20 30; do
      [ "$step" -gt "$from" ] || continue
      [ "$(cat stop 2>/dev/null)" != "$step" ] || exit 1
      {python} -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as file: file.writestr("data", "x" * 1000)' \\
        "model.ckpt-$step.pt"
    done ;;
  *select*) [ ! -f no_selection ] || exit 1 ;;
  *evaluate*) mkdir -p evaluation; touch evaluation/evaluation.json ;;
  *report*) touch report.html ;;
esac
"""


@pytest.fixture(params=["plan", 'it\'s a "plan" of $HOME; `date` #1 100%'])
def made(request, plan, make_folds, template, tmp_path, monkeypatch):
    """A plan whose paths hold what shells and make take for theirs."""
    python = tmp_path / request.param / "py'th on"
    python.parent.mkdir()
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    folds = make_folds(tmp_path / request.param / "folds", ("a'b $x", "fold_01"))
    return plan(folds, "--template", template, out=tmp_path / request.param / "out")[0]


def make(folder, *arguments):
    return subprocess.run(
        ["make", "-k", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def calls(run, word):
    return [line for line in (run / "calls").read_text().splitlines() if word in line]


def test_make_goes_on_where_it_stopped(made):
    first, second = made / "a_b_x-scratch-s1", made / "fold_01-scratch-s1"
    (first / "stop").write_text("30")
    (second / "no_selection").touch()
    found = make(made)
    assert found.returncode != 0
    assert "a_b_x-scratch-s1: the training has failed" in found.stderr
    assert not (made / "report.html").exists()
    assert not (first / "trained").exists()
    assert len(calls(second, "train")) == 1  # -k: the other one was trained, and not selected

    (first / "stop").unlink()
    (first / "model.ckpt-20.pt").write_bytes(b"PK half")  # killed while it saved
    (second / "no_selection").unlink()
    found = make(made)
    assert found.returncode == 0, found.stderr
    assert "goes on from step 10" in found.stdout
    assert calls(first, "train")[-1].endswith("--restart model.ckpt-10.pt")
    assert len(calls(second, "train")) == 1  # not trained again
    assert len(calls(second, "select")) == 2
    assert (made / "report.html").exists()
    report = (made / "calls").read_text()
    assert "report a_b_x-scratch-s1 fold_01-scratch-s1 -o report.html" in report
    assert all("--split ../../folds" in line for line in calls(first, "evaluate"))

    assert "Nothing to be done" in make(made).stdout
    (second / "evaluation" / "evaluation.json").unlink()
    assert make(made).returncode == 0
    assert len(calls(second, "train")) == 1


def test_two_jobs_at_a_time_and_one_run_once(made):
    found = make(made, "-j2")
    assert found.returncode == 0, found.stderr
    run = made / "fold_01-scratch-s1"
    held = ["sh", "-c", "exec 9>>run.lock && flock 9 && sh run.sh 9>&-"]
    found = subprocess.run(held, cwd=run, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "another process is at work" in found.stderr


def test_a_queue_runs_a_copy_of_a_script(made, tmp_path):
    run = made / "fold_01-scratch-s1"
    copy = tmp_path / "spool.sh"
    copy.write_text((run / "run.sh").read_text())
    found = subprocess.run(["sh", str(copy)], cwd="/", capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert (run / "evaluation" / "evaluation.json").exists()


def test_a_report_of_what_is_complete(made):
    (made / "a_b_x-scratch-s1" / "stop").write_text("10")
    make(made)
    found = subprocess.run(
        ["sh", "report.sh"], cwd=made, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0
    assert "a_b_x-scratch-s1 is not complete" in found.stderr
    assert "report fold_01-scratch-s1 -o" in (made / "calls").read_text()
