//! How values stand in text: hashes in lower-case hex, signatures in base64, times in RFC 3339.

#![allow(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]

use crate::Hash;
use data_encoding::{BASE64, HEXLOWER};
use palmgate_protocol::Timestamp;
use serde::{
    Deserialize, Deserializer, Serializer,
    de::{Error, Visitor},
};
use std::fmt::{self, Display};
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// A moment as `YYYY-MM-DDThh:mm:ss.mmmZ`; `None` outside the years 0 to 9999.
pub(crate) fn rfc3339(at: Timestamp) -> Option<Moment> {
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, milli) = at.to_hms_milli();
    let year = u16::try_from(year).ok().filter(|year| *year <= 9_999)?;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut write = |end: usize, mut number: u16| {
        let mut at = end;
        while number > 0 {
            at -= 1;
            text[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    write(4, year);
    write(7, u8::from(month).into());
    write(10, day.into());
    write(13, hour.into());
    write(16, minute.into());
    write(19, second.into());
    write(23, milli);
    Some(Moment(text))
}

/// The text of a moment.
pub(crate) struct Moment([u8; 24]);

impl Moment {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and signs are text")
    }
}

/// Whether [`rfc3339`] has a text for it.
pub(crate) const fn has_text(at: Timestamp) -> bool {
    // The first millisecond of the year 0, and the last of the year 9999.
    matches!(at.as_millis(), -62_167_219_200_000..=253_402_300_799_999)
}

/// Reads exactly what [`rfc3339`] writes.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let number = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<u16>().ok();
    let small = |at: usize| u8::try_from(number(at, 2)?).ok();
    let month = Month::try_from(small(5)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, small(8)?).ok()?;
    let time = Time::from_hms_milli(small(11)?, small(14)?, small(17)?, number(20, 3)?).ok()?;
    let at = OffsetDateTime::new_in_offset(date, time, UtcOffset::UTC);
    let millis = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?;
    let at = Timestamp::from_millis(millis);
    // Catches signs and separators that the numbers above let through.
    (rfc3339(at)?.as_str() == text).then_some(at)
}

fn read_hash(text: &str) -> Result<Hash, &'static str> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() {
        return Err("not 32 bytes in hex");
    }
    HEXLOWER.decode_mut(text.as_bytes(), &mut hash).map_err(|_| "not lower-case hex")?;
    Ok(hash)
}

/// Reads a value from its text without a copy of the text.
struct FromText<F>(&'static str, F);

impl<T, M: Display, F: FnOnce(&str) -> Result<T, M>> Visitor<'_> for FromText<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

/// Serde form of 32 bytes.
pub(crate) mod hex {
    use super::{Deserializer, FromText, HEXLOWER, Hash, Serializer, read_hash};

    pub(crate) fn serialize<S: Serializer>(hash: &Hash, to: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        HEXLOWER.encode_mut(hash, &mut text);
        to.serialize_str(std::str::from_utf8(&text).expect("hex digits are text"))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Hash, D::Error> {
        from.deserialize_str(FromText("32 bytes in hex", read_hash))
    }
}

/// Serde form of a list of hashes.
pub(crate) mod hexes {
    use super::{Deserialize, Deserializer, Error, HEXLOWER, Hash, Serializer, read_hash};

    pub(crate) fn serialize<S: Serializer>(hashes: &[Hash], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(hashes.iter().map(|hash| HEXLOWER.encode(hash)))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<Hash>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| read_hash(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// Serde form of a moment.
pub(crate) mod moment {
    use super::{Deserializer, FromText, Serializer, Timestamp, parse_rfc3339, rfc3339};
    use serde::ser::Error as _;

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let text = rfc3339(*at).ok_or_else(|| S::Error::custom("a year outside 0 to 9999"))?;
        to.serialize_str(text.as_str())
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Timestamp, D::Error> {
        const FORM: &str = "a time in the form 2026-08-01T09:30:00.000Z";
        let read = |text: &str| {
            parse_rfc3339(text).ok_or("not a time in the form 2026-08-01T09:30:00.000Z")
        };
        from.deserialize_str(FromText(FORM, read))
    }
}

/// Serde form of something with a text form of its own.
pub(crate) mod word {
    use super::{Deserializer, FromText, Serializer};
    use std::{fmt::Display, str::FromStr};

    pub(crate) fn serialize<T: Display, S: Serializer>(word: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(word)
    }

    pub(crate) fn deserialize<'d, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'d>,
    {
        from.deserialize_str(FromText("a word", str::parse))
    }
}

/// Serde form of several [`word`]s.
pub(crate) mod words {
    use super::{Deserialize, Deserializer, Error, Serializer};
    use std::{fmt::Display, str::FromStr};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        words: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(words.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'d, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'d>,
    {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// Serde form of [`word`] where there may be none; the field is left out then.
pub(crate) mod maybe_word {
    use super::{Deserializer, Serializer, word};
    use std::{fmt::Display, str::FromStr};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        word: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match word {
            Some(word) => to.collect_str(word),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'d, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'d>,
    {
        word::deserialize(from).map(Some)
    }
}

/// Serde form of a signature where there may be none; the field is left out then.
pub(crate) mod maybe_signature {
    use super::{BASE64, Deserialize, Deserializer, Error, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        signature: &Option<[u8; 64]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match signature {
            Some(signature) => to.serialize_str(&BASE64.encode(signature)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<[u8; 64]>, D::Error> {
        let bytes =
            BASE64.decode(String::deserialize(from)?.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map(Some).map_err(|_| D::Error::custom("not 64 bytes in base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_827_696_007, "2000-02-29T12:34:56.007Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(rfc3339(at).as_ref().map(Moment::as_str), Some(text));
            assert_eq!(parse_rfc3339(text), Some(at));
        }
        for (millis, exists) in [
            (i64::MIN, false),
            (-62_167_219_200_001, false),
            (-62_167_219_200_000, true),
            (253_402_300_799_999, true),
            (253_402_300_800_000, false),
            (i64::MAX, false),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!((rfc3339(at).is_some(), has_text(at)), (exists, exists), "{millis}");
        }
        for other in [
            "",
            "2026-02-30T00:00:00.000Z",
            "2026-02-03T24:00:00.000Z",
            "2026-02-03T00:00:00Z",
            "2026-02-03 00:00:00.000Z",
            "+026-02-03T00:00:00.000Z",
            "2026-02-03T00:00:00.000+00:00",
            "2026-02-03T00:00:00.000Zz",
            "é026-02-03T00:00:00.000Z",
        ] {
            assert_eq!(parse_rfc3339(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_survives_its_text(millis in -62_167_219_200_000..253_402_300_800_000_i64) {
            let at = Timestamp::from_millis(millis);
            let text = rfc3339(at).expect("a year from 0 to 9999");
            prop_assert_eq!(parse_rfc3339(text.as_str()), Some(at));
        }
    }
}
