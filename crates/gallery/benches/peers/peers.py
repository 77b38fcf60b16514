"""The peers of the gallery's search, one thread, driven line by line by `benches/peers.rs`.

Makes the vectors for both sides: N rows of 512 dimensions, two of each person, unit length, every
direction alike. Two captures of a person have a cosine of 0.70 on average, standard deviation 0.04.
"""

import json
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np
import usearch.index

D = 512
PROBES = 256


def unit(x):
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def captures(rng, people):
    """One capture of each person: a cosine of about 0.837 with the person's own direction."""
    share = np.clip(rng.normal(0.837, 0.035, (len(people), 1)), 0.6, 0.97).astype(np.float32)
    aside = rng.standard_normal(people.shape, dtype=np.float32)
    aside -= (aside * people).sum(1, keepdims=True) * people
    return share * people + np.sqrt(1 - share * share) * unit(aside)


def vectors(n):
    """Rows, and probes of enrolled people followed by as many of strangers."""
    rng = np.random.default_rng(n)
    rows, probes = np.empty((n, D), np.float32), []
    wanted = np.sort(rng.choice(n // 2, PROBES, replace=False))
    for start in range(0, n // 2, 25_000):
        end = min(n // 2, start + 25_000)
        people = unit(rng.standard_normal((end - start, D), dtype=np.float32))
        rows[2 * start : 2 * end : 2] = captures(rng, people)
        rows[2 * start + 1 : 2 * end : 2] = captures(rng, people)
        here = wanted[(wanted >= start) & (wanted < end)] - start
        probes.append(captures(rng, people[here]))
    strangers = unit(rng.standard_normal((PROBES, D), dtype=np.float32))
    probes.append(captures(rng, strangers))
    return rows, np.ascontiguousarray(np.concatenate(probes))


def signs(x):
    return np.packbits(x > 0, axis=1, bitorder="little")


def index(rows):
    flat = faiss.IndexFlatIP(D)
    binary = faiss.IndexBinaryFlat(D)
    refined = faiss.index_factory(D, "PQ128x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    refined.train(rows[:50_000])
    refined.k_factor = 32
    for start in range(0, len(rows), 50_000):
        some = rows[start : start + 50_000]
        flat.add(some)
        binary.add(signs(some))
        refined.add(some)
    return flat, binary, refined


def methods(rows, probes):
    flat, binary, refined = index(rows)
    codes = signs(probes)

    def exact(first, count):
        some = probes[first : first + count]
        usearch.index.search(rows, some if count > 1 else some[0], 2, "ip", exact=True, threads=1)

    return flat, {
        "faiss-flat-ip": lambda i, b: flat.search(probes[i : i + b], 2),
        "faiss-binary-flat-512": lambda i, b: binary.search(codes[i : i + b], 2),
        "faiss-pq-fastscan-refine": lambda i, b: refined.search(probes[i : i + b], 2),
        "usearch-f32": exact,
    }


def main(folder, n):
    faiss.omp_set_num_threads(1)
    rows, probes = vectors(n)
    rows.tofile(f"{folder}/rows.f32")
    probes.tofile(f"{folder}/probes.f32")
    flat, searches = methods(rows, probes)
    cosines, found = flat.search(probes, 1)
    truth = {"rows": found[:, 0].tolist(), "cosines": cosines[:, 0].tolist()}
    with open(f"{folder}/truth.json", "w", encoding="utf-8") as file:
        json.dump(truth, file)
    evict = np.ones(96 << 17, np.uint64)
    print("ready", flush=True)
    for line in sys.stdin:
        method, cache, first, count, batch = line.split()
        search, first, count, batch = searches[method], int(first), int(count), int(batch)
        if cache == "hot":
            search(first, batch)
        else:
            evict.sum()
        start = time.process_time()
        for i in range(count):
            search((first + i * batch) % PROBES, batch)
        elapsed = time.process_time() - start
        print(1e3 * elapsed / (count * batch), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
