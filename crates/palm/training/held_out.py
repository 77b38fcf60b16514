"""Writes the regions of synthetic people whom the training never saw, for `examples/calibrate.rs`.

    python held_out.py FILE [PEOPLE]

People and captures as two little-endian 32-bit numbers, then 80 x 80 grey bytes for each capture.
Fifty people stand before each camera; three cameras in ten are near-infrared ones.
"""

import itertools
import sys

import numpy as np
from palms import crowd

CAPTURES = 5

if __name__ == "__main__":
    people = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    near_infrared = 3 * people // 10
    with open(sys.argv[1], "wb") as file:
        file.write(np.array([people, CAPTURES], "<u4").tobytes())
        visible = crowd(8_000_000, people - near_infrared, CAPTURES)
        for region in itertools.chain(visible, crowd(8_000_000, near_infrared, CAPTURES, seen_infrared=True)):
            file.write(region.tobytes())
