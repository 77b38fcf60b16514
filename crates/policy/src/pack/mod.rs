//! Law packs: rules in Cedar, numbers and terms in TOML, with a citation for each.
//!
//! A [`Pack`] is made of layers, the lowest first (`eu-gdpr`, then `fr-cnil`); of two rules or
//! numbers the stricter wins. [`Law`] is a pack bound to a store, and decides.

mod act;
mod document;
mod embedded;
mod example;
mod format;
mod law;
mod load;
mod problem;
mod table;

pub use act::{Act, Action, Value};
pub use document::document;
pub use embedded::{EMBEDDED_LAYERS, embedded_layer};
pub use example::{Broken, Example};
pub use format::Texts;
pub use law::{Law, StoreFacts, Verdict};
pub use load::LayerSource;
pub use problem::{PackError, Problem};
pub use table::{Coverage, Row, Standing};

use crate::Rule;
use cedar_policy::{PolicyId, PolicySet};
use palmgate_protocol::{Custody, Purpose, PurposeSet, terminal::Refusal};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

static EMBEDDED: LazyLock<Arc<Pack>> = LazyLock::new(|| {
    let layers = ["eu-gdpr", "fr-cnil"].into_iter().filter_map(embedded_layer).collect::<Vec<_>>();
    // The tests load these very files.
    Arc::new(Pack::load(&layers).expect("the packs built in are valid"))
});

/// A checked pack: its layers, its rules and its numbers.
#[derive(Clone, Debug)]
pub struct Pack {
    pub(crate) layers: Vec<Layer>,
    pub(crate) policies: BTreeMap<PolicyId, Policy>,
    pub(crate) sets: BTreeMap<Action, PolicySet>,
    pub(crate) numbers: BTreeMap<String, Number>,
    pub(crate) purposes: Vec<PurposeBasis>,
    pub(crate) retention: Vec<Term>,
    pub(crate) regions: BTreeSet<String>,
    pub(crate) rows: Vec<Rule>,
    pub(crate) elsewhere: Vec<Entry>,
    pub(crate) open: Vec<Entry>,
    pub(crate) beyond: Vec<Entry>,
    pub(crate) statement: String,
    pub(crate) hash: [u8; 32],
}

/// One layer of a pack.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name, which is its directory's.
    pub name: String,
    /// Its version: the day it was written.
    pub version: String,
    /// Since when what it states is law.
    pub effective: jiff::civil::Date,
    /// What it is about.
    pub title: Texts,
    /// Where people complain.
    pub authority: Authority,
    /// IANA time zone that deadlines are counted in.
    pub time_zone: String,
}

/// The supervisory authority.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Name and postal address.
    pub name: String,
    /// Where complaints are made.
    pub url: String,
}

/// How far a rule's source was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Mark {
    /// Read in a retrieved copy of the primary text.
    V,
    /// Confirmed in a secondary text.
    S,
    /// Own knowledge: to be checked before anybody relies on it.
    K,
    /// A figure that the designers chose; no law fixes it.
    D,
}

/// One policy of the pack, without its condition.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its id: the rule's, a slash, and a word.
    pub id: String,
    /// Its place in the pack's files.
    pub place: usize,
    /// The rule that it stands for.
    pub rule: Rule,
    /// The layer that it comes from.
    pub layer: String,
    /// The acts that it is about.
    pub actions: Vec<Action>,
    /// Whether it forbids; otherwise it permits.
    pub forbids: bool,
    /// The source.
    pub cite: String,
    /// Since when it is law.
    pub effective: jiff::civil::Date,
    /// How far the source was checked.
    pub mark: Mark,
    /// In plain words.
    pub text: Texts,
    /// What a terminal shows when it decides.
    pub refusal: Option<Refusal>,
    /// Its place in the order of gates (0 where there is none): the lowest speaks.
    pub gate: u8,
    pub(crate) example: example::Changes,
    pub(crate) beside: Vec<String>,
}

/// A number with its legal bound.
#[derive(Clone, Debug)]
pub struct Number {
    /// The rule that bounds it.
    pub rule: Rule,
    /// The source.
    pub cite: String,
    /// How far the source was checked.
    pub mark: Mark,
    /// What holds unless a store chooses otherwise.
    pub value: i64,
    /// Smallest lawful value.
    pub least: i64,
    /// Largest lawful value.
    pub most: i64,
    /// In plain words.
    pub text: Texts,
}

/// A store asks for a number that the law does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value} is not allowed: from {least} to {most} by rule {rule} ({cite})")]
pub struct Laxer {
    /// The number.
    pub name: String,
    /// What was asked for.
    pub value: i64,
    /// Smallest lawful value.
    pub least: i64,
    /// Largest lawful value.
    pub most: i64,
    /// The rule.
    pub rule: Rule,
    /// Its source.
    pub cite: String,
}

/// A purpose and the one basis that it rests on.
#[derive(Clone, Debug)]
pub struct PurposeBasis {
    /// The purpose.
    pub purpose: Purpose,
    /// The rule behind it.
    pub rule: Rule,
    /// The legal basis.
    pub basis: String,
    /// In plain words.
    pub text: Texts,
}

/// How long one kind of data is kept.
#[derive(Clone, Debug)]
pub struct Term {
    /// The kind of data.
    pub item: String,
    /// The rule.
    pub rule: Rule,
    /// How long, at most.
    pub keep: jiff::Span,
    /// What it is, and from when it counts.
    pub text: Texts,
}

/// A row that no policy stands for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The row.
    pub rule: Rule,
    /// The source.
    pub cite: String,
    /// How far the source was checked.
    pub mark: Mark,
    /// In plain words.
    pub text: Texts,
    /// `file: name` of the tests that show it.
    pub tests: Vec<String>,
}

impl Pack {
    /// The pack that is built in: `fr-cnil` on `eu-gdpr`.
    pub fn embedded() -> Arc<Self> {
        EMBEDDED.clone()
    }

    /// Names the pack in every decision: SHA-256 of [`Pack::statement`].
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What is signed: a line for each file with its SHA-256, as `sha256sum` writes it.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// The layers, lowest first; the last one gives the pack its name.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The uppermost layer.
    pub fn top(&self) -> &Layer {
        // A pack without layers is refused when it is loaded.
        self.layers.last().expect("a pack has a layer")
    }

    /// The policies, by id.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// A policy by id.
    pub fn policy(&self, id: &str) -> Option<&Policy> {
        self.policies.get(&PolicyId::new(id))
    }

    /// A policy as it is written, by id.
    pub fn source(&self, id: &str) -> Option<String> {
        let id = PolicyId::new(id);
        self.sets.values().find_map(|set| set.policy(&id)).map(ToString::to_string)
    }

    /// The numbers, by name.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, &Number)> {
        self.numbers.iter().map(|(name, number)| (name.as_str(), number))
    }

    /// A number by name.
    pub fn number(&self, name: &str) -> Option<&Number> {
        self.numbers.get(name)
    }

    /// How far the clock may jump forward before somebody has to confirm it (`clock_jump_hours`).
    pub fn clock_jump(&self) -> Duration {
        let hours = self.number("clock_jump_hours").and_then(|number| number.value.try_into().ok());
        Duration::from_hours(u64::from(hours.unwrap_or(0u32)))
    }

    /// The purposes that have a basis.
    pub fn purposes(&self) -> &[PurposeBasis] {
        &self.purposes
    }

    /// How long everything is kept.
    pub fn retention(&self) -> &[Term] {
        &self.retention
    }

    /// Where data may go: `eu`, or ISO 3166 codes in lower case.
    pub const fn regions(&self) -> &BTreeSet<String> {
        &self.regions
    }

    /// Whether a store may choose this value for a number.
    ///
    /// # Errors
    /// [`Laxer`] with the rule when the value is outside its lawful range.
    pub fn check(&self, name: &str, value: i64) -> Result<(), Laxer> {
        let Some(number) = self.numbers.get(name) else { return Ok(()) };
        if (number.least..=number.most).contains(&value) {
            return Ok(());
        }
        Err(Laxer {
            name: name.into(),
            value,
            least: number.least,
            most: number.most,
            rule: number.rule,
            cite: number.cite.clone(),
        })
    }

    /// Purposes of the set that have no basis in this pack.
    pub fn without_basis(&self, served: PurposeSet) -> impl Iterator<Item = Purpose> {
        let based = |purpose: &Purpose| self.purposes.iter().any(|basis| basis.purpose == *purpose);
        served.iter().filter(move |purpose| !based(purpose))
    }

    /// The pack with the policies of this id taken out: for tests that show that it is missed.
    #[must_use]
    pub fn without_policies(&self, ids: &[&str]) -> Self {
        let mut pack = self.clone();
        for id in ids {
            let id = PolicyId::new(id);
            pack.policies.remove(&id);
            for set in pack.sets.values_mut() {
                // Absent from the acts that it is not about.
                let _ = set.remove_static(id.clone());
            }
        }
        pack
    }

    /// The pack with this number's bound taken out.
    #[must_use]
    pub fn without_number(&self, name: &str) -> Self {
        let mut pack = self.clone();
        pack.numbers.remove(name);
        pack
    }
}

pub(crate) const fn custody_type(custody: Custody) -> i64 {
    custody as i64 + 1
}
