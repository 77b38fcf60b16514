//! Written by `examples/calibrate.rs`; not to be changed by hand.

use crate::calibration::Calibration;

pub(crate) static CURRENT: Calibration = Calibration {
    embedding_weight: 0.30,
    code_weight: 1.0,
    shortlist: 256,
    thresholds: &[(1e-2, 0.6384), (1e-3, 0.6839), (1e-4, 0.7103), (1e-5, 0.7256), (1e-6, 0.7345)],
    consistency: 0.6384,
    measured: &[],
};
