use palmgate_terminal::protocol::terminal::{Accepted, Answer, AnswerBody};
use std::ffi::CString;

/// What became of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Recognised, and allowed: `PSEUDONYM`, and for a payment `CARD_TOKEN` and `ASSERTION`.
    Accepted = 0,
    /// The capture was too poor: show `PROMPT` and capture again.
    Retry = 1,
    /// Not recognised: offer the other way.
    NotRecognised = 2,
    /// Not allowed, whoever it is: `REASON`; offer the other way.
    Refused = 3,
    /// Enrolled: `CLAIM` tokens and consent `RECEIPT`s, by index, for the person to keep.
    Enrolled = 4,
    /// The person's own uses: `palmgate_answer_use`.
    History = 5,
    /// Done as asked.
    Done = 6,
    /// Forgotten: one `RECEIPT`.
    Erased = 7,
    /// The person's data as JSON: `DOCUMENT`.
    Exported = 8,
}

/// A part of an answer.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Field {
    /// What the screen says about a poor capture, in English.
    Prompt = 0,
    /// The label of a refusal.
    Reason = 1,
    /// The person under this purpose: bytes.
    Pseudonym = 2,
    /// The payment provider's token.
    CardToken = 3,
    /// `COSE_Sign1` of the gateway over amount, currency, payee, nonce and pseudonym.
    Assertion = 4,
    /// A receipt: JSON.
    Receipt = 5,
    /// A person's data: JSON.
    Document = 6,
    /// A claim token: bytes for a QR code, card or phone.
    Claim = 7,
}

/// One use of the palm, as the person sees it. The text lives as long as the answer.
#[repr(C)]
pub struct Use {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: i64,
    /// One `palmgate_purpose` bit.
    pub purpose: u32,
    /// Where: the terminal's name.
    pub terminal: *const std::ffi::c_char,
}

/// An answer; free it with `palmgate_answer_free`.
pub struct Given {
    answer: Answer,
    /// Names of terminals as C reads them.
    places: Vec<CString>,
}

impl Given {
    pub(crate) fn new(answer: Answer) -> Self {
        let places = match &answer.body {
            AnswerBody::History { uses, .. } => {
                { uses.iter().map(|one| CString::new(one.terminal.as_str()).unwrap_or_default()) }
                    .collect()
            }
            _ => Vec::new(),
        };
        Self { answer, places }
    }

    /// `None` for an answer that the Rust interface turns into an error, or to another question.
    pub(crate) const fn outcome(&self) -> Option<Outcome> {
        Some(match &self.answer.body {
            AnswerBody::Accepted(_) => Outcome::Accepted,
            AnswerBody::Retry { .. } => Outcome::Retry,
            AnswerBody::NotRecognised => Outcome::NotRecognised,
            AnswerBody::Refused { .. } => Outcome::Refused,
            AnswerBody::Enrolled { .. } => Outcome::Enrolled,
            AnswerBody::History { .. } => Outcome::History,
            AnswerBody::Done => Outcome::Done,
            AnswerBody::Erased { .. } => Outcome::Erased,
            AnswerBody::Exported { .. } => Outcome::Exported,
            AnswerBody::Busy | AnswerBody::Renewed { .. } => return None,
        })
    }

    /// The part `field`, a `palmgate_field`, of this answer, if it has one.
    pub(crate) fn field(&self, field: u32, index: usize) -> Option<&[u8]> {
        const PROMPT: u32 = Field::Prompt as u32;
        const REASON: u32 = Field::Reason as u32;
        const PSEUDONYM: u32 = Field::Pseudonym as u32;
        const CARD_TOKEN: u32 = Field::CardToken as u32;
        const ASSERTION: u32 = Field::Assertion as u32;
        const RECEIPT: u32 = Field::Receipt as u32;
        const DOCUMENT: u32 = Field::Document as u32;
        const CLAIM: u32 = Field::Claim as u32;
        let part = match (&self.answer.body, field) {
            (AnswerBody::Enrolled { claims, .. }, CLAIM) => {
                return claims.get(index).map(|claim| claim.token.0.as_slice());
            }
            (AnswerBody::Enrolled { receipts, .. }, RECEIPT) => {
                return receipts.get(index).map(String::as_bytes);
            }
            (AnswerBody::Retry { problem, .. }, PROMPT) => problem.prompt().as_bytes(),
            (AnswerBody::Refused { reason }, REASON) => reason.as_str().as_bytes(),
            (AnswerBody::Accepted(Accepted { pseudonym, .. }), PSEUDONYM) => pseudonym.0.as_bytes(),
            (AnswerBody::Accepted(Accepted { card_token, .. }), CARD_TOKEN) => {
                card_token.as_ref()?.0.as_bytes()
            }
            (AnswerBody::Accepted(Accepted { assertion, .. }), ASSERTION) => {
                assertion.as_ref()?.0.as_slice()
            }
            (AnswerBody::Erased { receipt }, RECEIPT) => receipt.as_bytes(),
            (AnswerBody::Exported { document }, DOCUMENT) => document.0.as_bytes(),
            _ => return None,
        };
        (index == 0).then_some(part)
    }

    /// The person objects to advertising.
    pub(crate) const fn objected(&self) -> bool {
        matches!(&self.answer.body, AnswerBody::Accepted(accepted) if accepted.objected)
    }

    pub(crate) fn used(&self, index: usize) -> Option<Use> {
        let AnswerBody::History { uses, .. } = &self.answer.body else { return None };
        let (one, place) = uses.get(index).zip(self.places.get(index))?;
        let purpose = 1 << one.purpose as u32;
        Some(Use { at_ms: one.at.as_millis(), purpose, terminal: place.as_ptr() })
    }
}
