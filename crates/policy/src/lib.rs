//! The only place that decides. Events go in with the time, commands come out; there are no
//! sockets, disks, clocks or random numbers here, so that each legal rule is a unit test, a whole
//! store is a simulation and a day can be decided again.
//!
//! ```text
//! Request ─gates─▶ Extract ─Extracted─▶ Identify | Compare ─▶ Accept | Reply | Escalate | Erase …
//! ```
//!
//! Every decision carries the ids of the rules that made it (see [`Rule`]).

mod card;
mod command;
pub mod deadline;
mod engine;
mod enrolment;
mod event;
mod facts;
mod gates;
pub mod office;
mod opening;
pub mod pack;
mod person;
mod retention;
mod rights;
mod rules;
mod scan;
mod settings;
mod shard;
mod tries;

pub use card::looks_like_card_number;
pub use command::{Command, Decision, DecisionKind, Source};
pub use engine::{Engine, Standing};
pub use event::{
    CaptureFacts, ClaimFacts, ClaimPresented, Doubt, EnrolmentFacts, Event, FreshIds, Match, Proof,
    RecordFacts, ReleaseFacts, Resolved, ScanFacts, Sensor, TerminalFacts, Ticket, TimeSeen,
    Visitor,
};
pub use opening::{Citation, Dossier, Measured, Opening, Review};
pub use pack::{Law, Pack};
pub use person::{Origin, Profile, Spent};
pub use retention::STORED;
pub use rules::{MAX_RULE_BYTES, Rule};
pub use settings::Settings;
pub use tries::FailedTries;
