//! Records of people on their way between memory, disk, tokens and the cloud.

use crate::{
    cloud::Outgoing,
    references::References,
    store::Surroundings,
    work::{NewPerson, Sensitive},
};
use palmgate_gallery::Fusion;
use palmgate_policy::{Origin, Profile, RecordFacts, looks_like_card_number};
use palmgate_protocol::{
    Biometric, ClaimHandle, Custody, Hand, MemberId, Name, Probe, Pseudonym, Purpose, PurposeSet,
    Secret, TEMPLATE_FORMAT, Template, Timestamp,
    cloud::{MemberRecord, Registration, SealedPurpose},
    decode, encode, encode_for_sealing,
    terminal::{
        AssertionBytes, CardToken, ClaimBytes, Enrolment, Intent, IssuedClaim, Payment, Scan,
    },
};
use palmgate_seal::{
    aead::{self, Place},
    assertion::{self, Assertion},
    claim::{self, Claim},
    random,
    sign::{SigningKey, VerifyingKey},
};
use palmgate_vault::{Column, Vault};

/// Columns of one person, to be sealed.
pub(crate) type Columns = Vec<(Column, Secret<Vec<u8>>)>;

/// An enrolment ready for the disk.
pub(crate) struct Prepared {
    pub(crate) columns: Columns,
    /// References that the box may hold open (`operator`).
    pub(crate) open: Vec<(Purpose, Hand, Template)>,
    /// What the cloud is told, if anything.
    pub(crate) registration: Option<Vec<u8>>,
}

/// Where a sealed record belongs: to the claim that names it.
fn place<'a>(tenant: &'a Name, claim: &'a ClaimHandle) -> Place<'a> {
    Place { tenant, purpose: None, record: claim.as_bytes(), column: "member-record", version: 1 }
}

/// Opens a record sealed under the key in a person's token, or under the tenant's record key.
pub(crate) fn open_sealed(
    key: &aead::Key,
    tenant: &Name,
    claim: ClaimHandle,
    sealed: &[u8],
) -> Option<MemberRecord> {
    let opened = key.open(&place(tenant, &claim).aad(), sealed).ok()?;
    let record: MemberRecord = decode(opened.expose()).ok()?;
    (record.format == TEMPLATE_FORMAT && record.claim == claim).then_some(record)
}

/// The templates of a person whom this box holds: open ones, or those that the claim's key opens.
pub(crate) fn held(
    vault: &Vault,
    tenant: &Name,
    member: MemberId,
    claim: Option<&Claim>,
    purposes: PurposeSet,
) -> Option<Vec<SealedPurpose>> {
    if let Some(sealed) = vault.read(&member, Column::SealedRecord).ok()? {
        let claim = claim?;
        let record = open_sealed(claim.key.as_ref()?, tenant, claim.handle, sealed.expose())?;
        return Some(record.templates);
    }
    let mut templates = Vec::new();
    for purpose in purposes.iter() {
        for hand in [Hand::Left, Hand::Right] {
            if let Some(bytes) = vault.read(&member, Column::Template(purpose, hand)).ok()? {
                let template = Biometric::new(bytes.expose().clone());
                templates.push(SealedPurpose { purpose, hand, template });
            }
        }
    }
    Some(templates)
}

/// A person's own templates, for themselves: those that the box holds, those that the claim's key
/// opens, or those that the claim carries.
pub(crate) fn own_templates(
    around: &Surroundings,
    member: MemberId,
    profile: &Profile,
    claim: Option<&Claim>,
    purposes: PurposeSet,
) -> Option<Vec<SealedPurpose>> {
    if profile.custody == Custody::Subject {
        let claim = claim?;
        let sealed = claim.sealed_record.as_deref()?;
        let record = open_sealed(&around.record_key, &around.tenant, claim.handle, sealed)?;
        return Some(record.templates);
    }
    held(&around.vault, &around.tenant, member, claim, purposes)
}

/// What the cloud is told of somebody on pause or back from it: without `roaming` it takes the
/// record back. Nothing where the cloud never had one.
pub(crate) fn restricted(
    around: &Surroundings,
    member: MemberId,
    profile: &Profile,
    claim: Option<&Claim>,
) -> Option<Vec<u8>> {
    // Only the store that enrolled somebody may register them anew.
    if profile.origin != Origin::Store {
        return None;
    }
    let mut told = profile.clone();
    if profile.paused {
        told.consents.retain(|consent| consent.purpose != Purpose::Roaming);
    }
    match profile.custody {
        Custody::Operator => {
            let record = held_record(around, member, &told)?;
            withdrawn(&told, &record, None, around)
        }
        Custody::Split => {
            let sealed = around.vault.read(&member, Column::SealedRecord).ok()??;
            let key = claim?.key.as_ref()?;
            let record = open_sealed(key, &around.tenant, profile.claim, sealed.expose())?;
            withdrawn(&told, &record, Some(sealed.expose()), around)
        }
        Custody::Subject => None,
    }
}

/// The best score of the probes against the templates, for each purpose that has both.
pub(crate) fn compare(
    probes: &[(Purpose, Probe)],
    templates: &[SealedPurpose],
    purposes: PurposeSet,
    fusion: &Fusion,
) -> Vec<(Purpose, f32)> {
    let wanted = probes.iter().filter(|(purpose, _)| purposes.contains(*purpose));
    wanted
        .filter_map(|(purpose, probe)| {
            templates
                .iter()
                .filter(|sealed| sealed.purpose == *purpose)
                .filter_map(|sealed| Template::from_bytes(sealed.template.expose()).ok())
                .map(|template| palmgate_gallery::verify(probe, &template, fusion))
                .max_by(f32::total_cmp)
                .map(|score| (*purpose, score))
        })
        .collect()
}

/// What the policy may know of a record.
pub(crate) fn facts(record: &MemberRecord, custody: Custody) -> RecordFacts {
    RecordFacts {
        member: record.member,
        claim: record.claim,
        custody,
        consents: record.consents.clone(),
        hands: record.templates.iter().map(|sealed| (sealed.purpose, sealed.hand)).collect(),
        pseudonyms: record.pseudonyms.clone(),
        expires_at: record.expires_at,
        salt: random::bytes(),
    }
}

/// Turns an enrolment into what each place keeps under the profile's custody.
pub(crate) fn prepare(
    sensitive: &mut Sensitive,
    profile: &Profile,
    around: &Surroundings,
) -> Option<Prepared> {
    let person = sensitive.enrolment.as_mut()?;
    let templates = std::mem::take(&mut sensitive.templates);
    let record = new_record(person, profile, &templates);
    let mut columns = person_columns(person, profile);
    if let Some(old) = profile.replaces {
        columns.extend(carried_over(around, old, &columns));
    }
    let mut prepared = Prepared { columns, open: Vec::new(), registration: None };
    match profile.custody {
        Custody::Operator => {
            prepared.columns.extend(template_columns(&record));
            prepared.registration = registration(profile, &record, None, around);
            prepared.open = templates;
        }
        Custody::Split => {
            let key = aead::Key::generate();
            let aad = place(&around.tenant, &profile.claim).aad();
            let sealed = key.seal(&aad, encode_for_sealing(&record).expose());
            prepared.registration = registration(profile, &record, Some(&sealed), around);
            prepared.columns.push((Column::SealedRecord, Secret::new(sealed)));
            person.token_key = Some(key);
        }
        Custody::Subject => person.carried = carried(profile, &record, around),
    }
    person.issued = Some(profile.clone());
    Some(prepared)
}

fn new_record(
    person: &NewPerson,
    profile: &Profile,
    templates: &[(Purpose, Hand, Template)],
) -> MemberRecord {
    let sealed = templates.iter().map(|(purpose, hand, template)| SealedPurpose {
        purpose: *purpose,
        hand: *hand,
        template: template.to_bytes(),
    });
    MemberRecord {
        member: person.ids.member,
        claim: profile.claim,
        format: TEMPLATE_FORMAT,
        consents: profile.consents.clone(),
        templates: sealed.collect(),
        pseudonyms: profile.pseudonyms.clone(),
        card_token: person.card_token.as_ref().map(duplicate),
        expires_at: profile.expires_at,
    }
}

fn duplicate(bytes: &Biometric<Vec<u8>>) -> Biometric<Vec<u8>> {
    Biometric::new(bytes.expose().clone())
}

fn person_columns(person: &NewPerson, profile: &Profile) -> Columns {
    let details = [(Column::CardToken, &person.card_token), (Column::Phone, &person.phone)];
    let details = details.into_iter().filter_map(|(column, value)| {
        value.as_ref().map(|value| (column, Secret::new(value.expose().clone())))
    });
    let profile_column = (Column::Profile, encode_for_sealing(profile));
    details.chain(release(person, profile)).chain([profile_column]).collect()
}

/// What a corrected enrolment takes over from the one before: a phone number that was not given
/// anew. The history follows when the enrolment is written.
fn carried_over(
    around: &Surroundings,
    old: MemberId,
    new: &Columns,
) -> Option<(Column, Secret<Vec<u8>>)> {
    if new.iter().any(|(column, _)| *column == Column::Phone) {
        return None;
    }
    let phone = around.vault.read(&old, Column::Phone).ok()??;
    Some((Column::Phone, Secret::new(phone.expose().clone())))
}

/// The written release as it is kept.
fn release(person: &NewPerson, profile: &Profile) -> Option<(Column, Secret<Vec<u8>>)> {
    let release = person.release.as_ref().filter(|_| profile.released_at.is_some())?;
    Some((Column::Release, encode_for_sealing(release)))
}

fn template_columns(record: &MemberRecord) -> Columns {
    let templates = record.templates.iter().map(|sealed| {
        let column = Column::Template(sealed.purpose, sealed.hand);
        (column, Secret::new(sealed.template.expose().clone()))
    });
    templates.collect()
}

/// The cloud is told only of people who agreed to be recognised beyond this store.
fn registration(
    profile: &Profile,
    record: &MemberRecord,
    sealed: Option<&[u8]>,
    around: &Surroundings,
) -> Option<Vec<u8>> {
    let purposes: PurposeSet = profile.consents.iter().map(|consent| consent.purpose).collect();
    let cloud = around.cloud.as_ref().filter(|_| purposes.contains(Purpose::Roaming))?;
    let mut registration = Registration {
        member: record.member,
        claim: record.claim,
        custody: profile.custody,
        purposes,
        expires_at: record.expires_at,
        sealed: sealed.map(<[u8]>::to_vec).unwrap_or_default(),
    };
    if sealed.is_none() {
        cloud.seal_registration(&mut registration, record)?;
    }
    Some(encode(&Outgoing::Register(registration)))
}

/// What withdrawing purposes leaves: the columns that go, those that change, and what the cloud is
/// told. In `split` custody the record can be cut only with the key in the claim that was shown.
pub(crate) fn without_purposes(
    around: &Surroundings,
    member: MemberId,
    purposes: PurposeSet,
    profile: &Profile,
    claim: Option<&Claim>,
) -> (Vec<Column>, Columns, Option<Vec<u8>>) {
    let mut gone: Vec<Column> = purposes
        .iter()
        .flat_map(|purpose| [Hand::Left, Hand::Right].map(|hand| Column::Template(purpose, hand)))
        .collect();
    if purposes.contains(Purpose::Pay) {
        gone.push(Column::CardToken);
    }
    let mut changed: Columns = vec![(Column::Profile, encode_for_sealing(profile))];
    let mut registration = None;
    match profile.custody {
        Custody::Operator => {
            let record = held_record(around, member, profile);
            registration = record.and_then(|record| withdrawn(profile, &record, None, around));
        }
        Custody::Split => {
            if let Some((record, sealed)) = recut(around, member, purposes, profile, claim) {
                registration = withdrawn(profile, &record, Some(&sealed), around);
                changed.push((Column::SealedRecord, Secret::new(sealed)));
            }
        }
        Custody::Subject => {}
    }
    (gone, changed, registration)
}

/// The record of a person whom the box holds open, as the profile now allows it.
fn held_record(around: &Surroundings, member: MemberId, profile: &Profile) -> Option<MemberRecord> {
    let purposes = profile.pseudonyms.iter().map(|(purpose, _)| *purpose).collect();
    let pay = profile.pseudonym(Purpose::Pay).is_some();
    let token = around.vault.read(&member, Column::CardToken).ok()?.filter(|_| pay);
    Some(MemberRecord {
        member,
        claim: profile.claim,
        format: TEMPLATE_FORMAT,
        consents: profile.consents.clone(),
        templates: held(&around.vault, &around.tenant, member, None, purposes)?,
        pseudonyms: profile.pseudonyms.clone(),
        card_token: token.map(|token| Biometric::new(token.expose().clone())),
        expires_at: profile.expires_at,
    })
}

/// The sealed record without some purposes, sealed again under the same person's key.
fn recut(
    around: &Surroundings,
    member: MemberId,
    purposes: PurposeSet,
    profile: &Profile,
    claim: Option<&Claim>,
) -> Option<(MemberRecord, Vec<u8>)> {
    let key = claim?.key.as_ref()?;
    let sealed = around.vault.read(&member, Column::SealedRecord).ok()??;
    let mut record = open_sealed(key, &around.tenant, profile.claim, sealed.expose())?;
    record.templates.retain(|sealed| !purposes.contains(sealed.purpose));
    record.consents.clone_from(&profile.consents);
    record.pseudonyms.clone_from(&profile.pseudonyms);
    if purposes.contains(Purpose::Pay) {
        record.card_token = None;
    }
    let aad = place(&around.tenant, &profile.claim).aad();
    let sealed = key.seal(&aad, encode_for_sealing(&record).expose());
    Some((record, sealed))
}

/// The registration after a withdrawal: without `roaming` it takes the record back.
fn withdrawn(
    profile: &Profile,
    record: &MemberRecord,
    sealed: Option<&[u8]>,
    around: &Surroundings,
) -> Option<Vec<u8>> {
    let cloud = around.cloud.as_ref()?;
    let mut registration = Registration {
        member: record.member,
        claim: record.claim,
        custody: profile.custody,
        purposes: profile.consents.iter().map(|consent| consent.purpose).collect(),
        expires_at: record.expires_at,
        sealed: sealed.map(<[u8]>::to_vec).unwrap_or_default(),
    };
    if sealed.is_none() {
        cloud.seal_registration(&mut registration, record)?;
    }
    Some(encode(&Outgoing::Register(registration)))
}

/// `subject` custody: one sealed record for each purpose, each small enough for a QR code.
fn carried(
    profile: &Profile,
    record: &MemberRecord,
    around: &Surroundings,
) -> Vec<(Purpose, Vec<u8>)> {
    let aad = place(&around.tenant, &profile.claim).aad();
    let purposes = profile.pseudonyms.iter().map(|(purpose, _)| *purpose);
    purposes
        .map(|purpose| {
            let one = MemberRecord {
                member: record.member,
                claim: record.claim,
                format: record.format,
                consents: record
                    .consents
                    .iter()
                    .filter(|consent| [purpose, Purpose::Roaming].contains(&consent.purpose))
                    .cloned()
                    .collect(),
                templates: record
                    .templates
                    .iter()
                    .filter(|sealed| sealed.purpose == purpose)
                    .map(|sealed| SealedPurpose {
                        template: duplicate(&sealed.template),
                        ..*sealed
                    })
                    .collect(),
                pseudonyms: record
                    .pseudonyms
                    .iter()
                    .filter(|(of, _)| *of == purpose)
                    .copied()
                    .collect(),
                card_token: record
                    .card_token
                    .as_ref()
                    .filter(|_| purpose == Purpose::Pay)
                    .map(duplicate),
                expires_at: record.expires_at,
            };
            (purpose, around.record_key.seal(&aad, encode_for_sealing(&one).expose()))
        })
        .collect()
}

/// The tokens of a new enrolment: the only copies of what they hold.
pub(crate) fn issue_claims(
    person: &mut NewPerson,
    tenant: &Name,
    store: &Name,
    now: Timestamp,
    key: &SigningKey,
) -> Vec<IssuedClaim> {
    let Some(profile) = person.issued.take() else { return Vec::new() };
    let consented: PurposeSet = profile.consents.iter().map(|consent| consent.purpose).collect();
    let matched = profile.pseudonyms.iter().map(|(purpose, _)| *purpose);
    let all = matched.fold(consented, PurposeSet::with);
    let possession = person.possession.map(|possession| VerifyingKey(possession.key));
    let issue = |purposes: PurposeSet, token_key, sealed_record| {
        let claim = Claim {
            tenant: tenant.clone(),
            store: store.clone(),
            custody: profile.custody,
            handle: profile.claim,
            purposes,
            issued_at: now,
            expires_at: profile
                .consents
                .iter()
                .map(|c| c.expires_at)
                .max()
                .unwrap_or(profile.expires_at),
            key: token_key,
            sealed_record,
            possession,
        };
        let token = claim::issue(&claim, key);
        IssuedClaim { purposes, token: ClaimBytes(token.expose().clone().into()) }
    };
    match profile.custody {
        Custody::Operator if consented.contains(Purpose::Roaming) => vec![issue(all, None, None)],
        Custody::Operator => Vec::new(),
        Custody::Split => vec![issue(all, person.token_key.take(), None)],
        Custody::Subject => {
            let roaming = consented.contains(Purpose::Roaming);
            let purposes = |purpose| {
                let one = PurposeSet::default().with(purpose);
                if roaming { one.with(Purpose::Roaming) } else { one }
            };
            let carried = std::mem::take(&mut person.carried).into_iter();
            carried.map(|(purpose, sealed)| issue(purposes(purpose), None, Some(sealed))).collect()
        }
    }
}

/// What this box keeps of a person whom the cloud gave: open templates, or the sealed record.
pub(crate) fn columns_of(
    record: &MemberRecord,
    profile: &Profile,
    sealed: Option<&[u8]>,
) -> Columns {
    let mut columns = vec![(Column::Profile, encode_for_sealing(profile))];
    let Some(sealed) = sealed else {
        columns.extend(template_columns(record));
        let token = record.card_token.as_ref();
        columns.extend(token.map(|t| (Column::CardToken, Secret::new(t.expose().clone()))));
        return columns;
    };
    columns.push((Column::SealedRecord, Secret::new(sealed.to_vec())));
    columns
}

/// Opens a given person's references for search; a template that is no template is left out.
pub(crate) fn put_open(references: &References, member: MemberId, record: &MemberRecord) {
    for sealed in &record.templates {
        let put = Template::from_bytes(sealed.template.expose())
            .map_err(|error| error.to_string())
            .and_then(|template| {
                let put = references.put(member, sealed.purpose, sealed.hand, &template);
                put.map_err(|error| error.to_string())
            });
        if let Err(error) = put {
            tracing::warn!(%error, "a reference from the cloud was left out");
        }
    }
}

/// Signs amount, payee, nonce and pseudonym for the point of sale.
pub(crate) fn assertion(
    payment: Payment,
    pseudonym: Pseudonym,
    at: Timestamp,
    key: &SigningKey,
) -> AssertionBytes {
    AssertionBytes(assertion::issue(&Assertion { payment, pseudonym, at }, key).into())
}

/// A card token as text.
pub(crate) fn card_token(bytes: Vec<u8>) -> Option<CardToken> {
    String::from_utf8(bytes).ok().map(CardToken)
}

/// Whether any text of an enrolment looks like a card number.
pub(crate) fn holds_card_number(enrolment: &Enrolment) -> bool {
    let details = [enrolment.card_token.as_ref(), enrolment.phone.as_ref()];
    let details = details.into_iter().flatten().map(|text| text.expose().as_slice());
    let consents = enrolment.consents.iter();
    let texts =
        consents.flat_map(|consent| [consent.notice.as_bytes(), consent.language.as_bytes()]);
    let zone = enrolment.authorisation.as_ref().map(|authorised| authorised.zone.as_bytes());
    let name = enrolment.release.as_ref().map(|release| release.name.expose().as_slice());
    details.chain(texts).chain(zone).chain(name).any(looks_like_card_number)
}

/// Whether any text of a scan looks like a card number.
pub(crate) fn scan_holds_card_number(scan: &Scan) -> bool {
    let texts = match &scan.intent {
        Intent::Pay(payment) => vec![&payment.payee, &payment.currency],
        Intent::Staff { zone } => vec![zone],
        _ => Vec::new(),
    };
    texts.into_iter().any(|text| looks_like_card_number(text.as_bytes()))
}
