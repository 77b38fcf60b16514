use crate::{Presentation, clock};
use palmgate_protocol::{
    Biometric, ScanChallenge,
    terminal::{Enrolment, Frame},
};
use palmgate_seal::{
    sensor::{self, PictureHash, Verdict},
    sign::SigningKey,
};

/// A sensor without hardware: it signs that every picture shows a living hand, or that none does, and
/// looks at none. For trying out what a gateway makes of verdicts.
pub struct Sensor {
    key: SigningKey,
    living: bool,
}

impl Sensor {
    /// With this key, whose public half the gateway has to trust for the terminal. `living` is what
    /// it will say.
    pub const fn new(key: SigningKey, living: bool) -> Self {
        Self { key, living }
    }

    /// Its verdict about these frames.
    pub fn verdict<'a>(
        &self,
        challenge: ScanChallenge,
        frames: impl IntoIterator<Item = &'a Frame>,
    ) -> Biometric<Vec<u8>> {
        let hash = |frame: &Frame| PictureHash::of(frame.picture.expose());
        let verdict = Verdict {
            challenge,
            pictures: frames.into_iter().map(hash).collect(),
            living: self.living,
            score: if self.living { 100 } else { 0 },
            model: "simulated".into(),
            at: clock::now().wall,
        };
        sensor::issue(&verdict, &self.key)
    }

    /// A presentation about a challenge of [`Terminal::challenge`](crate::Terminal::challenge), with
    /// the verdict.
    #[must_use]
    pub fn present(&self, hand: Presentation, challenge: ScanChallenge) -> Presentation {
        let verdict = Some(self.verdict(challenge, &hand.frames));
        Presentation { challenge: Some(challenge), verdict, ..hand }
    }

    /// An enrolment with the verdict about all its captures.
    #[must_use]
    pub fn enrol(&self, enrolment: Enrolment, challenge: ScanChallenge) -> Enrolment {
        let frames = enrolment.captures.iter().flat_map(|capture| &capture.frames);
        let verdict = Some(self.verdict(challenge, frames));
        Enrolment { verdict, ..enrolment }
    }
}
