//! What people do with law packs: read them from a directory, sign and verify them, compare two,
//! replay a ledger under another one, and print the papers that follow from the one in force.
//!
//! The rules themselves, and the decisions, are in `palmgate-policy`.

mod compare;
mod directory;
mod export;
mod letters;
mod papers;
mod receipt;
mod replay;
mod signature;
mod time;

pub use compare::{Change, Comparison, compare};
pub use directory::{ReadError, read};
pub use export::{Sealed, Subject, export};
pub use letters::{breach_draft, extension, identity, receipt_of_request, refusal};
pub use palmgate_policy::{
    Pack,
    pack::{Coverage, document, embedded_layer},
};
pub use papers::{House, NOTICE_ITEMS, Paper, Processor, Section, dpia, notice, ropa, sign};
pub use receipt::{ConsentReceipt, ReceiptError, record_id};
pub use replay::{Replay, Reread, replay, replay_ledger};
pub use signature::{SignatureError, add_signature, verify};
pub use time::{TimeError, sign_time, verify_time};
