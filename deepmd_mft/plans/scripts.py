"""The text of what a plan writes: a script for each run, one for the report, and the Makefile.

Run folders have names that make can take; all other paths are in the scripts, quoted for a shell.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: What a run leaves when it is complete: the last file that its script writes.
EVALUATED = "evaluation/evaluation.json"

_START = """\
python={python}
[ -x "$python" ] || python=python
here=$(dirname -- "$0")
# A queue may run a copy of this script.
[ -f "$here/{landmark}" ] || here={here}
cd -- "$here"
"""

_RUN = """\
#!/bin/sh
# {name}: train, choose the checkpoint on validation data, evaluate.
# Stopped at any point and started again, it goes on where it was. This is all that a job of a
# cluster runs. Written by dp-mft plan.
set -eu
{start}
# Threads: two runs that share cores slow each other several-fold, so one each. A job with cores of
# its own sets these three to their number.
: "${{OMP_NUM_THREADS:=1}}" "${{DP_INTRA_OP_PARALLELISM_THREADS:=1}}"
: "${{DP_INTER_OP_PARALLELISM_THREADS:=1}}"
export OMP_NUM_THREADS DP_INTRA_OP_PARALLELISM_THREADS DP_INTER_OP_PARALLELISM_THREADS

if command -v flock >/dev/null 2>&1; then  # a training that outlives this script holds it too
  exec 9>>run.lock
  flock -w 5 9 || {{ echo "{name}: another process is at work on it" >&2; exit 1; }}
fi
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || :; exit 143' INT TERM HUP
run() {{ "$@" & child=$!; wait "$child"; }}
complete() {{ # a process that was killed while it saved has left a part of a file
  "$python" -c 'import sys, zipfile as z; sys.exit(bool(z.ZipFile(sys.argv[1]).testzip()))' "$1" \\
    2>/dev/null
}}

if [ ! -f trained ] || [ input.json -nt trained ]; then
  newest=0 start=
  for file in {prefix}-*.pt; do
    step=${{file##*-}} step=${{step%.pt}}
    case $step in '' | *[!0-9]*) continue ;; esac
    if [ "$step" -gt "$newest" ] && complete "$file"; then newest=$step start=$file; fi
  done
  if [ -n "$start" ]; then set -- --restart "$start"; else set --{finetune}; fi
  echo "{name}: training${{start:+ goes on from step $newest}}"
  run "$python" -m deepmd --pt train input.json "$@" >>train.log 2>&1 || {{
    echo "{name}: the training has failed; the end of $here/train.log:" >&2
    tail -n 5 train.log >&2
    exit 1
  }}
  : >trained
fi
run "$python" -m deepmd_mft select . -q
run "$python" -m deepmd_mft evaluate . --split {split} -o evaluation --overwrite -q
echo "{name}: done"
"""

_REPORT = """\
#!/bin/sh
# Report the runs of this plan that are complete. Written by dp-mft plan.
set -eu
{start}
set --
for run in {runs}; do
  if [ -f "$run/{evaluated}" ]; then set -- "$@" "$run"; else echo "$run is not complete" >&2; fi
done
[ $# -gt 0 ] || {{ echo "no run is complete: make runs" >&2; exit 1; }}
exec "$python" -m deepmd_mft report "$@" -o report.html --overwrite
"""

_MAKEFILE = """\
# Written by dp-mft plan. In this folder:
#   make -j 2 -k    train what is missing, two runs at a time; go on if one fails; then the report
#   make runs       without the report
#   make -n         only say what is missing
#   sh report.sh    report the runs that are complete by now
# On a cluster every */run.sh is a job of its own; then make for the report.
RUNS := {runs}
EVALUATED := $(RUNS:%=%/{evaluated})

.PHONY: all runs
.PRECIOUS: report.html $(EVALUATED)

all: report.html

runs: $(EVALUATED)

$(EVALUATED): %/{evaluated}: %/input.json
\t@sh $*/run.sh

report.html: report.sh $(EVALUATED)
\t@sh report.sh
"""


def run_script(folder: Path, save_ckpt: str, finetune: Path | None, split: list[Path]) -> str:
    """Return the script of a run.

    Parameters
    ----------
    folder : Path
        Of the run, absolute.
    save_ckpt : str
        Prefix of its checkpoints.
    finetune : Path, optional
        The checkpoint that it starts from.
    split : list of Path
        Where its test sets are.
    """
    return _RUN.format(
        name=folder.name,
        start=_start(folder, "input.json"),
        prefix=shlex.quote(save_ckpt),
        finetune="" if finetune is None else f" --finetune {_quoted(finetune, folder)}",
        split=" ".join(_quoted(one, folder) for one in split),
    )


def report_script(out: Path, runs: list[str]) -> str:
    """Return the script of the report of runs in the folder ``out``."""
    return _REPORT.format(start=_start(out, "plan.json"), runs=" ".join(runs), evaluated=EVALUATED)


def makefile(runs: list[str]) -> str:
    """Return the Makefile of runs beside it."""
    return _MAKEFILE.format(runs=" ".join(runs), evaluated=EVALUATED)


def _start(folder: Path, landmark: str) -> str:
    python, here = (shlex.quote(str(one)) for one in (sys.executable, folder))
    return _START.format(python=python, here=here, landmark=landmark)


def _quoted(path: Path, folder: Path) -> str:
    return shlex.quote(os.path.relpath(path.absolute(), folder))
