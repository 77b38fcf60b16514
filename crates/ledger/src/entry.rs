use crate::{
    Hash, commitment,
    text::{has_text, hex, maybe_word, moment},
};
use palmgate_protocol::{MemberId, Name, Purpose, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// Bytes of one entry at most.
pub const MAX_ENTRY_BYTES: usize = 2048;
/// What most entries stay below.
pub(crate) const USUAL_ENTRY_BYTES: usize = 384;
const MAX_WORD_BYTES: usize = 48;
const MAX_DIGITS: usize = 4;
const MAX_RULES: usize = 24;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A scan and what was decided about it.
    Scan,
    /// An enrolment or its renewal.
    Enrolment,
    /// A consent given, confirmed, paused or withdrawn.
    Consent,
    /// Another right exercised: access, rectification, restriction, objection, portability.
    Right,
    /// A person forgotten (GDPR Art. 17).
    Erasure,
    /// Data removed because its time was up.
    Retention,
    /// A miss taken to the cloud, or kept from it.
    Escalation,
    /// A shard taken in or refused, and leases.
    Shard,
    /// A terminal paired, renewed or removed.
    Terminal,
    /// A law pack put in force.
    Pack,
    /// A program or a bundle installed.
    Update,
    /// Models put in use.
    Model,
    /// Operation of the box: start, stop, configuration, breach clock.
    Operation,
}

impl EntryKind {
    /// The name in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Enrolment => "enrolment",
            Self::Consent => "consent",
            Self::Right => "right",
            Self::Erasure => "erasure",
            Self::Retention => "retention",
            Self::Escalation => "escalation",
            Self::Shard => "shard",
            Self::Terminal => "terminal",
            Self::Pack => "pack",
            Self::Update => "update",
            Self::Model => "model",
            Self::Operation => "operation",
        }
    }
}

/// One decision. Holds no identity: not by convention only, since texts that could carry a name, a
/// phone or card number or an identifier are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, to the millisecond, in the years 0 to 9999.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// What it is about.
    pub kind: EntryKind,
    /// Where, if at a terminal.
    #[serde(with = "maybe_word", default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Name>,
    /// For which purpose, if for one.
    #[serde(with = "maybe_word", default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// A word of the policy's vocabulary: at most 48 of `a-z`, `0-9`, `-`, `:` and `.`, with at
    /// most four digits.
    pub outcome: String,
    /// Ids of the rules that decided, at most 24: each at most 48 of `A-Z`, `a-z`, `0-9`, `-`, `.`,
    /// `/`, `(` and `)`, with at most four digits in a row.
    pub rules: Vec<String>,
    /// SHA-256 of the law pack in force.
    #[serde(with = "hex")]
    pub pack: Hash,
    /// Who it concerns, as a [`commitment`]; [`crate::NOBODY`] if nobody. Of an update or of models,
    /// which concern nobody, the SHA-256 of what was put in use.
    #[serde(with = "hex")]
    pub commitment: Hash,
}

/// The entry cannot stand in a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The time has no RFC 3339 form.
    #[error("the time is outside the years 0 to 9999: check the clock")]
    Time,
    /// The outcome is not a word of a vocabulary.
    #[error("the outcome is no plain word (at most 48 of a-z 0-9 - : . and four digits)")]
    Outcome,
    /// The rule is no rule id.
    #[error(
        "rule {0} of the entry is no rule id (at most 48 of A-Z a-z 0-9 - . / ( ) and four digits in a row)"
    )]
    Rule(usize),
    /// More rules than fit.
    #[error("the entry cites {0} rules; {MAX_RULES} fit")]
    TooManyRules(usize),
    /// A line of the log that is not an entry as this version writes it.
    #[error("not an entry of this format: {0}")]
    Malformed(String),
}

impl Entry {
    /// The line that stands in the log, without its line feed: JSON in the order of the fields,
    /// without spaces. Equal entries have equal lines.
    ///
    /// # Errors
    /// [`EntryError`] when the entry holds what may not be logged.
    pub fn to_line(&self) -> Result<String, EntryError> {
        let mut line = Vec::with_capacity(USUAL_ENTRY_BYTES);
        self.write_line(&mut line)?;
        String::from_utf8(line).map_err(|error| EntryError::Malformed(error.to_string()))
    }

    /// Appends what [`to_line`](Self::to_line) gives.
    pub(crate) fn write_line(&self, to: impl Write) -> Result<(), EntryError> {
        self.check()?;
        serde_json::to_writer(to, self).map_err(|error| EntryError::Malformed(error.to_string()))
    }

    /// Reads a line of the log; anything but the exact line that [`Entry::to_line`] writes is
    /// refused.
    ///
    /// # Errors
    /// [`EntryError::Malformed`] says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, EntryError> {
        if line.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::Malformed(format!("longer than {MAX_ENTRY_BYTES} bytes")));
        }
        let entry: Self = serde_json::from_slice(line)
            .map_err(|error| EntryError::Malformed(error.to_string()))?;
        let mut canonical = Same { left: line, so_far: true };
        entry.write_line(&mut canonical)?;
        if !canonical.so_far || !canonical.left.is_empty() {
            return Err(EntryError::Malformed("not in canonical form".into()));
        }
        Ok(entry)
    }

    /// Makes this entry concern `member`, under a label that is the entry's own: its kind and time.
    pub fn commit(&mut self, salt: &Secret<[u8; 32]>, member: &MemberId) {
        self.commitment = commitment(&self.label(), salt, member);
    }

    /// Whether [`Entry::commit`] was called with this salt and member: answers a person's request
    /// for access while the salt exists.
    pub fn concerns(&self, salt: &Secret<[u8; 32]>, member: &MemberId) -> bool {
        self.commitment == commitment(&self.label(), salt, member)
    }

    fn label(&self) -> String {
        format!("{} {}", self.kind.as_str(), self.at.as_millis())
    }

    fn check(&self) -> Result<(), EntryError> {
        if !has_text(self.at) {
            return Err(EntryError::Time);
        }
        if !is_outcome(&self.outcome) {
            return Err(EntryError::Outcome);
        }
        if self.rules.len() > MAX_RULES {
            return Err(EntryError::TooManyRules(self.rules.len()));
        }
        self.rules
            .iter()
            .position(|rule| !is_rule(rule))
            .map_or(Ok(()), |i| Err(EntryError::Rule(i)))
    }
}

/// Whether what is written is what is known, without a copy of it.
struct Same<'a> {
    left: &'a [u8],
    so_far: bool,
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.strip_prefix(bytes) {
            Some(left) => self.left = left,
            None => self.so_far = false,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Four digits leave no room for a phone number, a card number or an identifier in hex.
fn is_outcome(text: &str) -> bool {
    let allowed = |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b':' | b'.');
    (1..=MAX_WORD_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().filter(u8::is_ascii_digit).count() <= MAX_DIGITS
}

fn is_rule(text: &str) -> bool {
    let allowed =
        |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'/' | b'(' | b')');
    let digits = text.as_bytes().split(|c| !c.is_ascii_digit());
    (1..=MAX_WORD_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && digits.map(<[u8]>::len).all(|count| count <= MAX_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NOBODY;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry {
            at: Timestamp::from_millis(1_785_576_600_250),
            kind: EntryKind::Scan,
            terminal: Some("till-3".parse().unwrap()),
            purpose: Some(Purpose::Pay),
            outcome: "refused:claim-invalid".into(),
            rules: vec!["G-07-3".into(), "E-0225".into()],
            pack: [0xab; 32],
            commitment: NOBODY,
        }
    }

    #[test]
    fn the_line_is_the_documented_one() {
        let expected = format!(
            concat!(
                r#"{{"at":"2026-08-01T09:30:00.250Z","kind":"scan","terminal":"till-3","#,
                r#""purpose":"pay","outcome":"refused:claim-invalid","#,
                r#""rules":["G-07-3","E-0225"],"pack":"{}","commitment":"{}"}}"#
            ),
            "ab".repeat(32),
            "00".repeat(32)
        );
        assert_eq!(entry().to_line().unwrap(), expected);
        let bare = Entry { terminal: None, purpose: None, rules: vec![], ..entry() };
        let line = bare.to_line().unwrap();
        assert!(!line.contains("terminal") && !line.contains("purpose"));
        assert_eq!(Entry::parse(line.as_bytes()), Ok(bare));
    }

    #[test]
    fn what_could_carry_a_person_is_refused() {
        for outcome in [
            "",
            "Marie Dupont",
            "marie@example.org",
            "0612345678",
            "06-12-34-56-78",
            "9f86d081884c7d65",
            "accepted\n",
            &"a".repeat(49),
        ] {
            let entry = Entry { outcome: outcome.into(), ..entry() };
            assert_eq!(entry.to_line(), Err(EntryError::Outcome), "{outcome}");
        }
        for rule in ["", "Marie Dupont", "0612345678", "\"", "é"] {
            let entry = Entry { rules: vec!["G-17".into(), rule.into()], ..entry() };
            assert_eq!(entry.to_line(), Err(EntryError::Rule(1)), "{rule}");
        }
        let many = Entry { rules: vec!["G-17".into(); 25], ..entry() };
        assert_eq!(many.to_line(), Err(EntryError::TooManyRules(25)));
        let late = Entry { at: Timestamp::from_millis(i64::MAX), ..entry() };
        assert_eq!(late.to_line(), Err(EntryError::Time));
        assert!(
            Entry { rules: vec!["G-17-3".into(), "17(3)(b)".into()], ..entry() }.to_line().is_ok()
        );
    }

    #[test]
    fn the_largest_entry_fits_its_bound() {
        let largest = Entry {
            kind: EntryKind::Escalation,
            terminal: Some("a".repeat(32).parse().unwrap()),
            purpose: Some(Purpose::Loyalty),
            outcome: "a".repeat(MAX_WORD_BYTES),
            rules: vec!["A".repeat(MAX_WORD_BYTES); MAX_RULES],
            ..entry()
        };
        let line = largest.to_line().unwrap();
        assert!(line.len() <= MAX_ENTRY_BYTES, "{}", line.len());
        assert_eq!(Entry::parse(line.as_bytes()), Ok(largest));
    }

    #[test]
    fn a_line_has_one_spelling_only() {
        let line = entry().to_line().unwrap();
        for other in [
            line.replace(",\"kind\"", ", \"kind\""),
            line.replace("scan", "sc\\u0061n"),
            line.replace("{\"at\"", "{\"v\":1,\"at\""),
            line.replace("abab", "ABAB"),
            line.replace("09:30:00.250Z", "09:30:00.25Z"),
            line.replace("\"terminal\":\"till-3\",", "\"terminal\":null,"),
            format!("{line} "),
            String::new(),
        ] {
            assert!(
                matches!(Entry::parse(other.as_bytes()), Err(EntryError::Malformed(_))),
                "{other}"
            );
        }
    }

    #[test]
    fn entries_of_one_person_are_found_with_the_salt_and_unlike_without() {
        let (salt, member) = (Secret::new([5; 32]), MemberId::from_random([6; 16]));
        let mut first = entry();
        let mut second = Entry { at: Timestamp::from_millis(1_785_576_600_251), ..entry() };
        first.commit(&salt, &member);
        second.commit(&salt, &member);
        assert!(first.concerns(&salt, &member) && second.concerns(&salt, &member));
        assert!(!first.concerns(&Secret::new([7; 32]), &member));
        assert_ne!(first.commitment, second.commitment);
    }

    proptest! {
        #[test]
        fn lines_are_read_back_or_refused_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<usize>(),
        ) {
            let _ = Entry::parse(&bytes);
            let mut line = entry().to_line().unwrap().into_bytes();
            let at = at % line.len();
            line.splice(at..=at, bytes);
            if let Ok(read) = Entry::parse(&line) {
                prop_assert_eq!(read.to_line().unwrap().into_bytes(), line);
            }
        }
    }
}
