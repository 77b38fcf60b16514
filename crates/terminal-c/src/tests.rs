use super::*;
use palmgate_terminal::protocol::{
    CaptureId, Hand as Of, Purpose as To, PurposeSet,
    terminal::{Answer, AnswerBody, CaptureProblem, Refusal, Use as Used},
};
use std::{ffi::CString, mem::MaybeUninit};

fn last_error() -> String {
    let mut buffer = [1; 512];
    // SAFETY: the buffer has that room.
    let whole = unsafe { palmgate_last_error(buffer.as_mut_ptr(), buffer.len()) };
    let text = buffer[..whole].iter().map(|byte| byte.cast_unsigned()).collect();
    assert_eq!(buffer[whole], 0);
    String::from_utf8(text).unwrap()
}

fn empty_scan() -> Scan {
    // SAFETY: numbers and pointers of which 0 and NULL are values.
    unsafe { MaybeUninit::<Scan>::zeroed().assume_init() }
}

fn given(body: AnswerBody) -> *mut Given {
    Box::into_raw(Box::new(Given::new(Answer::new(CaptureId::from_random([1; 16]), body))))
}

#[test]
fn a_panic_ends_at_the_border() {
    let status = guarded(|| panic!("a defect"));
    assert_eq!(status, Status::Defect);
    assert!(last_error().contains("report"));
}

#[test]
fn null_is_misuse_everywhere_and_never_read() {
    let (none, text) = (ptr::null(), c"x".as_ptr());
    let mut terminal = ptr::null_mut();
    let mut answer = ptr::null_mut();
    let statuses = [
        // SAFETY: NULL is allowed.
        unsafe { palmgate_pair(none, text, text, text) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_pair_invited(none, text) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_connect(none, &raw mut terminal) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_ready(ptr::null(), 1) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_ping(ptr::null(), ptr::null_mut()) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_challenge(ptr::null(), ptr::null_mut()) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_scan(ptr::null(), ptr::null(), &raw mut answer) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_enrol(ptr::null(), ptr::null(), &raw mut answer) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_answer_get(ptr::null(), 0, 0, ptr::null_mut(), ptr::null_mut()) },
        // SAFETY: NULL is allowed.
        unsafe { palmgate_answer_use(ptr::null(), 0, ptr::null_mut()) },
    ];
    assert_eq!(statuses, [Status::Misuse; 10]);
    // SAFETY: NULL is allowed.
    unsafe { palmgate_close(ptr::null_mut()) };
    // SAFETY: NULL is allowed.
    unsafe { palmgate_answer_free(ptr::null_mut()) };
    assert!(terminal.is_null() && answer.is_null());
}

#[test]
fn a_wrong_code_or_directory_is_named_and_no_secret_is() {
    let invitation = "palmgate://till-1@127.0.0.1:1/0123-4567-89AB-CDEF-GHJK-MNPU";
    let invitation = CString::new(invitation).unwrap();
    let directory = c"/nowhere/that/exists";
    // SAFETY: both are texts.
    let status = unsafe { palmgate_pair_invited(invitation.as_ptr(), directory.as_ptr()) };
    assert_eq!(status, Status::Misuse);
    assert!(!last_error().contains("0123"), "{}", last_error());
    let mut terminal = ptr::null_mut();
    // SAFETY: a text, and a place for the result.
    let status = unsafe { palmgate_connect(directory.as_ptr(), &raw mut terminal) };
    assert_eq!(status, Status::StateDirectory);
    assert!(last_error().contains("pair it first"), "{}", last_error());
}

#[test]
fn a_short_buffer_gets_the_beginning_and_its_nul() {
    remember(Failure::misuse("a sentence"));
    let mut buffer = [1; 4];
    // SAFETY: the buffer has that room.
    let whole = unsafe { palmgate_last_error(buffer.as_mut_ptr(), buffer.len()) };
    assert_eq!(whole, 10);
    assert_eq!(buffer.map(i8::cast_unsigned), *b"a s\0");
    // SAFETY: NULL is allowed.
    assert_eq!(unsafe { palmgate_last_error(ptr::null_mut(), 10) }, 10);
}

#[test]
fn what_is_given_is_checked_before_it_is_read() {
    let read = |scan: Scan| {
        // SAFETY: every pointer is NULL or to something that lives.
        unsafe { scan.read() }.map(|scanned| (scanned.intent, scanned.hand))
    };
    let (intent, hand) = read(Scan { intent: 2, ..empty_scan() }).ok().unwrap();
    assert!(intent == palmgate_terminal::protocol::terminal::Intent::Entry);
    assert!(hand.frames.is_empty() && hand.claim.is_none());
    for wrong in [
        Scan { intent: 99, ..empty_scan() },
        Scan { intent: Intent::Pay as u32, ..empty_scan() },
        Scan { intent: Intent::Staff as u32, ..empty_scan() },
        Scan { intent: Intent::Port as u32, ..empty_scan() },
        Scan { intent: Intent::Withdraw as u32, purposes: 0, ..empty_scan() },
        Scan { intent: Intent::Withdraw as u32, purposes: 32, ..empty_scan() },
        Scan { intent: 2, frame_count: 1, ..empty_scan() },
        Scan { intent: 2, frame_count: usize::MAX, ..empty_scan() },
        Scan { intent: 2, claim_length: 1 << 20, ..empty_scan() },
    ] {
        let intent = wrong.intent;
        assert!(
            matches!(read(wrong), Err(failure) if failure.status == Status::Misuse),
            "{intent}"
        );
    }
    let picture = [7_u8; 16];
    let frame = |view| Frame { band: 1, picture: picture.as_ptr(), length: 16, view };
    let wrong = [frame(3)];
    let scan = Scan { intent: 1, frames: wrong.as_ptr(), frame_count: 1, ..empty_scan() };
    assert!(matches!(read(scan), Err(failure) if failure.status == Status::Misuse), "no view");
    let frames = [frame(2)];
    let scan = Scan { intent: 0, frames: frames.as_ptr(), frame_count: 1, ..empty_scan() };
    let payment = Payment {
        minor_units: 1999,
        currency: c"EUR".as_ptr(),
        payee: c"Acme".as_ptr(),
        nonce: [9; 16],
    };
    let challenge = [5_u8; 16];
    let named = Scan { challenge: challenge.as_ptr(), ..empty_scan() };
    let (_, hand) = read(Scan { intent: 2, ..named }).ok().unwrap();
    assert_eq!(hand.challenge.unwrap().as_bytes(), &challenge);
    let verdict = [0xd2_u8; 9];
    let vouched_for =
        |length| Scan { verdict: verdict.as_ptr(), verdict_length: length, ..empty_scan() };
    let (_, hand) = read(Scan { intent: 2, ..vouched_for(9) }).ok().unwrap();
    assert!(*hand.verdict.unwrap().expose() == verdict);
    let huge = read(Scan { intent: 2, ..vouched_for(1_537) });
    assert!(huge.is_err_and(|failure| failure.why.contains("verdict")));
    // SAFETY: numbers and pointers of which 0 and NULL are values.
    let enrolment = unsafe { MaybeUninit::<Enrolment>::zeroed().assume_init() };
    let (pointer, verdict_length) = (verdict.as_ptr(), verdict.len());
    let enrolment =
        Enrolment { verdict: pointer, verdict_length, challenge: challenge.as_ptr(), ..enrolment };
    // SAFETY: every pointer is NULL or to something that lives.
    let enrolled = unsafe { enrolment.read() }.ok().unwrap();
    assert_eq!(enrolled.challenge.unwrap().as_bytes(), &challenge);
    assert!(*enrolled.enrolment.verdict.unwrap().expose() == verdict);
    let (intent, hand) = read(Scan { payment: &raw const payment, ..scan }).ok().unwrap();
    assert!(hand.challenge.is_none());
    let palmgate_terminal::protocol::terminal::Intent::Pay(paid) = intent else { panic!("pay") };
    assert_eq!((paid.minor_units, paid.currency.as_str(), paid.nonce), (1999, "EUR", [9; 16]));
    assert!(*hand.frames[0].picture.expose() == picture);
    assert_eq!(hand.frames[0].region_of, Some(Of::Left));
    let latin1 = c"\xe9";
    let payment = Payment { payee: latin1.as_ptr(), ..payment };
    let scan = Scan { intent: 0, payment: &raw const payment, ..empty_scan() };
    assert!(read(scan).is_err_and(|failure| failure.why.contains("UTF-8")));
}

#[test]
fn the_parts_of_an_answer_are_those_of_its_outcome() {
    let part = |answer: *mut Given, field: Field, index| {
        let (mut bytes, mut length) = (ptr::null(), 0);
        // SAFETY: the answer lives, and there is a place for the result.
        let status = unsafe {
            palmgate_answer_get(answer, field as u32, index, &raw mut bytes, &raw mut length)
        };
        (status == Status::Ok).then(|| {
            // SAFETY: the library said so.
            unsafe { std::slice::from_raw_parts(bytes, length) }.to_vec()
        })
    };
    let retry = given(AnswerBody::Retry { problem: CaptureProblem::Blurred, index: 0 });
    // SAFETY: it lives.
    assert_eq!(unsafe { palmgate_answer_outcome(retry) }, Outcome::Retry);
    assert_eq!(part(retry, Field::Prompt, 0).unwrap(), b"Hold your hand still.");
    assert!(part(retry, Field::Prompt, 1).is_none() && part(retry, Field::Reason, 0).is_none());
    // SAFETY: it lives, and nobody uses it afterwards.
    unsafe { palmgate_answer_free(retry) };
    let refused = given(AnswerBody::Refused { reason: Refusal::StepUp });
    assert_eq!(part(refused, Field::Reason, 0).unwrap(), b"step-up");
    // SAFETY: it lives, and nobody uses it afterwards.
    unsafe { palmgate_answer_free(refused) };
    let uses = vec![Used {
        at: palmgate_terminal::protocol::Timestamp::from_millis(5),
        terminal: "till-1".into(),
        purpose: To::Loyalty,
    }];
    let history = given(AnswerBody::History { uses, consents: PurposeSet::default() });
    let mut one = Use { at_ms: 0, purpose: 0, terminal: ptr::null() };
    // SAFETY: the answer lives, and there is a place for the result.
    assert_eq!(unsafe { palmgate_answer_use(history, 0, &raw mut one) }, Status::Ok);
    // SAFETY: the library gave a text that lives as long as the answer.
    let place = unsafe { std::ffi::CStr::from_ptr(one.terminal) };
    assert_eq!((one.at_ms, one.purpose, place), (5, Purpose::Loyalty as u32, c"till-1"));
    // SAFETY: the answer lives, and there is a place for the result.
    assert_eq!(unsafe { palmgate_answer_use(history, 1, &raw mut one) }, Status::Absent);
    // SAFETY: it lives, and nobody uses it afterwards.
    unsafe { palmgate_answer_free(history) };
}
