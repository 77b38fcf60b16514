//! What belongs to one request while it is worked on, and what must be wiped with it.

use crate::slots::Slots;
use palmgate_policy::{FreshIds, Profile, Ticket};
use palmgate_protocol::{
    Biometric, CaptureId, Hand, MemberId, Name, Probe, Purpose, Template,
    cloud::MemberRecord,
    terminal::{Frame, HandCapture, PossessionKey, WrittenRelease},
};
use palmgate_seal::{aead, claim::Claim};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Where an answer goes.
pub(crate) struct Asker {
    pub(crate) terminal: Name,
    pub(crate) capture: CaptureId,
    pub(crate) arrived: Instant,
    /// Whom the answer says something of.
    pub(crate) about: Option<MemberId>,
    pub(crate) steps: StepTimes,
    pub(crate) slots: Slots,
}

/// How long each step of one scan took. Holds no identity.
#[derive(Clone, Default)]
pub(crate) struct StepTimes(Vec<(&'static str, Duration)>);

impl StepTimes {
    pub(crate) fn add(&mut self, step: &'static str, took: Duration) {
        self.0.push((step, took));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.0.iter().copied()
    }
}

/// Frames, probes, keys and records of one request; wiped when dropped.
#[derive(Default)]
pub(crate) struct Sensitive {
    pub(crate) frames: Vec<Frame>,
    /// The person exercises a right.
    pub(crate) right: bool,
    pub(crate) captures: Vec<HandCapture>,
    pub(crate) claim: Option<Claim>,
    pub(crate) probes: Vec<(Purpose, Probe)>,
    pub(crate) templates: Vec<(Purpose, Hand, Template)>,
    pub(crate) fetched: Option<MemberRecord>,
    /// `split`: the record as the cloud keeps it.
    pub(crate) fetched_sealed: Option<Vec<u8>>,
    pub(crate) enrolment: Option<NewPerson>,
}

/// What an enrolment brings besides templates.
pub(crate) struct NewPerson {
    pub(crate) ids: FreshIds,
    pub(crate) card_token: Option<Biometric<Vec<u8>>>,
    pub(crate) phone: Option<Biometric<Vec<u8>>>,
    pub(crate) release: Option<WrittenRelease>,
    pub(crate) possession: Option<PossessionKey>,
    /// `split`: the key that only the person will hold.
    pub(crate) token_key: Option<aead::Key>,
    /// `subject`: the sealed records that only the tokens will hold.
    pub(crate) carried: Vec<(Purpose, Vec<u8>)>,
    /// What the tokens will say, once the person is stored.
    pub(crate) issued: Option<Profile>,
}

impl NewPerson {
    pub(crate) fn new(
        ids: FreshIds,
        card_token: Option<Biometric<Vec<u8>>>,
        phone: Option<Biometric<Vec<u8>>>,
    ) -> Self {
        Self {
            ids,
            card_token,
            phone,
            release: None,
            possession: None,
            token_key: None,
            carried: Vec::new(),
            issued: None,
        }
    }
}

/// All requests in work.
#[derive(Default)]
pub(crate) struct InWork {
    askers: HashMap<Ticket, Asker>,
    sensitive: HashMap<Ticket, Sensitive>,
    next: u64,
}

impl InWork {
    /// Takes a request in.
    pub(crate) fn open(&mut self, asker: Asker, sensitive: Sensitive) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.askers.insert(ticket, asker);
        self.sensitive.insert(ticket, sensitive);
        ticket
    }

    pub(crate) fn sensitive(&mut self, ticket: Ticket) -> Option<&mut Sensitive> {
        self.sensitive.get_mut(&ticket)
    }

    pub(crate) fn asker(&mut self, ticket: Ticket) -> Option<&mut Asker> {
        self.askers.get_mut(&ticket)
    }

    /// Who waits for the answer; nobody does any more afterwards.
    pub(crate) fn answered(&mut self, ticket: Ticket) -> Option<Asker> {
        self.askers.remove(&ticket)
    }

    /// Wipes everything sensitive of a request.
    pub(crate) fn wipe(&mut self, ticket: Ticket) {
        self.sensitive.remove(&ticket);
    }

    /// Requests without an answer.
    pub(crate) fn open_requests(&self) -> usize {
        self.askers.len()
    }
}
