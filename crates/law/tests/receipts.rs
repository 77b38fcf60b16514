//! What people get to keep: consent receipts, and their own data.
#![allow(clippy::unwrap_used)]

use palmgate_law::{
    ConsentReceipt, House, Processor, ReceiptError, Sealed, Subject, export, record_id,
};
use palmgate_policy::{Origin, Pack, Profile, Spent};
use palmgate_protocol::{
    ClaimHandle, Custody, DAY, Hand, Pseudonym, Purpose, PurposeSet, Timestamp, cloud::Consent,
    terminal::Use,
};
use palmgate_seal::sign::SigningKey;
use serde_json::Value;

const GIVEN: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn house() -> House {
    House {
        controller: "Épicerie Dupont SAS, 1 rue de Lyon".into(),
        contact: "contact@dupont.example".into(),
        dpo: "dpo@dupont.example".into(),
        place: "lyon".into(),
        custody: Custody::Split,
        purposes: PurposeSet::default().with(Purpose::Pay),
        fallback: "Pay by card: the price is the same.".into(),
        processors: vec![Processor {
            name: "cloud".into(),
            what: "sealed records".into(),
            region: "fr".into(),
            contract: "C-7".into(),
        }],
        inactivity_days: 120,
        zones: Vec::new(),
        residual_risks: Vec::new(),
    }
}

fn consent(purpose: Purpose) -> Consent {
    Consent {
        purpose,
        given_at: GIVEN,
        expires_at: GIVEN.after(365 * DAY),
        notice: "fr-cnil-1".into(),
        language: "fr".into(),
    }
}

fn profile() -> Profile {
    Profile {
        claim: ClaimHandle::from_random([1; 16]),
        custody: Custody::Split,
        origin: Origin::Store,
        consents: vec![consent(Purpose::Pay), consent(Purpose::Roaming)],
        hands: vec![(Purpose::Pay, Hand::Left)],
        pseudonyms: vec![(Purpose::Pay, Pseudonym::from_random([3; 16]))],
        paused: false,
        authorisation: None,
        enrolled_at: GIVEN,
        expires_at: GIVEN.after(180 * DAY),
        salt: [4; 32],
        spent: Spent { total: 1_250, count: 2 },
        objected: true,
        replaces: None,
        released_at: None,
        exported: false,
    }
}

/// The fields that the W3C guide to ISO/IEC TS 27560 marks as mandatory by the standard or by the
/// GDPR, where DPV has a relation for them.
const MANDATORY: [&str; 26] = [
    "/dct:conformsTo",
    "/dct:identifier",
    "/@id",
    "/dpv:hasDataSubject/dct:identifier",
    "/dpv:hasNotice/dct:identifier",
    "/dpv:hasNotice/dct:language",
    "/dpv:hasPurpose/dct:description",
    "/dpv:hasLegalBasis/0",
    "/dpv:hasPersonalData/@id",
    "/dpv:hasPersonalData/@type",
    "/dpv:hasPersonalData/dpv:hasNecessity",
    "/dpv:hasDataController/dpv:hasName",
    "/dpv:hasDataController/dpv:hasContact",
    "/dpv:hasDataSource",
    "/dpv:hasProcessing/0",
    "/dpv:hasStorageCondition/dpv:hasLocation",
    "/dpv:hasStorageCondition/dpv:hasDuration",
    "/dpv:hasLocation",
    "/dpv:hasJurisdiction",
    "/dpv:hasRecipient/0/dpv:hasName",
    "/dpv:hasConsentControl/@type",
    "/dpv:hasRight/0",
    "/dpv:hasAuthority/dpv:hasContact",
    "/dpv:hasConsentStatus/dct:date",
    "/dpv:hasConsentStatus/dct:valid",
    "/dpv:hasConsentStatus/dpv:isImplementedByEntity",
];

#[test]
fn a_receipt_has_every_field_that_the_profile_asks_for() {
    let (pack, key) = (Pack::embedded(), SigningKey::generate());
    for purpose in [Purpose::Pay, Purpose::Loyalty, Purpose::Entry, Purpose::Roaming] {
        let consent = consent(purpose);
        let record = record_id(&[4; 32], &consent);
        let receipt = ConsentReceipt::issue(&house(), &pack, &consent, record, &key).unwrap();
        let body = ConsentReceipt::verify(receipt.as_str(), &key.public()).unwrap();
        for field in MANDATORY {
            let value = body.pointer(field).and_then(Value::as_str).unwrap_or_default();
            assert!(!value.is_empty(), "{field} in {body}");
        }
        let namespaces = body["@context"].as_object().unwrap();
        let used = |text: &str| text.split_once(':').map(|(prefix, _)| prefix.to_owned());
        for field in body.as_object().unwrap().keys().filter(|field| !field.starts_with('@')) {
            let prefix = used(field).unwrap_or_default();
            assert!(namespaces.contains_key(&prefix), "{field} is in no namespace");
        }
    }
}

#[test]
fn a_receipt_is_signed_and_every_change_is_noticed() {
    let (pack, key) = (Pack::embedded(), SigningKey::generate());
    let receipt =
        ConsentReceipt::issue(&house(), &pack, &consent(Purpose::Pay), [7; 16], &key).unwrap();
    let forged = receipt.as_str().replace("fr-cnil-1", "fr-cnil-2");
    let other = SigningKey::generate().public();
    for (text, key) in [(forged.as_str(), key.public()), (receipt.as_str(), other)] {
        assert_eq!(ConsentReceipt::verify(text, &key), Err(ReceiptError::Signature));
    }
    for broken in ["{}", "", "[]", "{\"signature\":7}"] {
        assert_eq!(ConsentReceipt::verify(broken, &other), Err(ReceiptError::Malformed));
    }
    let nothing = ConsentReceipt::issue(&house(), &pack, &consent(Purpose::Pay), [8; 16], &key);
    assert_ne!(nothing.unwrap().as_str(), receipt.as_str());
}

#[test]
fn whatever_is_configured_a_receipt_fits_one_qr_code() {
    let (pack, key) = (Pack::embedded(), SigningKey::generate());
    let long = "É".repeat(4_000);
    let longest = House {
        controller: long.clone(),
        contact: long.clone(),
        place: "a".repeat(32),
        processors: vec![Processor { name: long, ..house().processors[0].clone() }],
        ..house()
    };
    for (house, limit) in [(house(), 2_400), (longest, 2_953)] {
        let consent = Consent { language: "zh-Hant-TW".into(), ..consent(Purpose::Pay) };
        let receipt = ConsentReceipt::issue(&house, &pack, &consent, [7; 16], &key).unwrap();
        let size = receipt.as_str().len();
        assert!(size <= limit, "{size} bytes");
        assert!(receipt.qr().unwrap().contains("<svg"));
    }
}

#[test]
fn an_export_has_what_article_15_lists_and_a_portability_file_what_was_provided() {
    let (pack, key, profile) = (Pack::embedded(), SigningKey::generate(), profile());
    let used = Use { at: GIVEN.after(DAY), terminal: "till-3".into(), purpose: Purpose::Pay };
    let subject = Subject {
        profile: &profile,
        uses: std::slice::from_ref(&used),
        phone: Some("+33612345678"),
        card_token: Some("tok_1"),
    };
    let text = export(&house(), &pack, &subject, None, &key);
    let copy: Value = serde_json::from_str(&text).unwrap();
    for (field, wanted) in [
        ("/controller/name", "Épicerie Dupont SAS, 1 rue de Lyon"),
        ("/held/purposes/0/basis", "GDPR Art. 6(1)(a), 9(2)(a): explicit consent"),
        ("/held/custody", "split"),
        ("/held/uses/0/terminal", "till-3"),
        ("/provided/phone", "+33612345678"),
        ("/provided/hands/0/template", "present"),
        ("/recipients/0/name", "cloud"),
        ("/retention/terms/0/data", "frames"),
        ("/complaint/url", "https://www.cnil.fr/fr/plaintes"),
    ] {
        assert_eq!(copy.pointer(field).and_then(Value::as_str), Some(wanted), "{field}");
    }
    assert_eq!(copy["held"]["objectsToAdvertising"], true);
    assert_eq!(copy["held"]["paidSinceStrongAuthentication"]["minorUnits"], 1_250);
    let receipts = copy["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 2);
    for receipt in receipts {
        ConsentReceipt::verify(&receipt.to_string(), &key.public()).unwrap();
    }
    assert!(copy.get("templates").is_none());
    let sealed = Sealed { key: [9; 32], envelope: vec![1, 2, 3], tenant: "chain".parse().unwrap() };
    let taken: Value =
        serde_json::from_str(&export(&house(), &pack, &subject, Some(&sealed), &key)).unwrap();
    assert_eq!(taken["templates"]["envelope"], "AQID");
    assert!(taken.get("held").is_none() && taken["provided"]["cardToken"] == "tok_1");
}

#[test]
fn the_id_of_a_consent_is_the_same_each_time_and_nobody_elses() {
    let pay = consent(Purpose::Pay);
    assert_eq!(record_id(&[4; 32], &pay), record_id(&[4; 32], &pay));
    let later = Consent { given_at: GIVEN.after(DAY), ..pay.clone() };
    let others = [
        record_id(&[5; 32], &pay),
        record_id(&[4; 32], &consent(Purpose::Entry)),
        record_id(&[4; 32], &later),
    ];
    assert!(others.iter().all(|other| *other != record_id(&[4; 32], &pay)));
}
