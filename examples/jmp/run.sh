#!/usr/bin/env bash
# Joint pre-training on four small data sets, then fine-tuning on a fifth: run.sh DATA WORK
# DATA holds the files that README.md names. Goes on where it stopped.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
data=$(realpath "$1")
templates=$(realpath "$here/../../input_templates/small")
mkdir -p "$2"
cd "$2"
export OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1 NUM_WORKERS=0

convert() { # NAME VALID SOURCE OPTIONS...: a set, a share VALID of which validates
  local name=$1 valid=$2 source=$3
  shift 3
  [ -d "data/$name" ] && return
  dp-mft convert "$source" "sets/$name" --overwrite --quiet "$@"
  dp-mft split random "sets/$name" "split/$name" --overwrite --id-test 0 --val "$valid"
  mkdir -p data
  mv "split/$name/val" "split/$name/valid"
  mv "split/$name" "data/$name"
}

convert QM7-X 0.1 "$data/molecules/qm7x_2500.npz" --energy-unit eV
convert SPICE 0.1 "$data/molecules/spice_673.xyz.gz" --no-cell
convert MPtrj 0.1 "$data/crystals/mptrj-random-1k.xyz.gz"
convert MPF-TP 0.1 "$data/crystals/mpf-TP.xyz.gz"
rmd17=(--no-cell --energy-key Energy)
convert ethanol 0.17 "$data/molecules/rmd17/ethanol_train_01.xyz.gz" "${rmd17[@]}" --limit 60
[ -d sets/ethanol_test ] ||
  dp-mft convert "$data/molecules/rmd17/ethanol_test_01.xyz.gz" sets/ethanol_test --quiet "${rmd17[@]}"

train() { # FOLDER OPTIONS...: what its input.json says, from its last checkpoint if there is one
  cd "$1"
  shift
  local steps
  steps=$(python -c 'import json; print(json.load(open("input.json"))["training"]["numb_steps"])')
  if [ ! -f "model.ckpt-$steps.pt" ]; then
    [ -f checkpoint ] && set -- --restart "$(cat checkpoint)"
    dp --pt train input.json "$@"
  fi
  cd - > /dev/null
}

if [ ! -f input.json ]; then
  cp "$templates/jmp_pretrain.json" template.json
  dp-mft normalise template.json --temperature 2 -o input.json
fi
train .
averaged=$(realpath model_ema.ckpt.pt) # JMP fine-tunes the mean of the weights
for start in scratch joint; do
  mkdir -p "$start"
  [ -e "$start/data" ] || ln -s ../data "$start/data"
  cp "$here/ethanol.json" "$start/input.json"
done
train scratch
train joint --finetune "$averaged" --model-branch QM7-X
for start in scratch joint; do
  echo "== 50 frames of ethanol, $start"
  dp --pt test -m "$start/model.ckpt.pt" -s sets/ethanol_test -n 500 2>&1 |
    grep -E "(Force|Energy) +(MAE|RMSE)"
done
