//! The terminal SDK for C: [`include/palmgate.h`](../include/palmgate.h) is made from this.
//!
//! Every function may be called from any thread and blocks until it is done. What is given is copied
//! before the call returns; what is returned through a pointer belongs to the caller and has a
//! function that frees it. A panic ends at the border, as [`Status::Defect`]. Nothing is printed.

mod answer;
mod given;
mod status;

pub use answer::{Field, Given, Outcome, Use};
pub use given::{
    Age, Band, Capture, Consent, Enrolment, Frame, Hand, Intent, Payment, Purpose, Scan, View,
};
pub use status::Status;

use given::{one, required};
use palmgate_terminal::{
    Connection, Invitation, Paired, PairingCode, Terminal, TerminalError, protocol::Name,
};
use status::{Failure, last, remember};
use std::{
    ffi::c_char,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr,
    time::Duration,
};
use tokio::runtime::Runtime;

/// How far the way to the gateway is open.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// The first connection to the broker is being made.
    Connecting = 0,
    /// No connection to the broker; the terminal keeps trying.
    Offline = 1,
    /// Connected to the broker; the gateway has not answered yet.
    Joining = 2,
    /// The gateway answers.
    Ready = 3,
}

/// A connected terminal; end it with `palmgate_close`.
pub struct Handle {
    terminal: Terminal,
    runtime: Runtime,
}

/// Runs `work`; what fails is remembered for this thread, what panics goes no further.
fn guarded(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(failure)) => remember(failure),
        Err(_) => {
            let why = "a defect of the library: report what was done before".to_owned();
            remember(Failure { status: Status::Defect, why })
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("palmgate")
        .enable_all()
        .build();
    built.map_err(|error| Failure { status: Status::Defect, why: error.to_string() })
}

/// Gives a value to the caller.
///
/// # Safety
/// `out` is NULL or may be written.
unsafe fn give<T>(out: *mut T, value: T) -> Result<(), Failure> {
    if out.is_null() || !out.is_aligned() {
        return Err(Failure::misuse("the place for the result is NULL or not aligned"));
    }
    // SAFETY: it is not NULL, aligned, and may be written by the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// The sentence about the last call of this thread that failed, in English. Writes at most `length`
/// bytes, the last of them NUL, and returns how many bytes the whole has without it.
///
/// # Safety
/// `buffer` is NULL or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_last_error(buffer: *mut c_char, length: usize) -> usize {
    let text = last();
    let copied = text.len().min(length.saturating_sub(1));
    if !buffer.is_null() && length > 0 {
        // SAFETY: there is room for `copied` bytes and one more by the caller's promise.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), copied) };
        // SAFETY: `copied` is less than `length`.
        let end = unsafe { buffer.add(copied) };
        // SAFETY: it is within the buffer.
        unsafe { end.write(0) };
    }
    text.len()
}

/// Pairs this device by what the gateway's QR code says, and keeps its key and certificate in
/// `directory`, which is made with mode 0700. Nothing is kept when it fails.
///
/// # Safety
/// Both texts are NULL or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_pair_invited(
    invitation: *const c_char,
    directory: *const c_char,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let invitation: Invitation = unsafe { required(invitation, "invitation") }?.parse()?;
        // SAFETY: the caller's promise is passed on.
        let directory = unsafe { required(directory, "directory") }?;
        let pairing = Paired::accept(&invitation, Path::new(&directory));
        Ok(runtime()?.block_on(pairing).map(drop)?)
    })
}

/// Pairs this device as `name` with the code that a person typed. `gateway_url` is
/// `https://HOST:PORT`.
///
/// # Safety
/// All texts are NULL or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_pair(
    gateway_url: *const c_char,
    code: *const c_char,
    name: *const c_char,
    directory: *const c_char,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let url = unsafe { required(gateway_url, "gateway_url") }?;
        // SAFETY: the caller's promise is passed on.
        let code = PairingCode::parse(&unsafe { required(code, "code") }?);
        let code = code.map_err(|error| Failure::misuse(error.to_string()))?;
        // SAFETY: the caller's promise is passed on.
        let name = unsafe { required(name, "name") }?.parse::<Name>();
        let name = name.map_err(|error| Failure::misuse(error.to_string()))?;
        // SAFETY: the caller's promise is passed on.
        let directory = unsafe { required(directory, "directory") }?;
        let pairing = Paired::pair(&url, &code, &name, Path::new(&directory));
        Ok(runtime()?.block_on(pairing).map(drop)?)
    })
}

/// Starts to connect the terminal that was paired in `directory`, and returns at once. The terminal
/// keeps itself connected, and renews its certificate, until it is closed.
///
/// # Safety
/// `directory` is NULL or ends with NUL; `terminal` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_connect(
    directory: *const c_char,
    terminal: *mut *mut Handle,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let directory = unsafe { required(directory, "directory") }?;
        let runtime = runtime()?;
        let paired = Paired::open(Path::new(&directory))?;
        let connected = runtime.block_on(async { Terminal::connect(paired) })?;
        let handle = Box::into_raw(Box::new(Handle { terminal: connected, runtime }));
        // SAFETY: the caller's promise is passed on.
        unsafe { give(terminal, handle) }.inspect_err(|_| {
            // SAFETY: nobody else has it.
            drop(unsafe { Box::from_raw(handle) });
        })
    })
}

/// Waits until the gateway answers, `milliseconds` at most.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_ready(terminal: *const Handle, milliseconds: u32) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let Handle { terminal, runtime } = unsafe { one(terminal, "terminal") }?;
        let limit = Duration::from_millis(milliseconds.into());
        Ok(runtime.block_on(terminal.ready(limit))?)
    })
}

/// How far the way to the gateway is open now, for a lamp or a screen.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_connection(terminal: *const Handle) -> Connected {
    // SAFETY: the caller's promise is passed on.
    let Ok(handle) = (unsafe { one(terminal, "terminal") }) else { return Connected::Offline };
    let now = catch_unwind(AssertUnwindSafe(|| handle.terminal.watch().borrow().clone()));
    match now {
        Ok(Connection::Connecting) => Connected::Connecting,
        Ok(Connection::Joining) => Connected::Joining,
        Ok(Connection::Ready) => Connected::Ready,
        Ok(Connection::Offline(_)) | Err(_) => Connected::Offline,
    }
}

/// The number and the SHA-256 (32 bytes) of the store's list of terminals, as `palmgate terminal list`
/// shows them on the box. `PALMGATE_STATUS_ABSENT` before the gateway has answered, and where it is of
/// a version before such lists; `PALMGATE_STATUS_ROSTER` when the list does not hold.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed; `number` is NULL or may be written;
/// `hash` is NULL or has room for 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_roster(
    terminal: *const Handle,
    number: *mut u64,
    hash: *mut u8,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let Handle { terminal, .. } = unsafe { one(terminal, "terminal") }?;
        let why = "the gateway has given no list of terminals".to_owned();
        let roster = terminal.roster()?.ok_or(Failure { status: Status::Absent, why })?;
        // SAFETY: the caller's promise is passed on.
        unsafe { give(number, roster.roster.sequence) }?;
        // SAFETY: the caller's promise is passed on; bytes need no alignment.
        unsafe { give(hash.cast(), roster.hash) }
    })
}

/// Ends the connection and frees the terminal; NULL is allowed.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, not closed before and in use by no other call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_close(terminal: *mut Handle) {
    if terminal.is_null() {
        return;
    }
    // SAFETY: it was made by `palmgate_connect` and is the caller's alone by their promise.
    let Handle { terminal, runtime } = *unsafe { Box::from_raw(terminal) };
    let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(terminal.close())));
}

/// Sends a ping through broker and seal, and gives its way there and back in microseconds.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed; `microseconds` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_ping(terminal: *const Handle, microseconds: *mut u64) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let Handle { terminal, runtime } = unsafe { one(terminal, "terminal") }?;
        let took = runtime.block_on(terminal.ping())?.as_micros();
        // SAFETY: the caller's promise is passed on.
        unsafe { give(microseconds, u64::try_from(took).unwrap_or(u64::MAX)) }
    })
}

/// Gives the 16 random bytes of the gateway for a capture that is about to be taken: have the sensor
/// sign them with its verdict, and name them in the scan. They are good for one scan and, as a rule,
/// for half a minute at least. A scan without any is given some by itself.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed; `challenge` is NULL or 16 bytes that
/// may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_challenge(terminal: *const Handle, challenge: *mut u8) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let Handle { terminal, runtime } = unsafe { one(terminal, "terminal") }?;
        let drawn = runtime.block_on(terminal.challenge())?;
        // SAFETY: the caller's promise is passed on.
        unsafe { give(challenge.cast::<[u8; 16]>(), *drawn.as_bytes()) }
    })
}

/// Asks to recognise a hand for what its owner came for; five seconds at most, fifteen for a right.
///
/// # Safety
/// `terminal` is NULL or of `palmgate_connect`, and not closed; every pointer in `scan` is NULL or
/// points to what its description says; `answer` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_scan(
    terminal: *const Handle,
    scan: *const Scan,
    answer: *mut *mut Given,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let handle = unsafe { one(terminal, "terminal") }?;
        // SAFETY: the caller's promise is passed on.
        let scan = unsafe { one(scan, "scan") }?;
        // SAFETY: the caller's promise is passed on.
        let given::Scanned { intent, hand } = unsafe { scan.read() }?;
        let answered = handle.runtime.block_on(handle.terminal.scan(intent, hand))?;
        // SAFETY: the caller's promise is passed on.
        unsafe { answer_with(answer, answered) }
    })
}

/// Asks to enrol a person who agreed, purpose by purpose, on this terminal's screen; fifteen seconds
/// at most.
///
/// # Safety
/// As `palmgate_scan`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_enrol(
    terminal: *const Handle,
    enrolment: *const Enrolment,
    answer: *mut *mut Given,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let handle = unsafe { one(terminal, "terminal") }?;
        // SAFETY: the caller's promise is passed on.
        let enrolment = unsafe { one(enrolment, "enrolment") }?;
        // SAFETY: the caller's promise is passed on.
        let given::Enrolled { enrolment, challenge } = unsafe { enrolment.read() }?;
        let answered = handle.runtime.block_on(async {
            match challenge {
                Some(challenge) => handle.terminal.enrol_about(enrolment, challenge).await,
                None => handle.terminal.enrol(enrolment).await,
            }
        })?;
        // SAFETY: the caller's promise is passed on.
        unsafe { answer_with(answer, answered) }
    })
}

/// # Safety
/// `out` is NULL or may be written.
unsafe fn answer_with(
    out: *mut *mut Given,
    answer: palmgate_terminal::protocol::terminal::Answer,
) -> Result<(), Failure> {
    let given = Given::new(answer);
    if given.outcome().is_none() {
        let why = "it answers something else than was asked".into();
        return Err(TerminalError::Incompatible(why).into());
    }
    let given = Box::into_raw(Box::new(given));
    // SAFETY: the caller's promise is passed on.
    unsafe { give(out, given) }.inspect_err(|_| {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(given) });
    })
}

/// What became of the request; `PALMGATE_OUTCOME_REFUSED` for NULL.
///
/// # Safety
/// `answer` is NULL or of this library, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_answer_outcome(answer: *const Given) -> Outcome {
    // SAFETY: the caller's promise is passed on.
    let answer = unsafe { one(answer, "answer") };
    answer.ok().and_then(Given::outcome).unwrap_or(Outcome::Refused)
}

/// A part of an answer, a `palmgate_field`; `index` counts those that come several times. The bytes
/// end with the answer, and have no NUL after them.
///
/// # Safety
/// `answer` is NULL or of this library, and not freed; `bytes` and `length` are NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_answer_get(
    answer: *const Given,
    field: u32,
    index: usize,
    bytes: *mut *const u8,
    length: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let answer = unsafe { one(answer, "answer") }?;
        let part = answer.field(field, index).ok_or_else(absent)?;
        // SAFETY: the caller's promise is passed on.
        unsafe { give(length, part.len()) }?;
        // SAFETY: the caller's promise is passed on.
        unsafe { give(bytes, part.as_ptr()) }
    })
}

/// A use of the palm in the answer to `PALMGATE_INTENT_HISTORY`, newest first.
///
/// # Safety
/// `answer` is NULL or of this library, and not freed; `use_` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_answer_use(
    answer: *const Given,
    index: usize,
    use_: *mut Use,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise is passed on.
        let answer = unsafe { one(answer, "answer") }?;
        // SAFETY: the caller's promise is passed on.
        unsafe { give(use_, answer.used(index).ok_or_else(absent)?) }
    })
}

/// Whether a recognised person objects to advertising: the account must not be used for it.
///
/// # Safety
/// `answer` is NULL or of this library, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_answer_objected(answer: *const Given) -> bool {
    // SAFETY: the caller's promise is passed on.
    unsafe { one(answer, "answer") }.is_ok_and(Given::objected)
}

/// Frees an answer; NULL is allowed.
///
/// # Safety
/// `answer` is NULL or of this library, not freed before and in use by no other call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmgate_answer_free(answer: *mut Given) {
    if !answer.is_null() {
        // SAFETY: it was made by this library and is the caller's alone by their promise.
        drop(unsafe { Box::from_raw(answer) });
    }
}

fn absent() -> Failure {
    Failure { status: Status::Absent, why: "the answer has no such part".into() }
}

#[cfg(test)]
mod tests;
