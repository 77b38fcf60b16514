//! The files of a layer as they are written.

use super::{Authority, Mark};
use serde::Deserialize;
use toml::{Spanned, value::Datetime};

/// A text in the languages that papers are written in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// English.
    pub en: String,
    /// French.
    pub fr: String,
}

impl Texts {
    /// The text in a language: French for `fr` and its variants, otherwise English.
    pub fn get(&self, language: &str) -> &str {
        if language.split('-').next() == Some("fr") { &self.fr } else { &self.en }
    }
}

/// `pack.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) name: Spanned<String>,
    pub(super) version: String,
    pub(super) effective: Datetime,
    pub(super) stacks_on: Spanned<Vec<String>>,
    pub(super) policies: Spanned<Vec<String>>,
    pub(super) time_zone: Spanned<String>,
    #[serde(default)]
    pub(super) regions: Option<Vec<String>>,
    pub(super) rows: Vec<Spanned<String>>,
    pub(super) title: Texts,
    #[serde(default)]
    pub(super) authority: Option<Authority>,
    #[serde(default)]
    pub(super) purpose: Vec<PurposeEntry>,
    #[serde(default)]
    pub(super) number: Vec<NumberEntry>,
    #[serde(default)]
    pub(super) retention: Vec<TermEntry>,
    #[serde(default)]
    pub(super) elsewhere: Vec<RowEntry>,
    #[serde(default)]
    pub(super) open: Vec<RowEntry>,
    #[serde(default)]
    pub(super) beyond: Vec<RowEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PurposeEntry {
    pub(super) name: Spanned<String>,
    pub(super) rule: Spanned<String>,
    pub(super) basis: String,
    pub(super) en: String,
    pub(super) fr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NumberEntry {
    pub(super) name: Spanned<String>,
    pub(super) rule: Spanned<String>,
    pub(super) cite: String,
    pub(super) mark: Mark,
    pub(super) value: i64,
    #[serde(default)]
    pub(super) least: Option<i64>,
    #[serde(default)]
    pub(super) most: Option<i64>,
    #[serde(default)]
    pub(super) relaxes: Option<String>,
    pub(super) en: String,
    pub(super) fr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermEntry {
    pub(super) item: String,
    pub(super) rule: Spanned<String>,
    pub(super) keep: Spanned<String>,
    pub(super) en: String,
    pub(super) fr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowEntry {
    pub(super) id: Spanned<String>,
    pub(super) cite: String,
    pub(super) mark: Mark,
    pub(super) en: String,
    pub(super) fr: String,
    #[serde(default)]
    pub(super) tests: Vec<String>,
}
