"""Times ONNX models with onnxruntime in one thread, for `cargo bench --bench beside`.

For each line on standard input it prints the fastest of some runs of each model, in microseconds.
"""
import json
import sys
import time

import numpy
import onnxruntime

RUNS = 10


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fastest(one):
    wanted = one.get_inputs()[0]
    shape = [side if isinstance(side, int) else 1 for side in wanted.shape]
    given = {wanted.name: numpy.random.default_rng(1).random(shape, dtype=numpy.float32)}
    took = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        one.run(None, given)
        took.append(1e6 * (time.perf_counter() - begun))
    return min(took)


sessions = [session(path) for path in sys.argv[1:]]
for one in sessions:
    fastest(one)
print(json.dumps({"version": onnxruntime.__version__}), flush=True)
for _ in sys.stdin:
    print(json.dumps([fastest(one) for one in sessions]), flush=True)
