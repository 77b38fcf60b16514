use crate::{FailedTries, Pack, Profile, Spent};
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    ClaimHandle, Custody, Hand, MemberId, Name, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{Age, Authorisation, CaptureProblem, ConsentGiven, Intent},
};
use std::sync::Arc;

/// Names one piece of work in flight; the gateway keeps the frames and secrets that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happened. Facts only: pictures, templates and keys stay with the gateway.
pub enum Event {
    /// A person read from disk at start.
    Loaded(MemberId, Box<Profile>),
    /// The lease of the shard in force, read from disk at start.
    LeaseLoaded(Timestamp),
    /// A terminal is paired.
    TerminalKnown(TerminalFacts),
    /// A terminal was removed.
    TerminalRemoved(Name),
    /// A terminal asks for a scan.
    Scan(Ticket, ScanFacts),
    /// A terminal asks for an enrolment.
    Enrol(Ticket, Box<EnrolmentFacts>),
    /// The frames of a scan were worked through.
    Extracted(Ticket, Result<CaptureFacts, CaptureProblem>),
    /// The captures of an enrolment were worked through; a problem names the capture.
    EnrolmentExtracted(Ticket, Result<CaptureFacts, (CaptureProblem, u8)>),
    /// The search is done: the best candidates, best first.
    Identified(Ticket, Vec<Match>),
    /// The comparison with one person's references is done: the best score for each purpose; empty
    /// when no reference could be opened.
    Compared(Ticket, Vec<(Purpose, f32)>),
    /// The work could not be queued: the box is at its limit.
    Overloaded(Ticket),
    /// The cloud answered an escalation or the carried record was opened, or not.
    Resolved(Ticket, Resolved),
    /// A person was stored durably, or could not be.
    Stored(Ticket, Result<(), ()>),
    /// A person was erased durably, or could not be yet.
    Erased(MemberId, Result<(), ()>),
    /// A verified shard: whom it adds and whom it removes.
    ShardOffered {
        /// Its version.
        version: u64,
        /// When it locks itself.
        lease_until: Timestamp,
        /// Whether it replaces everybody who came from the cloud.
        whole: bool,
        /// Who is added.
        people: Vec<RecordFacts>,
        /// Who is removed.
        removed: Vec<MemberId>,
    },
    /// Whether decisions can be written to the ledger from now on.
    LogWritable(bool),
    /// A person proved who they are by a strong authentication: the counters of payments by palm
    /// alone start anew.
    Authenticated(MemberId),
    /// What was known of time before the restart.
    TimeSeen(TimeSeen),
    /// A signed time: after a jump forward it takes the place of what the clock said.
    TimeConfirmed(Timestamp),
    /// Payments of people whose records stay in their tokens, read from disk at start.
    VisitorsLoaded(Vec<Visitor>),
    /// Failed tries of before a restart, read from disk at start.
    TriesLoaded(FailedTries),
    /// Every enrolment ends: somebody opened the box, or its life is over.
    Decommissioned,
    /// Another law pack is in force from now on.
    PackChanged(Arc<Pack>),
    /// Time passed.
    Tick,
}

/// The ratchet of time, as it is kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TimeSeen {
    /// The latest time, in milliseconds since 1970-01-01T00:00:00Z.
    #[n(0)]
    pub latest: i64,
    /// Set after a jump forward that no signed time has confirmed.
    #[n(1)]
    pub doubt: Option<Doubt>,
}

/// A jump of the clock that no signed time has confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Doubt {
    /// The latest time before the jump, in milliseconds since 1970-01-01T00:00:00Z.
    #[n(0)]
    pub before: i64,
    /// People whom the sweep may still erase.
    #[n(1)]
    pub left: u64,
}

/// Somebody whose record stays in their token, and what they paid by palm alone in this store.
#[derive(Clone, Copy, Encode, Decode)]
pub struct Visitor {
    /// Who.
    #[n(0)]
    pub member: MemberId,
    /// How much.
    #[n(1)]
    pub spent: Spent,
    /// When their record ends, and this with it.
    #[n(2)]
    pub ends: Timestamp,
}

/// A paired terminal.
#[derive(Clone, Debug)]
pub struct TerminalFacts {
    /// Its name.
    pub name: Name,
    /// Purposes it may ask for.
    pub purposes: PurposeSet,
    /// Whether people may enrol at it.
    pub enrols: bool,
}

/// A request for a scan.
pub struct ScanFacts {
    /// Who asks.
    pub terminal: Name,
    /// The terminal's clock.
    pub at: Timestamp,
    /// What the person came for.
    pub intent: Intent,
    /// What the person claims.
    pub claim: ClaimPresented,
    /// Whether the person asked to be looked up beyond the store.
    pub ask_cloud: bool,
    /// Frames in the request.
    pub frames: usize,
    /// Whether the terminal has just authenticated the person strongly.
    pub authenticated: bool,
    /// Whether any text in the request looks like a card number (Luhn).
    pub card_number: bool,
    /// Whether the medium of the claim proved that it is there.
    pub possession: Proof,
    /// What a trusted sensor says of the frames.
    pub sensor: Sensor,
}

/// What a sensor whose key is trusted for the terminal signed about exactly these frames, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sensor {
    /// Nothing that counts.
    #[default]
    Silent,
    /// A presentation attack.
    Attack,
    /// A living hand.
    Living,
}

impl Sensor {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Attack => "attack",
            Self::Living => "living",
        }
    }
}

/// Whether a medium proved that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It did not try: its claim can be copied.
    #[default]
    None,
    /// It tried, for another act or with another key.
    Invalid,
    /// It did, for this act.
    Valid,
}

impl Proof {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Invalid => "invalid",
            Self::Valid => "valid",
        }
    }
}

/// A claim as the gateway found it.
#[derive(Clone)]
pub enum ClaimPresented {
    /// None.
    None,
    /// One that does not verify for this tenant, or names somebody who was erased.
    Invalid,
    /// One that verifies.
    Valid(ClaimFacts),
}

/// What a verified claim token says.
#[derive(Clone)]
pub struct ClaimFacts {
    /// Whom it claims.
    pub handle: ClaimHandle,
    /// The custody it was issued under.
    pub custody: Custody,
    /// Purposes it was issued for, `roaming` among them or not.
    pub purposes: PurposeSet,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A request for an enrolment.
pub struct EnrolmentFacts {
    /// Who asks.
    pub terminal: Name,
    /// The terminal's clock.
    pub at: Timestamp,
    /// The hand of each capture.
    pub captures: Vec<Hand>,
    /// Frames in all captures.
    pub frames: usize,
    /// The consents given.
    pub consents: Vec<ConsentGiven>,
    /// Declared age.
    pub age: Age,
    /// Whether a card token was given.
    pub card_token: bool,
    /// Whether any text in the request looks like a card number (Luhn).
    pub card_number: bool,
    /// For `staff`.
    pub authorisation: Option<Authorisation>,
    /// The written release, if the person signed one.
    pub release: Option<ReleaseFacts>,
    /// Set when an enrolment is corrected: the claim of the one before, if one was shown.
    pub replaces: Option<ClaimPresented>,
    /// What a trusted sensor says of the frames.
    pub sensor: Sensor,
    /// Random ids for the person, made by the gateway.
    pub ids: FreshIds,
}

/// What a written release says.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseFacts {
    /// The person signed with a name.
    pub named: bool,
    /// When, on the terminal's clock.
    pub signed_at: Timestamp,
    /// The text stated purpose and duration.
    pub complete: bool,
}

/// Random identifiers for one enrolment.
#[derive(Clone)]
pub struct FreshIds {
    /// The person.
    pub member: MemberId,
    /// What tokens will name.
    pub claim: ClaimHandle,
    /// One for each of [`Purpose::MATCHED`].
    pub pseudonyms: [Pseudonym; 4],
    /// Ledger blinding.
    pub salt: [u8; 32],
}

/// What a capture was worth.
#[derive(Clone, Copy, Debug)]
pub struct CaptureFacts {
    /// Liveness, 0 to 1; the lowest of several captures.
    pub liveness: f32,
    /// Whether visible and near-infrared light were both used.
    pub multispectral: bool,
}

/// A candidate of a search.
#[derive(Clone, Copy)]
pub struct Match {
    /// Whose reference.
    pub member: MemberId,
    /// The purpose of the compartment that was searched.
    pub purpose: Purpose,
    /// Fused score.
    pub score: f32,
}

/// What a record from the cloud or from a token says about its person.
#[derive(Clone)]
pub struct RecordFacts {
    /// The person.
    pub member: MemberId,
    /// What tokens name.
    pub claim: ClaimHandle,
    /// Custody it is held under.
    pub custody: Custody,
    /// Consents as given.
    pub consents: Vec<Consent>,
    /// Templates in it.
    pub hands: Vec<(Purpose, Hand)>,
    /// Pseudonyms in it.
    pub pseudonyms: Vec<(Purpose, Pseudonym)>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Fresh ledger blinding for this store, made by the gateway.
    pub salt: [u8; 32],
}

/// The cloud's answer to an escalation.
pub enum Resolved {
    /// Everything was searched and nobody fits.
    NotFound,
    /// The cloud could not be asked.
    Unreachable,
    /// A record, opened by the gateway and kept with the ticket.
    Found(Box<RecordFacts>),
}
