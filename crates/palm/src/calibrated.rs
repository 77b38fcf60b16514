//! Written by `examples/calibrate.rs`; not to be changed by hand.

use crate::calibration::{Calibration, Measurement};

pub(crate) static CURRENT: Calibration = Calibration {
    embedding_weight: 0.08,
    code_weight: 1.0,
    shortlist: 256,
    thresholds: &[(1e-2, 0.5317), (1e-3, 0.5610), (1e-4, 0.5904), (1e-5, 0.6198), (1e-6, 0.6492)],
    consistency: 0.4456,
    measured: &[
        Measurement {
            data: "207 real hands of strangers, every capture simulated from one photograph a hand",
            people: 198,
            not_enrolled: 9,
            inconsistent: 0,
            mated: 383,
            non_mated: 39006,
            false_non_match: &[0.00e0, 0.00e0, 0.00e0, 0.00e0, 1.04e-2],
            false_match: &[1.00e-2, 9.49e-4, 1.28e-4, 0.00e0, 0.00e0],
            embedding_equal_error: 0.0025,
            code_equal_error: 0.0000,
            fused_equal_error: 0.0000,
            shortlisted_of_10_000: 1.0000,
            shortlisted_of_100_000: 1.0000,
        },
        Measurement {
            data: "synthetic people whom the network never saw, synthetic captures",
            people: 300,
            not_enrolled: 0,
            inconsistent: 56,
            mated: 600,
            non_mated: 89700,
            false_non_match: &[2.12e-1, 3.88e-1, 5.87e-1, 7.60e-1, 9.15e-1],
            false_match: &[0.00e0, 0.00e0, 0.00e0, 0.00e0, 0.00e0],
            embedding_equal_error: 0.0046,
            code_equal_error: 0.0083,
            fused_equal_error: 0.0035,
            shortlisted_of_10_000: 0.9983,
            shortlisted_of_100_000: 0.9933,
        },
    ],
};
