"""Trains an embedding network on synthetic palms only and writes the ONNX file.

    python train.py --minutes 125 --out work/second.onnx

The minutes are those of the processor, so that a busy machine trains as well as an idle one; with
`--device cuda` the processor draws what the accelerator learns from. A checkpoint with optimiser state
is written every few minutes and used when the same command is started again; with fewer minutes it
comes to its end sooner.
"""

import argparse
import copy
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import torch
from network import DIMENSIONS, CosineHead, PalmNet, contrast
from palms import CANVAS, Form, Person, Scene, capture, crowd, infrared, normalise

FIRST = 1_000_000  # seed of the first person
GROUPS, GROUP = 4, 8  # people of a batch: so many cameras, so many people before each


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--people", type=int, default=8000)
    parser.add_argument("--states", type=int, default=2, help="skin states drawn for each person")
    parser.add_argument("--work", default="work", help="folder for the bank and the checkpoint")
    parser.add_argument("--out", default="work/second.onnx")
    parser.add_argument("--start", help="combined model whose second network the weights begin with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="as torch names it")
    return parser.parse_args()


class Bank:
    """Everybody's layers, quantised, so that a capture costs a warp and not a drawing."""

    STEP = 48.0

    def __init__(self, people, states, file):
        shape = (people, states, 2, CANVAS, CANVAS)
        fresh = not os.path.exists(file)
        self.layers = np.lib.format.open_memmap(file, "w+" if fresh else "r+", np.int8, shape if fresh else None)
        self.drawn = np.any(self.layers[:, :, 1, ::9], axis=(2, 3))
        self.forms = {}
        seen = np.array([infrared(FIRST + index) for index in range(people)])
        self.bands = [np.flatnonzero(~seen), np.flatnonzero(seen)]

    def form(self, index):
        """The person's form; draws the layers if they are not there yet."""
        if not self.drawn[index].all():
            person = Person(FIRST + index)
            for state in range(len(self.drawn[index])):
                layers = np.stack(person.layers(np.random.default_rng([index, state])))
                self.layers[index, state] = np.clip(np.round(layers * self.STEP), -127, 127)
            self.drawn[index] = True
        if index not in self.forms:
            self.forms[index] = Form(FIRST + index)
        return self.forms[index]

    def capture(self, rng, index, strength):
        """One capture of a person, before a camera of its own."""
        form, state = self.form(index), rng.integers(0, self.layers.shape[1])
        layers = self.layers[index, state].astype(np.float32) / self.STEP
        return normalise(capture(rng, Scene(rng, infrared(FIRST + index)), form, *layers, strength))

    def batch(self, rng, strength):
        """Pairs of captures, person by person, each pair by one camera at two hours, and who they are."""
        images, people = [], []
        order = [list(rng.permutation(band)) for band in self.bands]
        for _ in range(GROUPS):
            band = int(rng.random() < 0.3)
            first = Scene(rng, bool(band))
            scenes = first, first.again(rng) if rng.random() < 0.8 else Scene(rng, bool(band))
            for _ in range(GROUP):
                index = order[band].pop()
                form, states = self.form(index), rng.integers(0, self.layers.shape[1], 2)
                for scene, state in zip(scenes, states):
                    layers = self.layers[index, state].astype(np.float32) / self.STEP
                    images.append(normalise(capture(rng, scene, form, *layers, strength)))
                    people.append(index)
        return np.stack(images)[:, None], np.array(people)


def equal_error_rate(scores, same):
    mated, other = np.sort(scores[same]), np.sort(scores[~same])
    misses = np.searchsorted(mated, other) / len(mated)
    false = 1 - np.arange(len(other)) / len(other)
    best = np.argmin(abs(misses - false))
    strict = other[-max(1, len(other) // 1000)]
    return (misses[best] + false[best]) / 2, np.mean(mated <= strict)


def held_out(people=120, captures=4):
    images = [normalise(image) for image in crowd(5_000_000, people, captures, before_one_camera=20)]
    return np.stack(images)[:, None], np.repeat(np.arange(people), captures)


@torch.no_grad()
def embed(net, images):
    net.eval()
    device = next(net.parameters()).device
    vectors = torch.cat([net(torch.tensor(images[i:i + 100], device=device)) for i in range(0, len(images), 100)])
    return torch.nn.functional.normalize(vectors).cpu().numpy()


def report(net, data, tag):
    images, labels = data
    vectors = embed(net, images)
    i, j = np.triu_indices(len(labels), 1)
    scores, same = (vectors[i] * vectors[j]).sum(1), labels[i] == labels[j]
    rate, strict = equal_error_rate(scores, same)
    print(f"{tag}: held-out synthetic people: EER {100 * rate:.2f} %, FNMR at FMR 1e-3 {100 * strict:.2f} %,"
          f" strangers' cosine {scores[~same].mean():.3f} ± {scores[~same].std():.3f}", flush=True)


def export(net, path):
    net = copy.deepcopy(net).cpu().eval()
    torch.onnx.export(net, torch.zeros(1, 1, 80, 80), path + ".new", opset_version=13, dynamo=False,
                      input_names=["region"], output_names=["embedding"])
    os.replace(path + ".new", path)


def weights_of_second(path):
    """Kernels and biases of the second network of a combined model, without the fixed bank."""
    graph = onnx.load(path).graph
    values = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    convolutions = [node.input[1:] for node in graph.node if node.op_type == "Conv" and node.input[1].startswith("b_")]
    return [tuple(torch.tensor(values[name]) for name in names) for names in convolutions if len(names) == 2]


@torch.no_grad()
def begin_with(net, weights, images):
    """Gives `net` weights that normalisation was folded into: each layer's statistics over `images` are
    taken out again, so that it answers as before and learns on."""
    norms = [part for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    convolutions = [part for part in net.modules() if isinstance(part, torch.nn.Conv2d)]
    hooks = []
    for convolution, norm, (kernel, bias) in zip(convolutions, norms, weights, strict=True):
        convolution.weight.copy_(kernel)

        def unfold(norm, inputs, bias=bias):
            norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
            norm.running_var.copy_(inputs[0].var((0, 2, 3)))
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(norm.running_mean + bias.to(norm.bias.device))

        hooks.append(norm.register_forward_pre_hook(unfold))
    net.eval()(torch.tensor(images, device=convolutions[0].weight.device))
    for hook in hooks:
        hook.remove()


class Training:
    def __init__(self, options):
        torch.set_num_threads(options.threads)
        torch.manual_seed(1)
        self.device = torch.device(options.device)
        self.net = PalmNet().to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)  # of the weights on the way: what is exported
        self.head = CosineHead(options.people).to(self.device)
        self.optimiser = torch.optim.AdamW([{"params": self.net.parameters()}, {"params": self.head.parameters()}],
                                           lr=1e-3, weight_decay=5e-4)
        self.step, self.spent, self.started = 0, 0.0, False
        self.file = os.path.join(options.work, "checkpoint.pt")
        if os.path.exists(self.file):
            state = torch.load(self.file, map_location=self.device)
            for name, part in self.parts().items():
                part.load_state_dict(state[name])
            self.step, self.spent, self.started = state["step"], state["spent"], state.get("started", False)

    def parts(self):
        return {"net": self.net, "average": self.average, "head": self.head, "optimiser": self.optimiser}

    def save(self, spent):
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state.update(step=self.step, spent=spent, started=self.started)
        torch.save(state, self.file + ".new")
        os.replace(self.file + ".new", self.file)

    def start(self, path, bank, rng):
        """Begins with trained weights, and with each person's direction where their captures lie."""
        weights = weights_of_second(path)
        begin_with(self.net, weights, np.concatenate([bank.batch(rng, 1.0)[0] for _ in range(8)]))
        people = len(self.head.directions)
        for first in range(0, people, 64):
            images = [bank.capture(rng, index, 1.0) for index in range(first, min(first + 64, people)) for _ in range(2)]
            pairs = torch.tensor(embed(self.net, np.stack(images)[:, None])).view(-1, 2, DIMENSIONS)
            directions = torch.nn.functional.normalize(pairs.sum(1))
            self.head.directions.data[first:first + len(directions)] = 0.8 * directions
            if first % 1024 == 0:
                print(f"directions of {first} people", flush=True)
        self.average.load_state_dict(self.net.state_dict())
        self.started = True

    def learn(self, images, people, progress):
        warm_up = min(1, (self.step + 1) / 100)
        for group, rate in zip(self.optimiser.param_groups, (1e-3, 2e-3) if self.started else (2e-3, 4e-3)):
            group["lr"] = float(rate * warm_up * (0.01 + 0.495 * (1 + np.cos(np.pi * progress))))
        margin = 0.25 if self.started else 0.25 * min(1, self.step / 400)
        images = torch.tensor(images, device=self.device).contiguous(memory_format=torch.channels_last)
        vectors = self.net(images)
        loss = self.head(vectors, torch.tensor(people, device=self.device), margin) + 0.5 * contrast(vectors)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            share = max(0.005, 1 / (self.step + 50 * self.started))
            for mean, now in zip(self.average.state_dict().values(), self.net.state_dict().values()):
                mean.lerp_(now, share) if mean.is_floating_point() else mean.copy_(now)
        return loss.item()


def identity(path):
    """What `src/embed.rs` holds of the file: its hash and its mean absolute answer to a fixed input."""
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    places = np.arange(80 * 80)
    golden = ((places * 7919 + places // 331) % 256 / 256).astype(np.float32).reshape(1, 1, 80, 80)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return f"{path}: SHA-256 {digest}, golden value {abs(session.run(None, {'region': golden})[0]).mean():.6f}"


def main():
    options = arguments()
    os.makedirs(options.work, exist_ok=True)
    training = Training(options)
    print("parameters", sum(p.numel() for p in training.net.parameters()), flush=True)
    bank, data = Bank(options.people, options.states, os.path.join(options.work, "bank.npy")), held_out()
    rng = np.random.default_rng([3, training.step])
    if options.start and not training.step:
        training.start(options.start, bank, rng)
        report(training.average, data, "start")
    begun = time.process_time()
    clock = lambda: time.process_time() - begun + training.spent
    limit, saved, running = options.minutes * 60, training.spent, None
    drawing, following = ThreadPoolExecutor(1), None
    while (progress := clock() / limit) < 1:
        strength = 1.1 if training.started else 0.6 + 0.5 * min(1, progress * 2)
        batch = following.result() if following else bank.batch(rng, strength)
        following = drawing.submit(bank.batch, rng, strength)
        loss = training.learn(*batch, progress)
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if training.step % 100 == 0:
            print(f"step {training.step}, {clock():.0f} s, loss {running:.3f}", flush=True)
        if clock() - saved > 150:
            training.save(clock())
            report(training.average, data, f"step {training.step}")
            export(training.average, os.path.join(options.work, "snapshot.onnx"))
            saved = clock()
    report(training.average, data, "final")
    training.save(clock())
    export(training.average, options.out)
    print(identity(options.out))


if __name__ == "__main__":
    main()
