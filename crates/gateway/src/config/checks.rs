//! What a single value must be like. Nothing here reads a clock or a file.

use super::{Region, reader::Wanted};
use crate::law::STATEMENTS;
use palmgate_ledger::note::Signer;
use palmgate_protocol::{
    Custody, DAY, Name, Purpose, PurposeSet, Timestamp, limits::MAX_TEXT_BYTES,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};
use toml::de::DeValue;

/// Twelve months and the rest of the last day.
const LONGEST_EXCEPTION: Duration = Duration::from_secs(367 * DAY.as_secs());

type Checked<T> = Result<T, Wanted>;

/// A rule of the law pack that bounds a value.
pub(super) struct Rule {
    pub(super) id: &'static str,
    pub(super) source: &'static str,
}

/// Text, without white space around it.
pub(super) fn text(value: &DeValue<'_>) -> Checked<String> {
    let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
    text.map(Into::into)
        .ok_or_else(|| Wanted::new("text that is not empty", "write it between quotation marks"))
}

/// Text that a parser accepts.
pub(super) fn parsed<T: FromStr>(value: &DeValue<'_>, wanted: &str, remedy: &str) -> Checked<T> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Wanted::new(wanted, remedy))
}

/// The name of a tenant or store.
pub(super) fn name(value: &DeValue<'_>) -> Checked<Name> {
    let wanted = "1 to 32 of a-z, 0-9 and -, starting with a letter";
    parsed(value, wanted, "for example \"lyon-3\"")
}

pub(super) fn boolean(value: &DeValue<'_>) -> Checked<bool> {
    value.as_bool().ok_or_else(|| Wanted::new("true or false", "write it without quotation marks"))
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Checked<T> {
    let text = value.as_str();
    let known = words.iter().find(|(word, _)| text == Some(word));
    known.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        Wanted::new(format!("one of {}", quoted.join(", ")), "choose one of them")
    })
}

/// Statements of the controller, each once.
pub(super) fn statements(value: &DeValue<'_>) -> Checked<Vec<&'static str>> {
    let known = |word: &String| STATEMENTS.iter().copied().find(|known| known == word);
    let words = strings(value).and_then(|words| words.iter().map(known).collect());
    words.ok_or_else(|| {
        let wanted = format!("a list of: {}", STATEMENTS.join(", "));
        Wanted::new(wanted, "state only what is so: each stands in the papers")
    })
}

/// Verifier keys of the people trusted to sign a law pack.
pub(super) fn signers(value: &DeValue<'_>) -> Checked<Vec<Signer>> {
    let keys = strings(value).filter(|keys| keys.len() >= 2);
    let signers = keys.and_then(|keys| keys.iter().map(|key| key.parse().ok()).collect());
    signers.ok_or_else(|| {
        let wanted = "the verifier keys of at least two people (C2SP signed notes)";
        Wanted::new(wanted, "`palmgate policy sign` prints a signer's key")
    })
}

/// A day that has begun: its start, in UTC.
pub(super) fn past_day(value: &DeValue<'_>, now: Timestamp) -> Checked<Timestamp> {
    let begun = end_of_day(value).map(|end| Timestamp::from_millis(end.as_millis() - 86_400_000));
    begun.filter(|begun| *begun <= now).ok_or_else(|| {
        Wanted::new(
            "a date that is not to come",
            "write year, month and day, for example 2026-03-31",
        )
    })
}

pub(super) fn keeper(value: &DeValue<'_>) -> Checked<&'static str> {
    word(value, &[("file", "file"), ("credential", "credential"), ("tpm", "tpm")])
}

pub(super) fn custody(value: &DeValue<'_>) -> Checked<Custody> {
    word(value, &[Custody::Split, Custody::Subject, Custody::Operator].map(|c| (c.as_str(), c)))
}

/// Different purposes, at least one.
pub(super) fn purposes(value: &DeValue<'_>) -> Checked<PurposeSet> {
    let wanted = || {
        let known: Vec<_> = Purpose::ALL.iter().map(|p| format!("{:?}", p.as_str())).collect();
        Wanted::new(
            format!("a list of {}, each once, at least one", known.join(", ")),
            "serve what people are asked to consent to, and nothing else (rule G-05-B)",
        )
    };
    let texts = strings(value).filter(|texts| !texts.is_empty()).ok_or_else(wanted)?;
    let parsed: Result<Vec<Purpose>, _> = texts.iter().map(|text| text.parse()).collect();
    let parsed = parsed.map_err(|_| wanted())?;
    let distinct: BTreeSet<_> = parsed.iter().collect();
    if distinct.len() == parsed.len() { Ok(parsed.into_iter().collect()) } else { Err(wanted()) }
}

/// A whole number.
pub(super) fn whole(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Checked<u64> {
    number(value).filter(|number| range.contains(number)).ok_or_else(|| {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        Wanted::new(wanted, "write a number in this range, without quotation marks or unit")
    })
}

/// A whole number that the law bounds from above.
pub(super) fn lawful(value: &DeValue<'_>, range: RangeInclusive<u64>, rule: &Rule) -> Checked<u64> {
    whole(value, range.clone()).map_err(|wanted| match number(value) {
        Some(number) if number > *range.end() => Wanted::new(
            format!("at most {}: rule {} ({})", range.end(), rule.id, rule.source),
            "lower it: a store may be stricter than the law, never laxer",
        ),
        _ => wanted,
    })
}

/// Days that the law bounds from above.
pub(super) fn days(value: &DeValue<'_>, most: u64, rule: &Rule) -> Checked<Duration> {
    lawful(value, 1..=most, rule).map(|days| DAY * days as u32)
}

pub(super) fn path(value: &DeValue<'_>) -> Checked<PathBuf> {
    let path = value.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| {
        Wanted::new("an absolute path", "start it with /, for example \"/var/lib/palmgate\"")
    })
}

pub(super) fn address(value: &DeValue<'_>) -> Checked<SocketAddr> {
    let remedy = "for example \"127.0.0.1:8883\", or \"[::]:8883\" for all interfaces";
    parsed(value, "an IP address and a port", remedy)
}

/// A DNS name or IP address.
pub(super) fn host(value: &DeValue<'_>) -> Checked<String> {
    let host = value.as_str().filter(|host| is_host(host));
    host.map(Into::into).ok_or_else(|| {
        let wanted = "a DNS name or an IP address, without port";
        Wanted::new(wanted, "write the name that terminals reach this box by")
    })
}

/// A country of the European Economic Area, or the Union as a whole.
pub(super) fn region(value: &DeValue<'_>) -> Checked<Region> {
    let text = value.as_str().unwrap_or_default();
    Region::parse(text).ok_or_else(|| {
        Wanted::new(
            "\"eu\" or the two-letter code of a country of the EEA: rule G-44 (GDPR Art. 44-46)",
            "use a cloud in the European Economic Area: biometric data does not leave it",
        )
    })
}

/// A language tag such as `fr` or `nl-BE` (BCP 47, without extensions).
pub(super) fn language(value: &DeValue<'_>) -> Checked<String> {
    let tag = value.as_str().filter(|text| {
        text.split('-').enumerate().all(|(position, part)| match position {
            0 => (2..=3).contains(&part.len()) && part.chars().all(|c| c.is_ascii_lowercase()),
            _ => (2..=8).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric()),
        })
    });
    tag.map(Into::into)
        .ok_or_else(|| Wanted::new("a language tag (BCP 47)", "for example \"fr\" or \"nl-BE\""))
}

/// Names of places, each once.
pub(super) fn zones(value: &DeValue<'_>) -> Checked<Vec<String>> {
    let zones = strings(value).filter(|zones| {
        let fits = |zone: &String| !zone.trim().is_empty() && zone.len() <= MAX_TEXT_BYTES;
        zones.iter().all(fits) && zones.iter().collect::<BTreeSet<_>>().len() == zones.len()
    });
    zones.ok_or_else(|| {
        let wanted = format!("a list of different zone names of 1 to {MAX_TEXT_BYTES} bytes");
        Wanted::new(wanted, "for example [\"cash office\"]")
    })
}

/// 64 hexadecimal digits.
pub(super) fn sha256(value: &DeValue<'_>) -> Checked<[u8; 32]> {
    let text = value.as_str().filter(|text| text.len() == 64 && text.is_ascii());
    let digits = text.and_then(|text| {
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        (!text.contains('+')).then_some(bytes)
    });
    digits.ok_or_else(|| Wanted::new("64 hexadecimal digits", "run sha256sum on the document"))
}

/// Two different people.
pub(super) fn signatories(value: &DeValue<'_>) -> Checked<[String; 2]> {
    let trimmed = |names: Vec<String>| names.iter().map(|name| name.trim().to_owned()).collect();
    let names: Option<Vec<String>> = strings(value).map(trimmed);
    let pair = names.and_then(|names| <[String; 2]>::try_from(names).ok());
    pair.filter(|[one, other]| one != other && !one.is_empty() && !other.is_empty()).ok_or_else(
        || {
            let wanted = "the names of two different people: rule C-RT-07c";
            Wanted::new(wanted, "for example [\"A. Martin\", \"B. Petit\"]")
        },
    )
}

/// The last day on which an exception holds: today at the earliest, twelve months from `now` at
/// most. The answer is the end of that day, in UTC.
pub(super) fn last_day(value: &DeValue<'_>, now: Timestamp) -> Checked<Timestamp> {
    let end = end_of_day(value).ok_or_else(|| {
        Wanted::new("a date", "write year, month and day, for example 2027-03-31")
    })?;
    if end <= now {
        let wanted = "a day that has not passed: rule C-RT-07c";
        Err(Wanted::new(wanted, "have the dossier examined and signed anew, or leave this custody"))
    } else if end.since(now) > LONGEST_EXCEPTION {
        let wanted = "a day within twelve months: rule C-RT-07c";
        Err(Wanted::new(wanted, "choose an earlier day: the exception is examined every year"))
    } else {
        Ok(end)
    }
}

fn end_of_day(value: &DeValue<'_>) -> Option<Timestamp> {
    let date = match value {
        DeValue::String(text) => &text.parse().ok()?,
        _ => value.as_datetime()?,
    };
    let date = date.date.filter(|_| date.time.is_none())?;
    let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
    Some(Timestamp::from_millis((days + 1) * 86_400_000))
}

/// Proleptic Gregorian calendar, counted in years that start in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 719_469
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    let items = value.as_array()?;
    items.iter().map(|item| item.get_ref().as_str().map(Into::into)).collect()
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.parse::<IpAddr>().is_ok() || (host.len() <= 253 && !numeric && host.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(check: impl Fn(&DeValue<'_>) -> Checked<T>, text: &str) -> Option<T> {
        check(DeValue::parse(text).unwrap().get_ref()).ok()
    }

    #[test]
    fn hosts_and_addresses() {
        for good in ["localhost", "box.lyon.example", "10.0.0.7", "::1", "3com.example"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "-a", "a-", "a..b", "10.0.0.256", "1.2", "a:1", "é.example", "[::1]"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn days_end_at_midnight() {
        let end = |text: &str| {
            let value = DeValue::parse(text).unwrap();
            end_of_day(value.get_ref()).map(Timestamp::as_millis)
        };
        assert_eq!(end("1970-01-01"), Some(86_400_000));
        assert_eq!(end("2000-02-29"), Some(951_868_800_000));
        assert_eq!(end("2026-12-31"), Some(1_798_761_600_000));
        assert_eq!(end("'2026-12-31'"), Some(1_798_761_600_000));
        for bad in ["2026-12-31T10:00:00Z", "10:00:00", "'2026-02-30'", "'soon'", "20261231"] {
            assert_eq!(end(bad), None, "{bad}");
        }
    }

    #[test]
    fn hashes_have_sixty_four_digits() {
        let hash = "0F".repeat(32);
        assert_eq!(check(sha256, &format!("'{hash}'")), Some([15; 32]));
        for bad in ["''".into(), format!("'{}'", "+f".repeat(32)), format!("'{}é'", &hash[2..])] {
            assert_eq!(check(sha256, &bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_can_be_written_in_every_way_of_toml() {
        let number = |text: &str| check(|value| whole(value, 1..=5000), text);
        for text in ["5000", "5_000", "0x1388", "+5000"] {
            assert_eq!(number(text), Some(5000), "{text}");
        }
        for text in ["0", "5001", "-1", "5000.0", "'5000'", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn languages_are_tags() {
        for (tag, good) in [("fr", true), ("nl-BE", true), ("zh-Hant-TW", true), ("French", false)]
        {
            assert_eq!(check(language, &format!("'{tag}'")).is_some(), good, "{tag}");
        }
    }
}
