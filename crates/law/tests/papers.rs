//! Papers follow from the pack and the store.
#![allow(clippy::unwrap_used)]

use palmgate_law::{
    House, NOTICE_ITEMS, Processor, breach_draft, dpia, extension, identity, notice,
    receipt_of_request, refusal, ropa, sign,
};
use palmgate_policy::{
    Law, Pack, Settings,
    office::{Breach, Request, RequestKind},
};
use palmgate_protocol::{Custody, DAY, Purpose, PurposeSet, Timestamp};

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
    for row in pack.rows() {
        let open = row.standing == palmgate_policy::pack::Standing::Open;
        let risk = format!("\n{}: ", row.rule);
        assert_eq!(text.contains(&risk), open, "an open row is a residual risk: {}", row.rule);
    }
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
fn the_sign_for_the_entrance_says_what_it_must_in_both_languages() {
    let pack = Pack::embedded();
    for (language, words) in [
        ("en", ["recognise your palm", "Only if you enrolled", "You need not", "Pay by card"]),
        ("fr", ["reconnaître votre paume", "Seulement si", "Rien ne vous y oblige", "Pay by card"]),
    ] {
        let text = sign(&house(), &pack, language).markdown();
        for word in words.into_iter().chain(["Dupont", "contact@dupont.example"]) {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}

/// 31 January 2026, 10:00 UTC.
const RECEIVED: Timestamp = Timestamp::from_millis(1_769_853_600_000);

#[test]
fn letters_say_when_why_and_where_to_complain() {
    let pack = Pack::embedded();
    let law = Law::new(Pack::embedded(), &Settings::default().store_facts());
    let mut request = Request::new(RequestKind::Access, RECEIVED);
    request.reference = "2026-17".into();
    for (language, right) in [("en", "access (Art. 15)"), ("fr", "accès (art. 15)")] {
        let opened = receipt_of_request(&house(), &pack, &request, language).markdown();
        for part in ["2026-17", "2026-01-31", "2026-02-28", right, "Dupont"] {
            assert!(opened.contains(part), "{part} in {opened}");
        }
        let mut longer = request.clone();
        longer.extend(&law, 2, "complex", RECEIVED.after(DAY)).unwrap();
        let later = extension(&house(), &pack, &longer, "because", language).markdown();
        let refused = refusal(&house(), &pack, &request, "because", language).markdown();
        let doubted = identity(&house(), &pack, &request, "because", language).markdown();
        assert!(later.contains("2026-04-30"), "{later}");
        for letter in [later, refused, doubted] {
            assert!(letter.contains("because") && letter.contains("cnil.fr"), "{letter}");
        }
    }
}

#[test]
fn the_draft_of_a_report_has_the_clock_and_says_what_it_lacks() {
    let pack = Pack::embedded();
    let mut breach =
        Breach { aware: Some(RECEIVED), nature: "a box was stolen".into(), ..Breach::default() };
    let draft = breach_draft(&house(), &pack, &breach, RECEIVED, "fr");
    assert_eq!(draft.missing, ["contact", "consequences", "measures"]);
    let text = draft.markdown();
    for part in ["2026-01-31T10:00:00Z", "2026-02-03T10:00:00Z", "a box was stolen", "CNIL"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("seule clé de chacun est chez sa personne"), "Art. 34(3)(a): {text}");
    for field in [&mut breach.contact, &mut breach.consequences, &mut breach.measures] {
        *field = "told".into();
    }
    let late = breach_draft(&house(), &pack, &breach, RECEIVED.after(3 * DAY), "en");
    assert_eq!(late.missing, ["reasons for the delay"]);
    assert!(late.markdown().contains("Reasons for the delay"));
}
