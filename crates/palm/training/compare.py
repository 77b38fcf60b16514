"""Compares embedding networks on people whom none of them has seen.

    python compare.py work/real_hands.npz NETWORK.onnx [NETWORK.onnx ...]

On real hands with simulated second captures (`real_hands.py`), on synthetic people of the training's
recipe (`palms.py`) and of one that no training used (`contours.py`).
"""

import sys

import numpy as np
import contours
import onnxruntime
from palms import crowd, normalise


def embed(network, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    vectors = np.concatenate([session.run(None, {"region": i[None, None]})[0] for i in images])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def interval(count, trials):
    """95 % Wilson interval of a share, in percent."""
    if trials == 0:
        return 0.0, 100.0
    z, share = 1.96, count / trials
    middle, spread = share + z * z / (2 * trials), z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return 100 * (middle - spread) / (1 + z * z / trials), 100 * (middle + spread) / (1 + z * z / trials)


def scores(vectors, labels):
    cosines = vectors @ vectors.T
    i, j = np.triu_indices(len(labels), 1)
    same = labels[i] == labels[j]
    return np.sort(cosines[i, j][same]), np.sort(cosines[i, j][~same])


def equal_error(mated, other):
    misses = np.searchsorted(mated, other) / len(mated)
    false = 1 - np.arange(len(other)) / len(other)
    best = np.argmin(abs(misses - false))
    return (misses[best] + false[best]) / 2


def effective_dimensions(vectors):
    """Participation ratio of the covariance: how many directions the vectors really use."""
    values = np.linalg.eigvalsh(np.cov(vectors.T))
    return values.sum() ** 2 / (values**2).sum()


def ranks(vectors, labels):
    """Of each probe (every capture but a person's first), how many strangers' references are nearer."""
    first = np.array([np.flatnonzero(labels == person)[0] for person in np.unique(labels)])
    probes = np.setdiff1d(np.arange(len(labels)), first)
    cosines = vectors[probes] @ vectors[first].T
    own = labels[probes][:, None] == labels[first][None]
    return (cosines > cosines[own][:, None]).sum(1), len(first)


def report(name, vectors, labels):
    mated, other = scores(vectors, labels)
    nearer, people = ranks(vectors, labels)
    print(f"  {name}: {len(mated)} mated, {len(other)} non-mated pairs")
    print(f"    strangers' cosine {other.mean():.3f} ± {other.std():.3f}, mates' {mated.mean():.3f} ± {mated.std():.3f},"
          f" effective dimensions {effective_dimensions(vectors):.0f}")
    print(f"    EER {100 * equal_error(mated, other):.2f} %", end="")
    for rate in (1e-2, 1e-3, 1e-4):
        limit = other[-max(1, int(len(other) * rate))]
        missed = int((mated <= limit).sum())
        print(", FNMR at FMR %g %.2f %% (%.2f-%.2f)" % (rate, 100 * missed / len(mated), *interval(missed, len(mated))), end="")
    held = {size: int((nearer < size).sum()) for size in (1, max(1, people // 100))}
    print(f"\n    rank-1 of {people}: {100 * held[1] / len(nearer):.2f} %,"
          f" a shortlist of 1 % holds the mate in {100 * list(held.values())[-1] / len(nearer):.2f} % of {len(nearer)}", flush=True)


def main():
    data = np.load(sys.argv[1])
    regions, labels = data["regions"], data["labels"]
    images = [normalise(region) for region in regions]
    synthetic = {
        "synthetic people, visible": crowd(5_000_000, 300, 3),
        "synthetic people, near infrared": crowd(5_000_000, 300, 3, seen_infrared=True),
        "synthetic people of the other recipe": (contours.sample(person, index) for person in range(300) for index in range(3)),
    }
    synthetic = {name: [normalise(image) for image in pictures] for name, pictures in synthetic.items()}
    for network in sys.argv[2:]:
        print(network)
        vectors = embed(network, images)
        plain = labels[:, 1] == 0
        other = scores(vectors[plain], labels[plain, 0])[1]
        print(f"  real hands as photographed: strangers' cosine {other.mean():.3f} ± {other.std():.3f}, 99.9th percentile"
              f" {np.quantile(other, 0.999):.3f}, effective dimensions {effective_dimensions(vectors[plain]):.0f}")
        report("real hands, simulated captures", vectors[~plain], labels[~plain, 0])
        for name, pictures in synthetic.items():
            report(name, embed(network, pictures), np.arange(300).repeat(3))


if __name__ == "__main__":
    main()
