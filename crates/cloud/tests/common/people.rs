//! People who do not exist, and what their home store says of them.

use palmgate_protocol::{
    Biometric, CODE_BYTES, CODES_PER_TEMPLATE, CODES_PER_TURN, ClaimHandle, Custody,
    EMBEDDING_DIMENSIONS, Hand, MemberId, Name, Probe, Pseudonym, Purpose, PurposeSet,
    TEMPLATE_FORMAT, Template, Timestamp,
    cloud::{Consent, MemberRecord, ProbeQuery, Registration, SealedPurpose},
    encode_for_sealing,
};
use palmgate_seal::{
    envelope::{self, Label, SealingKey},
    random,
};

/// What nobody may ever find in the cloud's files.
pub(crate) const CARD_TOKEN: &[u8] = b"tok_canary_of_a_card_4f1d";

/// A shopper: same ids and same palm whenever asked.
#[derive(Clone, Copy)]
pub(crate) struct Person {
    pub(crate) member: MemberId,
    pub(crate) claim: ClaimHandle,
    pub(crate) palm: u64,
}

impl Person {
    pub(crate) fn new() -> Self {
        Self {
            member: MemberId::from_random(random::bytes()),
            claim: ClaimHandle::from_random(random::bytes()),
            palm: u64::from_be_bytes(random::bytes()),
        }
    }

    pub(crate) fn template(&self) -> Template {
        let mut noise = Noise(self.palm);
        let mut embedding = [0; EMBEDDING_DIMENSIONS];
        embedding.fill_with(|| if noise.next() & 1 == 0 { 22 } else { -22 });
        let mut codes = [[0; CODE_BYTES]; CODES_PER_TEMPLATE];
        codes.iter_mut().flatten().for_each(|byte| *byte = noise.next());
        Template { embedding, codes }
    }

    pub(crate) fn probe(&self) -> Probe {
        let template = self.template();
        let mut codes = vec![[0; CODE_BYTES]; CODES_PER_TURN];
        codes[CODES_PER_TURN / 2] = template.codes[1];
        Probe { embedding: template.embedding, codes }
    }

    pub(crate) fn record(
        &self,
        purposes: PurposeSet,
        from: Timestamp,
        until: Timestamp,
    ) -> MemberRecord {
        let consent = |purpose| Consent {
            purpose,
            given_at: from,
            expires_at: until,
            notice: "n1".into(),
            language: "fr".into(),
        };
        let template = |purpose| SealedPurpose {
            purpose,
            hand: Hand::Right,
            template: self.template().to_bytes(),
        };
        let matched = || purposes.iter().filter(|purpose| *purpose != Purpose::Roaming);
        let pseudonym = |purpose| (purpose, Pseudonym::from_random(random::bytes()));
        MemberRecord {
            member: self.member,
            claim: self.claim,
            format: TEMPLATE_FORMAT,
            consents: purposes.iter().map(consent).collect(),
            templates: matched().map(template).collect(),
            pseudonyms: matched().map(pseudonym).collect(),
            card_token: Some(Biometric::new(CARD_TOKEN.to_vec())),
            expires_at: until,
        }
    }

    /// `operator` custody: sealed to the matcher.
    pub(crate) fn operator(
        &self,
        tenant: &Name,
        matcher: &SealingKey,
        purposes: PurposeSet,
        from: Timestamp,
        until: Timestamp,
    ) -> Registration {
        let mut registration = self.registration(Custody::Operator, purposes, until);
        let record = encode_for_sealing(&self.record(purposes, from, until));
        let aad = registration.binding();
        registration.sealed =
            envelope::seal(matcher, Label::Registration, tenant, &aad, record.expose()).unwrap();
        registration
    }

    /// `split` custody: sealed with a key that only the person has.
    pub(crate) fn split(&self, purposes: PurposeSet, until: Timestamp) -> Registration {
        let record = self.record(purposes, Timestamp::from_millis(0), until);
        let key = palmgate_seal::aead::Key::generate();
        let sealed = key.seal(b"", encode_for_sealing(&record).expose());
        Registration { sealed, ..self.registration(Custody::Split, purposes, until) }
    }

    fn registration(
        &self,
        custody: Custody,
        purposes: PurposeSet,
        expires_at: Timestamp,
    ) -> Registration {
        let Self { member, claim, .. } = *self;
        Registration { member, claim, custody, purposes, expires_at, sealed: Vec::new() }
    }

    /// The person shows their claim and this palm.
    pub(crate) fn query(
        &self,
        tenant: &Name,
        matcher: &SealingKey,
        purpose: Purpose,
        palm: &Probe,
    ) -> ProbeQuery {
        let mut query = ProbeQuery { purpose, claim: self.claim, sealed: Vec::new() };
        let padded = envelope::pad(palm.to_bytes().expose(), Probe::PADDED_BYTES);
        let aad = query.binding();
        query.sealed =
            envelope::seal(matcher, Label::Probe, tenant, &aad, padded.expose()).unwrap();
        query
    }
}

pub(crate) fn purposes<const N: usize>(purposes: [Purpose; N]) -> PurposeSet {
    purposes.into_iter().collect()
}

/// splitmix64
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
    }
}
