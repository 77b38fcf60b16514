//! Which scores decide: from an evaluation, for as many people as one search goes through.

use crate::{Options, StartError};
use palmgate_palm::{MAX_THRESHOLDS_BYTES, Thresholds, ThresholdsError};
use palmgate_policy::Settings;
use palmgate_protocol::Purpose;
use std::{fs::File, io::Read, path::Path};

/// The settings with the thresholds of the file that is configured, or of those that come with the
/// models. A search among many makes as many comparisons: its false positive identification rate is
/// about their number times their false match rate (ISO/IEC 19795-1).
pub(crate) fn chosen(options: &Options) -> Result<Settings, StartError> {
    let thresholds = match &options.thresholds {
        None => Thresholds::built_in(),
        Some(path) => read(path)?,
    };
    let mut settings = options.settings.clone();
    let people = settings.most_people.unwrap_or(1);
    for (at, purpose) in Purpose::MATCHED.into_iter().enumerate() {
        let wanted = options.false_match_rates[at] / people as f64;
        let threshold = thresholds.threshold(wanted);
        if threshold.is_none() && settings.purposes.contains(purpose) {
            let strictest = thresholds.strictest();
            let possible = (options.false_match_rates[at] / strictest * (1.0 + 1e-9)) as usize;
            let purpose = purpose.as_str();
            return Err(StartError::NotVouched { purpose, people, wanted, strictest, possible });
        }
        settings.thresholds[at] = threshold.unwrap_or(f32::INFINITY);
    }
    let (hands, genuine, impostor) = thresholds.counts();
    tracing::info!(data = thresholds.data(), hands, genuine, impostor, people, "thresholds");
    Ok(settings)
}

fn read(path: &Path) -> Result<Thresholds, StartError> {
    let at = |cause| StartError::File { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(at)?;
    file.take(MAX_THRESHOLDS_BYTES + 1).read_to_end(&mut bytes).map_err(at)?;
    let cause = if bytes.len() as u64 > MAX_THRESHOLDS_BYTES {
        Some(ThresholdsError::Malformed("it is too large".into()))
    } else {
        None
    };
    match cause.map_or_else(|| Thresholds::read(&bytes), Err) {
        Ok(thresholds) => Ok(thresholds),
        Err(cause) => Err(StartError::Thresholds { path: path.to_owned(), cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use palmgate_protocol::Timestamp;
    use std::{error::Error, fs};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const OPERATOR: &str = "[store]\ncustody = 'operator'\npurposes = ['pay', 'loyalty']\n\
        [store.operator_dossier]\nreason = 'wet hands'\nassessed = 2026-12-01\n\
        signed_by = ['A. Martin', 'B. Petit']\nexpires = 2027-03-31\n";

    fn with(palm: &str) -> Result<Settings, StartError> {
        let hash = format!("dpia_sha256 = '{}'\n", "0".repeat(64));
        let text = format!("{OPERATOR}{hash}[palm]\n{palm}");
        chosen(&Config::parse(&text, "test.toml", NOW).unwrap().options)
    }

    fn file(strictest: f64, impostor: usize) -> Result<tempfile::NamedTempFile, Box<dyn Error>> {
        let mut thresholds = serde_json::to_value(Thresholds::built_in())?;
        thresholds["impostor"] = impostor.into();
        thresholds["points"] = serde_json::json!([
            { "false_match_rate": 1e-4, "score": 0.5 },
            { "false_match_rate": strictest, "score": 0.75 },
        ]);
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), thresholds.to_string())?;
        Ok(file)
    }

    #[test]
    fn thresholds_are_for_as_many_people_as_a_search_goes_through() -> Result<(), Box<dyn Error>> {
        let alone = with("")?;
        let built_in = Thresholds::built_in();
        assert_eq!(Some(alone.thresholds[0]), built_in.threshold(1e-6));
        assert_eq!(
            (Some(alone.thresholds[1]), alone.most_people),
            (built_in.threshold(1e-4), None)
        );
        let Err(StartError::NotVouched { purpose: "pay", people: 100, possible: 1, .. }) =
            with("people = 100")
        else {
            panic!("simulated captures vouch for that")
        };
        let report = file(1e-9, 10_000_000)?;
        let path = format!("thresholds = '{}'\n", report.path().display());
        let many = with(&format!("{path}people = 1000"))?;
        assert_eq!((many.thresholds[0], many.most_people), (0.75, Some(1000)));
        let refused = with(&format!("{path}people = 1001")).unwrap_err();
        assert!(refused.is_configuration() && refused.to_string().contains("1000"), "{refused}");
        Ok(())
    }

    #[test]
    fn a_file_that_cannot_vouch_is_named() -> Result<(), Box<dyn Error>> {
        let empty = tempfile::NamedTempFile::new()?;
        let large = tempfile::NamedTempFile::new()?;
        fs::write(large.path(), vec![b' '; 1 << 20])?;
        let thin = file(1e-9, 1000)?;
        for wrong in [&empty, &large, &thin] {
            let refused = with(&format!("thresholds = '{}'", wrong.path().display())).unwrap_err();
            assert!(matches!(refused, StartError::Thresholds { .. }), "{refused}");
            assert!(refused.to_string().starts_with(&wrong.path().display().to_string()));
        }
        let missing = with("thresholds = '/nowhere/thresholds.json'").unwrap_err();
        assert!(matches!(missing, StartError::File { .. }), "{missing}");
        Ok(())
    }
}
