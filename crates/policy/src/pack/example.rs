//! The example that each policy carries, as a proof that the policy decides.

use super::{Act, Action, Law, Pack, Policy, StoreFacts, Value, embedded::ACTS, law::attributes};
use palmgate_protocol::{Custody, Purpose};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// Facts that turn a lawful act into the one that a policy is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    act: Vec<(String, Value)>,
    store: Vec<(String, Value)>,
}

impl Changes {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table =
            toml::from_str(text).map_err(|error| format!("@example: {}", error.message()))?;
        let mut changes = Self::default();
        for (name, value) in table {
            match value {
                toml::Value::Table(store) if name == "store" => {
                    for (name, value) in store {
                        changes.store.push((name, read(&value)?));
                    }
                }
                value => changes.act.push((name, read(&value)?)),
            }
        }
        Ok(changes)
    }
}

fn read(value: &toml::Value) -> Result<Value, String> {
    let text = |value: &toml::Value| value.as_str().map(|text| text.to_owned().into());
    Ok(match value {
        toml::Value::Boolean(flag) => Value::Flag(*flag),
        toml::Value::Integer(whole) => Value::Whole(*whole),
        toml::Value::String(text) => Value::Text(text.clone().into()),
        toml::Value::Array(words) => {
            let words = words.iter().map(text).collect::<Option<Vec<_>>>();
            Value::Words(words.ok_or("@example: a list of texts is wanted")?)
        }
        _ => return Err("@example: a flag, a number, a text or a list of texts is wanted".into()),
    })
}

/// The lawful acts of `config/packs/acts.toml`.
static LAWFUL: LazyLock<(BTreeMap<String, Value>, BTreeMap<Action, Act>)> = LazyLock::new(|| {
    // Constants of the program; the tests read them.
    let table: toml::Table = toml::from_str(ACTS).expect("the acts built in are TOML");
    let section = |name: &str| -> Vec<(String, Value)> {
        let facts = table.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        facts.iter().filter_map(|(name, value)| Some((name.clone(), read(value).ok()?))).collect()
    };
    let act = |action: &Action| {
        let facts = section(action.as_str());
        let facts = facts.into_iter().map(|(name, value)| (name.into(), value)).collect();
        (*action, Act { action: *action, facts })
    };
    (section("store").into_iter().collect(), Action::ALL.iter().map(act).collect())
});

/// An act that a policy decides, and how.
#[derive(Clone, Debug)]
pub struct Example {
    /// The policy.
    pub policy: String,
    /// Whether the act must be denied.
    pub denied: bool,
    /// Whether the policy alone decides it: without the policy it goes the other way.
    pub alone: bool,
    /// The act.
    pub act: Act,
    rule: crate::Rule,
    store: Vec<(String, Value)>,
    beside: Vec<String>,
}

/// An example does not come out as its policy says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{policy}: {text}")]
pub struct Broken {
    /// The policy.
    pub policy: String,
    /// What came out.
    pub text: String,
}

impl Example {
    pub(super) fn of(policy: &Policy, action: Action) -> Self {
        let mut act = LAWFUL.1.get(&action).cloned().unwrap_or(Act::new(action));
        for (name, value) in &policy.example.act {
            act.set(name, value.clone());
        }
        Self {
            policy: policy.id.clone(),
            denied: policy.forbids,
            alone: policy.beside.is_empty(),
            act,
            rule: policy.rule,
            store: policy.example.store.clone(),
            beside: policy.beside.clone(),
        }
    }

    /// Whether the pack decides the act as the policy says, citing its rule.
    ///
    /// # Errors
    /// [`Broken`] says what came out instead.
    pub fn holds(&self, pack: &Pack) -> Result<(), Broken> {
        let broken = |text: String| Broken { policy: self.policy.clone(), text };
        let law = Law::with_attributes(Arc::new(pack.clone()), self.attributes(pack));
        let verdict = law.decide_checked(&self.act).map_err(broken)?;
        if verdict.allowed == self.denied {
            let came = if verdict.allowed { "allowed" } else { "denied" };
            return Err(broken(format!("{came} by {}", verdict.policies.join(", "))));
        }
        let named = verdict.policies.contains(&self.policy) && verdict.rules.contains(&self.rule);
        if named { Ok(()) } else { Err(broken(format!("decided by {:?}", verdict.policies))) }
    }

    /// How a pack, this one or another, decides the act.
    pub fn allowed(&self, pack: &Pack) -> bool {
        let law = Law::with_attributes(Arc::new(pack.clone()), self.attributes(pack));
        law.decide(&self.act).allowed
    }

    /// Whether the pack, without the policy and those that say the same, decides the other way.
    ///
    /// # Errors
    /// [`Broken`] says what still decides.
    pub fn is_decided_by_it(&self, pack: &Pack) -> Result<(), Broken> {
        let mut ids: Vec<&str> = self.beside.iter().map(String::as_str).collect();
        ids.push(&self.policy);
        let needs_permit = ids
            .iter()
            .any(|id| pack.policies.values().any(|p| p.id == *id && !p.forbids) && self.denied);
        let without = pack.without_policies(&ids);
        let law = Law::with_attributes(Arc::new(without), self.attributes(pack));
        let verdict = law.decide(&self.act);
        // Where no permission covers the act either, nothing forbids it any more at least.
        let forbidden = verdict
            .policies
            .iter()
            .any(|id| pack.policies.values().any(|p| p.id == *id && p.forbids));
        if verdict.allowed == self.denied || (needs_permit && !forbidden) {
            return Ok(());
        }
        let text = format!("without it still decided by {:?}", verdict.policies);
        Err(Broken { policy: self.policy.clone(), text })
    }

    fn attributes(&self, pack: &Pack) -> BTreeMap<String, Value> {
        let facts = StoreFacts {
            production: true,
            purposes: Purpose::ALL.into_iter().collect(),
            custody: Custody::Split,
            escalation: true,
            zones: Vec::new(),
            chosen: Vec::new(),
        };
        let mut attributes = attributes(pack, &facts);
        attributes.extend(LAWFUL.0.clone());
        attributes.extend(self.store.iter().cloned());
        attributes
    }
}

impl Pack {
    /// The example of each policy, for each of its acts.
    pub fn examples(&self) -> Vec<Example> {
        let each = |policy: &Policy| {
            let actions = policy.actions.clone();
            let policy = policy.clone();
            actions.into_iter().map(move |action| Example::of(&policy, action))
        };
        self.policies.values().flat_map(each).collect()
    }

    /// The lawful act of a kind, as `config/packs/acts.toml` has it.
    pub fn lawful_act(action: Action) -> Act {
        LAWFUL.1.get(&action).cloned().unwrap_or(Act::new(action))
    }

    /// Whether the lawful act of each kind is allowed, in a store that serves everything.
    ///
    /// # Errors
    /// [`Broken`] when the pack denies one.
    pub fn permits_lawful_acts(&self) -> Result<(), Broken> {
        for (action, act) in &LAWFUL.1 {
            let example = Example {
                policy: action.as_str().into(),
                denied: false,
                alone: true,
                act: act.clone(),
                rule: crate::rules::G_25_2,
                store: Vec::new(),
                beside: Vec::new(),
            };
            let law = Law::with_attributes(Arc::new(self.clone()), example.attributes(self));
            let broken = |text: String| Broken { policy: action.as_str().into(), text };
            let verdict = law.decide_checked(act).map_err(broken)?;
            if !verdict.allowed {
                return Err(broken(format!("denied by {:?}", verdict.policies)));
            }
        }
        Ok(())
    }
}
