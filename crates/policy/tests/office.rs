//! Requests and their clocks, holds, breaches, and the opening of a store.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    Dossier, Law, Measured, Opening, Pack, Settings,
    office::{Breach, Explanation, Hold, Request, RequestKind, Urgency},
};
use palmgate_protocol::{Custody, DAY, Timestamp};

/// 31 January 2026, 10:00 UTC.
const RECEIVED: Timestamp = Timestamp::from_millis(1_769_853_600_000);

fn law(settings: &Settings) -> Law {
    Law::new(Pack::embedded(), &settings.store_facts())
}

fn cited(verdict: &palmgate_policy::pack::Verdict) -> Vec<String> {
    verdict.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn a_request_of_the_31st_of_january_is_due_with_february_and_warns_before() {
    let (pack, request) = (Pack::embedded(), Request::new(RequestKind::Access, RECEIVED));
    let due = request.due(&pack);
    assert_eq!(due.as_millis(), 1_772_319_600_000, "the end of 28 February in Paris");
    let before = |days: i64| Timestamp::from_millis(due.as_millis() - days * 86_400_000);
    assert_eq!(request.urgency(&pack, before(11)), Urgency::Calm);
    assert_eq!(request.urgency(&pack, before(10)), Urgency::Soon);
    assert_eq!(request.urgency(&pack, before(3)), Urgency::Now);
    assert_eq!(request.urgency(&pack, due), Urgency::Late);
}

#[test]
fn two_months_more_need_reasons_told_within_the_first() {
    let law = law(&Settings::default());
    let mut request = Request::new(RequestKind::Erasure, RECEIVED);
    let told = RECEIVED.after(10 * DAY);
    let late = request.due(law.pack());
    for (months, reasons, told) in [(2, " ", told), (2, "complex", late), (3, "complex", told)] {
        let denial = request.extend(&law, months, reasons, told).unwrap_err();
        assert_eq!(cited(&denial), ["G-12-3"]);
    }
    request.extend(&law, 2, "complex", told).unwrap();
    assert_eq!(request.due(law.pack()).as_millis(), 1_777_586_400_000, "the end of 30 April");
    assert_eq!(cited(&request.grant(&law, 500, told).unwrap_err()), ["G-12-5"]);
    request.grant(&law, 0, told).unwrap();
    assert_eq!(request.urgency(law.pack(), late.after(400 * DAY)), Urgency::Closed);
}

#[test]
fn a_refusal_says_why_and_where_to_complain() {
    let law = law(&Settings::default());
    let mut request = Request::new(RequestKind::Access, RECEIVED);
    let said = |reasons: &str, complaint_route: &str| Explanation {
        reasons: reasons.into(),
        complaint_route: complaint_route.into(),
    };
    for half in [said("unfounded", ""), said("", "cnil.fr")] {
        assert_eq!(cited(&request.refuse(&law, &half, RECEIVED).unwrap_err()), ["G-12-4"]);
    }
    request.refuse(&law, &said("unfounded", "cnil.fr"), RECEIVED).unwrap();
}

#[test]
fn a_hold_names_its_article_and_its_end_and_never_covers_a_palm() {
    let law = law(&Settings::default());
    let signed = || ["A. Martin".to_owned(), "B. Petit".to_owned()];
    let ends = RECEIVED.after(90 * DAY);
    let place = |items: &[&'static str], article, ends, by| {
        Hold::place(&law, items, article, ends, by, RECEIVED)
    };
    let hold = place(&["use"], "17(3)(e)", ends, signed()).unwrap();
    assert!(
        hold.keeps("use", RECEIVED) && !hold.keeps("use", ends) && !hold.keeps("phone", RECEIVED)
    );
    for biometric in ["template", "staff-template", "frames", "probe"] {
        let denial = place(&["use", biometric], "17(3)(e)", ends, signed()).unwrap_err();
        assert_eq!(cited(&denial), ["E-CEF25"], "{biometric}");
    }
    let twice = ["A. Martin".to_owned(), "A. Martin ".to_owned()];
    for denial in [
        place(&["use"], "6(1)(f)", ends, signed()),
        place(&["use"], "17(3)(e)", RECEIVED, signed()),
        place(&["use"], "17(3)(e)", RECEIVED.after(6 * 366 * DAY), signed()),
        place(&["use"], "17(3)(e)", ends, twice),
    ] {
        assert_eq!(cited(&denial.unwrap_err()), ["G-17-3"]);
    }
}

#[test]
fn a_breach_is_due_in_seventy_two_hours_and_its_report_is_complete() {
    let pack = Pack::embedded();
    // 28 March 2026, 12:00 UTC: the clocks change in between.
    let aware = Timestamp::from_millis(1_774_699_200_000);
    let mut breach = Breach { aware: Some(aware), ..Breach::default() };
    let due = breach.due(&pack).unwrap();
    assert_eq!(due.since(aware), 3 * DAY);
    assert_eq!(breach.missing(&pack, aware).len(), 4);
    for field in
        [&mut breach.nature, &mut breach.contact, &mut breach.consequences, &mut breach.measures]
    {
        *field = "told".into();
    }
    assert!(breach.missing(&pack, aware).is_empty());
    assert_eq!(breach.missing(&pack, due), ["reasons for the delay"]);
    assert_eq!(Breach::default().due(&pack), None);
}

#[test]
fn a_store_on_a_desk_opens_and_a_production_store_says_all_that_it_lacks() {
    let refusals = |production, custody, opening: &Opening| {
        let law = law(&Settings { production, custody, ..Settings::default() });
        let refusals = law.refusals(opening).into_iter();
        refusals.map(|citation| citation.rule.to_string()).collect::<Vec<_>>()
    };
    let nothing = Opening::default();
    assert!(refusals(false, Custody::Split, &nothing).is_empty());
    let lacking = refusals(true, Custody::Split, &nothing);
    for rule in ["G-26", "G-35", "C-RT-06", "C-RT-10h", "I-19795-1", "I-30107-3", "A-50"] {
        assert!(lacking.iter().any(|cited| cited == rule), "{rule} in {lacking:?}");
    }
    assert_eq!(refusals(false, Custody::Operator, &nothing), ["C-PRO-4", "C-RT-07c", "E-1124-3"]);
    let dossier = |signatures, days| Opening {
        dossier: Some(Dossier { reasons: true, signatures, days }),
        dpia_days: Some(1),
        dpia_covers: true,
        ..Opening::default()
    };
    assert!(refusals(false, Custody::Operator, &dossier(2, 300)).is_empty());
    for (signatures, days) in [(1, 300), (2, 400), (2, 0)] {
        let refused = refusals(false, Custody::Operator, &dossier(signatures, days));
        assert_eq!(refused, ["C-RT-07c"], "{signatures} {days}");
    }
    let complete = Opening {
        controller: true,
        dpia_days: Some(30),
        dpia_covers: true,
        dpo_opinion: true,
        administrators: 2,
        sign: true,
        signed_release: true,
        measured: Some(Measured {
            false_match_per_billion: 1_000,
            false_positive_per_million: 1,
            apcer_permille: 50,
            bpcer_permille: 30,
            linkability_permille: 10,
        }),
        ..Opening::default()
    };
    assert!(refusals(true, Custody::Split, &complete).is_empty());
    let abroad = Opening { egress: vec!["us".into()], ..complete.clone() };
    assert_eq!(refusals(true, Custody::Split, &abroad), ["G-44"]);
    let untermed = Opening { stored: vec!["gait".into()], ..complete };
    assert_eq!(refusals(true, Custody::Split, &untermed), ["G-05-E"]);
}

#[test]
fn a_refusal_to_open_is_a_sentence_with_its_source() {
    let opening = Opening { fallback: false, ..Opening::default() };
    let law = law(&Settings::default());
    let sentences: Vec<_> = law.refusals(&opening).iter().map(ToString::to_string).collect();
    let european = "rule X-EAA (Dir. (EU) 2019/882 Annex I section I(2)): ";
    assert!(sentences.iter().any(|sentence| sentence.starts_with(european)), "{sentences:?}");
    assert_eq!(sentences.len(), 3, "E-86, X-EAA and C-RT-10g: {sentences:?}");
}
