use palmgate_policy::{Law, Pack, Settings};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// One difference between two packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A policy is new.
    Added(String),
    /// A policy is gone.
    Removed(String),
    /// A policy reads otherwise.
    Reworded(String),
    /// A number or its bounds differ: name, before, after.
    Number(String, String, String),
    /// A term differs: kind of data, before, after.
    Term(String, String, String),
    /// A purpose has another basis, or none any more.
    Purpose(String, String, String),
    /// Data may go to other places: before, after.
    Regions(String, String),
    /// An example of a policy is decided the other way: the example, before, after.
    Decision(String, &'static str, &'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(id) => write!(f, "policy    + {id}"),
            Self::Removed(id) => write!(f, "policy    - {id}"),
            Self::Reworded(id) => write!(f, "policy    ~ {id}"),
            Self::Number(name, old, new) => write!(f, "number    {name}: {old} -> {new}"),
            Self::Term(item, old, new) => write!(f, "term      {item}: {old} -> {new}"),
            Self::Purpose(name, old, new) => write!(f, "purpose   {name}: {old} -> {new}"),
            Self::Regions(old, new) => write!(f, "regions   {old} -> {new}"),
            Self::Decision(example, old, new) => {
                write!(f, "decision  example of {example}: {old} -> {new}")
            }
        }
    }
}

/// What tomorrow's pack would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Every difference.
    pub changes: Vec<Change>,
}

/// Compares two packs: policies, numbers, terms, purposes, and how each decides every example that
/// either of them carries.
pub fn compare(old: &Pack, new: &Pack) -> Comparison {
    let mut changes = Vec::new();
    let ids: BTreeSet<&str> =
        old.policies().chain(new.policies()).map(|policy| policy.id.as_str()).collect();
    for id in ids {
        match (old.source(id), new.source(id)) {
            (None, _) => changes.push(Change::Added(id.into())),
            (_, None) => changes.push(Change::Removed(id.into())),
            (Some(one), Some(other)) if one != other => changes.push(Change::Reworded(id.into())),
            _ => (),
        }
    }
    let number = |pack: &Pack, name: &str| {
        pack.number(name).map_or("none".to_owned(), |number| {
            format!("{} ({} to {})", number.value, number.least, number.most)
        })
    };
    let names: BTreeSet<&str> = old.numbers().chain(new.numbers()).map(|(name, _)| name).collect();
    differences(names, |name| (number(old, name), number(new, name)), &mut changes, Change::Number);
    let term = |pack: &Pack, item: &str| {
        let term = pack.retention().iter().find(|term| term.item == item);
        term.map_or("none".to_owned(), |term| term.keep.to_string())
    };
    let items = old.retention().iter().chain(new.retention());
    let items = items.map(|term| term.item.as_str()).collect();
    differences(items, |item| (term(old, item), term(new, item)), &mut changes, Change::Term);
    let basis = |pack: &Pack, name: &str| {
        let basis = pack.purposes().iter().find(|basis| basis.purpose.as_str() == name);
        basis.map_or("none".to_owned(), |basis| basis.basis.clone())
    };
    let purposes = old.purposes().iter().chain(new.purposes());
    let purposes = purposes.map(|basis| basis.purpose.as_str()).collect();
    differences(
        purposes,
        |name| (basis(old, name), basis(new, name)),
        &mut changes,
        Change::Purpose,
    );
    if old.regions() != new.regions() {
        let list = |pack: &Pack| pack.regions().iter().cloned().collect::<Vec<_>>().join(" ");
        changes.push(Change::Regions(list(old), list(new)));
    }
    decisions(old, new, &mut changes);
    Comparison { changes }
}

fn differences(
    names: BTreeSet<&str>,
    of: impl Fn(&str) -> (String, String),
    changes: &mut Vec<Change>,
    change: impl Fn(String, String, String) -> Change,
) {
    for name in names {
        let (one, other) = of(name);
        if one != other {
            changes.push(change(name.to_owned(), one, other));
        }
    }
}

fn decisions(old: &Pack, new: &Pack, changes: &mut Vec<Change>) {
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    let mut seen = BTreeSet::new();
    let examples = old.examples().into_iter().chain(new.examples());
    for example in examples.filter(|example| seen.insert(example.policy.clone())) {
        let (before, after) = (example.allowed(old), example.allowed(new));
        if before != after {
            changes.push(Change::Decision(example.policy, word(before), word(after)));
        }
    }
}

/// The pack bound to a store that serves what the pack has a basis for.
pub(crate) fn everyday(pack: &Pack) -> Law {
    let purposes = pack.purposes().iter().map(|basis| basis.purpose).collect();
    let settings = Settings { purposes, ..Settings::default() };
    Law::new(Arc::new(pack.clone()), &settings.store_facts())
}
