//! What a C program gives. Pointers are read here and nowhere else; what comes out is owned.

use crate::status::Failure;
use palmgate_terminal::protocol::{
    Biometric, PurposeSet, ScanChallenge,
    limits::{
        MAX_CAPTURES_PER_ENROLMENT, MAX_CLAIM_BYTES, MAX_FRAME_BYTES, MAX_FRAMES_PER_CAPTURE,
        MAX_VERDICT_BYTES,
    },
    terminal as wire,
};
use std::{
    ffi::{CStr, c_char},
    slice,
};

/// Bytes of a text, at most: a path, an address, an invitation.
const MAX_TEXT: usize = 4096;
/// Consents of one enrolment: one for each purpose.
const MAX_CONSENTS: usize = 8;

/// What a person came for.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Intent {
    /// Pay; needs `payment`.
    Pay = 0,
    /// Use the loyalty account.
    Loyalty = 1,
    /// Enter.
    Entry = 2,
    /// Enter a restricted zone as an employee; needs `zone`.
    Staff = 3,
    /// See the own uses and consents (GDPR Art. 15).
    History = 4,
    /// Stop recognition until resumed (GDPR Art. 18).
    Pause = 5,
    /// Resume recognition.
    Resume = 6,
    /// Withdraw consent for `purposes` (GDPR Art. 7(3)).
    Withdraw = 7,
    /// Be forgotten (GDPR Art. 17).
    Erase = 8,
    /// Get a copy of everything that the store holds (GDPR Art. 15).
    Export = 9,
    /// Take along what was provided (GDPR Art. 20); needs `port_key`.
    Port = 10,
    /// Object to advertising (GDPR Art. 21).
    Object = 11,
}

/// What a palm is used for: bits of a set.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Purpose {
    /// Pay.
    Pay = 1,
    /// Loyalty.
    Loyalty = 2,
    /// Entry.
    Entry = 4,
    /// Staff.
    Staff = 8,
    /// Be recognised in the tenant's other stores.
    Roaming = 16,
}

/// Which hand, as the person says it.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Hand {
    /// The left hand.
    Left = 0,
    /// The right hand.
    Right = 1,
}

/// The light of a frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Band {
    /// Visible light.
    Visible = 0,
    /// Near infrared, 850 to 940 nm.
    NearInfrared = 1,
}

/// Declared age.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Age {
    /// 18 or older.
    Adult = 0,
    /// 15 to 17.
    From15To17 = 1,
    /// Under 15, with a holder of parental responsibility who agrees jointly.
    Under15WithGuardian = 2,
    /// Under 15, alone.
    Under15 = 3,
}

/// Whether a frame shows the hand, or what of it.
#[repr(C)]
pub enum View {
    /// The whole hand: the gateway finds the palm.
    Hand = 0,
    /// The region of interest of a right palm, cut out by the terminal: a square of at least 64
    /// pixels a side, fingers up.
    RightRegion = 1,
    /// That of a left palm, mirrored.
    LeftRegion = 2,
}

/// One picture of a hand: a PNG or JPEG file in memory, 196,608 bytes at most.
#[repr(C)]
pub struct Frame {
    /// `palmgate_band`.
    pub band: u32,
    /// The file's bytes.
    pub picture: *const u8,
    /// How many.
    pub length: usize,
    /// `palmgate_view`; the same in all frames of a hand.
    pub view: u32,
}

/// What is paid, to whom, as it was shown before the hand was asked for.
#[repr(C)]
pub struct Payment {
    /// Amount in the currency's minor unit (cents).
    pub minor_units: u64,
    /// ISO 4217 code.
    pub currency: *const c_char,
    /// Who is paid.
    pub payee: *const c_char,
    /// Fresh random bytes of the point of sale, repeated in the assertion.
    pub nonce: [u8; 16],
}

/// A hand that was presented, and what its owner showed with it. Set unused fields to 0 or NULL.
#[repr(C)]
pub struct Scan {
    /// `palmgate_intent`.
    pub intent: u32,
    /// Four frames at most.
    pub frames: *const Frame,
    /// How many.
    pub frame_count: usize,
    /// The claim token that was tapped or read from a code, or NULL.
    pub claim: *const u8,
    /// Its length.
    pub claim_length: usize,
    /// The person asked to be looked up beyond this store.
    pub ask_cloud: bool,
    /// The person has just been authenticated strongly, by chip and PIN.
    pub authenticated: bool,
    /// For `PALMGATE_INTENT_PAY`.
    pub payment: *const Payment,
    /// For `PALMGATE_INTENT_STAFF`.
    pub zone: *const c_char,
    /// For `PALMGATE_INTENT_WITHDRAW`: `palmgate_purpose` bits.
    pub purposes: u32,
    /// For `PALMGATE_INTENT_PORT`: 32 bytes, the person's X25519 public key.
    pub port_key: *const u8,
    /// The 16 bytes of `palmgate_challenge` that the capture is about, or NULL.
    pub challenge: *const u8,
    /// What the sensor signed about the frames and the challenge, or NULL.
    pub verdict: *const u8,
    /// Its length.
    pub verdict_length: usize,
}

/// One capture of one hand.
#[repr(C)]
pub struct Capture {
    /// `palmgate_hand`.
    pub hand: u32,
    /// Four frames at most.
    pub frames: *const Frame,
    /// How many.
    pub frame_count: usize,
}

/// The person read a notice about one purpose and confirmed separately.
#[repr(C)]
pub struct Consent {
    /// One `palmgate_purpose` bit.
    pub purpose: u32,
    /// The version of the notice that was shown.
    pub notice: *const c_char,
    /// The language it was shown in (BCP 47).
    pub language: *const c_char,
    /// The separate confirmation was made.
    pub confirmed: bool,
}

/// Everything that an enrolment needs.
#[repr(C)]
pub struct Enrolment {
    /// One to three captures of each hand.
    pub captures: *const Capture,
    /// How many.
    pub capture_count: usize,
    /// One entry for each purpose that the person agreed to.
    pub consents: *const Consent,
    /// How many.
    pub consent_count: usize,
    /// `palmgate_age`.
    pub age: u32,
    /// The payment provider's token for the card, never a card number; or NULL.
    pub card_token: *const c_char,
    /// Phone number in E.164 form, for notices; or NULL.
    pub phone: *const c_char,
    /// The 16 bytes of `palmgate_challenge` that the verdict is about, or NULL.
    pub challenge: *const u8,
    /// What the sensor signed about all frames and the challenge, or NULL.
    pub verdict: *const u8,
    /// Its length.
    pub verdict_length: usize,
}

/// Borrows a value.
///
/// # Safety
/// `pointer` is NULL or points to a value that stays as it is for `'a`.
pub(crate) unsafe fn one<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    if !pointer.is_aligned() {
        return Err(Failure::misuse(format!("{what} is not aligned")));
    }
    // SAFETY: it is aligned, and NULL or a value by the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::misuse(format!("{what} is NULL")))
}

/// Borrows an array; NULL stands for an empty one.
///
/// # Safety
/// `pointer` is NULL or points to `count` values that stay as they are for `'a`.
unsafe fn many<'a, T>(
    pointer: *const T,
    count: usize,
    most: usize,
    what: &str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > most {
        return Err(Failure::misuse(format!("{what}: {count} are given, the limit is {most}")));
    }
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::misuse(format!("{what} is NULL or not aligned")));
    }
    // SAFETY: it is not NULL, aligned, short, and an array of `count` by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// Reads a text; NULL stands for none.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends with NUL and stays as it is during the call.
pub(crate) unsafe fn text(pointer: *const c_char, what: &str) -> Result<Option<String>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL and ends with NUL by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    if bytes.len() > MAX_TEXT {
        return Err(Failure::misuse(format!("{what} is longer than {MAX_TEXT} bytes")));
    }
    let text = str::from_utf8(bytes);
    let text = text.map_err(|_| Failure::misuse(format!("{what} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// As [`text`], for one that must be there.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn required(pointer: *const c_char, what: &str) -> Result<String, Failure> {
    // SAFETY: the caller's promise is passed on.
    let text = unsafe { text(pointer, what) }?;
    text.ok_or_else(|| Failure::misuse(format!("{what} is NULL")))
}

impl Frame {
    /// # Safety
    /// The picture is as [`many`] wants it.
    unsafe fn read(&self) -> Result<wire::Frame, Failure> {
        let band = match self.band {
            0 => wire::Band::Visible,
            1 => wire::Band::NearInfrared,
            _ => return Err(Failure::misuse("a frame's band is none")),
        };
        let region_of = match self.view {
            0 => None,
            1 => Some(palmgate_terminal::protocol::Hand::Right),
            2 => Some(palmgate_terminal::protocol::Hand::Left),
            _ => return Err(Failure::misuse("a frame's view is none")),
        };
        // SAFETY: the caller's promise is passed on.
        let bytes = unsafe { many(self.picture, self.length, MAX_FRAME_BYTES, "a picture") }?;
        Ok(wire::Frame { band, picture: Biometric::new(bytes.to_vec()), region_of })
    }

    /// # Safety
    /// The array and all pictures are as [`many`] wants them.
    unsafe fn read_all(frames: *const Self, count: usize) -> Result<Vec<wire::Frame>, Failure> {
        // SAFETY: the caller's promise is passed on.
        let frames = unsafe { many(frames, count, MAX_FRAMES_PER_CAPTURE, "frames") }?;
        // SAFETY: the caller's promise is passed on.
        frames.iter().map(|frame| unsafe { frame.read() }).collect()
    }
}

impl Payment {
    /// # Safety
    /// The texts are as [`text`] wants them.
    unsafe fn read(&self) -> Result<wire::Payment, Failure> {
        // SAFETY: the caller's promise is passed on.
        let currency = unsafe { required(self.currency, "currency") }?;
        // SAFETY: the caller's promise is passed on.
        let payee = unsafe { required(self.payee, "payee") }?;
        let Self { minor_units, nonce, .. } = *self;
        Ok(wire::Payment { minor_units, currency, payee, nonce })
    }
}

/// A scan, as the Rust interface takes it.
pub(crate) struct Scanned {
    pub(crate) intent: wire::Intent,
    pub(crate) hand: palmgate_terminal::Presentation,
}

impl Scan {
    /// # Safety
    /// Every pointer is NULL or points to what its field's description says.
    pub(crate) unsafe fn read(&self) -> Result<Scanned, Failure> {
        // SAFETY: the caller's promise is passed on.
        let frames = unsafe { Frame::read_all(self.frames, self.frame_count) }?;
        // SAFETY: the caller's promise is passed on.
        let claim = unsafe { many(self.claim, self.claim_length, MAX_CLAIM_BYTES, "claim") }?;
        // SAFETY: the caller's promise is passed on.
        let challenge = unsafe { challenge(self.challenge) }?;
        let (pointer, length) = (self.verdict, self.verdict_length);
        // SAFETY: the caller's promise is passed on.
        let verdict = unsafe { many(pointer, length, MAX_VERDICT_BYTES, "verdict") }?;
        let hand = palmgate_terminal::Presentation {
            frames,
            claim: given(claim),
            ask_cloud: self.ask_cloud,
            authenticated: self.authenticated,
            possession: None,
            verdict: given(verdict),
            challenge,
        };
        // SAFETY: the caller's promise is passed on.
        Ok(Scanned { intent: unsafe { self.intent() }?, hand })
    }

    /// # Safety
    /// As [`Scan::read`].
    unsafe fn intent(&self) -> Result<wire::Intent, Failure> {
        use wire::Intent as To;
        Ok(match self.intent {
            0 => {
                // SAFETY: the caller's promise is passed on.
                let payment = unsafe { one(self.payment, "payment") }?;
                // SAFETY: the caller's promise is passed on.
                To::Pay(unsafe { payment.read() }?)
            }
            1 => To::Loyalty,
            2 => To::Entry,
            // SAFETY: the caller's promise is passed on.
            3 => To::Staff { zone: unsafe { required(self.zone, "zone") }? },
            4 => To::History,
            5 => To::Pause,
            6 => To::Resume,
            7 => To::Withdraw { purposes: purposes(self.purposes)? },
            8 => To::Erase,
            9 => To::Export,
            10 => {
                // SAFETY: the caller's promise is passed on.
                let key = unsafe { one(self.port_key.cast::<[u8; 32]>(), "port_key") }?;
                To::Port { key: *key }
            }
            11 => To::Object,
            _ => return Err(Failure::misuse("intent is none")),
        })
    }
}

/// The purposes of a set of bits.
fn purposes(bits: u32) -> Result<PurposeSet, Failure> {
    use palmgate_terminal::protocol::Purpose as To;
    if bits == 0 || bits >= 1 << To::ALL.len() {
        return Err(Failure::misuse("purposes are none, or not all are known"));
    }
    Ok(To::ALL.into_iter().filter(|purpose| bits & (1 << *purpose as u32) != 0).collect())
}

/// An enrolment, as the Rust interface takes it.
pub(crate) struct Enrolled {
    pub(crate) enrolment: wire::Enrolment,
    pub(crate) challenge: Option<ScanChallenge>,
}

/// Bytes that were given, if any were.
fn given(bytes: &[u8]) -> Option<Biometric<Vec<u8>>> {
    (!bytes.is_empty()).then(|| Biometric::new(bytes.to_vec()))
}

/// # Safety
/// `pointer` is NULL or points to 16 bytes that stay as they are during the call.
unsafe fn challenge(pointer: *const u8) -> Result<Option<ScanChallenge>, Failure> {
    let count = usize::from(!pointer.is_null());
    // SAFETY: the caller's promise is passed on.
    let bytes = unsafe { many(pointer.cast::<[u8; 16]>(), count, 1, "challenge") }?;
    Ok(bytes.first().copied().map(ScanChallenge::from_random))
}

impl Enrolment {
    /// # Safety
    /// Every pointer is NULL or points to what its field's description says.
    pub(crate) unsafe fn read(&self) -> Result<Enrolled, Failure> {
        let (pointer, count) = (self.captures, self.capture_count);
        // SAFETY: the caller's promise is passed on.
        let captures = unsafe { many(pointer, count, MAX_CAPTURES_PER_ENROLMENT, "captures") }?;
        // SAFETY: the caller's promise is passed on.
        let captures = captures.iter().map(|capture| unsafe { capture.read() });
        let (pointer, count) = (self.consents, self.consent_count);
        // SAFETY: the caller's promise is passed on.
        let consents = unsafe { many(pointer, count, MAX_CONSENTS, "consents") }?;
        // SAFETY: the caller's promise is passed on.
        let consents = consents.iter().map(|consent| unsafe { consent.read() });
        // SAFETY: the caller's promise is passed on.
        let card_token = unsafe { text(self.card_token, "card_token") }?;
        // SAFETY: the caller's promise is passed on.
        let phone = unsafe { text(self.phone, "phone") }?;
        // SAFETY: the caller's promise is passed on.
        let challenge = unsafe { challenge(self.challenge) }?;
        let (pointer, length) = (self.verdict, self.verdict_length);
        // SAFETY: the caller's promise is passed on.
        let verdict = unsafe { many(pointer, length, MAX_VERDICT_BYTES, "verdict") }?;
        let enrolment = wire::Enrolment {
            captures: captures.collect::<Result<_, _>>()?,
            consents: consents.collect::<Result<_, _>>()?,
            age: match self.age {
                0 => wire::Age::Adult,
                1 => wire::Age::From15To17,
                2 => wire::Age::Under15WithGuardian,
                3 => wire::Age::Under15,
                _ => return Err(Failure::misuse("age is none")),
            },
            card_token: card_token.map(|token| Biometric::new(token.into_bytes())),
            phone: phone.map(|phone| Biometric::new(phone.into_bytes())),
            authorisation: None,
            release: None,
            replaces: None,
            possession: None,
            verdict: given(verdict),
        };
        Ok(Enrolled { enrolment, challenge })
    }
}

impl Capture {
    /// # Safety
    /// As [`Enrolment::read`].
    unsafe fn read(&self) -> Result<wire::HandCapture, Failure> {
        use palmgate_terminal::protocol::Hand as To;
        let hand = match self.hand {
            0 => To::Left,
            1 => To::Right,
            _ => return Err(Failure::misuse("a capture's hand is none")),
        };
        // SAFETY: the caller's promise is passed on.
        let frames = unsafe { Frame::read_all(self.frames, self.frame_count) }?;
        Ok(wire::HandCapture { hand, frames })
    }
}

impl Consent {
    /// # Safety
    /// As [`Enrolment::read`].
    unsafe fn read(&self) -> Result<wire::ConsentGiven, Failure> {
        let purposes = purposes(self.purpose)?;
        let mut purposes = purposes.iter();
        let (Some(purpose), None) = (purposes.next(), purposes.next()) else {
            return Err(Failure::misuse("a consent is for one purpose"));
        };
        // SAFETY: the caller's promise is passed on.
        let notice = unsafe { required(self.notice, "notice") }?;
        // SAFETY: the caller's promise is passed on.
        let language = unsafe { required(self.language, "language") }?;
        Ok(wire::ConsentGiven { purpose, notice, language, confirmed: self.confirmed })
    }
}
