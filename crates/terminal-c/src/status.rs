use palmgate_terminal::TerminalError;
use std::cell::RefCell;

/// How a call ended. `palmgate_last_error` has the sentence for a person.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Ok = 0,
    /// The caller's fault: a NULL, a text that is not UTF-8, a number out of range, a limit.
    Misuse = 1,
    /// The state directory is not usable, or not this terminal's.
    StateDirectory = 2,
    /// No way to the broker; the terminal keeps trying by itself.
    Offline = 3,
    /// Who answered is not the gateway that the pairing code names. The code was not sent.
    NotTheGateway = 4,
    /// The gateway refused to pair: code or name.
    PairingRefused = 5,
    /// The other side is of another version.
    Incompatible = 6,
    /// The gateway has not let the terminal in.
    NotAdmitted = 7,
    /// The gateway is overloaded and decided nothing: use another way.
    Busy = 8,
    /// No answer in time: use another way.
    TooLate = 9,
    /// Too many requests wait already.
    TooMany = 10,
    /// The terminal's keys cannot be used.
    Keys = 11,
    /// The terminal was closed.
    Closed = 12,
    /// The answer has no such part.
    Absent = 13,
    /// A defect of this library: report it.
    Defect = 14,
    /// The store's list of terminals does not hold: no picture was sent.
    Roster = 15,
}

/// Why a call failed.
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn misuse(why: impl Into<String>) -> Self {
        Self { status: Status::Misuse, why: why.into() }
    }
}

impl From<TerminalError> for Failure {
    fn from(error: TerminalError) -> Self {
        let status = match error.as_str() {
            "misuse" => Status::Misuse,
            "state-directory" => Status::StateDirectory,
            "offline" => Status::Offline,
            "not-the-gateway" => Status::NotTheGateway,
            "pairing-refused" => Status::PairingRefused,
            "incompatible" => Status::Incompatible,
            "not-admitted" => Status::NotAdmitted,
            "busy" => Status::Busy,
            "too-late" => Status::TooLate,
            "too-many" => Status::TooMany,
            "roster" => Status::Roster,
            "keys" => Status::Keys,
            "closed" => Status::Closed,
            _ => Status::Defect,
        };
        Self { status, why: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the sentence for `palmgate_last_error` of the same thread.
pub(crate) fn remember(failure: Failure) -> Status {
    LAST.with(|last| *last.borrow_mut() = failure.why);
    failure.status
}

pub(crate) fn last() -> String {
    LAST.with(|last| last.borrow().clone())
}
