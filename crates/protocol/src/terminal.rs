//! Messages between a terminal and the gateway. Each travels as the payload of one MLS application
//! message; fields are numbered, so that old and new versions read each other.

use crate::{
    Biometric, CaptureId, Challenges, Hand, Pseudonym, Purpose, PurposeSet, ScanChallenge,
    SignedRoster, Timestamp,
};
use minicbor::{Decode, Encode};

/// A terminal asks.
#[derive(Encode, Decode)]
pub struct Request {
    /// The act that this request is about; repeated when the same request is sent again.
    #[n(0)]
    pub capture: CaptureId,
    /// The terminal's clock when the person acted.
    #[n(1)]
    pub at: Timestamp,
    /// What is asked.
    #[n(2)]
    pub body: RequestBody,
    /// For a scan: one of the gateway's challenges, and for an enrolment with a sensor's verdict the
    /// one that it is about. Terminals of before name none.
    #[n(3)]
    pub challenge: Option<ScanChallenge>,
    /// The sequence of the [`Roster`](crate::Roster) that the terminal has in this session, 0 for
    /// none: the answer brings one that is newer. Terminals of before want none.
    #[n(4)]
    pub roster: Option<u64>,
}

impl Request {
    /// A request that names no challenge and wants no roster.
    pub const fn new(capture: CaptureId, at: Timestamp, body: RequestBody) -> Self {
        Self { capture, at, body, challenge: None, roster: None }
    }
}

/// What a terminal can ask.
#[derive(Encode, Decode)]
#[allow(clippy::large_enum_variant, reason = "decoded once, handled at once")]
pub enum RequestBody {
    /// Recognise the hand and do what the person came for.
    #[n(0)]
    Scan(#[n(0)] Scan),
    /// Enrol a person.
    #[n(1)]
    Enrol(#[n(0)] Enrolment),
    /// Is somebody there? Answered with [`AnswerBody::Done`].
    #[n(2)]
    Ping,
    /// The terminal's certificate: which one is in use, and whether a new one is wanted.
    #[n(3)]
    Renew(#[n(0)] Renewal),
}

/// A terminal tells the certificate that it uses, so that all others under its name can be revoked,
/// and asks for the next one. Answered with [`AnswerBody::Renewed`], or with [`AnswerBody::Done`]
/// when none was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Renewal {
    /// Serial number of the certificate in use, as its DER encoding has it.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub using: Vec<u8>,
    /// PKCS #10 certificate request (RFC 2986) with a new key.
    #[n(1)]
    pub csr_der: Option<minicbor::bytes::ByteVec>,
}

/// The part of a [`Request`] that no version changes: with it, even a request of a later version is
/// answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestHead {
    /// The act that the request is about.
    #[n(0)]
    pub capture: CaptureId,
}

/// One deliberate presentation of a hand.
#[derive(Encode, Decode)]
pub struct Scan {
    /// What the person wants.
    #[n(0)]
    pub intent: Intent,
    /// Pictures of one hand.
    #[n(1)]
    pub frames: Vec<Frame>,
    /// The claim token that was shown or tapped, if any.
    #[n(2)]
    pub claim: Option<Biometric<Vec<u8>>>,
    /// Whether the person asked to be looked up beyond this store.
    #[n(3)]
    pub ask_cloud: bool,
    /// Whether the person has just proved who they are to this terminal by a strong authentication
    /// (chip and PIN): payments by palm alone are counted anew (RTS on SCA Art. 11).
    #[n(4)]
    #[cbor(default)]
    pub authenticated: bool,
    /// The phone or card that holds the claim proves that it is there: with the palm a strong
    /// authentication of two kinds (RTS on SCA Art. 4(1), 7).
    #[n(5)]
    pub possession: Option<Possession>,
    /// What the sensor signed about the frames and the challenge of the request: a `COSE_Sign1`
    /// (RFC 9052), [`MAX_VERDICT_BYTES`](crate::limits::MAX_VERDICT_BYTES) at most.
    #[n(6)]
    pub verdict: Option<Biometric<Vec<u8>>>,
}

impl Scan {
    /// A scan that shows no claim and no proof, and asks nobody beyond this store.
    pub const fn new(intent: Intent, frames: Vec<Frame>) -> Self {
        Self {
            intent,
            frames,
            claim: None,
            ask_cloud: false,
            authenticated: false,
            possession: None,
            verdict: None,
        }
    }
}

/// A signature of the key that the claim names, over this act and no other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Possession {
    /// Ed25519 over the challenge of the act.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// The public half of a key that never leaves the person's phone or card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PossessionKey {
    /// Ed25519.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// What the person came for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Intent {
    /// Pay the amount shown before the hand was asked for.
    #[n(0)]
    Pay(#[n(0)] Payment),
    /// Use the loyalty account.
    #[n(1)]
    Loyalty,
    /// Enter.
    #[n(2)]
    Entry,
    /// Enter a restricted zone as an employee.
    #[n(3)]
    Staff {
        /// The zone's name.
        #[n(0)]
        zone: String,
    },
    /// See the own uses and consents.
    #[n(4)]
    History,
    /// Stop recognition until resumed.
    #[n(5)]
    Pause,
    /// Resume recognition.
    #[n(6)]
    Resume,
    /// Withdraw consent for purposes.
    #[n(7)]
    Withdraw {
        /// The purposes.
        #[n(0)]
        purposes: PurposeSet,
    },
    /// Be forgotten (GDPR Art. 17).
    #[n(8)]
    Erase,
    /// Get a copy of everything that the store holds about the person (GDPR Art. 15).
    #[n(9)]
    Export,
    /// Take along what the person provided (GDPR Art. 20): data in the clear, templates sealed to
    /// the person's own key.
    #[n(10)]
    Port {
        /// The person's X25519 public key, made on their own device (RFC 9180, DHKEM(X25519)).
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        key: [u8; 32],
    },
    /// Object to advertising (GDPR Art. 21(2)).
    #[n(11)]
    Object,
}

impl Intent {
    /// The purpose that the hand is used for; `None` when the person exercises a right, for which
    /// any of their own purposes serves.
    pub const fn purpose(&self) -> Option<Purpose> {
        match self {
            Self::Pay(_) => Some(Purpose::Pay),
            Self::Loyalty => Some(Purpose::Loyalty),
            Self::Entry => Some(Purpose::Entry),
            Self::Staff { .. } => Some(Purpose::Staff),
            Self::History
            | Self::Pause
            | Self::Resume
            | Self::Withdraw { .. }
            | Self::Erase
            | Self::Export
            | Self::Port { .. }
            | Self::Object => None,
        }
    }
}

/// What is paid, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Payment {
    /// Amount in the currency's minor unit (cents).
    #[n(0)]
    pub minor_units: u64,
    /// ISO 4217 code.
    #[n(1)]
    pub currency: String,
    /// Who is paid, as shown to the person.
    #[n(2)]
    pub payee: String,
    /// Fresh random bytes of the point of sale, repeated in the assertion.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

/// One encoded picture.
#[derive(Encode, Decode)]
pub struct Frame {
    /// The light it was taken in.
    #[n(0)]
    pub band: Band,
    /// A PNG or JPEG file.
    #[n(1)]
    pub picture: Biometric<Vec<u8>>,
    /// The hand whose region of interest this is, where the terminal cut it out itself: a square of
    /// at least 64 pixels a side, fingers up, of a right palm or a mirrored left one. `None` for a
    /// picture of the whole hand. Regions are recognised by terminals that cut them alike.
    #[n(2)]
    pub region_of: Option<Hand>,
}

/// The light of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Band {
    /// Visible light.
    #[n(0)]
    Visible,
    /// Near infrared, 850 to 940 nm.
    #[n(1)]
    NearInfrared,
}

/// Everything that an enrolment needs, given at the terminal in one go.
#[derive(Encode, Decode)]
pub struct Enrolment {
    /// One to three captures of each hand.
    #[n(0)]
    pub captures: Vec<HandCapture>,
    /// One entry for each purpose that the person agreed to on its own screen.
    #[n(1)]
    pub consents: Vec<ConsentGiven>,
    /// How old the person says they are.
    #[n(2)]
    pub age: Age,
    /// The payment provider's token for the card; never a card number.
    #[n(3)]
    pub card_token: Option<Biometric<Vec<u8>>>,
    /// Phone number in E.164 form, for notices.
    #[n(4)]
    pub phone: Option<Biometric<Vec<u8>>>,
    /// For the purpose `staff`: what the employer authorised.
    #[n(5)]
    pub authorisation: Option<Authorisation>,
    /// The written release that Illinois asks for before a capture (740 ILCS 14/15(b)). A store
    /// whose law pack does not ask for one keeps none.
    #[n(6)]
    pub release: Option<WrittenRelease>,
    /// Set to correct an enrolment (GDPR Art. 16): the person, recognised by one of these captures,
    /// gets this enrolment in place of the one before, whose key is destroyed.
    #[n(7)]
    pub replaces: Option<Replaces>,
    /// The key in the person's phone or card that will prove possession; it goes into the claim
    /// token. Without one, the token can be copied and stands for no factor of its own.
    #[n(8)]
    pub possession: Option<PossessionKey>,
    /// What the sensor signed about the frames of all captures and the challenge of the request.
    #[n(9)]
    pub verdict: Option<Biometric<Vec<u8>>>,
}

/// A release that the person signed on the terminal, under a text with purpose and duration.
#[derive(Encode, Decode)]
pub struct WrittenRelease {
    /// The name that the person signed with.
    #[n(0)]
    pub name: Biometric<Vec<u8>>,
    /// When, on the terminal's clock.
    #[n(1)]
    pub signed_at: Timestamp,
    /// The signed text stated what the template is collected for.
    #[n(2)]
    pub purpose_stated: bool,
    /// The signed text stated how long it is kept.
    #[n(3)]
    pub duration_stated: bool,
}

/// Which enrolment is corrected.
#[derive(Encode, Decode)]
pub struct Replaces {
    /// The claim token of the enrolment, where the store works with claims.
    #[n(0)]
    pub claim: Option<Biometric<Vec<u8>>>,
}

/// One capture of one hand.
#[derive(Encode, Decode)]
pub struct HandCapture {
    /// Which hand.
    #[n(0)]
    pub hand: Hand,
    /// Its frames.
    #[n(1)]
    pub frames: Vec<Frame>,
}

/// The person read a notice and confirmed (two acts: reading is not agreeing).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConsentGiven {
    /// For what.
    #[n(0)]
    pub purpose: Purpose,
    /// The version of the notice that was shown.
    #[n(1)]
    pub notice: String,
    /// The language it was shown in (BCP 47).
    #[n(2)]
    pub language: String,
    /// The separate confirmation was made.
    #[n(3)]
    pub confirmed: bool,
}

/// Declared age; never estimated from the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Age {
    /// 18 or older.
    #[n(0)]
    Adult,
    /// 15 to 17.
    #[n(1)]
    From15To17,
    /// Under 15, with a holder of parental responsibility who agrees jointly.
    #[n(2)]
    Under15WithGuardian,
    /// Under 15, alone.
    #[n(3)]
    Under15,
}

/// An employer's authorisation for a restricted zone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Authorisation {
    /// The listed zone.
    #[n(0)]
    pub zone: String,
    /// The day it ends.
    #[n(1)]
    pub until: Timestamp,
}

/// The gateway answers.
#[derive(Encode, Decode)]
pub struct Answer {
    /// The act that was asked about.
    #[n(0)]
    pub capture: CaptureId,
    /// What became of it.
    #[n(1)]
    pub body: AnswerBody,
    /// For the next scans. Gateways of before give none.
    #[n(2)]
    pub challenges: Option<Challenges>,
    /// Who has sessions in the store, where that is not what the terminal has.
    #[n(3)]
    pub roster: Option<SignedRoster>,
}

impl Answer {
    /// An answer that brings nothing else.
    pub const fn new(capture: CaptureId, body: AnswerBody) -> Self {
        Self { capture, body, challenges: None, roster: None }
    }
}

/// What can become of a request. The set is closed and holds no score.
#[derive(Debug, Encode, Decode)]
pub enum AnswerBody {
    /// Recognised, and allowed to do what was asked.
    #[n(0)]
    Accepted(#[n(0)] Accepted),
    /// The capture was too poor: show the prompt and capture again.
    #[n(1)]
    Retry {
        /// Why.
        #[n(0)]
        problem: CaptureProblem,
        /// Which capture of an enrolment, from 0.
        #[n(1)]
        index: u8,
    },
    /// Not recognised: offer the other way.
    #[n(2)]
    NotRecognised,
    /// Not allowed, whoever it is: offer the other way.
    #[n(3)]
    Refused {
        /// Why, for the screen.
        #[n(0)]
        reason: Refusal,
    },
    /// Overloaded: use another way.
    #[n(4)]
    Busy,
    /// Enrolled. The tokens go to the person's phone, card or paper; the store keeps none.
    #[n(5)]
    Enrolled {
        /// One token for each medium that custody asks for; empty in `operator` custody without
        /// roaming.
        #[n(0)]
        claims: Vec<IssuedClaim>,
        /// One consent receipt for each purpose, for the person to keep: signed JSON-LD (ISO/IEC TS
        /// 27560) that fits a QR code and that `palmgate audit consent` checks.
        #[n(1)]
        #[cbor(default)]
        receipts: Vec<String>,
    },
    /// The person's own uses and consents.
    #[n(6)]
    History {
        /// Newest first.
        #[n(0)]
        uses: Vec<Use>,
        /// Purposes with a live consent.
        #[n(1)]
        consents: PurposeSet,
    },
    /// Paused, resumed, withdrawn, or the answer to a ping.
    #[n(7)]
    Done,
    /// Forgotten; the receipt is signed JSON that `palmgate audit receipt` checks.
    #[n(8)]
    Erased {
        /// The receipt.
        #[n(0)]
        receipt: String,
    },
    /// What the store holds about the person, or what they provided, as JSON.
    #[n(9)]
    Exported {
        /// The document; `Debug` does not show it.
        #[n(0)]
        document: Document,
    },
    /// The terminal's next certificate, then the authority's, each as DER.
    #[n(10)]
    Renewed {
        /// Two certificates.
        #[n(0)]
        chain_der: Vec<minicbor::bytes::ByteVec>,
    },
}

/// The person was recognised and the decision is yes.
#[derive(Debug, Encode, Decode)]
pub struct Accepted {
    /// The person under this purpose.
    #[n(0)]
    pub pseudonym: PseudonymText,
    /// The payment provider's token, for `pay` only.
    #[n(1)]
    pub card_token: Option<CardToken>,
    /// For `pay`: signature of the gateway over amount, currency, payee, nonce and pseudonym.
    #[n(2)]
    pub assertion: Option<AssertionBytes>,
    /// For `loyalty`: the person objects to advertising, and the account must not be used for it.
    #[n(3)]
    #[cbor(default)]
    pub objected: bool,
}

macro_rules! unprinted {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

unprinted! {
    /// A pseudonym in an answer; `Debug` does not show it.
    PseudonymText(Pseudonym)
}
unprinted! {
    /// A card token in an answer; `Debug` does not show it.
    CardToken(String)
}
unprinted! {
    /// A `COSE_Sign1` structure (RFC 9052); `Debug` does not show it.
    AssertionBytes(minicbor::bytes::ByteVec)
}
unprinted! {
    /// A person's own data as JSON; `Debug` does not show it.
    Document(String)
}
unprinted! {
    /// A claim token (`COSE_Sign1`); `Debug` does not show it.
    ClaimBytes(minicbor::bytes::ByteVec)
}

/// A token that lets its holder claim the enrolment.
#[derive(Debug, Encode, Decode)]
pub struct IssuedClaim {
    /// What it can be used for.
    #[n(0)]
    pub purposes: PurposeSet,
    /// The token: bytes for a QR code, card or phone.
    #[n(1)]
    pub token: ClaimBytes,
}

/// One use of the palm, as the person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Use {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// Where: the terminal's name.
    #[n(1)]
    pub terminal: String,
    /// For what.
    #[n(2)]
    pub purpose: Purpose,
}

/// Why a capture could not be used. Each has a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum CaptureProblem {
    /// No hand in the picture.
    #[n(0)]
    NoHand,
    /// More than one hand.
    #[n(1)]
    SeveralHands,
    /// The back of a hand.
    #[n(2)]
    BackOfHand,
    /// Too little light.
    #[n(3)]
    TooDark,
    /// Too much light.
    #[n(4)]
    TooBright,
    /// Out of focus or moved.
    #[n(5)]
    Blurred,
    /// Part of the palm is outside the picture.
    #[n(6)]
    CutOff,
    /// Tilted, too small or the fingers closed.
    #[n(7)]
    Pose,
    /// Signs of a copy instead of a living hand.
    #[n(8)]
    NotLive,
    /// The file is no picture that can be read.
    #[n(9)]
    Unreadable,
    /// The hand in this capture is not the hand of the other captures.
    #[n(10)]
    Inconsistent,
}

impl CaptureProblem {
    /// What a screen says about it, in English.
    pub const fn prompt(self) -> &'static str {
        match self {
            Self::NoHand => "Hold your open hand over the reader.",
            Self::SeveralHands => "One hand only, please.",
            Self::BackOfHand => "Turn your palm towards the reader.",
            Self::TooDark => "Too dark: move your hand closer.",
            Self::TooBright => "Too bright: shade the reader.",
            Self::Blurred => "Hold your hand still.",
            Self::CutOff => "Move your whole palm into view.",
            Self::Pose => "Open your hand, flat to the reader.",
            Self::NotLive => {
                "The reader could not confirm a living hand. Try again or use another way."
            }
            Self::Unreadable => "The terminal sent a picture that cannot be read. Use another way.",
            Self::Inconsistent => "Use the same hand for each capture.",
        }
    }

    /// The label used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHand => "no-hand",
            Self::SeveralHands => "several-hands",
            Self::BackOfHand => "back-of-hand",
            Self::TooDark => "too-dark",
            Self::TooBright => "too-bright",
            Self::Blurred => "blurred",
            Self::CutOff => "cut-off",
            Self::Pose => "pose",
            Self::NotLive => "not-live",
            Self::Unreadable => "unreadable",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// Why something is not allowed. Never "banned": there is no such list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// This terminal or store does not serve the purpose.
    #[n(0)]
    PurposeNotServed,
    /// The clock of the terminal is off, or the request is old.
    #[n(1)]
    Stale,
    /// The claim token is expired, forged, or of another tenant.
    #[n(2)]
    ClaimInvalid,
    /// This store works with a claim: show the code or tap the card first.
    #[n(3)]
    ClaimNeeded,
    /// A consent that the act needs was not given or not confirmed.
    #[n(4)]
    ConsentMissing,
    /// Below the age for the purpose.
    #[n(5)]
    AgeGate,
    /// Too many failed tries: wait, or use another way.
    #[n(6)]
    TooManyTries,
    /// The store's data is out of date and locked itself.
    #[n(7)]
    LeaseExpired,
    /// A card number was sent where only a token may be.
    #[n(8)]
    CardNumber,
    /// The request is malformed or over a limit: the terminal's fault.
    #[n(9)]
    Malformed,
    /// The zone is not a listed restricted zone, or the person is not authorised for it.
    #[n(10)]
    ZoneNotListed,
    /// The box could not do it and kept nothing: try again.
    #[n(11)]
    Internal,
    /// This hand is enrolled already.
    #[n(12)]
    AlreadyEnrolled,
    /// An amount above what a palm alone may pay: use a second factor.
    #[n(13)]
    StepUp,
    /// The request is of a version that the gateway does not know: update the gateway.
    #[n(14)]
    NotUnderstood,
    /// The scan names no challenge of the gateway's, or one that was used or has ended. The answer
    /// brings others.
    #[n(15)]
    ChallengeNeeded,
}

impl Refusal {
    /// The label used in metrics and papers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PurposeNotServed => "purpose-not-served",
            Self::Stale => "stale",
            Self::ClaimInvalid => "claim-invalid",
            Self::ClaimNeeded => "claim-needed",
            Self::ConsentMissing => "consent-missing",
            Self::AgeGate => "age-gate",
            Self::TooManyTries => "too-many-tries",
            Self::LeaseExpired => "lease-expired",
            Self::CardNumber => "card-number",
            Self::Malformed => "malformed",
            Self::ZoneNotListed => "zone-not-listed",
            Self::Internal => "internal",
            Self::AlreadyEnrolled => "already-enrolled",
            Self::StepUp => "step-up",
            Self::NotUnderstood => "not-understood",
            Self::ChallengeNeeded => "challenge-needed",
        }
    }
}
