"""A second recipe for synthetic palms, for evaluation only: nothing here is shared with `palms.py`
but the size of the region and the normalisation.

Creases are the zero contours of smooth random fields, their wrinkles those of stretched ones, so that
no line is a Bézier curve; the second capture is bent by a thin-plate spline with loose nodes and
redrawn with some fields changed.
"""

import cv2
import numpy as np
from palms import SIDE

PAD = 20
SIZE = SIDE + 2 * PAD


def field(rng, sigma, stretch=1.0, angle=0.0):
    """A smooth random field of unit deviation, stretched along `angle`."""
    size = 2 * SIZE
    noise = rng.standard_normal((size, size)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma * stretch, sigmaY=sigma)
    turn = cv2.getRotationMatrix2D((SIZE, SIZE), np.rad2deg(angle), 1.0)
    noise = cv2.warpAffine(noise, turn, (size, size), borderMode=cv2.BORDER_REFLECT)
    noise = noise[SIZE // 2:SIZE // 2 + SIZE, SIZE // 2:SIZE // 2 + SIZE]
    return noise / noise.std()


def contour(values, width):
    """1 on the zero contour, falling off over `width` pixels."""
    dy, dx = np.gradient(values)
    return np.exp(-((values / (np.hypot(dx, dy) + 1e-2)) / width) ** 2)


def bend(rng, image, amount):
    """Thin-plate spline of 16 nodes, each moved by `amount` pixels, over a similarity."""
    nodes = np.stack(np.meshgrid(np.linspace(0, SIZE, 4), np.linspace(0, SIZE, 4)), -1).reshape(-1, 2)
    moved = nodes + rng.normal(0, amount, nodes.shape)
    radius = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)
    kernel = lambda r: r**2 * np.log(r + 1e-6)
    base = np.hstack([np.ones((16, 1)), nodes])
    system = np.block([[kernel(radius(nodes, nodes)), base], [base.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.vstack([moved, np.zeros((3, 2))]))
    angle, scale = np.deg2rad(rng.normal(0, 3.0)), np.exp(rng.normal(0, 0.03))
    y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    points = np.stack([c * x - s * y, s * x + c * y], -1).reshape(-1, 2) + SIZE / 2 + rng.normal(0, 2.0, 2)
    source = kernel(radius(points, nodes)) @ weights[:16] + np.hstack([np.ones((len(points), 1)), points]) @ weights[16:]
    source = source.reshape(SIDE, SIDE, 2).astype(np.float32)
    return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def person(seed):
    """Depth of the creases, in parts that fade on their own, and the tone of the skin."""
    rng = np.random.default_rng([41, seed])
    deep = [rng.uniform(0.7, 1.0) * contour(field(rng, rng.uniform(12, 20), rng.uniform(1.0, 1.8), rng.uniform(0, np.pi)), rng.uniform(1.0, 1.8))
            for _ in range(2)]
    middle = [rng.uniform(0.3, 0.7) * contour(field(rng, rng.uniform(6, 10), rng.uniform(1.5, 3.0), rng.uniform(0, np.pi)), rng.uniform(0.7, 1.3))
              * np.clip(field(rng, 10.0), 0, 1) for _ in range(3)]
    fine = [rng.uniform(0.1, 0.5) * contour(field(rng, rng.uniform(2, 4), rng.uniform(2.0, 4.0), rng.uniform(0, np.pi)), rng.uniform(0.5, 0.9))
            * np.clip(field(rng, 8.0), 0, 1) for _ in range(4)]
    return deep + middle + fine, 0.2 * field(rng, 3.0) + 0.15 * field(rng, 8.0)


def sample(seed, index):
    """Capture `index` of person `seed`: SIDE x SIDE, 8 bit. Hundreds of people share a camera."""
    camera, rng = np.random.default_rng([42, seed // 1000]), np.random.default_rng([43, seed, index])
    parts, tone = person(seed)
    depth = sum(part * rng.uniform(0.5, 1.3) for place, part in enumerate(parts) if place < 2 or rng.random() < 0.9)
    skin = bend(rng, (tone - depth + 0.1 * field(rng, 2.0)).astype(np.float32), 1.8)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    light = camera.uniform(-40, 40, 2) + rng.normal(0, 15, 2)
    image = camera.uniform(90, 170) + camera.uniform(15, 40) * skin + light[0] * x + light[1] * y
    image = cv2.GaussianBlur(image, (0, 0), camera.uniform(0.5, 1.5) * rng.uniform(0.7, 1.4))
    return np.clip(image + rng.normal(0, camera.uniform(0.5, 2.0), image.shape), 0, 255).astype(np.uint8)
