"""Makes one network of two: the mean of their cosines, in 256 dimensions.

    python combine.py FIRST.onnx SECOND.onnx ../models/palm_embedding.onnx

Both embeddings, scaled to the same mean length and laid side by side, are projected on the directions
in which synthetic people differ most. The projection goes into the last layer of each network, so that
the sum of both is all that is added.
"""

import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from palms import crowd, normalise
from train import identity

DIMENSIONS, PEOPLE = 256, 600
LENGTH = 16.0  # of an answer, about: the golden value is a number of some size


def answers(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"region": image[None, None]})[0] for image in images])


def projected(model, prefix, projection):
    """The nodes and weights of `model` up to its last convolution, which projects as well; its output."""
    graph = onnx.compose.add_prefix_graph(model.graph, prefix)
    flatten = graph.node[-1]
    last = next(node for node in graph.node if node.output[0] == flatten.input[0])
    assert (last.op_type, flatten.op_type) == ("Conv", "Flatten") and len(last.input) == 3
    weights = {w.name: w for w in graph.initializer}
    kernel, bias = (numpy_helper.to_array(weights[name]) for name in last.input[1:])
    for name, value in zip(last.input[1:], (np.tensordot(projection, kernel, 1), projection @ bias)):
        weights[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == prefix + "region":
                node.input[place] = "region"
    return list(graph.node)[:-1], list(graph.initializer), last.output[0]


def main():
    first, second, out = sys.argv[1:]
    images = [normalise(image) for image in crowd(6_000_000, PEOPLE, 1, before_one_camera=10)]
    sides, lengths = [], []
    for path in (first, second):
        vectors = answers(path, images)
        lengths.append(np.linalg.norm(vectors, axis=1).mean())
        sides.append(vectors / lengths[-1])
    both = np.hstack(sides)
    _, spread, directions = np.linalg.svd(both - both.mean(0), full_matrices=False)
    print(f"{DIMENSIONS} of {both.shape[1]} directions keep {100 * (spread[:DIMENSIONS]**2).sum() / (spread**2).sum():.2f} % of the variance")
    nodes, weights, ends = [], [], []
    for index, path in enumerate((first, second)):
        part = LENGTH * directions[:DIMENSIONS, index * DIMENSIONS:(index + 1) * DIMENSIONS] / lengths[index]
        some, their, end = projected(onnx.load(path), f"{'ab'[index]}_", part)
        nodes, weights, ends = nodes + some, weights + their, [*ends, end]
    nodes += [helper.make_node("Add", ends, ["sum"]), helper.make_node("Flatten", ["sum"], ["embedding"], axis=1)]
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
             for name, shape in (("region", [1, 1, 80, 80]), ("embedding", [1, DIMENSIONS]))]
    graph = helper.make_graph(nodes, "palm_embedding", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=onnx.load(first).ir_version)
    onnx.checker.check_model(model)
    onnx.save(model, out)
    print(identity(out))


if __name__ == "__main__":
    main()
