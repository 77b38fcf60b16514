//! SDK for makers of palm terminals: tills, kiosks, gates and staff readers.
//!
//! A device is paired once with the code that the gateway shows ([`Paired::pair`]), then connects
//! with the key it got ([`Terminal::connect`]) and asks: [`Terminal::scan`], [`Terminal::enrol`],
//! and the verbs for what a person may do about their own data.
//!
//! ```no_run
//! use palmgate_terminal::{
//!     Paired, Presentation, Terminal,
//!     protocol::{Biometric, terminal::{Band, Frame, Intent}},
//! };
//! use std::path::Path;
//!
//! # async fn example(png: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let terminal = Terminal::connect(Paired::open(Path::new("/var/lib/till/palmgate"))?)?;
//! let frame = Frame { band: Band::NearInfrared, picture: Biometric::new(png), region_of: None };
//! let hand = Presentation { frames: vec![frame], ..Default::default() };
//! println!("{:?}", terminal.scan(Intent::Entry, hand).await?.body);
//! # Ok(()) }
//! ```
//!
//! | on the wire | how |
//! |---|---|
//! | transport | MQTT 3.1.1 over mutual TLS 1.3, `QoS` 1, clean sessions |
//! | content | one request or answer per MLS application message (RFC 9420), in a group of two |
//! | loss | requests are sealed anew and sent again; the gateway decides once per capture id |
//! | a session that no longer fits | the terminal joins anew by itself, every two seconds at most |
//! | certificates | renewed by itself when a third of the life is left, with another key |
//!
//! The broker learns names, sizes and times. The state directory is described at [`Paired`]; the
//! library keeps no picture and no template on any disk. [`simulated`] is a terminal without
//! hardware, built on nothing but this interface.

mod challenges;
mod clock;
mod conversation;
mod driver;
mod error;
mod exchange;
mod files;
mod link;
mod membership;
mod pair;
mod pair_invitation;
mod paired;
mod renewal;
mod roster;
mod session_file;
pub mod simulated;
mod terminal;

pub use error::{TerminalError, Trouble};
pub use pair_invitation::Invitation;
pub use paired::Paired;
pub use palmgate_protocol as protocol;
pub use palmgate_seal::{
    pairing::{InvalidCode, PairingCode},
    possession::Challenge,
    roster::RosterError,
};
pub use roster::{RosterFault, StoreRoster};
pub use terminal::{Connection, Presentation, Prover, Terminal};
