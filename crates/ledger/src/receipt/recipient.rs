//! Who may still hold something of a forgotten person, and what is known of each.

use super::ReceiptError;
use crate::text::{maybe_signature, moment, rfc3339, word, words};
use palmgate_protocol::{Name, Timestamp};
use serde::{Deserialize, Serialize};

/// What the cloud is called among the recipients.
pub const CLOUD: &str = "cloud";
/// What the terminals together are called.
pub const TERMINALS: &str = "terminals";
/// What the store's broker is called.
pub const BROKER: &str = "broker";
/// What terminals that were removed before they confirmed are called together.
pub const REMOVED_TERMINALS: &str = "removed-terminals";
/// What copies in the person's own hands are called.
pub const EXPORTS: &str = "exports";

/// Terminals that may be outstanding in a receipt at most.
pub const MAX_OUTSTANDING: usize = 512;

/// What a recipient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The tenant's cloud.
    Cloud,
    /// Another store of the tenant.
    Store,
    /// The store's terminals: the keys of their sessions, messages that wait on either side, and
    /// requests in work.
    Terminals,
    /// Terminals that will never confirm.
    RemovedTerminals,
    /// The store's broker: queues and retained messages.
    Broker,
    /// Copies that were handed to the person.
    Exports,
}

/// What is known of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// Told, and has not answered.
    Pending,
    /// Has confirmed.
    Acknowledged,
    /// Holds nothing that can be read, by the way it is built.
    NothingKept,
    /// The person has it, and nobody else.
    HandedOver,
    /// Cannot be told (GDPR Art. 19: "unless this proves impossible").
    Impossible,
}

/// Why a recipient is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A session from before the erasure may still be alive at a terminal.
    OlderSessions,
    /// Every terminal has begun a session since, and dropped the one before with its keys.
    SessionsBegunAnew,
    /// No terminal was paired.
    NoTerminal,
    /// The terminals were removed from the store.
    TerminalsRemoved,
    /// Nothing but ciphertext, whose keys ended with the sessions.
    CiphertextWithoutKeys,
    /// No copy was handed out.
    NoneHandedOut,
    /// Copies belong to the person.
    BelongsToThePerson,
}

/// Somebody the data was disclosed to (GDPR Art. 19), or a place that it may have been left in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// Who.
    #[serde(with = "word")]
    pub name: Name,
    /// What; receipts of version 1, which know the cloud and stores only, do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// What is known of them.
    pub state: RecipientState,
    /// When they were told, or when they confirmed.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// The terminals that have not confirmed, in order.
    #[serde(with = "words", default, skip_serializing_if = "Vec::is_empty")]
    pub outstanding: Vec<Name>,
    /// Why, where nobody signs for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The signature in the [`palmgate_protocol::cloud::ErasureState`] that they confirmed with, if
    /// they sent one.
    #[serde(with = "maybe_signature", default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<[u8; 64]>,
}

impl Recipient {
    fn new(kind: Kind, name: Name, state: RecipientState, at: Timestamp) -> Self {
        let reason = reason(kind, state).unwrap_or_default();
        Self { name, kind: Some(kind), state, at, outstanding: Vec::new(), reason, signature: None }
    }

    /// The cloud or a store that was told at `at`.
    pub fn pending(kind: Kind, name: Name, at: Timestamp) -> Self {
        Self::new(kind, name, RecipientState::Pending, at)
    }

    /// The cloud or a store that confirmed at `at`.
    pub fn acknowledged(
        kind: Kind,
        name: Name,
        at: Timestamp,
        signature: Option<[u8; 64]>,
    ) -> Self {
        Self { signature, ..Self::new(kind, name, RecipientState::Acknowledged, at) }
    }

    /// The terminals and the broker between them, while `outstanding` have not begun a session since
    /// the erasure; `at` is when the last change was seen.
    pub fn sessions(outstanding: Vec<Name>, at: Timestamp) -> [Self; 2] {
        let [terminals, broker] = if outstanding.is_empty() {
            [RecipientState::Acknowledged, RecipientState::NothingKept]
        } else {
            [RecipientState::Pending, RecipientState::Pending]
        };
        let terminals = Self::new(Kind::Terminals, named(TERMINALS), terminals, at);
        [Self { outstanding, ..terminals }, Self::new(Kind::Broker, named(BROKER), broker, at)]
    }

    /// The same where no terminal was paired.
    pub fn no_sessions(at: Timestamp) -> [Self; 2] {
        let state = RecipientState::NothingKept;
        [(Kind::Terminals, TERMINALS), (Kind::Broker, BROKER)]
            .map(|(kind, name)| Self::new(kind, named(name), state, at))
    }

    /// Terminals that were removed before they confirmed.
    pub fn removed_terminals(outstanding: Vec<Name>, at: Timestamp) -> Self {
        let (kind, name) = (Kind::RemovedTerminals, named(REMOVED_TERMINALS));
        Self { outstanding, ..Self::new(kind, name, RecipientState::Impossible, at) }
    }

    /// Copies in the person's hands.
    pub fn exports(handed_over: bool, at: Timestamp) -> Self {
        let state =
            if handed_over { RecipientState::HandedOver } else { RecipientState::NothingKept };
        Self::new(Kind::Exports, named(EXPORTS), state, at)
    }

    /// Whether nothing is waited for.
    pub fn is_settled(&self) -> bool {
        self.state != RecipientState::Pending
    }

    /// Whether it is the cloud or a store: those that confirm by signature.
    pub fn is_beyond_the_store(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Cloud | Kind::Store))
    }

    /// Whether it contradicts itself, in a receipt of this version.
    pub(super) fn check(&self, version: u16) -> Result<(), ReceiptError> {
        let name = || self.name.clone();
        if self.state == RecipientState::Pending && self.signature.is_some() {
            return Err(ReceiptError::PendingSigned(name()));
        }
        if rfc3339(self.at).is_none() {
            return Err(ReceiptError::RecipientTime(name()));
        }
        let Some(kind) = self.kind else {
            let old = matches!(self.state, RecipientState::Pending | RecipientState::Acknowledged)
                && self.reason.is_none()
                && self.outstanding.is_empty();
            let fits = version == 1 && old;
            return if fits { Ok(()) } else { Err(ReceiptError::Contradiction(name())) };
        };
        let list = &self.outstanding;
        let names = kind == Kind::RemovedTerminals || kind == Kind::Terminals && !self.is_settled();
        let fits = version > 1
            && reason(kind, self.state) == Ok(self.reason)
            && names != list.is_empty()
            && list.len() <= MAX_OUTSTANDING
            && list.is_sorted_by(|a, b| a < b)
            && (self.signature.is_none() || self.is_beyond_the_store());
        if fits { Ok(()) } else { Err(ReceiptError::Contradiction(name())) }
    }
}

/// Why a recipient of this kind is in this state; an error if it cannot be.
const fn reason(kind: Kind, state: RecipientState) -> Result<Option<Reason>, ()> {
    use RecipientState::{Acknowledged, HandedOver, Impossible, NothingKept, Pending};
    Ok(match (kind, state) {
        (Kind::Cloud | Kind::Store, Pending | Acknowledged) => None,
        (Kind::Terminals | Kind::Broker, Pending) => Some(Reason::OlderSessions),
        (Kind::Terminals, Acknowledged) => Some(Reason::SessionsBegunAnew),
        (Kind::Terminals, NothingKept) => Some(Reason::NoTerminal),
        (Kind::RemovedTerminals, Impossible) => Some(Reason::TerminalsRemoved),
        (Kind::Broker, NothingKept) => Some(Reason::CiphertextWithoutKeys),
        (Kind::Exports, NothingKept) => Some(Reason::NoneHandedOut),
        (Kind::Exports, HandedOver) => Some(Reason::BelongsToThePerson),
        _ => return Err(()),
    })
}

fn named(name: &str) -> Name {
    name.parse().expect("the names above are names")
}
