use cedar_policy::{Context, EntityUid, RestrictedExpression};
use std::borrow::Cow;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What can be done, and is decided by the pack.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in policies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

actions! {
    /// A palm is about to be looked at.
    Capture = "capture",
    /// A probe is about to be compared.
    Compare = "compare",
    /// A comparison was made.
    Recognise = "recognise",
    /// A miss is about to leave the store.
    Escalate = "escalate",
    /// A record arrives from elsewhere.
    Adopt = "adopt",
    /// Somebody enrols.
    Enrol = "enrol",
    /// Somebody recognised exercises a right.
    Exercise = "exercise",
    /// The point of sale is answered.
    Answer = "answer",
    /// Something is kept on.
    Keep = "keep",
    /// A legal hold is placed.
    Hold = "hold",
    /// Something is sent or shown.
    Disclose = "disclose",
    /// A person is written to for advertising.
    Advertise = "advertise",
    /// A request of a person is answered.
    AnswerRequest = "answer_request",
    /// A restriction is lifted.
    Lift = "lift",
    /// The basis of a purpose changes.
    Rebase = "rebase",
    /// A threshold, model or vendor changes.
    Retune = "retune",
    /// The daily look at duties.
    Review = "review",
    /// The store opens.
    Start = "start",
}

/// A fact's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A text.
    Text(Cow<'static, str>),
    /// A set of texts.
    Words(Vec<Cow<'static, str>>),
}

macro_rules! from {
    ($($from:ty => |$value:ident| $into:expr;)*) => {
        $(impl From<$from> for Value { fn from($value: $from) -> Self { $into } })*
    };
}

from! {
    bool => |value| Self::Flag(value);
    i64 => |value| Self::Whole(value);
    u64 => |value| Self::Whole(i64::try_from(value).unwrap_or(i64::MAX));
    usize => |value| Self::Whole(i64::try_from(value).unwrap_or(i64::MAX));
    u8 => |value| Self::Whole(value.into());
    &'static str => |value| Self::Text(value.into());
    String => |value| Self::Text(value.into());
    Vec<&'static str> => |value| Self::Words(value.into_iter().map(Cow::Borrowed).collect());
    Vec<String> => |value| Self::Words(value.into_iter().map(Cow::Owned).collect());
}

impl Value {
    pub(super) fn expression(&self) -> RestrictedExpression {
        let text = |text: &Cow<'static, str>| RestrictedExpression::new_string(text.to_string());
        match self {
            Self::Flag(value) => RestrictedExpression::new_bool(*value),
            Self::Whole(value) => RestrictedExpression::new_long(*value),
            Self::Text(value) => text(value),
            Self::Words(values) => RestrictedExpression::new_set(values.iter().map(text)),
        }
    }
}

/// Something that is about to be done, with what is known of it. The facts that each action needs
/// are listed in `config/packs/schema.cedarschema`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub action: Action,
    /// Facts by name.
    pub facts: Vec<(Cow<'static, str>, Value)>,
}

impl Act {
    /// An act without facts.
    pub const fn new(action: Action) -> Self {
        Self { action, facts: Vec::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        match self.facts.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.facts.push((name.to_owned().into(), value)),
        }
    }

    /// `None` when a fact is named twice.
    pub(super) fn context(&self) -> Option<Context> {
        let facts = self.facts.iter();
        Context::from_pairs(facts.map(|(name, value)| (name.to_string(), value.expression()))).ok()
    }
}

pub(super) fn uid(kind: &str, id: &str) -> EntityUid {
    let kind = kind.parse().expect("a constant type name");
    EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(id))
}
