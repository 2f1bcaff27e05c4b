#!/usr/bin/env bash
# Regenerates results/omniglot.json: real Omniglot, vinyals split, rotations in all splits, 1000 test episodes.
#   scripts/omniglot.sh FOLDER_WITH_THE_TWO_ZIPS [OUT]
# An hour or so each on one core.
set -euo pipefail
root=${1:?the folder with images_background.zip and images_evaluation.zip}
out=${2:-outputs/omniglot}
train() { fsl train data=omniglot data.root="$root" out="$out" "$@"; }
latest() { ls -d "$out/$1"/*/ | tail -n 1; }

train algo=protonet steps=8000
fsl test run="$(latest protonet-omniglot-5w1s)" way=20
train algo=maml norm=support query=15 steps=10000 schedule.kind=cosine
train algo=maml query=15 steps=8000 schedule.kind=cosine  # transductive, as the authors
fsl test run="$(latest maml-omniglot-5w1s)" query=1       # and judged as it was trained
python scripts/collect.py "$out" results/omniglot.json
