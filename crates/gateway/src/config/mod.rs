//! The configuration of `palmgated`: TOML, read into types that cannot be wrong.
//!
//! [`Config::parse`] refuses unknown keys, values outside their bounds and combinations that make
//! no sense, and names all of them at once. No value is laxer than the law pack. An empty file is
//! the safest store that still does something: it takes payments, alone, for this machine only.

mod checks;
mod parse;
mod problem;
mod reader;
mod schema;
#[cfg(test)]
mod tests;

pub use problem::{ConfigErrors, Problem};

use crate::{law::Declared, run::Options};
use palmgate_protocol::Timestamp;

/// A checked configuration. [`Config::parse`] is the only way to one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What the gateway is started with.
    pub options: Options,
    /// Where and what the daemon logs.
    pub log: Log,
    /// The dossier that `operator` custody needs; always there with it.
    pub dossier: Option<Dossier>,
    /// Language of notices and papers (BCP 47).
    pub language: String,
    /// What people can use instead of their palm: never empty.
    pub fallback: String,
    /// Where the cloud is, if there is one.
    pub region: Option<Region>,
    /// What the controller declares, and the law pack.
    pub law: Declared,
    /// What no store may use.
    pub development: Development,
}

/// The exception dossier for `operator` custody (rule C-RT-07c), in force when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dossier {
    /// Why neither `subject` nor `split` will do.
    pub reason: String,
    /// SHA-256 of the data protection impact assessment.
    pub dpia_sha256: [u8; 32],
    /// When that assessment was signed: the start of the day (UTC).
    pub assessed: Timestamp,
    /// Two different people.
    pub signed_by: [String; 2],
    /// End of the last day on which it holds (UTC): within twelve months.
    pub expires: Timestamp,
}

/// A country of the European Economic Area, or the Union as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region(&'static str);

impl Region {
    const UNION: Self = Self("eu");
    const COUNTRIES: [&str; 30] = [
        "at", "be", "bg", "cy", "cz", "de", "dk", "ee", "es", "fi", "fr", "gr", "hr", "hu", "ie",
        "is", "it", "li", "lt", "lu", "lv", "mt", "nl", "no", "pl", "pt", "ro", "se", "si", "sk",
    ];

    fn parse(text: &str) -> Option<Self> {
        let country = Self::COUNTRIES.into_iter().find(|code| *code == text);
        country.map(Self).or((text == Self::UNION.0).then_some(Self::UNION))
    }

    /// `eu`, or the ISO 3166 code in small letters.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where to, and in which form.
    pub target: LogTarget,
    /// What is logged, as a filter for `tracing_subscriber::EnvFilter`. Libraries that print whole
    /// messages or names are kept quieter than we are.
    pub filter: String,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Lines for people on standard error.
    Stderr,
    /// One JSON object a line on standard error.
    Json,
    /// The system's journal.
    Journald,
}

/// Table `[development]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Development {
    /// The root key may lie in a file: erasure is then only as good as the disk's.
    pub root_in_file: bool,
}
