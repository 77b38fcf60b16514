use super::{Facts, Outcome};
use palmgate_gateway::calibration;
use palmgate_palm::{Calibration, DataSet, Origin};
use palmgate_protocol::{Custody, Purpose};

const REMEDY: &str = "palmgate evaluate --calibration on pictures of the sensor in use, then name the \
                      file in [palm] calibration";

/// Where thresholds come from, and among how many references they may be searched with.
pub(super) fn check(facts: &Facts) -> Outcome {
    let Some(config) = facts.config() else {
        return Outcome::skip("there is no configuration");
    };
    let options = &config.options;
    let models = match super::models::hash(facts) {
        Ok(models) => models,
        Err(error) => return Outcome::skip(format!("no models: {error}")),
    };
    let calibration = match calibration::read(options.calibration.as_deref(), &models) {
        Ok(calibration) => calibration,
        Err(fault) => return Outcome::fail(fault.to_string(), REMEDY),
    };
    if !calibration.is_of(&models) {
        return Outcome::fail("none is of the models in use: nobody is recognised", REMEDY);
    }
    let purposes = Purpose::MATCHED.into_iter().zip(options.false_match_rates);
    let served = purposes.filter(|(purpose, _)| options.settings.purposes.contains(*purpose));
    let searches = options.settings.custody == Custody::Operator;
    let told = served.map(|(purpose, rate)| told(&calibration, purpose, rate, searches));
    let sets: Vec<String> = calibration.sets().iter().map(described).collect();
    let found = format!("{}\n{}", sets.join("; "), told.collect::<Vec<_>>().join("\n"));
    if options.settings.production && !calibration.is_taken() {
        return Outcome::warn(found, REMEDY);
    }
    Outcome::ok(found)
}

fn described(set: &DataSet) -> String {
    let origin = match set.origin {
        Origin::Taken => "taken",
        Origin::Simulated => "simulated",
    };
    format!(
        "{} ({origin}): {} hands, {} genuine and {} impostor comparisons",
        set.name, set.identities, set.genuine, set.impostor
    )
}

fn told(calibration: &Calibration, purpose: Purpose, rate: f64, searches: bool) -> String {
    let name = purpose.as_str();
    let Some(point) = calibration.point(rate) else {
        return format!("{name}: no threshold for a false match rate of {rate:e}: matches nobody");
    };
    let searched = if searches {
        format!(
            ", among {} references at most (a stranger finds somebody in {} %)",
            point.largest_gallery,
            100.0 * calibration.false_positive_identification_rate()
        )
    } else {
        String::new()
    };
    format!(
        "{name}: {:.4} for a false match rate of {rate:e}; seen {:.1e}, at most {:.1e}{searched}",
        point.threshold, point.fmr, point.fmr_upper
    )
}
