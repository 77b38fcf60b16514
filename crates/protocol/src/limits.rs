//! Every bound in one place. A message over its bound is refused before it is decoded.

use std::time::Duration;

/// Bytes of one encoded picture.
pub const MAX_FRAME_BYTES: usize = 192 * 1024;
/// Frames of one capture: bands or a short burst.
pub const MAX_FRAMES_PER_CAPTURE: usize = 4;
/// Captures in one enrolment: two hands, three each.
pub const MAX_CAPTURES_PER_ENROLMENT: usize = 6;
/// Bytes of one request or answer before sealing.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of one MQTT payload: a message, its padding, and the framing of the seal.
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES + 2 * ANSWER_PADDING;
/// Bytes of a claim token: fits a version 40 QR code with low error correction.
pub const MAX_CLAIM_BYTES: usize = 2_900;
/// Bytes of a sensor's verdict: the hashes of all frames of an enrolment, and the signature.
pub const MAX_VERDICT_BYTES: usize = 1_536;
/// Bytes of any short text in a message: card token, phone number, payee, zone.
pub const MAX_TEXT_BYTES: usize = 128;
/// Bytes of the sealed record in a registration; an answer that carries one stays within
/// [`crate::cloud::Resolution::WIRE_BYTES`].
pub const MAX_SEALED_RECORD_BYTES: usize = 12 * 1024;
/// Uses kept in a person's history.
pub const MAX_HISTORY_ENTRIES: usize = 64;
/// Terminals of one store.
pub const MAX_TERMINALS: usize = 512;
/// Certificates of one member of a roster that are looked at.
pub const MAX_ROSTER_CERTIFICATES: usize = 8;
/// Bytes of an encoded roster: a full store fits, with that many certificates for each terminal.
pub const MAX_ROSTER_BYTES: usize = 192 * 1024;
/// How far a request's clock may be from the gateway's.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_mins(1);
/// How long a scan may name a challenge, at most; the gateway's configuration may shorten it.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_mins(1);
/// Challenges that a terminal has at hand: as many as its scans that may be in work.
pub const CHALLENGES_AT_HAND: usize = 8;
/// Challenges of one terminal that may be good at once; the oldest gives way.
pub const MAX_CHALLENGES: usize = 2 * CHALLENGES_AT_HAND;
/// How long frames may stay in memory.
pub const FRAMES_LIFETIME: Duration = Duration::from_secs(5);
/// Answers are padded to a multiple of this many bytes, so that size says little.
pub const ANSWER_PADDING: usize = 4096;
