use super::allowed;
use crate::{
    Law, Rule,
    pack::{Act, Action, Verdict},
};
use minicbor::{Decode, Encode};
use palmgate_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Keeps records from being erased for a claim or a duty (GDPR Art. 17(3)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    #[n(0)]
    items: Vec<String>,
    #[n(1)]
    article: String,
    #[n(2)]
    ends: Timestamp,
    #[n(3)]
    signed_by: Vec<String>,
    #[n(4)]
    scope: Scope,
    #[n(5)]
    rules: Vec<String>,
}

/// What a hold is about; without anything set, everything of its kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Uses at this terminal only.
    #[n(0)]
    pub terminal: Option<String>,
    /// From this moment on, in milliseconds since 1970-01-01T00:00:00Z.
    #[n(1)]
    pub from: Option<i64>,
    /// Before this moment.
    #[n(2)]
    pub to: Option<i64>,
}

impl Hold {
    /// Places a hold on kinds of data, named as in the retention table.
    ///
    /// # Errors
    /// The pack's denial: another article, no end or one too far, one signature, or anything
    /// biometric.
    pub fn place(
        law: &Law,
        items: &[impl AsRef<str>],
        article: &str,
        ends: Timestamp,
        signed_by: [String; 2],
        now: Timestamp,
    ) -> Result<Self, Box<Verdict>> {
        let [one, other] = signed_by.each_ref().map(|name| name.trim());
        let items: Vec<String> = items.iter().map(|item| item.as_ref().to_owned()).collect();
        let act = Act::new(Action::Hold)
            .with("now", now.as_millis())
            .with("items", items.clone())
            .with("article", article.to_owned())
            .with("ends", ends.as_millis())
            .with("signed", !one.is_empty() && !other.is_empty() && one != other);
        let verdict = allowed(law, &act)?;
        let rules = verdict.rules.iter().map(ToString::to_string).collect();
        let (article, signed_by, scope) = (article.into(), signed_by.into(), Scope::default());
        Ok(Self { items, article, ends, signed_by, scope, rules })
    }

    /// Narrows it.
    #[must_use]
    pub fn about(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Whether the hold keeps this kind of data now.
    pub fn keeps(&self, item: &str, now: Timestamp) -> bool {
        now < self.ends && self.items.iter().any(|held| held == item)
    }

    /// Whether it keeps a use at this terminal and moment.
    pub fn covers(&self, terminal: &str, at: Timestamp, now: Timestamp) -> bool {
        let at = at.as_millis();
        self.keeps("use", now)
            && self.scope.terminal.as_deref().is_none_or(|wanted| wanted == terminal)
            && self.scope.from.is_none_or(|from| from <= at)
            && self.scope.to.is_none_or(|to| at < to)
    }

    /// Kinds of data.
    pub fn items(&self) -> &[String] {
        &self.items
    }

    /// The article it rests on.
    pub fn article(&self) -> &str {
        &self.article
    }

    /// Its end.
    pub const fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Who signed.
    pub fn signed_by(&self) -> &[String] {
        &self.signed_by
    }

    /// What it is about.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The rules that allowed it.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.rules.iter().filter_map(|rule| Rule::parse(rule)).collect()
    }
}
