"""Trains the embedding network on synthetic palms only and writes the ONNX file.

    python train.py --minutes 45 --out ../models/palm_embedding.onnx

One thread, no accelerator; the minutes are those of the processor, so that a busy machine trains
as well as an idle one. A checkpoint with optimiser state is written every few minutes and used when
the same command is started again.
"""

import argparse
import os
import time

import numpy as np
import torch
from palms import CANVAS, Person, capture, normalise, sample
from network import CosineHead, PalmNet

torch.set_num_threads(1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--states", type=int, default=3, help="skin states drawn for each person")
    parser.add_argument("--work", default="work", help="folder for the bank and the checkpoint")
    parser.add_argument("--out", default="../models/palm_embedding.onnx")
    return parser.parse_args()


class Bank:
    """Everybody's layers, quantised, so that a capture costs a warp and not a drawing."""

    STEP = 48.0

    def __init__(self, people, states, file):
        shape = (people, states, 2, CANVAS, CANVAS)
        fresh = not os.path.exists(file)
        self.layers = np.lib.format.open_memmap(file, "w+" if fresh else "r+", np.int8, shape if fresh else None)
        self.drawn = np.any(self.layers[:, :, 1, ::9], axis=(2, 3))
        self.people = {}

    def person(self, index):
        if index not in self.people:
            self.people[index] = Person(1_000_000 + index)
        return self.people[index]

    def capture(self, rng, index, strength):
        person, state = self.person(index), rng.integers(self.layers.shape[1])
        if not self.drawn[index, state]:
            layers = np.stack(person.layers(np.random.default_rng([index, state])))
            self.layers[index, state] = np.clip(np.round(layers * self.STEP), -127, 127)
            self.drawn[index, state] = True
        unpacked = self.layers[index, state].astype(np.float32) / self.STEP
        return normalise(capture(rng, person, *unpacked, strength))


def equal_error_rate(scores, same):
    mated, other = np.sort(scores[same]), np.sort(scores[~same])
    misses = np.searchsorted(mated, other) / len(mated)
    false = 1 - np.arange(len(other)) / len(other)
    best = np.argmin(abs(misses - false))
    strict = other[-max(1, len(other) // 1000)]
    return (misses[best] + false[best]) / 2, np.mean(mated <= strict)


def held_out(people=100, captures=4):
    images = [normalise(sample(5_000_000 + i, k)) for i in range(people) for k in range(captures)]
    return np.stack(images)[:, None], np.repeat(np.arange(people), captures)


@torch.no_grad()
def embed(net, images):
    net.eval()
    vectors = torch.cat([net(torch.tensor(images[i:i + 100])) for i in range(0, len(images), 100)])
    net.train()
    return torch.nn.functional.normalize(vectors).numpy()


def report(net, data, tag):
    images, labels = data
    vectors = embed(net, images)
    i, j = np.triu_indices(len(labels), 1)
    rate, strict = equal_error_rate((vectors[i] * vectors[j]).sum(1), labels[i] == labels[j])
    print(f"{tag}: held-out synthetic people: EER {100 * rate:.2f} %, FNMR at FMR 1e-3 {100 * strict:.2f} %", flush=True)


def export(net, path):
    net.eval()
    torch.onnx.export(net, torch.zeros(1, 1, 80, 80), path + ".new", opset_version=13, dynamo=False,
                      input_names=["region"], output_names=["embedding"])
    os.replace(path + ".new", path)
    net.train()


def save(path, net, head, optimiser, step, spent):
    state = {"net": net.state_dict(), "head": head.state_dict(), "optimiser": optimiser.state_dict(),
             "step": step, "spent": spent}
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def main():
    options = arguments()
    os.makedirs(options.work, exist_ok=True)
    checkpoint = os.path.join(options.work, "checkpoint.pt")
    torch.manual_seed(1)
    net, head = PalmNet().to(memory_format=torch.channels_last), CosineHead(options.people)
    print("parameters", sum(p.numel() for p in net.parameters()), flush=True)
    rates = (2e-3, 4e-3)
    optimiser = torch.optim.AdamW([{"params": net.parameters()}, {"params": head.parameters()}], lr=1e-3, weight_decay=5e-4)
    step, spent = 0, 0.0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        net.load_state_dict(state["net"]), head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    bank, data = Bank(options.people, options.states, os.path.join(options.work, "bank.npy")), held_out()
    rng = np.random.default_rng([3, step])
    clock = lambda: time.process_time() - begun + spent
    begun, limit, saved, running = time.process_time(), options.minutes * 60, spent, None
    while (progress := clock() / limit) < 1:
        warm_up = min(1, (step + 1) / 100)
        for group, rate in zip(optimiser.param_groups, rates):
            group["lr"] = float(rate * warm_up * (0.02 + 0.49 * (1 + np.cos(np.pi * progress))))
        people = rng.choice(options.people, 32, replace=False).repeat(2)
        strength = 0.6 + 0.5 * min(1, progress * 2)
        images = np.stack([bank.capture(rng, p, strength) for p in people])[:, None]
        vectors = net(torch.tensor(images).contiguous(memory_format=torch.channels_last))
        loss = head(vectors, torch.tensor(people), 0.25 * min(1, step / 400))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"step {step}, {clock():.0f} s, loss {running:.3f}", flush=True)
        if clock() - saved > 180:
            save(checkpoint, net, head, optimiser, step, clock())
            report(net, data, f"step {step}")
            saved = clock()
    report(net, data, "final")
    save(checkpoint, net, head, optimiser, step, clock())
    export(net, options.out)


if __name__ == "__main__":
    main()
