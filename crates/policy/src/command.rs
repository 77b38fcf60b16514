use crate::{FailedTries, Profile, Rule, Ticket, Visitor};
use palmgate_protocol::{
    ClaimHandle, MemberId, Name, Pseudonym, Purpose, PurposeSet,
    terminal::{AnswerBody, Payment},
};

/// What the gateway must do. Commands are carried out in order.
pub enum Command {
    /// Work the frames of a scan into one probe for each purpose, then wipe the frames.
    Extract(Ticket, PurposeSet),
    /// Work the captures of an enrolment into templates for each purpose, and one probe for each
    /// purpose from the first capture of each hand; then wipe the frames.
    ExtractEnrolment(Ticket, PurposeSet),
    /// Search the compartments of the purposes with the ticket's probes.
    Identify(Ticket, PurposeSet),
    /// Compare the ticket's probes with one person's references.
    Compare(Ticket, PurposeSet, Source),
    /// Open the record that the claim token carries and keep it with the ticket.
    OpenCarried(Ticket),
    /// Send the ticket's probe, sealed, to the cloud's matcher.
    EscalateProbe(Ticket, Purpose, ClaimHandle),
    /// Fetch the sealed record that the claim names.
    FetchRecord(Ticket, ClaimHandle),
    /// The person is recognised: release the pseudonym, for a payment the card token and the
    /// signed assertion, and note the use in their history. `member` is `None` when the record came
    /// from a token or the cloud and stays with the ticket.
    Accept {
        /// The work.
        ticket: Ticket,
        /// Whose record holds the card token and the history.
        member: Option<MemberId>,
        /// For what.
        purpose: Purpose,
        /// As whom.
        pseudonym: Pseudonym,
        /// What is paid.
        payment: Option<Payment>,
        /// For `loyalty`: the person objects to advertising.
        objected: bool,
    },
    /// Answer the terminal.
    Reply(Ticket, AnswerBody),
    /// Answer with the person's own history and these live consents.
    ReplyHistory(Ticket, MemberId, PurposeSet),
    /// Answer with what the store holds about the person, or, with a key, with what they provided
    /// and their templates sealed to it.
    ReplyExport(Ticket, MemberId, Box<Profile>, Option<[u8; 32]>),
    /// Tell the cloud, which may have the person's record, what it may do with it from now on.
    TellRecipients(Ticket, MemberId, Box<Profile>),
    /// Keep what visitors paid.
    KeepVisitors(Vec<Visitor>),
    /// Keep the failed tries that still count.
    KeepTries(FailedTries),
    /// Answer with the claim tokens of a new enrolment.
    ReplyEnrolled(Ticket),
    /// Store the ticket's templates and this profile as a new person: durable before
    /// [`crate::Event::Stored`]; then tell the cloud where custody allows it.
    Store(Ticket, MemberId, Box<Profile>),
    /// Keep the record that the ticket fetched from the cloud, with this profile.
    Adopt(Ticket, MemberId, Box<Profile>),
    /// Keep the shard's people with these profiles; confirm the version when durable.
    AdoptShard(u64, Vec<(MemberId, Profile)>),
    /// Write a changed profile.
    Update(MemberId, Box<Profile>),
    /// Destroy what belongs to these purposes of a person, then write the profile.
    RemovePurposes(Ticket, MemberId, PurposeSet, Box<Profile>),
    /// Destroy the person's key and every copy, tombstone, tell the recipients; answer the ticket
    /// with the receipt.
    Erase {
        /// Whom.
        member: MemberId,
        /// What their tokens name.
        claim: ClaimHandle,
        /// Their ledger blinding, for the commitment in the receipt.
        salt: [u8; 32],
        /// Why.
        rule: Rule,
        /// Who waits for the receipt.
        ticket: Option<Ticket>,
        /// Whether other stores and the cloud must forget too.
        relay: bool,
        /// Whether the person was handed a copy of their data.
        exported: bool,
    },
    /// Wipe frames, probes, keys and records that belong to the ticket.
    Wipe(Ticket),
    /// Append to the ledger.
    Log(Decision),
}

/// Where a reference for a comparison comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The box holds it: open (`operator`) or sealed under the key in the claim (`split`).
    Held(MemberId),
    /// The claim token carries it, and the person is enrolled here.
    Carried,
    /// It came from the cloud or a token and is kept with the ticket.
    Fetched,
}

/// A decision as the ledger keeps it: no identity, only a blinded commitment.
#[derive(Clone)]
pub struct Decision {
    /// What kind.
    pub kind: DecisionKind,
    /// At which terminal.
    pub terminal: Option<Name>,
    /// For which purpose.
    pub purpose: Option<Purpose>,
    /// One word of a closed set.
    pub outcome: &'static str,
    /// The rules that made it.
    pub rules: Vec<Rule>,
    /// The person and their blinding, where one was recognised or enrolled.
    pub subject: Option<(MemberId, [u8; 32])>,
}

/// Kinds of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecisionKind {
    /// A scan was accepted, refused or missed.
    Scan,
    /// An enrolment was accepted or refused.
    Enrolment,
    /// A right was exercised: history, pause, withdrawal.
    Right,
    /// A person was erased.
    Erasure,
    /// A shard was taken over.
    Shard,
    /// The office acted: a request, a hold, a breach, a duty, the clock.
    Office,
    /// A law pack was put in force.
    Pack,
}
