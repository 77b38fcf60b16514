//! What stands for each row of the rulebook, counted from the pack.

use super::{Entry, Example, Mark, Pack, Texts};
use crate::Rule;
use serde::Serialize;

/// A row of the rulebook.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its rule.
    pub rule: Rule,
    /// Its source.
    pub cite: String,
    /// How far the source was checked.
    pub mark: Mark,
    /// In plain words.
    pub text: Texts,
    /// What stands for it.
    pub standing: Standing,
    /// Whether a test fails when its rule is gone.
    pub proven: bool,
}

/// What stands for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Policies, numbers and terms of the pack.
    Pack {
        /// Ids of its policies.
        policies: Vec<String>,
        /// Names of its numbers.
        numbers: Vec<String>,
        /// Kinds of data with a term.
        terms: Vec<String>,
    },
    /// Another part of the box, shown by these tests.
    Elsewhere(Vec<String>),
    /// Nothing yet.
    Open,
    /// Nothing that software could do.
    Beyond,
}

/// How much of the rulebook is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Rows of the pack.
    pub rows: usize,
    /// Rows that software can hold to.
    pub enforceable: usize,
    /// Rows that something stands for.
    pub enforced: usize,
    /// Rows with a test that fails without their rule.
    pub proven: usize,
}

impl Pack {
    /// Every row, in the pack's order. Runs the example of each policy.
    pub fn rows(&self) -> Vec<Row> {
        let examples = self.examples();
        self.rows.iter().map(|rule| self.row(*rule, &examples)).collect()
    }

    /// Counts the rows. Runs the example of each policy.
    pub fn coverage(&self) -> Coverage {
        let rows = self.rows();
        let count = |of: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
        Coverage {
            rows: rows.len(),
            enforceable: count(&|row| row.standing != Standing::Beyond),
            enforced: count(&|row| !matches!(row.standing, Standing::Beyond | Standing::Open)),
            proven: count(&|row| row.proven),
        }
    }

    fn row(&self, rule: Rule, examples: &[Example]) -> Row {
        let named = |entries: &'_ [Entry]| entries.iter().find(|e| e.rule == rule).cloned();
        let entry = |entry: Entry, standing: Standing| Row {
            rule,
            cite: entry.cite,
            mark: entry.mark,
            text: entry.text,
            proven: matches!(standing, Standing::Elsewhere(_)),
            standing,
        };
        if let Some(found) = named(&self.open) {
            return entry(found, Standing::Open);
        }
        if let Some(found) = named(&self.beyond) {
            return entry(found, Standing::Beyond);
        }
        let mut policies: Vec<_> = self.policies.values().filter(|p| p.rule == rule).collect();
        policies.sort_by_key(|policy| policy.place);
        let numbers: Vec<_> = self.numbers.iter().filter(|(_, n)| n.rule == rule).collect();
        let terms: Vec<_> = self.retention.iter().filter(|term| term.rule == rule).collect();
        if policies.is_empty() && numbers.is_empty() && terms.is_empty() {
            // Every row has something: checked when the pack was loaded.
            let found = named(&self.elsewhere).expect("a row that something stands for");
            let tests = found.tests.clone();
            return entry(found, Standing::Elsewhere(tests));
        }
        let own = |example: &&Example| policies.iter().any(|p| p.id == example.policy);
        let shown = |example: &Example| {
            example.holds(self).is_ok() && example.is_decided_by_it(self).is_ok()
        };
        let proven = examples.iter().filter(own).all(shown)
            && numbers.iter().all(|(name, number)| {
                self.check(name, number.most.saturating_add(1)).is_err()
                    && self.check(name, number.least.saturating_sub(1)).is_err()
            });
        let (cite, mark, text) = policies
            .first()
            .map(|policy| (policy.cite.clone(), policy.mark, policy.text.clone()))
            .or_else(|| numbers.first().map(|(_, n)| (n.cite.clone(), n.mark, n.text.clone())))
            .unwrap_or_else(|| {
                let text = terms.first().map(|term| term.text.clone());
                let none = || Texts { en: String::new(), fr: String::new() };
                (String::new(), Mark::D, text.unwrap_or_else(none))
            });
        let standing = Standing::Pack {
            policies: policies.iter().map(|policy| policy.id.clone()).collect(),
            numbers: numbers.iter().map(|(name, _)| (*name).clone()).collect(),
            terms: terms.iter().map(|term| term.item.clone()).collect(),
        };
        Row { rule, cite, mark, text, standing, proven }
    }
}
