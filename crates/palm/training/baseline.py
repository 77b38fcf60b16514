"""The rival without training: pooled Gabor responses, then linear discriminant analysis.

    python baseline.py ../models/palm_embedding.onnx

Prints the error rates of both on the same synthetic people, whom neither has seen.
"""

import sys

import cv2
import numpy as np
import onnxruntime
from network import DIMENSIONS, gabor
from palms import crowd, normalise
from train import equal_error_rate

CELLS = 10


def descriptor(image, bank):
    """Strength of dark and of bright lines in each direction, averaged over CELLS x CELLS cells."""
    pooled = []
    for kernel in bank:
        answer = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)
        for part in (np.maximum(answer, 0), np.maximum(-answer, 0)):
            pooled.append(cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel())
    return np.sqrt(np.concatenate(pooled))


def discriminants(features, labels):
    """Mean and the directions in which people differ more than captures do."""
    mean = features.mean(0)
    centres = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    within = features - centres[labels]
    scatter = within.T @ within / len(features) + 1e-4 * np.eye(features.shape[1])
    values, vectors = np.linalg.eigh(scatter)
    whiten = vectors / np.sqrt(values)
    spread = (centres - mean) @ whiten
    _, _, directions = np.linalg.svd(spread, full_matrices=False)
    return mean, whiten @ directions[:DIMENSIONS].T


def people(first, count, captures):
    images = np.stack([normalise(image) for image in crowd(first, count, captures)])
    return images, np.repeat(np.arange(count), captures)


def show(name, vectors, labels):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    i, j = np.triu_indices(len(labels), 1)
    rate, strict = equal_error_rate((vectors[i] * vectors[j]).sum(1), labels[i] == labels[j])
    print(f"{name}: EER {100 * rate:.2f} %, FNMR at FMR 1e-3 {100 * strict:.2f} %", flush=True)


def main():
    bank = gabor(2.3, 6.0)
    images, labels = people(9_000_000, 600, 5)
    mean, directions = discriminants(np.stack([descriptor(i, bank) for i in images]), labels)
    images, labels = people(5_000_000, 200, 4)
    show("pooled Gabor + LDA", (np.stack([descriptor(i, bank) for i in images]) - mean) @ directions, labels)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    vectors = np.concatenate([network.run(None, {"region": i[None, None]})[0] for i in images])
    show("network", vectors, labels)


if __name__ == "__main__":
    main()
