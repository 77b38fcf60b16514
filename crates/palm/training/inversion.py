"""An attack on stolen templates (ISO/IEC 24745, irreversibility): what does a template show of the
palm, with the key and without it?

    python inversion.py ../models/palm_embedding.onnx

A decoder is trained on templates of synthetic people and their regions, and tried on people whom it
has not seen. With the key, its picture is then improved by gradient descent until the network and the
line code answer what the template says. Reported are the correlation of the picture with the true
region beside that with a stranger's, and how often the matcher takes the picture for the person at a
false match rate of 1e-3: against the stolen template, and against one of another capture.

The templates are made as `src/transform.rs` makes them, but for the stream that the key seeds: a
random orthonormal basis for the embedding, quantised to 8 bits; for the line code 256 hashes in each
of four quadrants, each the index of the greatest of four random responses.
"""

import sys
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from palms import crowd, normalise
from torch import nn

torch.set_num_threads(1)

PEOPLE, TRIED = 300, 40
CELLS, BLOCK, SHIFTS, HASHES, CHOICES, DIRECTIONS = 40, 14, 13, 256, 4, 6
RATE = 1e-3
WEIGHT = 0.12  # of the cosine, as in `src/scoring.rs`


class Network(nn.Module):
    """The shipped network, so that gradients pass through it."""

    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name

    def forward(self, region):
        values = {**self.weights, self.input: region}
        for node in self.nodes:
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            x = [values[name] for name in node.input]
            if node.op_type == "Conv":
                result = F.conv2d(*x, stride=given["strides"], padding=given["pads"][:2], groups=given["group"])
            elif node.op_type == "Relu":
                result = F.relu(x[0])
            elif node.op_type == "Add":
                result = x[0] + x[1]
            elif node.op_type == "Flatten":
                result = x[0].flatten(1)
            elif node.op_type == "Constant":
                result = torch.tensor(numpy_helper.to_array(given["value"]))
            else:
                raise ValueError(f"operator {node.op_type} is not known here")
            values[node.output[0]] = result
        return F.normalize(values[self.output])


def blur(image, sigma=6.0, radius=18):
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1))
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="reflect"), weights.view(1, 1, -1, 1))


def normalised(picture):
    """`palms.normalise` with gradients, of pictures with a contrast of about 10 grey levels."""
    centred = picture - blur(picture)
    return centred / torch.sqrt(blur(centred * centred) + 0.04)


def line_bank():
    """The kernels of `src/code.rs`."""
    y, x = np.mgrid[-8:9, -8:9].astype(np.float32)
    kernels = []
    for direction in range(DIRECTIONS):
        s, c = np.sin(np.pi * direction / DIRECTIONS), np.cos(np.pi * direction / DIRECTIONS)
        across, along = x * c + y * s, y * c - x * s
        kernel = np.exp(-(across**2 + (0.4 * along) ** 2) / (2 * 2.3**2)) * np.cos(2 * np.pi * across / 6.0)
        kernel -= kernel.mean()
        kernels.append(-kernel / abs(kernel).sum())
    return torch.tensor(np.stack(kernels)[:, None], dtype=torch.float32)


BANK = line_bank()


def responses(region):
    """DIRECTIONS x CELLS x CELLS answers to dark lines."""
    return F.avg_pool2d(F.conv2d(F.pad(region, (8, 8, 8, 8), mode="reflect"), BANK), 2)


class Key:
    def __init__(self, seed):
        rng = np.random.default_rng([51, seed])
        self.basis = torch.tensor(np.linalg.qr(rng.standard_normal((256, 256)))[0], dtype=torch.float32)
        direction = rng.integers(0, DIRECTIONS, (4, HASHES, CHOICES))
        row, column = rng.integers(0, BLOCK, (2, 4, HASHES, CHOICES))
        row, column = row + (np.arange(4) // 2 * BLOCK)[:, None, None], column + (np.arange(4) % 2 * BLOCK)[:, None, None]
        self.places = tuple(torch.tensor(p.reshape(-1, CHOICES)) for p in (direction, row, column))

    def protect(self, embedding):
        scale = 127.0 * 8**0.5
        return torch.clamp(torch.round(embedding @ self.basis.T * scale), -127, 127) / scale

    def chosen(self, field, down=(SHIFTS - 1) // 2, right=(SHIFTS - 1) // 2):
        """The CHOICES responses that each hash compares, at a shift of the field."""
        direction, row, column = self.places
        return field[:, direction, row + down, column + right]

    def hashes(self, field, *shift):
        return self.chosen(field, *shift).argmax(2)

    def spread(self, hashes):
        """What the hashes say of the field: more where one won, less where one lost."""
        direction, row, column = self.places
        field = torch.zeros(len(hashes), DIRECTIONS, CELLS, CELLS)
        middle = (SHIFTS - 1) // 2
        won = F.one_hot(hashes, CHOICES).float() - 1 / CHOICES
        index = (direction * CELLS + row + middle) * CELLS + column + middle
        return field.flatten(1).index_add(1, index.flatten(), won.flatten(1)).view_as(field)


def equal_hashes(key, fields, codes):
    """Of every picture with every code, the greatest share of equal hashes over shifts of +-3 cells."""
    best = torch.zeros(len(fields), len(codes))
    for down in range(3, 10):
        for right in range(3, 10):
            probe = key.hashes(fields, down, right).to(torch.uint8)
            share = torch.stack([(probe[i][None] == codes).float().mean(1) for i in range(len(probe))])
            best = torch.maximum(best, share)
    return best


class FromEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(256, 128 * 100)
        self.grow = nn.ModuleList(nn.Conv2d(i, o, 3, 1, 1) for i, o in ((128, 256), (64, 128), (32, 32), (8, 1)))

    def forward(self, embedding):
        x = F.relu(self.start(16 * embedding)).view(-1, 128, 10, 10)
        for layer in self.grow[:3]:
            x = F.relu(F.pixel_shuffle(layer(x), 2))
        return self.grow[3](x)


class FromHashes(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (DIRECTIONS, 32, 32, 32)
        self.body = nn.Sequential(*[part for i, o in zip(widths, widths[1:]) for part in (nn.Conv2d(i, o, 5, 1, 2), nn.ReLU())],
                                  nn.Conv2d(32, 4, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, field):
        return self.body(field)


def correlation(a, b):
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (F.normalize(a) * F.normalize(b)).sum(1)


def train(decoder, given, regions, passes, network=None, embeddings=None):
    optimiser = torch.optim.Adam(decoder.parameters(), 2e-3)
    rng = np.random.default_rng(52)
    steps = passes * (len(regions) // 32)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / steps) + 1e-5
        pick = torch.tensor(rng.choice(len(regions), 32, replace=False))
        picture = decoder(given[pick])
        loss = 1 - correlation(picture, regions[pick]).mean()
        if network is not None and step % 2:
            loss = loss + 1 - (network(normalised(picture)) * embeddings[pick]).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return decoder.eval()


def improve(picture, network, key, template, steps=25):
    """Gradient descent on the picture until network and line code answer what the template says."""
    picture = picture.clone().requires_grad_()
    optimiser = torch.optim.Adam([picture], 0.15)
    embedding, hashes = template[0] @ key.basis, template[1]
    for _ in range(steps):
        region = normalised(picture)
        told = F.log_softmax(20 * key.chosen(responses(region)), 2).gather(2, hashes[..., None])
        loss = 2 * (1 - (network(region) * embedding).sum(1)).mean() - told.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return picture.detach()


def fused(cosines, shares):
    return WEIGHT * cosines + shares


class Trial:
    """People whom no decoder has seen: a stolen template each, and another capture."""

    def __init__(self, network, key, regions):
        self.network, self.key, self.regions = network, key, regions[::2]
        embeddings, fields = network(regions), responses(regions)
        self.templates = [(key.protect(e), key.hashes(f)) for e, f in ((embeddings[::2], fields[::2]), (embeddings[1::2], fields[1::2]))]
        cosines, shares = self.scores(regions[1::2], self.templates[0])
        apart = ~torch.eye(len(cosines), dtype=bool)
        self.limits = [torch.quantile(s[apart], 1 - RATE) for s in (cosines, shares, fused(cosines, shares))]
        self.mates = [(s.diagonal() >= limit).float().mean() for s, limit in zip((cosines, shares, fused(cosines, shares)), self.limits)]

    def scores(self, regions, template):
        cosines = self.key.protect(self.network(regions)) @ template[0].T
        return cosines, equal_hashes(self.key, responses(regions), template[1].to(torch.uint8))

    def report(self, name, picture):
        region = normalised(picture)
        own = correlation(region, self.regions)
        others = torch.stack([correlation(region, self.regions.roll(k, 0)) for k in range(1, 20)]).mean()
        text = f"{name}: correlation {own.mean():.3f} (with strangers' {others:.3f})"
        for template, what in zip(self.templates, ("the stolen template", "another capture's")):
            cosines, shares = (s.diagonal() for s in self.scores(region, template))
            taken = [100 * (s >= limit).float().mean() for s, limit in zip((cosines, shares, fused(cosines, shares)), self.limits)]
            text += "; taken for %s by embedding %.0f %%, code %.0f %%, both fused %.0f %%" % (what, *taken)
        print(text, flush=True)


def synthetic(first, people, captures):
    return torch.tensor(np.stack([normalise(image) for image in crowd(first, people, captures)])[:, None])


@torch.no_grad()
def batched(function, *given):
    return torch.cat([function(*(g[i:i + 100] for g in given)) for i in range(0, len(given[0]), 100)])


def main():
    begun = time.process_time()
    torch.manual_seed(54)
    network, key, other = Network(sys.argv[1]).eval(), Key(1), Key(2)
    regions, tried = synthetic(20_000_000, PEOPLE, 2), synthetic(30_000_000, TRIED, 2)
    embeddings, fields = batched(network, regions), batched(responses, regions)
    with torch.no_grad():
        trial = Trial(network, key, tried)
    print(f"{TRIED} people; limits at FMR {RATE:g} from {TRIED * (TRIED - 1)} pairs; true mates taken: embedding %.0f %%,"
          " code %.0f %%, fused %.0f %%" % tuple(100 * m for m in trial.mates), flush=True)
    embedding, hashes = trial.templates[0]
    shown = key.hashes(fields)

    from_embedding = train(FromEmbedding(), embeddings, regions, 8, network, embeddings)
    from_hashes = train(FromHashes(), batched(key.spread, shown), regions, 6)
    with torch.no_grad():
        known = from_embedding(embedding @ key.basis)
        trial.report("embedding, key known", known)
        trial.report("embedding, key not known, somebody else's key tried", from_embedding(embedding @ other.basis))
        trial.report("code, key known", from_hashes(key.spread(hashes)))
        trial.report("code, key not known, somebody else's key tried", from_hashes(other.spread(hashes)))
    keys = [torch.linalg.qr(torch.randn(256, 256))[0] for _ in range(len(embeddings))]
    hidden = torch.stack([basis @ e for basis, e in zip(keys, embeddings)])
    blind = train(FromEmbedding(), hidden, regions, 3)
    with torch.no_grad():
        trial.report("embedding, key not known, decoder trained over many keys", blind(embedding))
        for pairs in (64, 256):
            u, _, v = torch.linalg.svd(key.protect(embeddings[:2 * pairs:2]).T @ embeddings[:2 * pairs:2])
            trial.report(f"embedding, key not known, but {pairs} palms with their templates under it", from_embedding(embedding @ (u @ v)))
        one_hot = lambda h: (F.one_hot(h, CHOICES).float() - 1 / CHOICES).flatten(1)
        inputs, targets = one_hot(shown), regions.flatten(1) - regions.flatten(1).mean(0)
        gram = inputs @ inputs.T
        weights = torch.linalg.solve(gram + 100.0 * torch.eye(len(gram)), targets)
        guess = one_hot(hashes) @ inputs.T @ weights + regions.flatten(1).mean(0)
        trial.report(f"code, key not known, but {PEOPLE} palms with two templates each under it", guess.view(-1, 1, 80, 80))
    trial.report("both, key known, improved by gradient descent", improve(known, network, key, trial.templates[0]))
    trial.report("both, key not known, the same under somebody else's key", improve(known.roll(1, 0), network, other, trial.templates[0]))
    print(f"{(time.process_time() - begun) / 60:.1f} processor minutes")


if __name__ == "__main__":
    main()
