"""Writes the regions of synthetic people whom the training never saw, for `examples/calibrate.rs`.

    python held_out.py FILE [PEOPLE]

People and captures as two little-endian 32-bit numbers, then 80 x 80 grey bytes for each capture.
"""

import sys

import numpy as np
from palms import sample

CAPTURES = 5

if __name__ == "__main__":
    people = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    with open(sys.argv[1], "wb") as file:
        file.write(np.array([people, CAPTURES], "<u4").tobytes())
        for person in range(people):
            for index in range(CAPTURES):
                file.write(sample(8_000_000 + person, index).tobytes())
