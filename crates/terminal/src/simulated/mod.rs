//! A terminal without hardware: pictures come from files. For trying out a box, and for the demo.
//!
//! ```no_run
//! use palmgate_terminal::{Terminal, protocol::terminal::Intent, simulated};
//! use std::path::Path;
//!
//! # async fn example(terminal: Terminal) -> Result<(), Box<dyn std::error::Error>> {
//! let hands = simulated::pictures_in(Path::new("hands"))?;
//! let answer = terminal.scan(Intent::Entry, simulated::present(&hands[0])?).await?;
//! println!("{:?}", answer.body);
//! # Ok(()) }
//! ```

mod pictures;
mod run;
mod sensor;

pub use pictures::{PictureError, Pictures, group, pictures_in, read_frame};
pub use run::{Plan, RunReport, outcome, run_at_rate};
pub use sensor::Sensor;

use crate::{Presentation, protocol::Hand};
use palmgate_protocol::{
    Purpose,
    terminal::{Age, ConsentGiven, Enrolment, HandCapture},
};

/// Reads one capture from its files and presents it, without a claim token.
///
/// # Errors
/// [`PictureError`] when a file is no picture or too large.
pub fn present(pictures: &Pictures) -> Result<Presentation, PictureError> {
    Ok(Presentation { frames: pictures.read()?, ..Presentation::default() })
}

/// Builds the enrolment of an adult from the files of their captures. Card token, phone number and
/// authorisation can be set on the result.
///
/// # Errors
/// [`PictureError`] when a file is no picture or too large.
pub fn enrolment(
    hands: &[(Hand, Pictures)],
    consents: Vec<ConsentGiven>,
) -> Result<Enrolment, PictureError> {
    let capture = |(hand, pictures): &(Hand, Pictures)| {
        Ok(HandCapture { hand: *hand, frames: pictures.read()? })
    };
    Ok(Enrolment {
        captures: hands.iter().map(capture).collect::<Result<_, _>>()?,
        consents,
        age: Age::Adult,
        card_token: None,
        phone: None,
        authorisation: None,
        release: None,
        replaces: None,
        possession: None,
        verdict: None,
    })
}

/// A consent as the simulated person gives it: the notice was shown and the separate confirmation
/// made.
pub fn consent(purpose: Purpose, notice: &str, language: &str) -> ConsentGiven {
    ConsentGiven { purpose, notice: notice.into(), language: language.into(), confirmed: true }
}
