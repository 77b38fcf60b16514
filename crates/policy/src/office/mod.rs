//! What people do beside the reader: requests with their clocks, legal holds, breaches, duties. The
//! pack decides here too.

mod breach;
mod desk;
mod hold;
mod request;

pub use breach::Breach;
pub use desk::{Acted, Denied, Desk, Duty, OfficeAct, Outside};
pub use hold::{Hold, Scope};
pub use request::{Closed, Explanation, Request, RequestKind, Urgency};

use crate::{
    Law,
    pack::{Act, Verdict},
};

/// Bytes of one text that the office writes.
pub const MAX_TEXT_BYTES: usize = 4_000;

fn allowed(law: &Law, act: &Act) -> Result<Verdict, Box<Verdict>> {
    let verdict = law.decide(act);
    if verdict.allowed { Ok(verdict) } else { Err(Box::new(verdict)) }
}
