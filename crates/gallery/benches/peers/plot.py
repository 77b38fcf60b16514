"""The plots of docs/search.md, from the files that `benches/peers.rs` has written."""

import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "search"
matplotlib.rcParams["svg.fonttype"] = "none"

import matplotlib.pyplot as plt


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def times(result, folder):
    figure, axes = plt.subplots(figsize=(7, 4))
    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        points = [(row["n"], row["median_ms"]) for row in result["rows"] if row["method"] == method]
        ours = method.startswith("palmgate")
        axes.loglog(*zip(*points), marker="o", label=method, linewidth=2.5 if ours else 1)
    axes.set(xlabel="rows", ylabel="ms a search, one thread, process CPU time")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, f"{folder}/search-times.svg")


def cuts(plans, folder):
    figure, axes = plt.subplots(figsize=(7, 4))
    for dimension in sorted({plan["dimensions"] for plan in plans}):
        some = [plan for plan in plans if plan["dimensions"] == dimension]
        points = [(plan["threshold"], plan["strangers"]) for plan in some]
        axes.semilogy(*zip(*points), marker=".", label=f"{dimension} dimensions")
    axes.set(xlabel="threshold (cosine)", ylabel="share of strangers that are looked at in full")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, f"{folder}/search-cuts.svg")


if __name__ == "__main__":
    bench, docs = sys.argv[1:]
    with open(f"{bench}/gallery.json", encoding="utf-8") as file:
        times(json.load(file), docs)
    with open(f"{bench}/gallery-more.json", encoding="utf-8") as file:
        cuts(json.load(file)["plans"], docs)
