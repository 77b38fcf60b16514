//! Registrations: a store tells of an enrolment.

use super::{Registry, rows::Member, state::State, tombstones::sha256};
use crate::{disk::Changes, problem::Problem};
use palmgate_protocol::{
    Custody, Name, Purpose, Secret, TEMPLATE_FORMAT, Template, Timestamp,
    cloud::{MemberRecord, Registration},
    decode, encode,
    limits::MAX_SEALED_RECORD_BYTES,
};
use palmgate_seal::envelope::{self, Label};

/// Templates in one record: four purposes, two hands.
const MAX_TEMPLATES: usize = 8;

/// A registration whose record was looked at as far as its custody lets the cloud look.
struct Admitted {
    record: Secret<Vec<u8>>,
    roaming_until: Option<Timestamp>,
}

impl Registry {
    /// Keeps an enrolment; durable when this returns. A repetition changes nothing; the home
    /// store may replace what it registered.
    pub(crate) fn register(
        &self,
        store: &Name,
        registration: &Registration,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let admitted = self.admit(registration, now)?;
        let digest = sha256(&[&encode(registration)]);
        let mut state = self.write()?;
        refuse_forgotten(&state, registration)?;
        let owner = state.claimed(&registration.claim).map(|person| person.row.id);
        if owner.is_some_and(|owner| owner != registration.member) {
            return Err(Problem::Conflict);
        }
        let holders = match state.person(&registration.member) {
            Some(person) if person.row.home != *store => return Err(Problem::Conflict),
            Some(person) if person.row.digest == digest => return Ok(()),
            Some(person) => person.row.holders.clone(),
            None if state.people().count() >= self.settings.limits.members => {
                return Err(Problem::Full);
            }
            None => Vec::new(),
        };
        let row = Member {
            id: registration.member,
            claim: registration.claim,
            custody: registration.custody,
            purposes: registration.purposes,
            expires_at: registration.expires_at,
            roaming_until: admitted.roaming_until,
            home: store.clone(),
            digest,
            holders,
        };
        let mut changes = Changes::default();
        let roams = row.roams(now);
        state.put(row, &admitted.record, &mut changes)?;
        give(&mut state, registration, store, roams, &mut changes);
        state.commit(changes)
    }

    fn admit(&self, registration: &Registration, now: Timestamp) -> Result<Admitted, Problem> {
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
            &self.settings.tenant,
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
}

fn refuse_forgotten(state: &State, registration: &Registration) -> Result<(), Problem> {
    let hasher = &state.tombstone_hasher;
    let hashes = [hasher.member(&registration.member), hasher.claim(&registration.claim)];
    if hashes.iter().any(|hash| state.tombstones.contains(hash)) {
        return Err(Problem::Forgotten);
    }
    Ok(())
}

/// The home store has the person at once; stores that were given an earlier record get the new
/// one, or must let go when the person roams no more.
fn give(
    state: &mut State,
    registration: &Registration,
    home: &Name,
    roams: bool,
    changes: &mut Changes,
) {
    if !roams {
        state.release(&registration.member, |store| store != home, changes);
    }
    state.hold(&registration.member, home, changes);
    let visited: Vec<Name> = state
        .person(&registration.member)
        .map(|person| person.row.holders.iter().map(|held| held.store.clone()).collect())
        .unwrap_or_default();
    for store in visited.iter().filter(|store| *store != home) {
        state.hold(&registration.member, store, changes);
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
