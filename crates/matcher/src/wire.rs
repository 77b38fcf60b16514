//! What gateway and matcher say to each other. Both come from one build: fields are numbered, but
//! no two versions are promised to understand each other, and [`VERSION`] tells them apart.

use crate::matching::{CaptureFacts, Enrolled, Scanned, Timed};
use minicbor::{Decode, Encode};
use palmgate_gallery::{Candidate, Fusion, RowId};
use palmgate_palm::Steps;
use palmgate_protocol::{
    Biometric, Hand, Probe, Purpose, PurposeSet, Secret, TEMPLATE_FORMAT, Template, decode,
    encode_for_sealing,
    terminal::{CaptureProblem, Frame, HandCapture},
};
use std::{
    io::{self, Read, Write},
    time::Duration,
};

/// Changed with every message that changes.
pub(crate) const VERSION: (u16, u16) = (2, TEMPLATE_FORMAT);
/// Bytes of one message: a request's pictures, or the probes of an enrolment.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// References in one message.
pub(crate) const MAX_REFERENCES: usize = 512;

#[derive(Encode, Decode)]
#[allow(clippy::large_enum_variant, reason = "decoded once, handled at once")]
pub(crate) enum Asked {
    /// Begins a session with an empty gallery, which ends with this connection.
    #[n(0)]
    Open(#[n(0)] Opening),
    /// Works for the session, too.
    #[n(1)]
    Join(#[n(0)] u64),
    #[n(2)]
    Scan(#[n(0)] Vec<Frame>, #[n(1)] PurposeSet),
    #[n(3)]
    Enrolment(#[n(0)] Vec<HandCapture>, #[n(1)] PurposeSet),
    #[n(4)]
    Insert(#[n(0)] Vec<Row>),
    #[n(5)]
    Remove(#[n(0)] Vec<u64>),
    #[n(6)]
    Identify(#[n(0)] Vec<Protected>),
}

#[derive(Encode, Decode)]
pub(crate) enum Told {
    #[n(0)]
    Opened(#[n(0)] u64),
    #[n(1)]
    Done,
    #[n(2)]
    Scanned(#[n(0)] Facts, #[n(1)] Vec<Protected>, #[n(2)] Times),
    #[n(3)]
    Enrolled(#[n(0)] Facts, #[n(1)] Vec<Enrolment>, #[n(2)] Vec<Protected>),
    /// Of the capture with this number.
    #[n(4)]
    Problem(#[n(0)] CaptureProblem, #[n(1)] u8),
    #[n(5)]
    Candidates(#[n(0)] Vec<(u64, f32)>),
    #[n(6)]
    Refused(#[n(0)] String),
    /// There is no such session, or another version.
    #[n(7)]
    Unknown,
}

#[derive(Encode, Decode)]
pub(crate) struct Opening {
    #[n(0)]
    pub(crate) version: (u16, u16),
    #[n(1)]
    pub(crate) tenant: String,
    #[n(2)]
    pub(crate) key: Secret<Vec<u8>>,
    #[n(3)]
    pub(crate) weights: (f32, f32),
    #[n(4)]
    pub(crate) shortlist: u32,
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(crate) models: [u8; 32],
}

impl Opening {
    pub(crate) fn fusion(&self) -> Fusion {
        Fusion {
            embedding_weight: self.weights.0,
            code_weight: self.weights.1,
            shortlist: self.shortlist as usize,
        }
    }
}

/// A probe, or the row of a reference beside it.
#[derive(Encode, Decode)]
pub(crate) struct Protected {
    #[n(0)]
    pub(crate) purpose: Purpose,
    #[n(1)]
    pub(crate) bytes: Biometric<Vec<u8>>,
}

#[derive(Encode, Decode)]
pub(crate) struct Row {
    #[n(0)]
    pub(crate) row: u64,
    #[n(1)]
    pub(crate) template: Protected,
}

#[derive(Encode, Decode)]
pub(crate) struct Enrolment {
    #[n(0)]
    pub(crate) hand: Hand,
    #[n(1)]
    pub(crate) template: Protected,
}

/// Liveness, and whether in several bands.
#[derive(Clone, Copy, Encode, Decode)]
pub(crate) struct Facts(#[n(0)] f32, #[n(1)] bool);

/// Nanoseconds of each step, and of the protection.
#[derive(Clone, Copy, Encode, Decode)]
pub(crate) struct Times(#[n(0)] [u64; 7]);

impl From<CaptureFacts> for Facts {
    fn from(facts: CaptureFacts) -> Self {
        Self(facts.liveness, facts.multispectral)
    }
}

impl From<Facts> for CaptureFacts {
    fn from(facts: Facts) -> Self {
        Self { liveness: facts.0, multispectral: facts.1 }
    }
}

impl From<Timed> for Times {
    fn from(Timed { steps, protect }: Timed) -> Self {
        let Steps { decode, detect, landmarks, region, embed, code } = steps;
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        Self([decode, detect, landmarks, region, embed, code, protect].map(nanos))
    }
}

impl From<Times> for Timed {
    fn from(times: Times) -> Self {
        let [decode, detect, landmarks, region, embed, code, protect] =
            times.0.map(Duration::from_nanos);
        Self { steps: Steps { decode, detect, landmarks, region, embed, code }, protect }
    }
}

impl Protected {
    pub(crate) fn probe((purpose, probe): &(Purpose, Probe)) -> Self {
        Self { purpose: *purpose, bytes: probe.to_bytes() }
    }

    pub(crate) fn template(purpose: Purpose, template: &Template) -> Self {
        Self { purpose, bytes: template.to_bytes() }
    }

    pub(crate) fn to_probe(&self) -> Option<(Purpose, Probe)> {
        Some((self.purpose, Probe::from_bytes(self.bytes.expose()).ok()?))
    }

    pub(crate) fn to_template(&self) -> Option<(Purpose, Template)> {
        Some((self.purpose, Template::from_bytes(self.bytes.expose()).ok()?))
    }
}

impl From<Scanned> for Told {
    fn from(scanned: Scanned) -> Self {
        let probes = scanned.probes.iter().map(Protected::probe).collect();
        Self::Scanned(scanned.facts.into(), probes, scanned.timed.into())
    }
}

impl From<Enrolled> for Told {
    fn from(enrolled: Enrolled) -> Self {
        let template = |(purpose, hand, template): &(Purpose, Hand, Template)| Enrolment {
            hand: *hand,
            template: Protected::template(*purpose, template),
        };
        let templates = enrolled.templates.iter().map(template).collect();
        let probes = enrolled.probes.iter().map(Protected::probe).collect();
        Self::Enrolled(enrolled.facts.into(), templates, probes)
    }
}

impl Told {
    pub(crate) fn candidates(found: &[Candidate]) -> Self {
        Self::Candidates(found.iter().map(|each| (each.row.0, each.score)).collect())
    }
}

pub(crate) fn candidate((row, score): (u64, f32)) -> Candidate {
    Candidate { row: RowId(row), score }
}

/// Writes one message; what was encoded is wiped.
pub(crate) fn send<T: Encode<()>>(mut to: impl Write, message: &T) -> io::Result<()> {
    let bytes = encode_for_sealing(message);
    let length = u32::try_from(bytes.expose().len()).ok().filter(|n| *n as usize <= MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the message is over its bound"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes.expose())?;
    to.flush()
}

/// Reads one message; `None` at the end of the stream. What was read is wiped.
pub(crate) fn receive<T: for<'b> Decode<'b, ()>>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message over its bound"));
    }
    let mut bytes = Secret::new(vec![0; length]);
    from.read_exact(bytes.expose_mut())?;
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    decode(bytes.expose()).map(Some).map_err(malformed)
}
