"""The embedding network: a fixed Gabor bank, inverted residual blocks with ReLU, a 256-d vector."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DIMENSIONS = 256


def gabor(sigma, wavelength, count=6, size=17, aspect=0.45):
    """`count` zero-mean, unit-norm kernels that answer to lines."""
    half = size // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1].astype(np.float32)
    bank = []
    for k in range(count):
        angle = math.pi * k / count
        along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
        kernel = np.exp(-(along**2 + (aspect * across) ** 2) / (2 * sigma**2)) * np.cos(2 * math.pi * along / wavelength)
        kernel -= kernel.mean()
        bank.append(kernel / np.sqrt((kernel**2).sum()))
    return np.stack(bank)


def block(inputs, outputs, stride=1, growth=2):
    inner = inputs * growth
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
        nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
        nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = block(channels, channels)

    def forward(self, x):
        return x + self.body(x)


class PalmNet(nn.Module):
    """1 x 80 x 80, locally normalised, to a vector that is a unit vector once normalised."""

    def __init__(self, widths=(72, 128), head=384):
        super().__init__()
        bank = np.concatenate([gabor(2.3, 6.0), gabor(1.4, 3.4)])[:, None]
        self.register_buffer("bank", torch.tensor(bank * 0.5, dtype=torch.float32))
        a, b = widths
        self.stem = nn.Sequential(nn.Conv2d(12, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True))
        self.body = nn.Sequential(*[Residual(a) for _ in range(2)], block(a, b, 2), *[Residual(b) for _ in range(4)])
        self.head = nn.Sequential(nn.Conv2d(b, head, 1, bias=False), nn.BatchNorm2d(head), nn.ReLU(inplace=True))
        self.pool = nn.Conv2d(head, head, 10, groups=head, bias=False)
        self.middle = nn.BatchNorm2d(head)
        self.out = nn.Conv2d(head, DIMENSIONS, 1, bias=False)
        self.last = nn.BatchNorm2d(DIMENSIONS)

    def forward(self, x):
        x = F.conv2d(x, self.bank, stride=2, padding=8)
        x = self.pool(self.head(self.body(self.stem(x))))
        return self.last(self.out(self.middle(x))).flatten(1)


class CosineHead(nn.Module):
    """Softmax over cosines to one direction a person, with a margin for the right one."""

    def __init__(self, people, scale=24.0):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(people, DIMENSIONS) * 0.05)
        self.scale = scale

    def forward(self, embedding, person, margin):
        cosine = F.normalize(embedding) @ F.normalize(self.directions).t()
        return F.cross_entropy(self.scale * (cosine - margin * F.one_hot(person, cosine.shape[1])), person)


def contrast(embedding, scale=16.0):
    """Of all captures in the batch, which is the other one of the same person? Captures lie in pairs,
    neighbours are seen by the same camera: what a camera gives to all its captures does not help."""
    unit = F.normalize(embedding)
    cosine = scale * (unit @ unit.t()) - 1e4 * torch.eye(len(unit), device=unit.device)
    return F.cross_entropy(cosine, torch.arange(len(unit), device=unit.device) ^ 1)
