//! Written by `examples/calibrate.rs`; not to be changed by hand.

use crate::calibration::{Calibration, Measurement};

pub(crate) static CURRENT: Calibration = Calibration {
    embedding_weight: 0.10,
    code_weight: 1.0,
    shortlist: 256,
    thresholds: &[(1e-2, 0.5406), (1e-3, 0.5714), (1e-4, 0.6023), (1e-5, 0.6342), (1e-6, 0.6797)],
    consistency: 0.4724,
    measured: &[
        Measurement {
            data: "207 real hands of strangers, every capture simulated from one photograph a hand",
            people: 201,
            not_enrolled: 6,
            inconsistent: 0,
            mated: 394,
            non_mated: 40200,
            false_non_match: &[0.00e0, 0.00e0, 0.00e0, 0.00e0, 2.28e-2],
            false_match: &[1.00e-2, 8.71e-4, 9.95e-5, 0.00e0, 0.00e0],
            embedding_equal_error: 0.0021,
            code_equal_error: 0.0000,
            fused_equal_error: 0.0000,
            shortlisted_of_10_000: 1.0000,
            shortlisted_of_100_000: 1.0000,
        },
        Measurement {
            data: "synthetic people whom the network never saw, synthetic captures",
            people: 300,
            not_enrolled: 0,
            inconsistent: 76,
            mated: 600,
            non_mated: 89700,
            false_non_match: &[1.12e-1, 2.67e-1, 5.02e-1, 7.45e-1, 9.15e-1],
            false_match: &[1.11e-3, 2.01e-4, 3.34e-5, 1.11e-5, 0.00e0],
            embedding_equal_error: 0.0233,
            code_equal_error: 0.0300,
            fused_equal_error: 0.0152,
            shortlisted_of_10_000: 0.9783,
            shortlisted_of_100_000: 0.8967,
        },
    ],
};
