//! `cloud.toml`: what an operator may choose. Unknown keys and values out of range are refused
//! with their line.

use crate::postgres::DatabaseSettings;
use crate::provision::Founding;
use palmgate_gallery::Fusion;
use palmgate_protocol::{DAY, Name};
use serde::{Deserialize, Deserializer, de::Error};
use std::{path::Path, time::Duration};

/// The operator's choices for one tenant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(deserialize_with = "name")]
    pub(crate) tenant: Name,
    /// DNS name or IP address in the server's certificate and in the stores' bundles.
    pub(crate) host: String,
    /// Whether records that the cloud can open (`operator` custody) are kept at all.
    #[serde(default)]
    pub(crate) accept_operator: bool,
    #[serde(default = "lease_hours_default", deserialize_with = "lease_hours")]
    lease_hours: u64,
    /// The region whose law the data is under: neither stores nor a database elsewhere are served.
    #[serde(default = "region_default", deserialize_with = "name")]
    pub(crate) region: Name,
    /// Where the rows are; in the state directory, for one process, without it.
    #[serde(default)]
    pub(crate) database: Option<DatabaseSettings>,
    #[serde(default)]
    pub(crate) shards: Shards,
    /// Whether palms without a claim are looked up; not without this.
    #[serde(default)]
    pub(crate) search: Option<Search>,
    #[serde(default)]
    pub(crate) matching: Matching,
    #[serde(default)]
    pub(crate) limits: Limits,
}

impl Settings {
    /// How long a store may work with a shard.
    pub(crate) const fn lease(&self) -> Duration {
        Duration::from_hours(self.lease_hours)
    }
}

/// Whom a store's shard has.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Shards {
    /// How often a stranger may find somebody in a whole shard at most (FPIR).
    #[serde(deserialize_with = "probability")]
    fpir: f64,
    /// How often two different palms match at the stores' threshold (FMR).
    #[serde(deserialize_with = "probability")]
    fmr: f64,
    /// How long a visitor stays in a shard after they were given to the store.
    visit_days: u32,
}

impl Shards {
    /// People in a shard at most: a stranger finds one of N with a probability of about N times
    /// that of a false match.
    pub(crate) fn cap(&self) -> i64 {
        ((self.fpir / self.fmr).round() as i64).max(1)
    }

    pub(crate) fn visit(&self) -> Duration {
        DAY * self.visit_days
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self { fpir: 0.02, fmr: 1e-6, visit_days: 30 }
    }
}

/// How a palm is looked up among everybody who agreed to be recognised in other stores.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// The score that a person must reach. N people raise the chance of a false match N times, so
    /// this is higher than that of `[matching]`, and has no default.
    #[serde(deserialize_with = "finite")]
    pub(crate) threshold: f32,
    /// People whose line codes are compared.
    #[serde(default = "shortlist_default", deserialize_with = "shortlist")]
    pub(crate) shortlist: usize,
}

/// When a claimed person's record is handed to a store that asks with a probe. The store's own
/// policy still decides.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matching {
    #[serde(deserialize_with = "finite")]
    embedding_weight: f32,
    #[serde(deserialize_with = "finite")]
    code_weight: f32,
    #[serde(deserialize_with = "finite")]
    pub(crate) threshold: f32,
}

impl Matching {
    pub(crate) const fn fusion(&self) -> Fusion {
        let Self { embedding_weight, code_weight, .. } = *self;
        Fusion { embedding_weight, code_weight, shortlist: 1 }
    }
}

impl Default for Matching {
    /// The calibration of the models of this version, at one false match in 10,000.
    fn default() -> Self {
        Self { embedding_weight: 0.12, code_weight: 1.0, threshold: 0.6106 }
    }
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// People kept.
    pub(crate) members: usize,
    /// Requests of one store.
    pub(crate) requests_per_minute: u32,
    /// Look-ups of one store.
    pub(crate) resolutions_per_minute: u32,
    /// Look-ups of one claim, by all stores together: what a climber of hills may try.
    pub(crate) tries_per_claim_per_hour: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: 1_000_000,
            requests_per_minute: 1200,
            resolutions_per_minute: 120,
            tries_per_claim_per_hour: 30,
        }
    }
}

/// Reads `cloud.toml`.
pub(crate) fn parse(text: &str) -> Result<Settings, toml::de::Error> {
    toml::from_str(text)
}

/// The text of a new `cloud.toml`.
pub(crate) fn text(founding: &Founding<'_>) -> String {
    let Founding { tenant, host, accept_operator, region, .. } = founding;
    let database = founding.database.map_or_else(String::new, |database| {
        let url = toml::Value::String(database.url.into());
        let file = |name, file: Option<&Path>| {
            let path = file.map(|file| toml::Value::String(file.display().to_string()));
            path.map_or_else(String::new, |path| format!("{name} = {path}\n"))
        };
        let password = file("password_file", database.password_file);
        format!("\n[database]\nurl = {url}\n{password}{}", file("ca", database.ca))
    });
    let host = toml::Value::String((*host).into());
    let region = region.map_or("eu", Name::as_str);
    format!(
        "# The tenant whose people are kept here; fixed when the cloud was founded.\n\
         tenant = \"{tenant}\"\n\n\
         # DNS name or IP address that the stores dial.\n\
         host = {host}\n\n\
         # Keep records that the cloud can open (custody `operator`)? A European tenant needs a\n\
         # signed exception dossier for it.\n\
         accept_operator = {accept_operator}\n\n\
         # A store that hears nothing for so long locks its shard.\n\
         lease_hours = 72\n\n\
         # Stores and a database in another region are not served.\n\
         region = \"{region}\"\n{database}"
    )
}

fn shortlist_default() -> usize {
    32
}

fn shortlist<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::deserialize(deserializer)? {
        people @ 1..=1024 => Ok(people),
        people => Err(D::Error::custom(format!("a shortlist of {people}: use 1 to 1024"))),
    }
}

fn region_default() -> Name {
    "eu".parse().expect("a name")
}

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match f64::deserialize(deserializer)? {
        value if value > 0.0 && value <= 1.0 => Ok(value),
        value => Err(D::Error::custom(format!("{value}: use a probability above 0, at most 1"))),
    }
}

fn lease_hours_default() -> u64 {
    72
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn lease_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        hours @ 1..=720 => Ok(hours),
        hours => Err(D::Error::custom(format!("a lease of {hours} hours: use 1 to 720"))),
    }
}

fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    match f32::deserialize(deserializer)? {
        value if (0.0..=10.0).contains(&value) => Ok(value),
        value => Err(D::Error::custom(format!("{value}: use 0 to 10"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_written_can_be_read_and_keeps_no_readable_records() {
        let tenant = "acme".parse().unwrap();
        let founding = Founding { host: "cloud.example", ..Founding::new(&tenant) };
        let settings = parse(&text(&founding)).unwrap();
        assert_eq!(settings.tenant.as_str(), "acme");
        assert_eq!(settings.lease(), Duration::from_hours(72));
        assert!(!settings.accept_operator);
        assert_eq!(settings.limits, Limits::default());
    }

    #[test]
    fn the_default_match_is_that_of_the_models_of_this_version() {
        let scoring = palmgate_palm::scoring();
        let threshold = palmgate_palm::Calibration::built_in().threshold(1e-4).unwrap();
        let Matching { embedding_weight, code_weight, threshold: default } = Matching::default();
        assert_eq!(
            [embedding_weight, code_weight, default].map(f32::to_bits),
            [scoring.embedding_weight, scoring.code_weight, threshold].map(f32::to_bits)
        );
    }

    #[test]
    fn a_wrong_value_or_key_is_named_with_its_line() {
        let base = "tenant = \"acme\"\nhost = \"h\"\n";
        for (line, word) in [
            ("lease_hours = 0", "1 to 720"),
            ("lease_hours = 721", "1 to 720"),
            ("lease_hous = 7", "lease_hous"),
            ("matching = { embedding_weight = 0, code_weight = nan, threshold = 1 }", "0 to 10"),
        ] {
            let error = parse(&format!("{base}{line}")).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains(word), "{error}");
        }
        assert!(parse("tenant = \"Acme\"\nhost = \"h\"\n").is_err());
    }
}
