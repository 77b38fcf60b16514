//! What a person gets of their own data: a copy of everything (GDPR Art. 15), and what they provided,
//! to take along (Art. 20). JSON with plain names, described in `docs/rights.md`.

use crate::{
    papers::House,
    receipt::{ConsentReceipt, record_id, rfc3339},
};
use palmgate_policy::{Pack, Profile};
use palmgate_protocol::{
    Hand, Name, Purpose,
    cloud::Consent,
    terminal::{Authorisation, Use},
};
use palmgate_seal::sign::SigningKey;
use serde_json::{Value, json};

/// Whose data it is.
pub struct Subject<'a> {
    /// What the policy knows.
    pub profile: &'a Profile,
    /// Their own uses, newest first.
    pub uses: &'a [Use],
    /// Their phone number, if they gave one.
    pub phone: Option<&'a str>,
    /// The payment provider's token for their card.
    pub card_token: Option<&'a str>,
}

/// Templates for their own person alone.
pub struct Sealed {
    /// The public key that they are sealed to.
    pub key: [u8; 32],
    /// HPKE: encapsulated key and ciphertext.
    pub envelope: Vec<u8>,
    /// The chain, to which the envelope is bound.
    pub tenant: Name,
}

/// The document. With `sealed` it is for taking along, and has what the person provided; without,
/// it is the copy of everything. The consent receipts in it are signed with `key`.
pub fn export(
    house: &House,
    pack: &Pack,
    subject: &Subject<'_>,
    sealed: Option<&Sealed>,
    key: &SigningKey,
) -> String {
    let profile = subject.profile;
    let language = profile.consents.first().map_or("en", |consent| &consent.language);
    let receipts = |consent: &Consent| -> Option<Value> {
        let record = record_id(&profile.salt, consent);
        let receipt = ConsentReceipt::issue(house, pack, consent, record, key).ok()?;
        serde_json::from_str(receipt.as_str()).ok()
    };
    let mut document = json!({
        "format": if sealed.is_some() { "palmgate-portability-1" } else { "palmgate-export-1" },
        "store": house.place,
        "controller": { "name": house.controller, "contact": house.contact, "officer": house.dpo },
        "provided": {
            "hands": hands(profile),
            "phone": subject.phone,
            "cardToken": subject.card_token,
            "consents": profile.consents.iter().map(consent).collect::<Vec<_>>(),
        },
        "receipts": profile.consents.iter().filter_map(receipts).collect::<Vec<_>>(),
    });
    let Value::Object(fields) = &mut document else { return document.to_string() };
    if let Some(sealed) = sealed {
        fields.insert("templates".into(), envelope(sealed));
        return document.to_string();
    }
    fields.insert("held".into(), held(pack, subject, language));
    fields.insert("recipients".into(), recipients(house, profile));
    fields.insert("retention".into(), retention(house, pack, language));
    fields.insert(
        "logic".into(),
        "A reader compares a palm with the template of this enrolment; enough likeness is a yes. \
         Nothing else is decided by a machine, and no score is kept."
            .into(),
    );
    fields.insert(
        "complaint".into(),
        json!({ "name": pack.top().authority.name, "url": pack.top().authority.url }),
    );
    document.to_string()
}

fn hands(profile: &Profile) -> Value {
    let hand = |(purpose, hand): &(Purpose, Hand)| {
        let hand = match hand {
            Hand::Left => "left",
            Hand::Right => "right",
        };
        json!({ "purpose": purpose.as_str(), "hand": hand, "template": "present" })
    };
    profile.hands.iter().map(hand).collect()
}

fn consent(consent: &Consent) -> Value {
    json!({
        "purpose": consent.purpose.as_str(),
        "given": rfc3339(consent.given_at),
        "ends": rfc3339(consent.expires_at),
        "notice": consent.notice,
        "language": consent.language,
    })
}

fn held(pack: &Pack, subject: &Subject<'_>, language: &str) -> Value {
    let profile = subject.profile;
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let purpose = |one: &palmgate_policy::pack::PurposeBasis| {
        let served = profile.consents.iter().any(|consent| consent.purpose == one.purpose)
            || (one.purpose == Purpose::Staff && profile.authorisation.is_some());
        served.then(|| {
            json!({
                "purpose": one.purpose.as_str(),
                "what": one.text.get(language),
                "basis": one.basis,
            })
        })
    };
    let authorisation = |authorisation: &Authorisation| json!({ "zone": authorisation.zone, "until": rfc3339(authorisation.until) });
    let pseudonyms = profile.pseudonyms.iter().map(|(purpose, pseudonym)| {
        json!({ "purpose": purpose.as_str(), "pseudonym": hex(pseudonym.as_bytes()) })
    });
    let uses = subject.uses.iter().map(|used| {
        json!({
            "at": rfc3339(used.at),
            "terminal": used.terminal,
            "purpose": used.purpose.as_str(),
        })
    });
    json!({
        "purposes": pack.purposes().iter().filter_map(purpose).collect::<Vec<_>>(),
        "custody": profile.custody.as_str(),
        "enrolled": rfc3339(profile.enrolled_at),
        "ends": rfc3339(profile.expires_at),
        "paused": profile.paused,
        "objectsToAdvertising": profile.objected,
        "authorisation": profile.authorisation.as_ref().map(authorisation),
        "writtenRelease": profile.released_at.map(rfc3339),
        "paidSinceStrongAuthentication": {
            "minorUnits": profile.spent.total, "payments": profile.spent.count,
        },
        "pseudonyms": pseudonyms.collect::<Vec<_>>(),
        "uses": uses.collect::<Vec<_>>(),
    })
}

/// Who has got data, or can (GDPR Art. 15(1)(c), 19).
fn recipients(house: &House, profile: &Profile) -> Value {
    let roams = profile.consents.iter().any(|consent| consent.purpose == Purpose::Roaming);
    let processors = house.processors.iter().filter(|_| roams);
    processors
        .map(|one| json!({ "name": one.name, "what": one.what, "where": one.region }))
        .collect()
}

fn retention(house: &House, pack: &Pack, language: &str) -> Value {
    let terms = pack.retention().iter().map(|term| {
        json!({
            "data": term.item,
            "what": term.text.get(language),
            "most": term.keep.to_string(),
            "rule": term.rule.id(),
        })
    });
    json!({
        "inactivityDays": house.inactivity_days, "terms": terms.collect::<Vec<_>>(),
    })
}

fn envelope(sealed: &Sealed) -> Value {
    json!({
        "sealing": "HPKE base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180)",
        "chain": sealed.tenant.as_str(),
        "key": data_encoding::HEXLOWER.encode(&sealed.key),
        "envelope": data_encoding::BASE64.encode(&sealed.envelope),
    })
}
