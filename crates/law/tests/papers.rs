//! Papers follow from the pack and the store.
#![allow(clippy::unwrap_used)]

use palmgate_law::{
    ConsentReceipt, House, NOTICE_ITEMS, Processor, ReceiptError, dpia, notice, ropa, sign,
};
use palmgate_policy::Pack;
use palmgate_protocol::{Custody, DAY, Purpose, PurposeSet, Timestamp, cloud::Consent};
use palmgate_seal::sign::SigningKey;

fn house() -> House {
    House {
        controller: "Épicerie <Dupont> SAS, 1 rue de Lyon".into(),
        contact: "contact@dupont.example".into(),
        dpo: "dpo@dupont.example".into(),
        place: "Lyon".into(),
        custody: Custody::Split,
        purposes: PurposeSet::default().with(Purpose::Pay).with(Purpose::Staff),
        fallback: "Pay by card: the price is the same.".into(),
        processors: vec![Processor {
            name: "Cloud | SA".into(),
            what: "sealed records".into(),
            region: "fr".into(),
            contract: "C-7".into(),
        }],
        inactivity_days: 120,
        zones: vec!["vault".into()],
        residual_risks: vec!["A lost token".into()],
    }
}

#[test]
fn a_notice_has_all_twelve_items_in_both_languages() {
    let pack = Pack::embedded();
    for language in ["en", "fr", "fr-BE", "de"] {
        let paper = notice(&house(), &pack, language);
        assert_eq!(paper.missing, Vec::<&str>::new());
        assert_eq!(paper.sections.len(), NOTICE_ITEMS.len());
        let text = paper.markdown();
        for part in ["Dupont", "dpo@dupont.example", "120", "CNIL", "Pay by card", "Cloud"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let french = notice(&house(), &pack, "fr").markdown();
    assert!(french.contains("Payer avec la paume") && !french.contains("Name your loyalty"));
}

#[test]
fn a_missing_item_is_named() {
    let pack = Pack::embedded();
    let lint = |change: &dyn Fn(&mut House)| {
        let mut house = house();
        change(&mut house);
        notice(&house, &pack, "en").missing
    };
    assert_eq!(lint(&|house| house.dpo.clear()), ["dpo"]);
    assert_eq!(lint(&|house| house.fallback = " ".into()), ["voluntary"]);
    assert_eq!(lint(&|house| house.processors[0].region = "us".into()), ["transfers"]);
    let nothing = lint(&|house| house.purposes = PurposeSet::default());
    assert_eq!(nothing, ["purposes", "basis"]);
    let nobody = lint(&|house| {
        house.controller.clear();
        house.contact.clear();
    });
    assert_eq!(nobody, ["controller"]);
}

#[test]
fn the_record_of_processing_names_every_purpose_and_term() {
    let pack = Pack::embedded();
    let text = ropa(&house(), &pack, "en").markdown();
    for term in pack.retention() {
        assert!(text.contains(&format!("| {} |", term.item)), "{}", term.item);
    }
    assert!(text.contains("pay: ") && text.contains("staff: ") && !text.contains("loyalty: "));
    assert!(text.contains("LIL Art. 44-4°") && text.contains("Cloud \\| SA"), "{text}");
}

#[test]
fn the_annex_says_what_is_not_enforced() {
    let pack = Pack::embedded();
    let text = dpia(&house(), &pack, "en").markdown();
    assert!(text.contains("A lost token") && text.contains("Type 2"));
    let held = text.matches("| yes |").count();
    assert_eq!(held, pack.coverage().enforced);
    assert!(text.contains("C-RT-10e: "), "an open row is a residual risk");
    let operator = House { custody: Custody::Operator, ..house() };
    assert!(dpia(&operator, &pack, "fr").markdown().contains("11/2024"));
}

#[test]
fn html_escapes_what_people_wrote() {
    let pack = Pack::embedded();
    for paper in [
        notice(&house(), &pack, "fr"),
        ropa(&house(), &pack, "fr"),
        dpia(&house(), &pack, "fr"),
        sign(&house(), &pack, "fr"),
    ] {
        let html = paper.html();
        assert!(!html.contains("<Dupont>") && html.contains("&lt;Dupont&gt;"), "{html}");
        assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"fr\">"));
        let hash = data_encoding::HEXLOWER.encode(&pack.hash());
        assert!(html.contains(&hash), "the paper says what it was made from");
    }
}

#[test]
fn a_consent_receipt_is_signed_and_fits_a_qr_code() {
    let (pack, key) = (Pack::embedded(), SigningKey::generate());
    let given_at = Timestamp::from_millis(1_800_000_000_000);
    let consent = |purpose| Consent {
        purpose,
        given_at,
        expires_at: given_at.after(365 * DAY),
        notice: "fr-cnil-1".into(),
        language: "fr".into(),
    };
    let issue = |purpose| ConsentReceipt::issue(&house(), &pack, &consent(purpose), [7; 16], &key);
    let receipt = issue(Purpose::Pay).unwrap();
    let body = ConsentReceipt::verify(receipt.as_str(), &key.public()).unwrap();
    for field in [
        "dpv:schemaVersion",
        "@id",
        "dpv:hasDataSubject",
        "dpv:hasNotice",
        "dpv:hasPurpose",
        "dpv:hasPersonalData",
        "dpv:hasProcessing",
        "dpv:hasStorageCondition",
        "dpv:hasDataController",
        "dpv:hasLegalBasis",
        "dpv:hasRecipient",
        "dpv:hasWithdrawalMethod",
        "dpv:hasJurisdiction",
        "dpv:hasRight",
        "dpv:hasConsentStatus",
    ] {
        assert!(!body[field].is_null(), "{field}");
    }
    assert!(body["dpv:hasPurpose"]["dct:description"].as_str().unwrap().contains("Payer"));
    assert!(receipt.qr().unwrap().contains("<svg"));
    let forged = receipt.as_str().replace("fr-cnil-1", "fr-cnil-2");
    let other = SigningKey::generate().public();
    for (text, key) in [(forged.as_str(), key.public()), (receipt.as_str(), other)] {
        assert_eq!(ConsentReceipt::verify(text, &key), Err(ReceiptError::Signature));
    }
    assert_eq!(ConsentReceipt::verify("{}", &other), Err(ReceiptError::Malformed));
}
