//! Written by `examples/calibrate.rs`; not to be changed by hand.

use crate::calibration::{Calibration, Measurement};

pub(crate) static CURRENT: Calibration = Calibration {
    embedding_weight: 0.35,
    code_weight: 1.0,
    shortlist: 256,
    thresholds: &[(1e-2, 0.6730), (1e-3, 0.7171), (1e-4, 0.7613), (1e-5, 0.8054), (1e-6, 0.8496)],
    consistency: 0.6730,
    measured: &[
        Measurement {
            data: "207 real hands of strangers, every capture simulated from one photograph a hand",
            people: 198,
            not_enrolled: 9,
            inconsistent: 0,
            mated: 383,
            non_mated: 39006,
            false_non_match: &[0.00e0, 0.00e0, 0.00e0, 2.61e-3, 1.31e-2],
            false_match: &[1.00e-2, 1.05e-3, 0.00e0, 0.00e0, 0.00e0],
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
            inconsistent: 270,
            mated: 600,
            non_mated: 89700,
            false_non_match: &[3.40e-1, 5.83e-1, 7.85e-1, 9.20e-1, 9.80e-1],
            false_match: &[0.00e0, 0.00e0, 0.00e0, 0.00e0, 0.00e0],
            embedding_equal_error: 0.0046,
            code_equal_error: 0.0200,
            fused_equal_error: 0.0033,
            shortlisted_of_10_000: 0.9983,
            shortlisted_of_100_000: 0.9933,
        },
    ],
};
