//! What every registry does with a tenant's keys, whatever it keeps its rows in: look at
//! registrations and probes as far as their custody lets the cloud look, sign, seal.

use crate::{
    config::Settings,
    layout::{Layout, LayoutError},
    problem::Problem,
};
use palmgate_protocol::{
    Custody, Name, Probe, Purpose, Secret, TEMPLATE_FORMAT, Template, Timestamp,
    cloud::{Consent, ErasureState, MemberRecord, ProbeQuery, Registration, Resolution},
    decode,
    limits::MAX_SEALED_RECORD_BYTES,
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey, SealingKey},
    sign::SigningKey,
};

/// Templates in one record: four purposes, two hands.
const MAX_TEMPLATES: usize = 8;

pub(crate) struct Tenant {
    pub(crate) settings: Settings,
    pub(crate) publisher: SigningKey,
    matcher: OpeningKey,
}

/// A registration whose record was looked at as far as its custody lets the cloud look.
pub(crate) struct Admitted {
    /// An encoded [`MemberRecord`] in `operator` custody, the sealed record in `split` custody.
    pub(crate) record: Secret<Vec<u8>>,
    /// When the consent to roaming ends; `None` without one.
    pub(crate) roaming_until: Option<Timestamp>,
}

impl Tenant {
    pub(crate) fn read(layout: &Layout) -> Result<Self, LayoutError> {
        Ok(Self {
            settings: layout.settings()?,
            publisher: layout.publisher()?,
            matcher: layout.matcher()?,
        })
    }

    pub(crate) const fn name(&self) -> &Name {
        &self.settings.tenant
    }

    /// Whether shards can be sealed to a gateway's key.
    pub(crate) fn check_sealing_key(&self, key: &[u8; 32]) -> Result<(), Problem> {
        let sealed = envelope::seal(&SealingKey(*key), Label::Shard, self.name(), b"", b"");
        sealed.map(drop).map_err(|_| Problem::Malformed)
    }

    pub(crate) fn admit(
        &self,
        registration: &Registration,
        now: Timestamp,
    ) -> Result<Admitted, Problem> {
        if registration.sealed.len() > MAX_SEALED_RECORD_BYTES {
            return Err(Problem::TooLarge);
        }
        if registration.expires_at <= now || registration.purposes.is_empty() {
            return Err(Problem::RecordRefused);
        }
        match registration.custody {
            Custody::Operator if self.settings.accept_operator => self.admit_operator(registration),
            Custody::Split => Ok(Admitted {
                record: Secret::new(registration.sealed.clone()),
                roaming_until: registration
                    .purposes
                    .contains(Purpose::Roaming)
                    .then_some(registration.expires_at),
            }),
            Custody::Operator | Custody::Subject => Err(Problem::CustodyRefused),
        }
    }

    /// Opened on arrival, so that a record that could never be used is refused while its store
    /// still listens. Kept under the person's own key, since the matcher's outlives them.
    fn admit_operator(&self, registration: &Registration) -> Result<Admitted, Problem> {
        let record = envelope::open(
            &self.matcher,
            Label::Registration,
            self.name(),
            &registration.binding(),
            &registration.sealed,
        )
        .map_err(|_| Problem::RecordRefused)?;
        let content: MemberRecord = decode(record.expose()).map_err(|_| Problem::RecordRefused)?;
        if !fits(&content, registration) {
            return Err(Problem::RecordRefused);
        }
        let consent = content.consents.iter().find(|consent| consent.purpose == Purpose::Roaming);
        let roaming_until = consent
            .filter(|_| registration.purposes.contains(Purpose::Roaming))
            .map(|consent| consent.expires_at.min(registration.expires_at));
        Ok(Admitted { record, roaming_until })
    }

    pub(crate) fn open_probe(&self, query: &ProbeQuery) -> Result<Probe, Problem> {
        self.open_sealed_probe(&query.binding(), &query.sealed)
    }

    /// The probe in an envelope that is bound to `aad`. One of another size than gateways pad to is
    /// refused unopened.
    pub(crate) fn open_sealed_probe(&self, aad: &[u8], sealed: &[u8]) -> Result<Probe, Problem> {
        if sealed.len() != Probe::PADDED_BYTES + envelope::OVERHEAD_BYTES {
            return Err(Problem::Malformed);
        }
        let padded = envelope::open(&self.matcher, Label::Probe, self.name(), aad, sealed)
            .map_err(|_| Problem::RecordRefused)?;
        let bytes = envelope::unpad(padded.expose()).map_err(|_| Problem::RecordRefused)?;
        Probe::from_bytes(bytes).map_err(|_| Problem::RecordRefused)
    }

    /// The best score of the probe against the record's templates for `purpose`; `None` when the
    /// purpose is not consented to any more.
    pub(crate) fn score(
        &self,
        record: &MemberRecord,
        purpose: Purpose,
        probe: &Probe,
        now: Timestamp,
    ) -> Option<f32> {
        let live = |consent: &Consent| consent.purpose == purpose && now < consent.expires_at;
        if !record.consents.iter().any(live) {
            return None;
        }
        let fusion = self.settings.matching.fusion();
        let templates = record.templates.iter().filter(|sealed| sealed.purpose == purpose);
        templates
            .filter_map(|sealed| Template::from_bytes(sealed.template.expose()).ok())
            .map(|template| palmgate_gallery::verify(probe, &template, &fusion))
            .max_by(f32::total_cmp)
    }

    /// Whether the probe is of the person in the record.
    pub(crate) fn is_of(
        &self,
        record: &MemberRecord,
        purpose: Purpose,
        probe: &Probe,
        now: Timestamp,
    ) -> bool {
        let score = self.score(record, purpose, probe, now);
        score.is_some_and(|score| score >= self.settings.matching.threshold)
    }

    /// A record for the store that may have it.
    pub(crate) fn seal_to(
        &self,
        store_key: [u8; 32],
        binding: &[u8],
        record: &Secret<Vec<u8>>,
    ) -> Result<Resolution, Problem> {
        let to = SealingKey(store_key);
        envelope::seal(&to, Label::Resolution, self.name(), binding, record.expose())
            .map(|sealed| Resolution::Found { sealed })
            .map_err(Problem::internal)
    }

    /// The tenant's word on an erasure.
    pub(crate) fn sign_erasure(
        &self,
        commitment: &[u8; 32],
        erased_at: Timestamp,
        outstanding: Vec<Name>,
    ) -> ErasureState {
        let mut state = ErasureState { erased_at, outstanding, signature: Vec::new() };
        let bytes = state.signed_bytes(commitment);
        state.signature = self.publisher.sign(ErasureState::LABEL, &bytes).to_vec();
        state
    }
}

fn fits(record: &MemberRecord, registration: &Registration) -> bool {
    let consented = |purpose| registration.purposes.contains(purpose);
    record.member == registration.member
        && record.claim == registration.claim
        && record.expires_at == registration.expires_at
        && record.format == TEMPLATE_FORMAT
        && (1..=MAX_TEMPLATES).contains(&record.templates.len())
        && record.consents.iter().all(|consent| consented(consent.purpose))
        && record.templates.iter().all(|sealed| {
            consented(sealed.purpose) && Template::from_bytes(sealed.template.expose()).is_ok()
        })
}
