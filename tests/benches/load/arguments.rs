use anyhow::{Context, Result, bail};
use std::{path::PathBuf, str::FromStr, time::Duration};

const USAGE: &str = "--terminals N, --per-second N (each), --minutes N, --people N, \
                     --step-seconds N (of the search for the ceiling), --erasures N (in each flood), \
                     --ceiling N (a second: known, not searched), --floods N, \
                     --view region|hand (what terminals send)";

/// What is to be measured.
pub(crate) struct Arguments {
    pub(crate) terminals: usize,
    /// Scans of each terminal.
    pub(crate) per_second: f64,
    pub(crate) minutes: f64,
    /// Random protected templates that are searched.
    pub(crate) people: usize,
    /// In each flood, one every two seconds.
    pub(crate) erasures: usize,
    /// Scans a second that the store is known to decide.
    pub(crate) ceiling: Option<f64>,
    /// How often the flood is measured.
    pub(crate) floods: usize,
    /// Set where this process plays the terminals that flood: the store's directory.
    pub(crate) flood_from: Option<PathBuf>,
    step_seconds: f64,
    /// Terminals leave the palm to be found by the gateway.
    pub(crate) whole_hands: bool,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self> {
        let mut parsed = Self {
            terminals: 200,
            per_second: 2.0,
            minutes: 10.0,
            people: 10_000,
            erasures: 30,
            ceiling: None,
            floods: 3,
            flood_from: None,
            step_seconds: 10.0,
            whole_hands: false,
        };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} wants a value; {USAGE}"))?;
            match word.as_str() {
                "--terminals" => parsed.terminals = number(&value)?,
                "--per-second" => parsed.per_second = number(&value)?,
                "--minutes" => parsed.minutes = number(&value)?,
                "--people" => parsed.people = number(&value)?,
                "--erasures" => parsed.erasures = number(&value)?,
                "--ceiling" => parsed.ceiling = Some(number(&value)?),
                "--floods" => parsed.floods = number(&value)?,
                "--flood-from" => parsed.flood_from = Some(value.into()),
                "--step-seconds" => parsed.step_seconds = number(&value)?,
                "--view" if value == "region" => parsed.whole_hands = false,
                "--view" if value == "hand" => parsed.whole_hands = true,
                _ => bail!("{word} {value} is unknown; {USAGE}"),
            }
        }
        if parsed.terminals < 2
            || parsed.per_second <= 0.0
            || parsed.step_seconds <= 0.0
            || parsed.floods == 0
        {
            bail!("two terminals and one flood at least, and positive times; {USAGE}");
        }
        Ok(parsed)
    }

    /// How long one rate is tried.
    pub(crate) fn step(&self) -> Duration {
        Duration::from_secs_f64(self.step_seconds)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{text} is no number; {USAGE}"))
}
