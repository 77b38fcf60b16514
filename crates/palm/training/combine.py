"""Makes one network of two, in 256 dimensions.

    python combine.py FIRST.onnx SECOND.onnx ../models/palm_embedding.onnx

Both embeddings are scaled to the same mean length and laid side by side. What differs between captures
of one synthetic person is weighed down (within-class covariance normalisation, Hatch and others 2006),
and the 256 directions are kept in which people then differ most (Fisher's discriminants). That goes into
the last layer of each network, so that the sum of both is all that is added. People of both recipes are
drawn for it: `work/first` holds the first one's.
"""

import importlib.util
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from palms import crowd, normalise
from train import identity

DIMENSIONS, PEOPLE = 256, 800
SEED = 6_000_000  # of the first person
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


def recipes():
    """Two captures each of people of the second recipe, seen in visible light and near infrared, and of
    the first one."""
    spec = importlib.util.spec_from_file_location("first_palms", "work/first/palms.py")
    first = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(first)
    for infrared, people in ((False, PEOPLE), (True, PEOPLE // 2)):
        yield [normalise(image) for image in crowd(SEED, people, 2, infrared, before_one_camera=20)]
    yield [first.normalise(first.sample(SEED + person, index)) for person in range(PEOPLE) for index in range(2)]


def covariances(vectors):
    """Within people and between them."""
    pairs = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).reshape(len(vectors) // 2, 2, -1)
    apart, middle = (pairs[:, 0] - pairs[:, 1]) / np.sqrt(2), pairs.mean(1) - pairs.mean((0, 1))
    return np.stack([side.T @ side / len(side) for side in (apart, middle)])


def discriminants(within, between):
    """Directions, best first, after `within` has become nearly the same in all of them."""
    ridge = np.trace(within) / len(within)
    values, vectors = np.linalg.eigh(within + ridge * np.eye(len(within)))
    whitening = vectors / np.sqrt(values) @ vectors.T
    values, vectors = np.linalg.eigh(whitening @ between @ whitening)
    share = values[-DIMENSIONS:].sum() / values.sum()
    print(f"{DIMENSIONS} of {len(values)} directions keep {100 * share:.2f} % of the variance between people")
    return (whitening @ vectors[:, ::-1]).T[:DIMENSIONS]


def main():
    first, second, out = sys.argv[1:]
    crowds = [tuple(answers(path, images) for path in (first, second)) for images in recipes()]
    lengths = [np.linalg.norm(vectors, axis=1).mean() for vectors in crowds[0]]
    both = [np.hstack([vectors / length for vectors, length in zip(sides, lengths)]) for sides in crowds]
    directions = discriminants(*np.mean([covariances(vectors) for vectors in both], 0))
    directions *= LENGTH / np.linalg.norm(both[0] @ directions.T, axis=1).mean()
    nodes, weights, ends = [], [], []
    for index, path in enumerate((first, second)):
        part = directions[:, index * DIMENSIONS:(index + 1) * DIMENSIONS] / lengths[index]
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
