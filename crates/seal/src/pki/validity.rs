use super::{Parsed, PkiError};
use palmgate_protocol::Timestamp;
use rustls::pki_types::CertificateDer;
use std::time::Duration;

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Beginning; an hour before the certificate was issued, at most.
    pub from: Timestamp,
    /// End.
    pub until: Timestamp,
}

impl Validity {
    /// Reads it from a certificate.
    ///
    /// # Errors
    /// [`PkiError`] when the certificate is malformed.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        Ok(Parsed::from_der(certificate)?.validity)
    }

    /// Time left at `now`.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.until.since(now)
    }

    /// Whether the certificate should be replaced at `now`: less than a third of its life is left.
    /// One that has not begun yet is replaced, too: it was issued while the clock was ahead, and
    /// nobody else would take it.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now < self.from || self.remaining(now) < self.until.since(self.from) / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::DAY;

    #[test]
    fn a_certificate_is_due_in_its_last_third_and_whenever_it_does_not_hold() {
        let from = Timestamp::from_millis(1_800_000_000_000);
        let validity = Validity { from, until: from.after(30 * DAY) };
        assert!(!validity.is_due(from) && !validity.is_due(from.after(20 * DAY)));
        assert!(validity.is_due(from.after(20 * DAY + Duration::from_millis(1))));
        assert!(validity.is_due(validity.until) && validity.is_due(from.after(400 * DAY)));
        for clock in [i64::MIN, 0, from.as_millis() - 1, i64::MAX] {
            assert!(validity.is_due(Timestamp::from_millis(clock)), "a clock at {clock}");
        }
        assert_eq!(validity.remaining(from.after(29 * DAY)), DAY);
        assert_eq!(validity.remaining(validity.until.after(DAY)), Duration::ZERO);
    }
}
