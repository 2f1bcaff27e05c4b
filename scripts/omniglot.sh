#!/usr/bin/env bash
# Regenerates results/omniglot.json: real Omniglot, vinyals split, rotations in all splits, 1000 test episodes.
#   scripts/omniglot.sh FOLDER_WITH_THE_TWO_ZIPS [OUT]
# About 45 minutes for ProtoNet and 75 for each MAML, on one core each.
set -euo pipefail
root=${1:?the folder with images_background.zip and images_evaluation.zip}
out=${2:-outputs/omniglot}
train() { fsl train data=omniglot data.root="$root" out="$out" "$@"; }
latest() { ls -d "$out/$1"/*/ | tail -n 1; }

train algo=protonet steps=8000
fsl test run="$(latest protonet-omniglot-5w1s)" way=20
train algo=maml norm=support steps=10000 schedule.kind=cosine
train algo=maml steps=8000 schedule.kind=cosine  # transductive, as the authors
python scripts/collect.py "$out" results/omniglot.json
