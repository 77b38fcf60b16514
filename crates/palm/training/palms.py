"""Synthetic palms in the canonical frame: the palm of a right hand, fingers up, thumb side right.

A person is a seed. `Person` draws what stays (creases, folds, wrinkles, veins, skin texture, form of
the hand); `Person.layers` draws one state of the skin; `Scene` is a camera in its place, under which
many people are seen; `capture` is one picture of a hand there, reduced to the 80 x 80 region that
the network sees. Unit of length: the side of the region of interest.
"""

import copy
import itertools

import cv2
import numpy as np

SIDE = 80  # pixels of the region of interest
MARGIN = 0.25  # of the side, drawn around the region so that warps have something to show
CANVAS = int(SIDE * (1 + 2 * MARGIN))
FINE = 2  # drawing is done this many times finer, then averaged
PRINCIPAL, SECONDARY, WRINKLE, FOLD = range(4)

cv2.setNumThreads(1)


def bezier(points, count=32):
    t = np.linspace(0, 1, count)[:, None]
    a, b, c, d = points
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t * t * c + t**3 * d


def smooth_noise(rng, size, cells, amplitude=1.0):
    grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * amplitude


def log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def stroke(image, points, width, value):
    scale = SIDE * FINE
    pixels = np.round((points + MARGIN) * scale * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(image, [pixels], False, float(value), max(1, round(width * FINE)), cv2.LINE_AA, 4)


def infrared(seed):
    """Whether a person is seen in near infrared: three in ten."""
    return seed % 10 >= 7


class Form:
    """The hand without its lines: height of the mounts and outline."""

    # Centre, extent, height. A mount is flat and falls off at its shoulder.
    MOUNTS = [(0.80, 0.62, 0.26, 0.32, 1.0), (0.20, 0.68, 0.22, 0.38, 0.9), (0.14, 0.06, 0.16, 0.15, 0.5),
              (0.38, 0.0, 0.12, 0.12, 0.5), (0.62, 0.02, 0.12, 0.12, 0.5), (0.48, 0.42, 0.16, 0.2, -0.5)]
    OUTLINE = np.array([[-0.05, -0.3], [-0.02, 0.1], [0.02, 0.4], [0.08, 0.7], [0.16, 0.95], [0.2, 1.3],
                        [0.8, 1.3], [0.86, 0.95], [0.98, 0.75], [1.1, 0.5], [1.2, 0.2], [1.12, 0.08],
                        [0.96, 0.2], [0.9, 0.05], [0.86, -0.3]])

    # What every palm has: grooves below the thumb, below the fingers and along the middle. Ends, depth.
    GROOVES = [(((1.0, 0.36), (0.82, 0.43), (0.68, 0.50), (0.52, 0.62)), 0.5), (((0.15, 0.28), (0.34, 0.18), (0.56, 0.04)), 0.35),
               (((0.30, 0.36), (0.46, 0.24), (0.64, 0.12)), 0.35), (((0.43, 0.72), (0.42, 0.50), (0.44, 0.28)), 0.3),
               (((0.56, 0.62), (0.60, 0.40), (0.66, 0.18)), -0.2)]

    def __init__(self, seed):
        rng = np.random.default_rng([seed, 1])
        self.infrared = infrared(seed)
        self.outline = self.OUTLINE + rng.normal(0, 0.008, self.OUTLINE.shape) + rng.normal(0, [0.012, 0.01], 2)
        size = CANVAS // 2
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size * (1 + 2 * MARGIN) - MARGIN
        self.relief = smooth_noise(rng, size, 6, 0.1)
        for cx, cy, sx, sy, h in self.MOUNTS:
            cx, cy = cx + rng.normal(0, 0.03), cy + rng.normal(0, 0.03)
            sx, sy, h = sx * rng.uniform(0.8, 1.2), sy * rng.uniform(0.8, 1.2), h * rng.uniform(0.5, 1.4)
            self.relief += (h * np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) ** 2)).astype(np.float32)
        grooves = np.zeros_like(self.relief)
        for points, depth in self.GROOVES:
            points = np.array(points) + rng.normal(0, 0.012, (len(points), 2)) + rng.normal(0, 0.02, 2)
            pixels = np.round((points + MARGIN) * size / (1 + 2 * MARGIN) * 16).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(grooves, [pixels], False, depth * rng.uniform(0.3, 1.5), 1, cv2.LINE_AA, 4)
        self.relief -= 4.0 * cv2.GaussianBlur(grooves, (0, 0), rng.uniform(1.2, 2.0))


class Person:
    """What does not change between captures."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.form = Form(seed)
        self.lines = []  # (points, width in pixels, depth, kind)
        self._principal(rng)
        self._folds(rng)
        self._fine(rng)
        self.veins = []
        for _ in range(rng.integers(3, 7)):
            self._vein(rng, rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi), rng.uniform(2.2, 4.2), 0)
        # In some people, or before some cameras, the lines are faint and the skin's texture is all there is.
        strong = log_uniform(rng, 0.6, 5.0)
        self.texture = [(s * rng.uniform(0.8, 1.25), strong * rng.uniform(lo, hi), int(rng.integers(1 << 31)))
                        for s, lo, hi in ((0.8, 0.0, 0.3), (1.8, 0.1, 0.8), (3.5, 0.1, 1.0))]

    def _principal(self, rng):
        def at(x, y, spread=0.05):
            return np.array([x, y]) + rng.normal(0, spread, 2)

        web = at(0.93, 0.22, 0.05)
        heart_y, head_y = rng.normal(0.25, 0.06), rng.normal(0.53, 0.10)
        curves = []
        if rng.random() < 0.05:  # one line across the palm in place of two
            curves.append([at(-0.05, heart_y, 0.03), at(0.3, 0.3), at(0.6, 0.27), web + rng.normal(0, 0.02, 2)])
        else:
            if rng.random() < 0.97:
                curves.append([at(-0.05, heart_y + 0.02, 0.03), at(0.22, heart_y + 0.03), at(0.45, heart_y - 0.08),
                               at(rng.uniform(0.42, 0.85), -0.05, 0.06)])
            if rng.random() < 0.97:
                start = web + rng.normal(0, [0.01, 0.02]) if rng.random() < 0.7 else at(0.93, 0.13, 0.03)
                end = -0.06 if rng.random() < 0.07 else rng.uniform(0.02, 0.38)
                curves.append([start, at(0.64, 0.24), at(0.42, 0.5 * (0.26 + head_y)), at(end, head_y, 0.03)])
        if rng.random() < 0.98:
            tight = rng.normal(0, 0.05)
            life = [web, at(0.62 + tight, 0.30, 0.04), at(0.42 + tight, 0.62, 0.04),
                    at(rng.uniform(0.33, 0.58) + tight, rng.uniform(0.75, 1.1), 0.03)]
            curves.append(life)
            if rng.random() < 0.12:  # a second one inside the first
                curves.append([p + at(0.07, 0.02, 0.015) for p in life])
        if rng.random() < 0.4:
            curves.append([at(0.44, 1.0, 0.06), at(0.42, 0.75), at(0.44, 0.5), at(0.48, 0.15, 0.1)])
        if rng.random() < 0.25:
            curves.append([at(0.28, 0.95, 0.08), at(0.2, 0.7), at(0.18, 0.5), at(0.2, 0.3, 0.06)])
        strength = rng.uniform(0.12, 0.95)
        for curve in curves:
            self._crease(rng, bezier(curve) + np.cumsum(rng.normal(0, 0.003, (32, 2)), 0), strength)

    def _crease(self, rng, points, strength):
        """One principal crease: rarely drawn in one stroke, with breaks, islands, chains, branches."""
        steps = np.gradient(points, axis=0)
        across = np.stack([-steps[:, 1], steps[:, 0]], 1) / np.linalg.norm(steps, axis=1, keepdims=True)
        if rng.random() < 0.15:  # a break: the second half goes on beside the first
            points = points + across * (np.arange(32) > rng.integers(8, 24))[:, None] * rng.normal(0, 0.02)
        depth = strength * np.clip(1 + np.interp(range(32), np.linspace(0, 31, 6), rng.normal(0, 0.35, 6)), 0.1, 1.6)
        width = rng.uniform(0.9, 2.2)
        for first in range(0, 31, 4):
            self.lines.append((points[first:first + 5], width * rng.uniform(0.8, 1.25), min(1.0, depth[first]), PRINCIPAL))
        islands = rng.integers(3, 7) if rng.random() < 0.15 else rng.integers(0, 2)
        for _ in range(islands):
            first, length = rng.integers(0, 26), rng.integers(4, 12)
            part = slice(first, min(32, first + length))
            bulge = np.sin(np.linspace(0, np.pi, len(points[part])))[:, None] * rng.normal(0, 0.025)
            self.lines.append((points[part] + across[part] * bulge, rng.uniform(0.6, 1.3), rng.uniform(0.3, 0.8), SECONDARY))
        for _ in range(rng.integers(0, 5)):
            k, length = rng.integers(3, 28), rng.uniform(0.05, 0.28)
            angle = np.arctan2(*steps[k][::-1]) + rng.choice([-1, 1]) * rng.uniform(0.2, 0.9)
            turn = angle + np.linspace(0, rng.normal(0, 0.5), 8)[:, None]
            branch = points[k] + np.cumsum(np.hstack([np.cos(turn), np.sin(turn)]), 0) * length / 8
            self.lines.append((branch, rng.uniform(0.5, 1.3), rng.uniform(0.3, 0.9), SECONDARY))

    def _folds(self, rng):
        """Wide and soft: the fold below the thumb and the creases of the wrist."""
        if rng.random() < 0.85:
            curve = [np.array(p) + rng.normal(0, 0.04, 2) for p in ((1.05, 0.36), (0.85, 0.42), (0.68, 0.55), (0.52, 0.75))]
            self.lines.append((bezier(curve, 10), rng.uniform(2.0, 5.0), rng.uniform(0.3, 0.9), FOLD))
        for _ in range(rng.integers(0, 4)):
            y = rng.uniform(0.9, 1.15)
            curve = [np.array([x, y]) + rng.normal(0, 0.02, 2) for x in (0.15, 0.4, 0.6, 0.85)]
            self.lines.append((bezier(curve, 10), rng.uniform(1.0, 2.5), rng.uniform(0.3, 0.9), FOLD))

    def _fine(self, rng):
        """Secondary creases, in part in bundles of parallels, and wrinkles."""
        self.field = (rng.uniform(0, np.pi, 3), smooth_noise(rng, 24, 5, 0.3),
                      np.array([0.48, 1.35]) + rng.normal(0, 0.08, 2), np.array([1.05, 0.35]) + rng.normal(0, 0.08, 2))
        starts = rng.uniform(-0.1, 1.1, (rng.integers(4, 18), 2))
        for _ in range(rng.integers(0, 5)):
            direction, spacing = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.05)
            beside = np.arange(rng.integers(3, 8))[:, None] * spacing * np.array([np.cos(direction), np.sin(direction)])
            starts = np.concatenate([starts, rng.uniform(0, 1, 2) + beside + rng.normal(0, 0.01, beside.shape)])
        deep = rng.uniform(0.4, 1.1)
        for points in self._along_skin(rng, starts, rng.uniform(0.08, 0.5, len(starts))):
            self.lines.append((points, rng.uniform(0.5, 1.4), deep * rng.uniform(0.25, 0.8), SECONDARY))
        count, deep = int(log_uniform(rng, 30, 300)), log_uniform(rng, 0.4, 1.8)
        patches = rng.uniform(0, 1, (6, 2))
        starts = np.where(rng.random((count, 1)) < 0.5, rng.uniform(-0.1, 1.1, (count, 2)),
                          patches[rng.integers(0, 6, count)] + rng.normal(0, 0.12, (count, 2)))
        for points in self._along_skin(rng, starts, rng.uniform(0.03, 0.18, count)):
            self.lines.append((points, rng.uniform(0.4, 0.8), deep * rng.uniform(0.1, 0.6), WRINKLE))

    def _along_skin(self, rng, starts, lengths):
        """Lines that follow the skin: along the fan that the wrist sends to the fingers, across it,
        around the thumb's mount, or in one of the person's own directions."""
        own, wobble, wrist, thumb = self.field
        count = len(starts)
        family = rng.choice(6, count, p=[0.45, 0.12, 0.19, 0.08, 0.08, 0.08])
        offset, bend = rng.normal(0, 0.25, count), rng.normal(0, 1.5, count)
        place, points = starts, [starts]
        for _ in range(6):
            x, y = place.T
            fan = np.arctan2(y - wrist[1], x - wrist[0])
            around = np.arctan2(y - thumb[1], x - thumb[0])
            base = np.choose(family, [fan, fan + np.pi / 2, around, *own])
            cell = np.clip((place + MARGIN) / (1 + 2 * MARGIN) * 24, 0, 23).astype(int)
            angle = base + offset + wobble[cell[:, 1], cell[:, 0]]
            place = place + (lengths / 6)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            offset = offset + bend * lengths / 6
            points.append(place)
        return np.stack(points, 1)

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

    def layers(self, rng):
        """One state of the skin: (pigment, crease depth), both CANVAS x CANVAS."""
        size = CANVAS * FINE
        creases = np.zeros((4, size, size), np.float32)
        width_now, missing = rng.uniform(0.75, 1.35), (0.02, rng.uniform(0.03, 0.2), rng.uniform(0.1, 0.5), 0.3)
        for points, width, depth, kind in self.lines:
            if rng.random() < missing[kind]:
                continue
            stroke(creases[kind], points + rng.normal(0, 0.002, 2), width * width_now * rng.uniform(0.85, 1.2),
                   min(1.0, depth * rng.uniform(0.6, 1.3)))
        passing = rng.uniform(0, 1, (rng.integers(1, 16), 2))
        for points in self._along_skin(rng, passing, rng.uniform(0.04, 0.15, len(passing))):
            stroke(creases[WRINKLE], points, 0.5, rng.uniform(0.1, 0.4))
        blur = [(0.9, 2.0, 1.0, 1.5), (0.7, 1.4, 0.6, 1.2), (0.5, 1.0, 0.6, 1.5), (2.5, 5.0, 0.2, 1.2)]
        depth = sum(cv2.GaussianBlur(layer, (0, 0), FINE * rng.uniform(lo, hi) * 0.7) * rng.uniform(weak, strong)
                    for layer, (lo, hi, weak, strong) in zip(creases, blur))
        shrink = lambda image: cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
        depth = shrink(depth) * np.exp(smooth_noise(rng, CANVAS, 4, 0.25))
        pigment = np.zeros((CANVAS, CANVAS), np.float32)
        if self.form.infrared:
            veins = np.zeros((size, size), np.float32)
            for points, width, strength in self.veins:
                stroke(veins, points, width * rng.uniform(0.85, 1.15), strength * rng.uniform(0.7, 1.2))
            pigment -= rng.uniform(0.6, 1.2) * shrink(cv2.GaussianBlur(veins, (0, 0), FINE * rng.uniform(1.2, 2.4)))
            depth *= rng.uniform(0.35, 0.8)
        for sigma, amplitude, seed in self.texture:  # most of it stays
            for stream, share in ((np.random.default_rng(seed), 1.0), (rng, 0.4)):
                grain = stream.standard_normal((CANVAS, CANVAS), np.float32)
                grain = cv2.GaussianBlur(grain, (0, 0), sigma)
                pigment += 0.10 * share * amplitude * rng.uniform(0.6, 1.3) / grain.std() * grain
        return pigment, depth


ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
U, V = (COLUMNS + 0.5) / SIDE - 0.5, (ROWS + 0.5) / SIDE - 0.5
# Parts of the palm that move by themselves when a hand opens or bends: mounts of the thumb, of the
# little finger, of the index and of the ring finger, and the hollow. Centre and extent.
PARTS = np.array([(0.32, 0.12, 0.22), (-0.32, 0.25, 0.22), (0.2, -0.35, 0.18), (-0.22, -0.33, 0.18), (0.0, 0.0, 0.18)], np.float32)
WEIGHTS = np.exp(-((U[None] - PARTS[:, 0, None, None]) ** 2 + (V[None] - PARTS[:, 1, None, None]) ** 2)
                 / (2 * PARTS[:, 2, None, None] ** 2)).astype(np.float32)


class Scene:
    """A camera in its place: what the captures of many people have in common."""

    def __init__(self, rng, infrared):
        self.pixels = log_uniform(rng, 34, 320)  # across the region
        self.blur = rng.uniform(0.2, 1.2)
        self.sharpening = rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.0
        self.noise = log_uniform(rng, 0.2, 3.0)
        self.quality = int(rng.integers(68, 97)) if rng.random() < 0.6 else None
        self.light, self.hardness = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
        self.relief, self.groove, self.hollow = rng.uniform(2.0, 9.0), rng.uniform(0.0, 1.5), rng.uniform(0.1, 1.6)
        self.brightness, self.contrast = rng.uniform(80, 190), log_uniform(rng, 16, 70)
        dark = infrared or rng.random() < 0.4
        self.behind, self.pattern = rng.uniform(3, 60) if dark else rng.uniform(60, 250), rng.uniform(1, 15)
        self.pose = rng.normal(0, 0.02, Form.OUTLINE.shape)  # how hands are held there
        self.fade = rng.uniform(0.0, 1.5)
        self.rim, self.rim_width = rng.uniform(0.05, 0.6), rng.uniform(1.5, 6.0)
        self.shift, self.angle, self.scale = rng.normal(0, 0.015, 2), rng.normal(0, 1.5), rng.normal(0, 0.02)
        self.end = int(rng.integers(SIDE * 3 // 4, SIDE)) if rng.random() < 0.1 else None

    def again(self, rng):
        """The same camera at another hour."""
        other = copy.copy(self)
        other.light = self.light + rng.normal(0, 0.5)
        other.brightness, other.contrast = self.brightness * np.exp(rng.normal(0, 0.12)), self.contrast * np.exp(rng.normal(0, 0.2))
        other.blur, other.relief = self.blur * rng.uniform(0.6, 1.7), self.relief * rng.uniform(0.7, 1.3)
        return other


def warp(rng, scene, strength):
    """Where each pixel of the region comes from, in region units: placement error of the region,
    tilt of the hand, each part of the palm moving by itself, bending of the skin."""
    angle = np.deg2rad(np.clip(rng.normal(scene.angle, 3.2 * strength), -12, 12))
    scale = np.exp(np.clip(rng.normal(scene.scale, 0.035 * strength), -0.13, 0.13))
    stretch = np.exp(rng.normal(0, 0.03 * strength))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    shift = np.clip(rng.normal(scene.shift, 0.028 * strength, 2), -0.1, 0.1)
    tilt = 1 + rng.normal(0, 0.05 * strength) * U + rng.normal(0, 0.05 * strength) * V
    x = (c * U * stretch - s * V) * tilt + shift[0]
    y = (s * U * stretch + c * V / stretch) * tilt + shift[1]
    opening = rng.uniform(0.3, 1.4) * strength
    for (cx, cy, _), weight in zip(PARTS, WEIGHTS):
        dx, dy = rng.normal(0, 0.018 * opening, 2)
        turn, growth = rng.normal(0, 0.06 * opening), rng.normal(0, 0.04 * opening)
        x += weight * (dx + growth * (U - cx) - turn * (V - cy))
        y += weight * (dy + turn * (U - cx) + growth * (V - cy))
    bend = 0.010 * strength * rng.uniform(0.3, 1.5)
    return x + smooth_noise(rng, SIDE, 5, bend), y + smooth_noise(rng, SIDE, 5, bend)


def degrade(rng, scene, image):
    """What a lens, a sensor and a JPEG file do to it. Sensors finer than 1.5 times the region's
    pixels are drawn as that, with less noise."""
    pixels = int(np.clip(scene.pixels * rng.uniform(0.9, 1.1), 30, SIDE * 1.5))
    if abs(pixels - SIDE) < 8:
        pixels = SIDE
    if pixels != SIDE:
        how = cv2.INTER_AREA if pixels < SIDE else cv2.INTER_LINEAR
        image = cv2.resize(image, (pixels, pixels), interpolation=how)
    image = cv2.GaussianBlur(image, (0, 0), 0.2 + scene.blur * rng.uniform(0.6, 1.5))
    if scene.sharpening:
        image = image + scene.sharpening * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
    image = image + rng.standard_normal(image.shape, np.float32) * (scene.noise * min(1.0, 1.5 * SIDE / scene.pixels))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if scene.quality:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if pixels != SIDE:
        how = cv2.INTER_LINEAR if pixels < SIDE else cv2.INTER_AREA
        image = cv2.resize(image, (SIDE, SIDE), interpolation=how)
    return image


def capture(rng, scene, form, pigment, depth, strength=1.0):
    """One picture: SIDE x SIDE, 8 bit."""
    x, y = warp(rng, scene, strength)
    map_x, map_y = ((m + 0.5 + MARGIN).astype(np.float32) for m in (x, y))
    take = lambda layer: cv2.remap(layer, map_x * (layer.shape[1] / (1 + 2 * MARGIN)) - 0.5,
                                   map_y * (layer.shape[0] / (1 + 2 * MARGIN)) - 0.5,
                                   cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    pigment, depth, relief = take(pigment), take(depth), take(form.relief)
    hand = take(silhouette(rng, scene, form))
    # Towards the rim the skin turns away: lines and texture get lost there.
    inner = np.clip(2 * cv2.GaussianBlur(hand, (0, 0), 7.0) - 1, 0, 1) ** (scene.fade * rng.uniform(0.7, 1.3))
    pigment, depth = pigment * inner, depth * inner * np.exp(smooth_noise(rng, SIDE, 4, 0.25))
    relief = relief * (1 + smooth_noise(rng, SIDE, 3, 0.3))
    light, slope = scene.light + rng.normal(0, 0.2), np.gradient(scene.relief * rng.uniform(0.8, 1.2) * relief - scene.groove * depth)
    shade = np.tanh((np.cos(light) * slope[1] + np.sin(light) * slope[0]) * scene.hardness)
    shade = shade + scene.hollow * relief + smooth_noise(rng, SIDE, 3, rng.uniform(0, 0.25)) + rng.normal(0, 0.25) * U + rng.normal(0, 0.25) * V
    image = scene.brightness * np.exp(0.22 * shade) + scene.contrast * rng.uniform(0.85, 1.15) * (pigment - depth)
    rim = cv2.GaussianBlur(hand, (0, 0), scene.rim_width)
    image = image * (1 - scene.rim * (1 - np.clip(2 * rim - 1, 0, 1)))
    image = image * hand + (scene.behind + smooth_noise(rng, SIDE, 3, scene.pattern)) * (1 - hand)
    if rng.random() < 0.06:
        cx, cy = rng.uniform(-0.5, 0.5, 2)
        image += rng.uniform(20, 90) * np.exp(-((U - cx) ** 2 + (V - cy) ** 2) / (2 * rng.uniform(0.05, 0.15) ** 2))
    if scene.end is not None and rng.random() < 0.7:  # the picture ends before the wrist does: the last row goes on
        image[scene.end:] = image[scene.end - 1]
    return degrade(rng, scene, image.astype(np.float32))


def silhouette(rng, scene, form):
    """1 where the hand is. Where its outline lies says how the hand is held, not whose it is."""
    outline = form.outline + scene.pose + rng.normal(0, 0.015, form.outline.shape) + rng.normal(0, [0.03, 0.02], 2)
    pixels = np.round((outline + MARGIN) * SIDE * 16).astype(np.int32).reshape(1, -1, 2)
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    cv2.fillPoly(mask, pixels, 1.0, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), 1.0)


def normalise(image, sigma=6.0):
    """Local mean and deviation taken out: what the network is given."""
    image = image.astype(np.float32)
    blur = lambda i: cv2.GaussianBlur(i, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    centred = image - blur(image)
    return centred / np.sqrt(blur(centred * centred) + 4.0)


def crowd(first, people, captures, seen_infrared=False, before_one_camera=50):
    """Captures of people whose seeds begin at `first`, person by person; so many before each camera,
    every capture at another hour."""
    seeds = (seed for seed in itertools.count(first) if infrared(seed) == seen_infrared)
    for place, seed in enumerate(itertools.islice(seeds, people)):
        if place % before_one_camera == 0:
            scene = Scene(np.random.default_rng([6, seed]), seen_infrared)
        for index in range(captures):
            yield sample(seed, index, scene=scene)


def sample(seed, index, strength=1.0, scene=None):
    """Capture `index` of person `seed`; each in a scene of its own unless one is given."""
    rng = np.random.default_rng([seed, index])
    person = Person(seed)
    scene = Scene(rng, person.form.infrared) if scene is None else scene.again(rng)
    return capture(rng, scene, person.form, *person.layers(rng), strength)
