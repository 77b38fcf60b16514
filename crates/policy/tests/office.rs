//! Requests and their clocks, holds, breaches, and the opening of a store.
#![allow(clippy::unwrap_used)]

use palmgate_policy::{
    Dossier, Law, Measured, Opening, Pack, Settings,
    deadline::Calendar,
    office::{
        Breach, Denied, Desk, Duty, Explanation, Hold, OfficeAct, Outside, Request, RequestKind,
        Scope, Urgency,
    },
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

#[test]
fn the_office_acts_as_the_pack_allows_and_nothing_changes_otherwise() {
    let (law, mut desk) = (law(&Settings::default()), Desk::default());
    let received = RECEIVED.as_millis();
    let open = |reference: &str| OfficeAct::OpenRequest {
        kind: RequestKind::Access,
        received,
        reference: reference.into(),
    };
    let opened = desk.act(&law, open("2026-17"), RECEIVED).unwrap();
    assert_eq!((opened.id, opened.word), (1, "request-opened"));
    assert_eq!(opened.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["G-12-3"]);
    let before = desk.clone();
    let refuse = |id, reasons: &str| OfficeAct::RefuseRequest { id, reasons: reasons.into() };
    let later = RECEIVED.after(10 * DAY);
    for (act, wanted) in [
        (refuse(1, " "), "rule G-12-4 (GDPR Art. 12(4))"),
        (refuse(1, "see 4111 1111 1111 1111"), "P-PCI-1"),
        (refuse(9, "unfounded"), "no request 9"),
        (open(" "), "reference"),
        (OfficeAct::ExtendRequest { id: 1, months: 3, reasons: "complex".into() }, "G-12-3"),
        (OfficeAct::AskIdentity { id: 1, doubt: String::new() }, "G-12-6"),
        (
            OfficeAct::OpenRequest {
                kind: RequestKind::Erasure,
                received: later.after(DAY).as_millis(),
                reference: "2026-18".into(),
            },
            "future",
        ),
        (refuse(1, &"a".repeat(5_000)), "4,000 bytes"),
    ] {
        let denied = desk.act(&law, act.clone(), later).unwrap_err().to_string();
        assert!(denied.contains(wanted), "{act:?}: {denied}");
    }
    assert_eq!(desk, before);
    let extend = OfficeAct::ExtendRequest { id: 1, months: 2, reasons: "complex".into() };
    desk.act(&law, extend, later).unwrap();
    desk.act(&law, refuse(1, "unfounded"), later).unwrap();
    let again = desk.act(&law, OfficeAct::GrantRequest { id: 1 }, later);
    assert_eq!(again.unwrap_err(), Denied::Closed("request", 1));
    // Closed requests go with their term, unless a hold keeps them.
    let gone = later.after(6 * 366 * DAY);
    let mut held = desk.clone();
    assert!(desk.sweep(&law, gone) && desk.requests().count() == 0);
    let hold = OfficeAct::PlaceHold {
        items: vec!["rights-request".into()],
        article: "17(3)(e)".into(),
        ends: gone.after(300 * DAY).as_millis(),
        signed_by: ["A. Martin".into(), "B. Petit".into()],
        scope: Scope::default(),
    };
    held.act(&law, hold, gone).unwrap();
    assert!(!held.sweep(&law, gone) && held.requests().count() == 1);
    assert!(held.sweep(&law, gone.after(301 * DAY)));
    assert_eq!((held.requests().count(), held.holds().count()), (0, 0));
}

#[test]
fn what_is_missed_is_an_alarm_with_its_rule_and_stops_when_it_is_done() {
    let (law, mut desk) = (law(&Settings::default()), Desk::default());
    desk.begin(RECEIVED);
    let alarms = |desk: &Desk, outside: &Outside, now| -> Vec<String> {
        let review = desk.review(&law, outside, now);
        law.alarms(&review).iter().map(|alarm| alarm.rule.to_string()).collect()
    };
    let nothing = Outside::default();
    assert!(alarms(&desk, &nothing, RECEIVED.after(30 * DAY)).is_empty());
    let late = RECEIVED.after(40 * DAY);
    assert_eq!(alarms(&desk, &nothing, late), ["A-50", "G-32"]);
    for duty in [Duty::RestoreDrill, Duty::SecurityTest, Duty::Training] {
        let done = OfficeAct::RecordDuty { duty, done: late.as_millis() };
        desk.act(&law, done, late).unwrap();
    }
    assert!(alarms(&desk, &nothing, late).is_empty());
    let waiting = Outside { unconfirmed_since: Some(late), ..nothing };
    assert!(alarms(&desk, &waiting, late.after(DAY)).is_empty());
    let hour = std::time::Duration::from_hours(1);
    assert_eq!(alarms(&desk, &waiting, late.after(DAY + hour)), ["G-19"]);
    let old = Outside { assessed: Some(RECEIVED), ..nothing };
    assert!(alarms(&desk, &old, late).is_empty());
    let years = RECEIVED.after(1_100 * DAY);
    assert!(alarms(&desk, &old, years).contains(&"C-RT-11".to_owned()));
    let aware = late.as_millis();
    let breach = OfficeAct::OpenBreach { aware, nature: "a box was stolen".into() };
    let id = desk.act(&law, breach, late).unwrap().id;
    assert!(alarms(&desk, &nothing, late.after(3 * DAY)).is_empty());
    assert_eq!(alarms(&desk, &nothing, late.after(3 * DAY + hour)), ["G-33"]);
    let report = |desk: &mut Desk, now| desk.act(&law, OfficeAct::ReportBreach { id }, now);
    let incomplete = report(&mut desk, late.after(4 * DAY)).unwrap_err();
    assert!(matches!(&incomplete, Denied::Incomplete(missing) if missing.len() == 4));
    let text = |text: &str| text.to_owned();
    let describe = OfficeAct::DescribeBreach {
        id,
        nature: String::new(),
        contact: text("dpo@example.com"),
        consequences: text("none: the keys lie with the people"),
        measures: text("the certificate is revoked"),
        delay_reasons: text("found out on a Sunday"),
    };
    desk.act(&law, describe, late.after(4 * DAY)).unwrap();
    report(&mut desk, late.after(4 * DAY)).unwrap();
    assert!(alarms(&desk, &nothing, late.after(5 * DAY)).is_empty());
    let request = OfficeAct::OpenRequest {
        kind: RequestKind::Erasure,
        received: late.as_millis(),
        reference: "2026-3".into(),
    };
    desk.act(&law, request, late).unwrap();
    let due = desk.requests().next().unwrap().1.due(law.pack());
    let drill = OfficeAct::RecordDuty { duty: Duty::RestoreDrill, done: due.as_millis() };
    desk.act(&law, drill, due).unwrap();
    assert_eq!(alarms(&desk, &nothing, due), ["G-12-3"]);
}

/// Every deadline of the packs, from every day on which calendars go wrong.
#[test]
fn every_deadline_holds_on_awkward_days() {
    let law = law(&Settings::default());
    let (pack, calendar) = (law.pack(), Calendar::new(law.pack()));
    let at = |text: &str| -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    };
    let days = [
        "1970-01-01T00:00:00Z",
        "2028-02-29T12:00:00Z",
        "2028-02-29T22:59:59Z",
        "2027-01-31T10:00:00Z",
        "2028-01-31T10:00:00Z",
        "2026-03-28T12:00:00Z",
        "2026-03-29T00:59:59Z",
        "2026-10-24T12:00:00Z",
        "2026-10-25T00:30:00Z",
        "2016-12-31T23:59:60Z",
        "2026-12-31T23:30:00Z",
    ];
    for from in days.map(at) {
        let next = |span: jiff::Span| calendar.after(from, span);
        let request = Request::new(RequestKind::Access, from);
        let due = request.due(pack);
        assert_eq!(due, next(jiff::Span::new().months(1)));
        assert!((28..=32).contains(&calendar.days_between(from, due)), "{from:?}");
        // The last moment is in time and the next one is late, whatever the clocks did.
        let last = Timestamp::from_millis(due.as_millis() - 1);
        assert_ne!(request.urgency(pack, last), Urgency::Late);
        assert_eq!(request.urgency(pack, due), Urgency::Late);
        let mut longer = request.clone();
        longer.extend(&law, 2, "complex", from).unwrap();
        let three = longer.due(pack);
        assert_eq!(three, next(jiff::Span::new().months(3)));
        assert!((89..=93).contains(&calendar.days_between(from, three)), "{from:?}");
        let breach = Breach { aware: Some(from), ..Breach::default() };
        assert_eq!(breach.due(pack).unwrap().since(from), 3 * DAY, "hours are hours");
        for term in pack.retention() {
            let end = calendar.gone_by(term, from);
            assert!(end > from && end.as_millis() < i64::MAX, "{}", term.item);
        }
        for months in 1..=48 {
            let end = calendar.months_after(from, months);
            let (day, last) = (calendar.day(from), Timestamp::from_millis(end.as_millis() - 1));
            let last = calendar.day(last);
            let wanted = day.saturating_add(jiff::Span::new().months(months));
            assert_eq!(last, wanted, "{from:?} and {months} months");
        }
        let signed = || ["A. Martin".to_owned(), "B. Petit".to_owned()];
        let ends = from.after(1827 * DAY);
        let hold = Hold::place(&law, &["use"], "17(3)(b)", ends, signed(), from).unwrap();
        let just = Timestamp::from_millis(ends.as_millis() - 1);
        assert!(hold.keeps("use", just) && !hold.keeps("use", ends));
        assert!(Hold::place(&law, &["use"], "17(3)(b)", ends.after(DAY), signed(), from).is_err());
    }
}
