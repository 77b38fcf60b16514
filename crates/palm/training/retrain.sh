#!/bin/sh
# Trains both networks and combines them. Each training goes on from its last checkpoint when this is
# started again. Needs `venv` (README.md) and the repository's history.
set -e
cd "$(dirname "$0")"
python="$PWD/venv/bin/python"
mkdir -p work/first
# The first network's recipe is the one that the repository began with.
git archive 9df99d0 | tar -x -C work/first
(cd work/first && "$python" train.py --minutes "${FIRST_MINUTES:-22}" --out ../first.onnx)
"$python" train.py --minutes "${SECOND_MINUTES:-125}" --out work/second.onnx
"$python" combine.py work/first.onnx work/second.onnx ../models/palm_embedding.onnx
