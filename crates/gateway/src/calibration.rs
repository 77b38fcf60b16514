//! The calibration in use: the one place that thresholds come from.

use crate::run::Options;
use palmgate_palm::{Calibration, CalibrationError, MAX_CALIBRATION_BYTES};
use palmgate_policy::Settings;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The rate at which two references of a shard are taken for one hand.
const ALIKE: f64 = 1e-4;

/// The calibration that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationFault {
    /// It cannot be read.
    #[error("[palm] calibration {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is none for this program.
    #[error("[palm] calibration {}: {cause}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: CalibrationError,
    },
}

/// Reads a calibration for the models with this hash; the one that is built in, which is of the models
/// that are built in, when no file is named.
///
/// # Errors
/// [`CalibrationFault`]: the file has to be replaced.
pub fn read(path: Option<&Path>, models: &[u8; 32]) -> Result<Calibration, CalibrationFault> {
    let Some(path) = path else { return Ok(Calibration::built_in().clone()) };
    let mut file = Vec::new();
    // One byte more than allowed, so that what is longer is seen to be.
    File::open(path)
        .and_then(|opened| opened.take(MAX_CALIBRATION_BYTES + 1).read_to_end(&mut file))
        .map_err(|cause| CalibrationFault::Read { path: path.to_owned(), cause })?;
    Calibration::parse_of_models(models, &file)
        .map_err(|cause| CalibrationFault::Wrong { path: path.to_owned(), cause })
}

/// What the policy goes by: the configuration's settings under a calibration. The one that is built
/// in bounds no gallery of a store without real people: it was made to try things out.
pub(crate) fn settings(options: &Options, calibration: &Calibration) -> Settings {
    let settings = apply(calibration, options.false_match_rates, options.settings.clone());
    if options.calibration.is_none() && !settings.production {
        return Settings { largest_galleries: [usize::MAX; 4], ..settings };
    }
    settings
}

/// `settings` with what the calibration says for the false match rate of each purpose. A rate
/// that it has no threshold for matches nobody.
fn apply(calibration: &Calibration, rates: [f64; 4], settings: Settings) -> Settings {
    Settings {
        thresholds: rates.map(|rate| calibration.threshold(rate).unwrap_or(f32::INFINITY)),
        largest_galleries: rates
            .map(|rate| calibration.point(rate).map_or(0, |point| point.largest_gallery)),
        ..settings
    }
}

/// The resemblance from which two references are taken for one hand.
pub(crate) fn alike_from(calibration: &Calibration) -> f32 {
    calibration.threshold(ALIKE).unwrap_or(f32::INFINITY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_a_wrong_one_is_named_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calibration.json");
        let models = palmgate_palm::models_hash();
        let fault = |path: &Path| read(Some(path), &models).unwrap_err().to_string();
        assert!(fault(&path).contains("[palm] calibration") && fault(&path).contains("os error 2"));
        assert!(fault(directory.path()).contains(&directory.path().display().to_string()));
        let good = Calibration::built_in().to_json().unwrap();
        std::fs::write(&path, &good).unwrap();
        assert_eq!(read(Some(&path), &models).unwrap().sets(), Calibration::built_in().sets());
        for (file, reason) in [
            (String::new(), "no calibration"),
            (good[..good.len() - 9].to_owned(), "no calibration"),
            (good.replace("0.95", "NaN"), "no calibration"),
            (good.replace("\"models\": \"", "\"models\": \"0"), "other models"),
            (" ".repeat(MAX_CALIBRATION_BYTES as usize) + &good, "more than"),
            (good.replace("\"target\": 0.01", "\"target\": 0.02"), "hold together"),
        ] {
            std::fs::write(&path, file).unwrap();
            assert!(fault(&path).contains(reason), "{}", fault(&path));
        }
    }

    #[test]
    fn thresholds_and_galleries_are_those_of_each_rate() {
        let calibration = Calibration::built_in();
        let settings = apply(calibration, [1e-6, 1e-4, 1e-4, 1e-12], Settings::default());
        let point = |rate| calibration.point(rate).unwrap();
        assert_eq!(settings.thresholds[..2], [point(1e-6).threshold, point(1e-4).threshold]);
        assert_eq!(settings.largest_galleries[0], point(1e-6).largest_gallery);
        assert!(settings.thresholds[3].is_infinite() && settings.largest_galleries[3] == 0);
    }
}
