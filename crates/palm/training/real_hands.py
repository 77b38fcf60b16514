"""Regions of real strangers' hands, for evaluation only: one photograph a person, so that every
second capture is simulated.

    python real_hands.py work/real_hands.npz [CAPTURES]

The same steps as `src/detect.rs`, `landmarks.rs` and `region.rs`, here in numpy and onnxruntime,
because the simulation is stronger than the product's (`src/simulate.rs`) and shares nothing with
`palms.py`: it bends, relights and blurs the photograph, and the detector and the landmarks then see
another picture, so that the region moves as it does between real captures.
"""

import glob
import os
import sys

import cv2
import numpy as np
import onnxruntime

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS, HANDS = os.path.join(HERE, "../models"), os.path.join(HERE, "../data/hands")
ANCHORS = {0: (0.0, 0.0), 5: (0.2271, -0.9712), 9: (0.0, -1.0), 13: (-0.2047, -0.9287), 17: (-0.3919, -0.7804)}
STEADY = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]
CENTER, SIDE = np.array([-0.03, -0.44]), 80


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.path.join(MODELS, name), options, providers=["CPUExecutionProvider"])


def turn_upward(start, end):
    x, y = start - end
    return np.array([[y, x], [-x, y]]) / np.hypot(x, y)


class Hands:
    def __init__(self):
        self.detector, self.joints = session("palm_detection_lite.onnx"), session("hand_landmark_lite.onnx")
        maps = ((24, 2), (12, 6))
        self.anchors = np.array([((i % n + 0.5) * 192 / n, (i // n + 0.5) * 192 / n)
                                 for n, each in maps for i in range(n * n) for _ in range(each)], np.float32)

    def detect(self, picture):
        """Centre, size, wrist and root of the middle finger of the best palm; None without one."""
        height, width = picture.shape[:2]
        scale = 192 / max(height, width)
        inner = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
        left, top = (192 - inner.shape[1]) // 2, (192 - inner.shape[0]) // 2
        square = np.zeros((192, 192, 3), np.float32)
        square[top:top + inner.shape[0], left:left + inner.shape[1]] = inner / 255.0
        boxes, logits = self.detector.run(None, {self.detector.get_inputs()[0].name: square[None]})
        best = int(logits[0, :, 0].argmax())
        if logits[0, best, 0] < 0:
            return None
        values = boxes[0, best]
        place = lambda i: (self.anchors[best] + values[i:i + 2] - (left, top)) / scale
        return place(0), max(values[2:4]) / scale, place(4), place(8)

    def look(self, picture, center, side, turn):
        """Landmarks in the square of `side` around `center`."""
        matrix = turn * side / 224
        offset = center - matrix @ np.array([112.0, 112.0])
        crop = cv2.warpAffine(picture, np.column_stack([matrix, offset + matrix @ [0.5, 0.5] - 0.5]), (224, 224),
                              flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        answers = self.joints.run(None, {self.joints.get_inputs()[0].name: (crop / 255.0).astype(np.float32)[None]})
        return answers[0].reshape(21, 3)[:, :2] @ matrix.T + offset, float(answers[1].ravel()[0])

    def locate(self, picture):
        """Landmarks, or None when there is no hand."""
        found = self.detect(picture)
        if found is None:
            return None
        center, palm, wrist, middle = found
        turn = turn_upward(wrist, middle)
        points, presence = self.look(picture, center + turn @ [0.0, -0.5 * palm], 2.6 * palm, turn)
        fingers = (points[9] + (points[5] + points[13]) / 2) / 2
        turn = turn_upward(points[0], fingers)
        turned = points[STEADY] @ turn
        low, high = turned.min(0), turned.max(0)
        size = max(high - low)
        center = turn @ ((low + high) / 2 - [0.0, 0.1 * size])
        points, presence = self.look(picture, center, 2.0 * size, turn)
        return points if presence > 0.5 else None


def region(picture, points):
    """The region of interest, 2 SIDE pixels a side in grey, then halved, as the product does."""
    index, little = points[5] - points[0], points[17] - points[0]
    across = index[0] * little[1] - index[1] * little[0]
    flip = -1.0 if across >= 0 else 1.0  # a left hand is mirrored
    source = np.array([(x * flip, y) for x, y in ANCHORS.values()])
    target = points[list(ANCHORS)]
    a, b = source - source.mean(0), target - target.mean(0)
    c, s = (a * b).sum() / (a * a).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / (a * a).sum()
    rotation = np.array([[c, -s], [s, c]])
    offset = target.mean(0) - rotation @ source.mean(0)
    matrix = rotation @ np.diag([flip, 1.0])
    steps = (np.arange(2 * SIDE) + 0.5) / (2 * SIDE) - 0.5
    u, v = np.meshgrid(steps + CENTER[0], steps + CENTER[1])
    x = matrix[0, 0] * u + matrix[0, 1] * v + offset[0] - 0.5
    y = matrix[1, 0] * u + matrix[1, 1] * v + offset[1] - 0.5
    cut = cv2.remap(picture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gray = cut.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def second_capture(rng, picture, strength=1.0):
    """Another capture of the same photograph: three times enlarged, turned, moved, tilted, bent as a
    hand that opens bends (each part of the palm by itself), relit, blurred, with noise, as a JPEG."""
    side = 3 * max(picture.shape[:2])
    picture = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = (x - width / 2) / side, (y - height / 2) / side
    angle, scale = np.deg2rad(rng.uniform(-15, 15) * strength), rng.uniform(0.9, 1.1)
    depth = 1 + strength * (rng.uniform(-0.15, 0.15) * u + rng.uniform(-0.15, 0.15) * v)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    bx, by = ((c * u - s * v) * depth, (s * u + c * v) * depth)
    # A palm is about 0.4 of the picture: bumps of 0.12 move its quarters on their own, by up to 4 % of it.
    for _ in range(10):
        px, py = rng.uniform(-0.3, 0.3, 2)
        bump = strength * np.exp(-((bx - px) ** 2 + (by - py) ** 2) / (2 * rng.uniform(0.08, 0.14) ** 2))
        dx, dy = rng.normal(0, 0.0055, 2)
        bx, by = bx + dx * bump, by + dy * bump
    shift = rng.uniform(-0.03, 0.03, 2)
    seen = cv2.remap(picture, ((bx + shift[0]) * side + width / 2).astype(np.float32),
                     ((by + shift[1]) * side + height / 2).astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    light = 1 + strength * (rng.uniform(-0.5, 0.5) * u + rng.uniform(-0.5, 0.5) * v)
    seen = 255 * np.clip(seen / 255 * light[..., None] * rng.uniform(0.75, 1.2), 0, 1) ** rng.uniform(0.8, 1.25)
    small = rng.uniform(0.34, 0.6)
    seen = cv2.resize(cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.5, 2.0)), None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
    seen = np.clip(seen + rng.normal(0, rng.uniform(1.0, 3.0), seen.shape), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", seen[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96))])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def main():
    captures = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    hands = Hands()
    regions, labels = [], []
    for person, path in enumerate(sorted(glob.glob(os.path.join(HANDS, "*.JPG")))):
        picture = cv2.imread(path)[..., ::-1]
        rng = np.random.default_rng([7, person])
        for index in range(captures + 1):
            seen = np.ascontiguousarray(picture if index == 0 else second_capture(rng, picture))
            points = hands.locate(seen)
            if points is not None:
                regions.append(region(seen, points))
                labels.append((person, index))
    labels = np.array(labels)
    np.savez_compressed(sys.argv[1], regions=np.clip(np.round(regions), 0, 255).astype(np.uint8), labels=labels)
    print(f"{len(np.unique(labels[:, 0]))} people, {len(labels)} captures, the first of each not simulated")


if __name__ == "__main__":
    main()
