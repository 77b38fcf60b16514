//! Deadlines in the calendar of the pack's country.

use crate::{Pack, pack::Term};
use jiff::{Span, Zoned, civil::Date, tz::TimeZone};
use palmgate_protocol::Timestamp;

/// Counts periods as the law does (Reg. (EEC, Euratom) No 1182/71 Art. 3): a period of days, months
/// or years ends with the last hour of its last day; where a month has no such day, of the month's
/// last. Weekends and holidays do not prolong it here, which is the stricter reading.
#[derive(Clone, Debug)]
pub struct Calendar(TimeZone);

impl Calendar {
    /// The calendar of the uppermost layer's country.
    pub fn new(pack: &Pack) -> Self {
        // Its name was checked when the pack was loaded.
        Self(TimeZone::get(&pack.top().time_zone).unwrap_or(TimeZone::UTC))
    }

    /// The first moment after a period that began at `from`: what is not done before is late.
    pub fn after(&self, from: Timestamp, period: Span) -> Timestamp {
        let start = self.day(from);
        let last = start.checked_add(period).unwrap_or(Date::MAX);
        self.end_of(last)
    }

    /// The first moment after a period of months.
    pub fn months_after(&self, from: Timestamp, months: i64) -> Timestamp {
        let period = Span::new().try_months(months);
        period.map_or(Timestamp::from_millis(i64::MAX), |period| self.after(from, period))
    }

    /// The moment this many hours later, whatever the clocks on the wall did in between.
    pub fn hours_after(&self, from: Timestamp, hours: i64) -> Timestamp {
        Timestamp::from_millis(from.as_millis().saturating_add(hours.saturating_mul(3_600_000)))
    }

    /// When data with this term must be gone: short terms to the second, others at the end of their
    /// last day.
    pub fn gone_by(&self, term: &Term, from: Timestamp) -> Timestamp {
        let short = term.keep.get_days() == 0
            && term.keep.get_months() == 0
            && term.keep.get_years() == 0
            && term.keep.get_weeks() == 0;
        if !short {
            return self.after(from, term.keep);
        }
        let millis = term.keep.total(jiff::Unit::Millisecond).unwrap_or(0.0) as i64;
        if millis == 0 {
            return self.after(from, term.keep);
        }
        Timestamp::from_millis(from.as_millis().saturating_add(millis))
    }

    /// The day of a moment in this country.
    pub fn day(&self, at: Timestamp) -> Date {
        let moment = jiff::Timestamp::from_millisecond(at.as_millis());
        let edge = if at.as_millis() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Zoned::new(moment.unwrap_or(edge), self.0.clone()).date()
    }

    /// Whole days from one moment to another, by the days of the calendar.
    pub fn days_between(&self, from: Timestamp, to: Timestamp) -> i64 {
        let days = self.day(from).until((jiff::Unit::Day, self.day(to)));
        days.map_or(i64::MAX, |span| span.get_days().into())
    }

    fn end_of(&self, day: Date) -> Timestamp {
        let next = day.tomorrow().ok().and_then(|next| next.to_zoned(self.0.clone()).ok());
        let millis = next.map_or(i64::MAX, |next| next.timestamp().as_millisecond());
        Timestamp::from_millis(millis)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn paris() -> Calendar {
        Calendar::new(&Pack::embedded())
    }

    #[test]
    fn a_month_from_the_31st_of_january_ends_with_february() {
        let due = paris().months_after(at("2026-01-31T10:00:00Z"), 1);
        assert_eq!(due, at("2026-02-28T23:00:00Z"), "the end of the 28th in Paris");
        let leap = paris().months_after(at("2028-01-31T10:00:00Z"), 1);
        assert_eq!(leap, at("2028-02-29T23:00:00Z"));
        let three = paris().months_after(at("2025-11-30T10:00:00Z"), 3);
        assert_eq!(three, at("2026-02-28T23:00:00Z"));
    }

    #[test]
    fn what_began_on_the_29th_of_february_ends_on_the_28th() {
        let years = |n: i64| paris().after(at("2028-02-29T12:00:00Z"), Span::new().years(n));
        assert_eq!(years(1), at("2029-02-28T23:00:00Z"));
        assert_eq!(years(4), at("2032-02-29T23:00:00Z"));
    }

    #[test]
    fn a_change_of_the_clocks_changes_no_day_and_no_hour() {
        // 29 March 2026: from 02:00 to 03:00 in Paris; 25 October: back.
        let spring = paris().months_after(at("2026-02-28T22:59:59Z"), 1);
        assert_eq!(spring, at("2026-03-28T23:00:00Z"));
        let over = paris().after(at("2026-03-28T12:00:00Z"), Span::new().days(1));
        assert_eq!(over, at("2026-03-29T22:00:00Z"), "a day of 23 hours ends at midnight");
        let autumn = paris().after(at("2026-10-24T12:00:00Z"), Span::new().days(1));
        assert_eq!(autumn, at("2026-10-25T23:00:00Z"), "a day of 25 hours ends at midnight");
        for begun in ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"] {
            let due = paris().hours_after(at(begun), 72);
            assert_eq!(due.since(at(begun)).as_secs(), 72 * 3600);
        }
        assert_eq!(paris().days_between(at("2026-03-28T12:00:00Z"), at("2026-03-30T12:00:00Z")), 2);
    }

    #[test]
    fn the_day_is_that_of_the_country() {
        assert_eq!(paris().day(at("2026-06-30T22:30:00Z")), jiff::civil::date(2026, 7, 1));
    }

    #[test]
    fn a_leap_second_belongs_to_its_minute() {
        let leap = at("2016-12-31T23:59:60Z");
        assert_eq!(leap, at("2016-12-31T23:59:59Z"));
        assert_eq!(paris().months_after(leap, 1), at("2017-02-01T23:00:00Z"), "1 January in Paris");
    }

    #[test]
    fn a_clock_at_1970_and_clocks_at_the_ends_of_time_harm_nothing() {
        let zero = Timestamp::from_millis(0);
        assert_eq!(paris().months_after(zero, 1), at("1970-02-01T23:00:00Z"));
        for edge in [i64::MIN, -1, i64::MAX] {
            let edge = Timestamp::from_millis(edge);
            assert!(paris().months_after(edge, 1) >= edge || edge.as_millis() > 0);
            let _ = (paris().hours_after(edge, 72), paris().days_between(zero, edge));
        }
        assert_eq!(paris().months_after(Timestamp::from_millis(i64::MAX), 1).as_millis(), i64::MAX);
        assert_eq!(paris().months_after(zero, i64::MAX).as_millis(), i64::MAX);
    }

    #[test]
    fn every_term_of_the_pack_has_an_end_from_any_of_these_days() {
        let days = ["1970-01-01T00:00:00Z", "2028-02-29T23:30:00Z", "2026-01-31T00:00:00Z"];
        for term in Pack::embedded().retention() {
            for day in days {
                let end = paris().gone_by(term, at(day));
                assert!(end > at(day) && end.as_millis() < i64::MAX, "{}", term.item);
            }
        }
        let frames = Pack::embedded();
        let frames = frames.retention().iter().find(|term| term.item == "frames").unwrap();
        let end = paris().gone_by(frames, at("2026-03-29T00:59:58Z"));
        assert_eq!(end, at("2026-03-29T01:00:03Z"));
    }
}
