"""Synthetic palms in the canonical frame: the palm of a right hand, fingers up, thumb side right.

A person is a seed. `Person` draws what stays (creases, wrinkles, veins, skin texture, relief,
outline); `Person.layers` draws one state of the skin; `capture` is one picture of it, reduced to
the 80 x 80 region that the network sees. Unit of length: the side of the region of interest.
"""

import cv2
import numpy as np

SIDE = 80  # pixels of the region of interest
MARGIN = 0.25  # of the side, drawn around the region so that warps have something to show
CANVAS = int(SIDE * (1 + 2 * MARGIN))
FINE = 2  # drawing is done this many times finer, then averaged

cv2.setNumThreads(1)


def bezier(points, count=32):
    t = np.linspace(0, 1, count)[:, None]
    a, b, c, d = points
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t * t * c + t**3 * d


def arc(rng, start, angle, length, bend):
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    inner = [start + along * length * f + across * rng.normal(0, bend) * length for f in (1 / 3, 2 / 3)]
    return bezier([start, *inner, start + along * length])


def smooth_noise(rng, size, cells, amplitude=1.0):
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * amplitude


def stroke(image, points, width, value):
    scale = SIDE * FINE
    pixels = np.round((points + MARGIN) * scale * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(image, [pixels], False, float(value), max(1, round(width * FINE)), cv2.LINE_AA, 4)


class Person:
    """What does not change between captures."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.lines = []  # (points, width in pixels, depth, kind): 0 principal, 1 secondary, 2 wrinkle
        self._principal(rng)
        self._secondary(rng)
        self.veins = []
        for _ in range(rng.integers(3, 7)):
            self._vein(rng, rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi), rng.uniform(2.2, 4.2), 0)
        self.infrared = rng.random() < 0.3
        self.texture = [(s, rng.uniform(lo, hi), int(rng.integers(1 << 31)))
                        for s, lo, hi in ((0.8, 0.1, 0.4), (1.8, 0.2, 0.8), (4.0, 0.3, 1.2), (9.0, 0.3, 1.2))]
        self.relief = self._relief(rng)
        self.outline = self._outline(rng)

    def _principal(self, rng):
        def at(x, y, spread=0.05):
            return np.array([x, y]) + rng.normal(0, spread, 2)

        web = at(0.93, 0.22, 0.06)
        heart_y, head_y = rng.normal(0.24, 0.06), rng.normal(0.55, 0.10)
        curves = []
        if rng.random() < 0.97:
            curves.append([at(-0.05, heart_y, 0.03), at(0.25, heart_y + 0.03), at(0.50, heart_y - 0.06),
                           at(rng.uniform(0.5, 0.85), -0.05, 0.06)])
        if rng.random() < 0.96:
            joined = web + rng.normal(0, [0.01, 0.02]) if rng.random() < 0.7 else at(0.93, 0.14)
            curves.append([joined, at(0.66, 0.30), at(0.42, 0.5 * (0.36 + head_y)),
                           at(rng.uniform(0.02, 0.35), head_y)])
        if rng.random() < 0.97:
            curves.append([web, at(0.62, 0.30), at(0.42, 0.62), at(rng.uniform(0.35, 0.55), rng.uniform(0.85, 1.1))])
        if rng.random() < 0.35:
            curves.append([at(0.42, 1.05, 0.06), at(0.42, 0.75), at(0.46, 0.5), at(0.5, 0.1, 0.08)])
        if rng.random() < 0.2:
            curves.append([at(0.25, 0.95, 0.08), at(0.2, 0.7), at(0.18, 0.5), at(0.2, 0.3, 0.06)])
        for curve in curves:
            points = bezier(curve) + np.cumsum(rng.normal(0, 0.003, (32, 2)), 0)
            # Creases are rarely drawn in one stroke: depth and width run along the line.
            depth = np.clip(1 + np.interp(range(32), np.linspace(0, 31, 6), rng.normal(0, 0.35, 6)), 0.15, 1.6)
            width = rng.uniform(0.9, 2.2)
            for first in range(0, 31, 4):
                self.lines.append((points[first:first + 5], width * rng.uniform(0.8, 1.25),
                                   min(1.0, 0.75 * depth[first]), 0))
            for _ in range(rng.integers(0, 5)):
                k = rng.integers(3, 28)
                step = points[k + 1] - points[k]
                angle = np.arctan2(step[1], step[0]) + rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)
                self.lines.append((arc(rng, points[k], angle, rng.uniform(0.06, 0.3), 0.12),
                                   rng.uniform(0.5, 1.2), rng.uniform(0.3, 0.9), 1))

    def _secondary(self, rng):
        directions = rng.uniform(0, np.pi, 3)
        bundles = rng.uniform(0, 1, (rng.integers(2, 5), 2))
        for _ in range(rng.integers(5, 22)):
            start = rng.uniform(-0.05, 1.05, 2) if rng.random() < 0.5 else rng.choice(bundles) + rng.normal(0, 0.09, 2)
            self.lines.append((arc(rng, start, rng.choice(directions) + rng.normal(0, 0.3), rng.uniform(0.1, 0.5), 0.1),
                               rng.uniform(0.5, 1.2), rng.uniform(0.25, 0.8), 1))
        for _ in range(rng.integers(30, 130)):
            self.lines.append((arc(rng, rng.uniform(-0.05, 1.05, 2), rng.choice(directions) + rng.normal(0, 0.5),
                                   rng.uniform(0.03, 0.16), 0.1), rng.uniform(0.4, 0.7), rng.uniform(0.1, 0.5), 2))

    def _vein(self, rng, start, angle, width, depth):
        points = [start]
        for _ in range(rng.integers(6, 14)):
            angle += rng.normal(0, 0.28)
            points.append(points[-1] + 0.055 * np.array([np.cos(angle), np.sin(angle)]))
        self.veins.append((np.array(points), width, rng.uniform(0.5, 1.0)))
        if depth < 3:
            for _ in range(rng.integers(0, 3)):
                k = rng.integers(2, len(points))
                self._vein(rng, points[k], angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2), width * 0.8, depth + 1)

    def _relief(self, rng):
        """Height of the mounts below the thumb, the little finger and the fingers."""
        y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) / SIDE - MARGIN
        mounds = [(0.82, 0.62, 0.24, 0.30, 1.0), (0.18, 0.72, 0.2, 0.3, 0.9), (0.12, 0.08, 0.12, 0.1, 0.5),
                  (0.38, 0.03, 0.12, 0.1, 0.4), (0.62, 0.06, 0.12, 0.1, 0.5), (0.5, 0.5, 0.2, 0.2, -0.5)]
        height = smooth_noise(rng, CANVAS, 6, 0.12)
        for cx, cy, sx, sy, h in mounds:
            cx, cy = cx + rng.normal(0, 0.05), cy + rng.normal(0, 0.05)
            sx, sy, h = sx * rng.uniform(0.7, 1.4), sy * rng.uniform(0.7, 1.4), h * rng.uniform(0.4, 1.6)
            height += h * np.exp(-((x - cx) / sx) ** 2 - ((y - cy) / sy) ** 2)
        return height.astype(np.float32)

    def _outline(self, rng):
        base = np.array([[-0.05, -0.3], [-0.02, 0.1], [0.02, 0.4], [0.08, 0.7], [0.16, 0.95], [0.2, 1.3],
                         [0.8, 1.3], [0.86, 0.95], [0.98, 0.75], [1.1, 0.5], [1.2, 0.2], [1.12, 0.08],
                         [0.96, 0.2], [0.9, 0.05], [0.86, -0.3]])
        return base + rng.normal(0, 0.03, base.shape) + rng.normal(0, [0.04, 0.02], 2)

    def layers(self, rng):
        """One state of the skin: (pigment, crease depth), both CANVAS x CANVAS."""
        size = CANVAS * FINE
        creases = np.zeros((3, size, size), np.float32)
        width_now = rng.uniform(0.8, 1.3)
        for points, width, depth, kind in self.lines:
            if rng.random() < (0.0, 0.08, 0.22)[kind]:
                continue
            stroke(creases[kind], points + rng.normal(0, 0.002, 2), width * width_now * rng.uniform(0.85, 1.2),
                   min(1.0, depth * rng.uniform(0.65, 1.25)))
        for _ in range(rng.integers(0, 10)):
            stroke(creases[2], arc(rng, rng.uniform(0, 1, 2), rng.uniform(0, np.pi), rng.uniform(0.04, 0.15), 0.1),
                   0.5, rng.uniform(0.1, 0.4))
        blur = [(1.0, 2.0, 1.0), (0.7, 1.4, 0.8), (0.5, 1.0, 0.7)]
        depth = sum(cv2.GaussianBlur(layer, (0, 0), FINE * rng.uniform(lo, hi) * 0.7) * gain * rng.uniform(0.7, 1.2)
                    for layer, (lo, hi, gain) in zip(creases, blur))
        veins = np.zeros((size, size), np.float32)
        for points, width, strength in self.veins:
            stroke(veins, points, width * rng.uniform(0.85, 1.15), strength * rng.uniform(0.7, 1.2))
        veins = cv2.GaussianBlur(veins, (0, 0), FINE * rng.uniform(1.2, 2.4))
        pigment = -(rng.uniform(0.7, 1.4) if self.infrared else rng.uniform(0.0, 0.2)) * veins
        shrink = lambda image: cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
        pigment, depth = shrink(pigment), shrink(depth)
        for sigma, amplitude, seed in self.texture:
            grain = np.random.default_rng(seed).standard_normal((CANVAS, CANVAS)).astype(np.float32)
            grain = cv2.GaussianBlur(grain, (0, 0), sigma)
            pigment += 0.12 * amplitude * rng.uniform(0.6, 1.3) * grain / grain.std()
        return pigment, depth * (rng.uniform(0.1, 0.7) if self.infrared else rng.uniform(0.8, 1.1))


ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
U, V = (COLUMNS + 0.5) / SIDE - 0.5, (ROWS + 0.5) / SIDE - 0.5


def warp(rng, strength):
    """Where each pixel of the region comes from, in region units: placement error of the region,
    tilt of the hand, opening of the thumb and bending of the skin."""
    angle = np.deg2rad(np.clip(rng.normal(0, 3.2 * strength), -11, 11))
    scale = np.exp(np.clip(rng.normal(0, 0.035 * strength), -0.12, 0.12))
    stretch = np.exp(rng.normal(0, 0.03 * strength))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    shift = np.clip(rng.normal(0, 0.028 * strength, 2), -0.1, 0.1)
    tilt = 1 + rng.normal(0, 0.05 * strength) * U + rng.normal(0, 0.05 * strength) * V
    x = (c * U * stretch - s * V) * tilt + shift[0]
    y = (s * U * stretch + c * V / stretch) * tilt + shift[1]
    # The thumb carries its mount with it: a local rotation about the root of the thumb.
    weight = np.exp(-(((x - 0.32) / 0.25) ** 2 + ((y - 0.15) / 0.35) ** 2)) * rng.normal(0, 0.09 * strength)
    x, y = x - weight * (y - 0.45), y + weight * (x - 0.2)
    bend = 0.012 * strength * rng.uniform(0.3, 1.5)
    return x + smooth_noise(rng, SIDE, 4, bend), y + smooth_noise(rng, SIDE, 4, bend)


def degrade(rng, image):
    """What a lens, a small sensor and a JPEG file do to it."""
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    small = int(rng.choice([SIDE, rng.integers(30, SIDE)], p=[0.4, 0.6]))
    if small < SIDE:
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    image = image + rng.normal(0, rng.uniform(0.3, 3.0), image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 97))])
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if small < SIDE:
        how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        image = cv2.resize(image, (SIDE, SIDE), interpolation=how)
    return image


def capture(rng, person, pigment, depth, strength=1.0):
    """One picture: SIDE x SIDE, 8 bit."""
    x, y = warp(rng, strength)
    map_x, map_y = ((m + 0.5 + MARGIN) * SIDE - 0.5 for m in (x, y))
    take = lambda layer: cv2.remap(layer, map_x.astype(np.float32), map_y.astype(np.float32),
                                   cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    pigment, depth, relief = take(pigment), take(depth), take(person.relief)
    height = relief * rng.uniform(2.0, 8.0) - depth * rng.uniform(0.0, 1.2)
    light = rng.uniform(0, 2 * np.pi)
    slope = np.gradient(height)
    shade = np.cos(light) * slope[1] + np.sin(light) * slope[0]
    shade = np.tanh(shade * rng.uniform(0.3, 1.2)) + 0.3 * smooth_noise(rng, SIDE, 3) * rng.uniform(0, 1) \
        + rng.normal(0, 0.35) * U + rng.normal(0, 0.35) * V
    contrast = rng.uniform(10, 40)
    image = rng.uniform(80, 180) * np.exp(0.22 * shade) + contrast * (pigment - depth)
    image = background(rng, person, image, x, y)
    if rng.random() < 0.06:
        cx, cy = rng.uniform(-0.5, 0.5, 2)
        image += rng.uniform(20, 90) * np.exp(-((U - cx) ** 2 + (V - cy) ** 2) / (2 * rng.uniform(0.05, 0.15) ** 2))
    if rng.random() < 0.12:  # the picture ends before the wrist does: the last row goes on
        end = int(rng.integers(SIDE * 3 // 4, SIDE))
        image[end:] = image[end - 1]
    return degrade(rng, image.astype(np.float32))


def background(rng, person, image, x, y):
    """Lays what is behind the hand around it; the rim of a hand turns away from the light."""
    outline = person.outline + rng.normal(0, 0.012, person.outline.shape)
    pixels = np.round((outline + MARGIN) * SIDE * 16).astype(np.int32).reshape(1, -1, 2)
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    cv2.fillPoly(mask, pixels, 1.0, cv2.LINE_AA, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.6)
    map_x, map_y = ((m + 0.5 + MARGIN) * SIDE - 0.5 for m in (x, y))
    mask = cv2.remap(mask, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)
    rim = cv2.GaussianBlur(mask, (0, 0), rng.uniform(1.5, 4.0))
    image = image * (1 - rng.uniform(0.1, 0.6) * (1 - np.clip(2 * rim - 1, 0, 1)))
    tone = rng.uniform(5, 60) if person.infrared or rng.random() < 0.3 else rng.uniform(60, 240)
    behind = tone + smooth_noise(rng, SIDE, 3, rng.uniform(1, 15))
    return image * mask + behind * (1 - mask)


def normalise(image, sigma=6.0):
    """Local mean and deviation taken out: what the network is given."""
    image = image.astype(np.float32)
    blur = lambda i: cv2.GaussianBlur(i, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    centred = image - blur(image)
    return centred / np.sqrt(blur(centred * centred) + 4.0)


def sample(seed, index, strength=1.0):
    """Capture `index` of person `seed`."""
    rng = np.random.default_rng([seed, index])
    person = Person(seed)
    return capture(rng, person, *person.layers(rng), strength)
