use super::{PictureError, Pictures};
use crate::{Presentation, Terminal, TerminalError};
use palmgate_protocol::{
    Biometric,
    terminal::{Answer, AnswerBody, Intent},
};
use palmgate_seal::random;
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What the simulated people come for, how often and how many.
pub struct Plan {
    /// What each wants; a payment gets a new nonce each time.
    pub intent: Intent,
    /// The claim token that each shows, if any.
    pub claim: Option<Biometric<Vec<u8>>>,
    /// People a second.
    pub per_second: f64,
    /// People in all.
    pub count: usize,
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    latencies: Vec<Duration>,
    outcomes: BTreeMap<String, usize>,
    elapsed: Duration,
}

impl RunReport {
    /// The time within which `percent` of all answers came, by nearest rank; `None` without
    /// answers. Counted from the moment the person came, so waiting for a busy box shows.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let rank = (percent / 100.0 * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.clamp(1, self.latencies.len().max(1)) - 1).copied()
    }

    /// How often each outcome came: an answer by its kind, or the kind of error.
    pub const fn outcomes(&self) -> &BTreeMap<String, usize> {
        &self.outcomes
    }

    /// How many were answered, whatever the answer.
    pub const fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// From the first person's coming to the last answer.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    fn count(&mut self, outcome: Result<Answer, TerminalError>, latency: Duration) {
        let label = match outcome {
            Ok(answer) => {
                let rank = self.latencies.partition_point(|earlier| *earlier <= latency);
                self.latencies.insert(rank, latency);
                self::outcome(&answer.body)
            }
            Err(error) => format!("error: {}", error.as_str()),
        };
        *self.outcomes.entry(label).or_default() += 1;
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked: usize = self.outcomes.values().sum();
        write!(f, "{asked} asked in {:.1} s", self.elapsed.as_secs_f64())?;
        for percent in [50.0, 90.0, 99.0, 100.0] {
            if let Some(latency) = self.percentile(percent) {
                write!(f, ", p{percent} {:.1} ms", latency.as_secs_f64() * 1e3)?;
            }
        }
        self.outcomes.iter().try_for_each(|(label, count)| write!(f, "\n{count:>8}  {label}"))
    }
}

/// The kind of an answer in a few words, such as `accepted` or `refused: stale`. Says nothing
/// about who it was.
pub fn outcome(body: &AnswerBody) -> String {
    match body {
        AnswerBody::Accepted(_) => "accepted".into(),
        AnswerBody::Retry { problem, .. } => format!("retry: {}", problem.as_str()),
        AnswerBody::NotRecognised => "not recognised".into(),
        AnswerBody::Refused { reason } => format!("refused: {}", reason.as_str()),
        AnswerBody::Busy => "busy".into(),
        AnswerBody::Enrolled { .. } => "enrolled".into(),
        AnswerBody::History { .. } => "history".into(),
        AnswerBody::Done => "done".into(),
        AnswerBody::Erased { .. } => "erased".into(),
        AnswerBody::Exported { .. } => "exported".into(),
        AnswerBody::Renewed { .. } => "renewed".into(),
    }
}

/// Lets people come at an even rate, whether or not the one before was answered, and presents the
/// captures in turn.
///
/// # Errors
/// [`PictureError`] when a picture cannot be read; nobody has come by then. What the gateway or
/// the network does wrong is part of the report.
///
/// ```no_run
/// use palmgate_terminal::{Terminal, protocol::terminal::Intent, simulated};
/// use std::path::Path;
///
/// # async fn example(terminal: Terminal) -> Result<(), Box<dyn std::error::Error>> {
/// let hands = simulated::pictures_in(Path::new("hands"))?;
/// let plan =
///     simulated::Plan { intent: Intent::Entry, claim: None, per_second: 2.0, count: 100 };
/// println!("{}", simulated::run_at_rate(&terminal, &hands, &plan).await?);
/// # Ok(()) }
/// ```
pub async fn run_at_rate(
    terminal: &Terminal,
    pictures: &[Pictures],
    plan: &Plan,
) -> Result<RunReport, PictureError> {
    for capture in pictures.iter().take(plan.count) {
        drop(capture.read()?);
    }
    let mut report = RunReport::default();
    let mut under_way = JoinSet::new();
    let start = Instant::now();
    for (number, capture) in pictures.iter().cycle().take(plan.count).enumerate() {
        let comes_at = start + interval(plan.per_second).saturating_mul(number as u32);
        let frames = capture.read()?;
        sleep_until(comes_at).await;
        let hand = Presentation { frames, claim: plan.claim(), ..Presentation::default() };
        let (terminal, intent) = (terminal.clone(), fresh(&plan.intent));
        under_way.spawn(async move {
            let outcome = terminal.scan(intent, hand).await;
            (outcome, comes_at.elapsed())
        });
        while let Some(Ok((outcome, latency))) = under_way.try_join_next() {
            report.count(outcome, latency);
        }
    }
    while let Some(Ok((outcome, latency))) = under_way.join_next().await {
        report.count(outcome, latency);
    }
    report.elapsed = start.elapsed();
    Ok(report)
}

impl Plan {
    fn claim(&self) -> Option<Biometric<Vec<u8>>> {
        self.claim.as_ref().map(|claim| Biometric::new(claim.expose().clone()))
    }
}

/// Time between two people; none at all for a rate that is no rate.
fn interval(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second).unwrap_or_default()
}

fn fresh(intent: &Intent) -> Intent {
    let mut intent = intent.clone();
    if let Intent::Pay(payment) = &mut intent {
        payment.nonce = random::bytes();
    }
    intent
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::{
        CaptureId,
        terminal::{Payment, Refusal},
    };

    const MILLI: Duration = Duration::from_millis(1);

    fn answer(body: AnswerBody) -> Answer {
        Answer::new(CaptureId::from_random([0; 16]), body)
    }

    #[test]
    fn percentiles_are_nearest_ranks_of_what_was_answered() {
        let mut report = RunReport::default();
        assert_eq!(report.percentile(50.0), None);
        for latency in (1..=100).rev() {
            report.count(Ok(answer(AnswerBody::NotRecognised)), latency * MILLI);
        }
        report.count(Err(TerminalError::Busy), 1000 * MILLI);
        let percentiles = [0.0, 1.0, 50.0, 99.0, 99.1, 100.0];
        let expected = [1, 1, 50, 99, 100, 100].map(|ms| Some(ms * MILLI));
        assert_eq!(percentiles.map(|percent| report.percentile(percent)), expected);
        assert_eq!(report.answered(), 100);
        assert_eq!(report.outcomes()["error: busy"], 1);
    }

    #[test]
    fn the_report_reads_as_text() {
        let mut report = RunReport { elapsed: 2000 * MILLI, ..RunReport::default() };
        report.count(Ok(answer(AnswerBody::NotRecognised)), 20 * MILLI);
        report.count(Ok(answer(AnswerBody::Refused { reason: Refusal::Stale })), 30 * MILLI);
        let expected = "2 asked in 2.0 s, p50 20.0 ms, p90 30.0 ms, p99 30.0 ms, p100 30.0 ms\
                        \n       1  not recognised\n       1  refused: stale";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn every_payment_has_its_own_nonce() {
        let payment = Payment {
            minor_units: 1250,
            currency: "EUR".into(),
            payee: "Grocer".into(),
            nonce: [0; 16],
        };
        let nonces = [0; 2].map(|_| match fresh(&Intent::Pay(payment.clone())) {
            Intent::Pay(payment) => payment.nonce,
            _ => unreachable!(),
        });
        assert_ne!(nonces[0], nonces[1]);
        assert_ne!(nonces[0], [0; 16]);
    }

    #[test]
    fn a_rate_gives_an_interval() {
        assert_eq!(interval(4.0), 250 * MILLI);
        assert_eq!(interval(0.0), Duration::ZERO);
        assert_eq!(interval(-1.0), Duration::ZERO);
    }
}
