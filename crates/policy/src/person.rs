use minicbor::{Decode, Encode};
use palmgate_protocol::{
    ClaimHandle, Custody, Hand, MemberId, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::Consent, terminal::Authorisation,
};

/// What the engine knows of an enrolled person. The gateway keeps it sealed under the person's key;
/// it holds no biometric data, name, phone number or card token.
#[derive(Clone, Encode, Decode)]
pub struct Profile {
    /// What the person's tokens name.
    #[n(0)]
    pub claim: ClaimHandle,
    /// Who can open the reference.
    #[n(1)]
    pub custody: Custody,
    /// Where the enrolment came from.
    #[n(2)]
    pub origin: Origin,
    /// Consents, live and expired.
    #[n(3)]
    pub consents: Vec<Consent>,
    /// Which templates exist.
    #[n(4)]
    pub hands: Vec<(Purpose, Hand)>,
    /// The person's pseudonym for each purpose.
    #[n(5)]
    pub pseudonyms: Vec<(Purpose, Pseudonym)>,
    /// The person asked not to be recognised for now (GDPR Art. 18).
    #[n(6)]
    pub paused: bool,
    /// For `staff`.
    #[n(7)]
    pub authorisation: Option<Authorisation>,
    /// When the person enrolled.
    #[n(8)]
    pub enrolled_at: Timestamp,
    /// When everything about the person must be gone.
    #[n(9)]
    pub expires_at: Timestamp,
    /// Blinds the person's ledger entries; destroyed with the person.
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    pub salt: [u8; 32],
    /// Paid by palm alone since the last strong authentication.
    #[n(11)]
    #[cbor(default)]
    pub spent: Spent,
    /// The person objects to advertising (GDPR Art. 21).
    #[n(12)]
    #[cbor(default)]
    pub objected: bool,
    /// The enrolment that this one corrects, until that one is erased: a crash in between is
    /// finished at the next start.
    #[n(13)]
    pub replaces: Option<MemberId>,
    /// When the person signed a written release, where the pack keeps one.
    #[n(14)]
    pub released_at: Option<Timestamp>,
    /// The person was handed a copy of their data (GDPR Art. 15, 20).
    #[n(15)]
    #[cbor(default)]
    pub exported: bool,
}

/// Payments by palm alone since the last strong authentication (RTS on SCA Art. 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Spent {
    /// Sum, in minor units.
    #[n(0)]
    pub total: u64,
    /// Payments in a row.
    #[n(1)]
    pub count: u64,
}

impl Spent {
    pub(crate) fn add(&mut self, minor_units: u64) {
        self.total = self.total.saturating_add(minor_units);
        self.count = self.count.saturating_add(1);
    }
}

/// Where an enrolment came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Origin {
    /// Enrolled in this store.
    #[n(0)]
    Store,
    /// Given by the cloud, under a lease.
    #[n(1)]
    Cloud,
}

impl Profile {
    /// Whether the person may be matched for `purpose` at `now`.
    pub fn allows(&self, purpose: Purpose, now: Timestamp) -> bool {
        !self.paused && now < self.expires_at && self.basis(purpose, now)
    }

    /// Whether a live legal basis stands: consent, or for `staff` the employer's authorisation.
    pub fn basis(&self, purpose: Purpose, now: Timestamp) -> bool {
        if purpose == Purpose::Staff {
            return self
                .authorisation
                .as_ref()
                .is_some_and(|authorisation| now < authorisation.until);
        }
        self.consents.iter().any(|consent| consent.purpose == purpose && now < consent.expires_at)
    }

    /// Purposes with a live basis.
    pub fn purposes(&self, now: Timestamp) -> PurposeSet {
        Purpose::ALL.into_iter().filter(|purpose| self.basis(*purpose, now)).collect()
    }

    /// The pseudonym for a purpose.
    pub fn pseudonym(&self, purpose: Purpose) -> Option<Pseudonym> {
        self.pseudonyms.iter().find(|(of, _)| *of == purpose).map(|(_, pseudonym)| *pseudonym)
    }
}
