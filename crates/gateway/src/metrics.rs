//! Prometheus metrics. Every label has a closed set of values; none can hold a person.

use crate::{
    broker::{BrokerCollector, Counters},
    clock,
    work::StepTimes,
};
use data_encoding::HEXLOWER;
use palmgate_policy::{Citation, Decision, DecisionKind, Rule, Settings, Standing};
use palmgate_protocol::{Purpose, Timestamp};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Scans whose steps are kept for `palmgate bench`.
const KEPT_SCANS: usize = 4_096;

/// The gateway's metrics and the step times of recent scans.
pub(crate) struct Metrics {
    registry: Registry,
    decisions: IntCounterVec,
    steps: HistogramVec,
    people: IntGaugeVec,
    galleries: IntGaugeVec,
    root: IntGaugeVec,
    requests: IntGaugeVec,
    alarms: IntGaugeVec,
    build: IntGaugeVec,
    certificates: IntGaugeVec,
    renewals: IntCounterVec,
    gauges: Gauges,
    shed: IntCounterVec,
    faults: IntCounterVec,
    vouched: IntCounterVec,
    cloud: IntCounterVec,
    erasures: IntCounterVec,
    recent: Mutex<VecDeque<StepTimes>>,
    state_directory: PathBuf,
}

struct Gauges {
    from_cloud: IntGauge,
    oldest: IntGauge,
    soonest_expiry: IntGauge,
    erasing: IntGauge,
    unconfirmed: IntGauge,
    in_work: IntGauge,
    lease: IntGauge,
    rows: IntGauge,
    complete: IntGauge,
    terminals: IntGauge,
    waiting: IntGauge,
    ledger: IntGauge,
    witnessed: IntGauge,
    log_writable: IntGauge,
    forgotten: IntGauge,
    breaches: IntGauge,
    clock_doubted: IntGauge,
    cloud_round: IntGauge,
    broker_passes: IntGauge,
    reopened: IntCounter,
    space: IntGauge,
    clock: IntGauge,
    uncommitted: IntGauge,
}

impl Gauges {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            from_cloud: gauge("palmgate_people_from_cloud", "People given by the cloud.")?,
            oldest: gauge(
                "palmgate_oldest_enrolment_timestamp_seconds",
                "When the oldest enrolment was made; 0 when there is none.",
            )?,
            soonest_expiry: gauge(
                "palmgate_soonest_expiry_timestamp_seconds",
                "When the first enrolment must be erased; 0 when there is none.",
            )?,
            erasing: gauge("palmgate_erasures_unfinished", "Erasures not yet durable.")?,
            unconfirmed: gauge(
                "palmgate_erasure_unconfirmed_since_timestamp_seconds",
                "When the oldest erasure was made that a recipient has not confirmed; 0 when there is none.",
            )?,
            in_work: gauge("palmgate_requests_in_work", "Requests without an answer.")?,
            lease: gauge(
                "palmgate_shard_lease_timestamp_seconds",
                "When the shard locks itself; 0 without a shard.",
            )?,
            uncommitted: gauge(
                "palmgate_state_uncommitted_since_timestamp_seconds",
                "When an update changed the state's format, while it can go back; 0 once that is committed.",
            )?,
            rows: gauge("palmgate_references", "References open in memory.")?,
            complete: gauge(
                "palmgate_references_complete",
                "1 while the matcher has every reference; everybody is answered busy at 0.",
            )?,
            terminals: gauge("palmgate_terminals", "Paired terminals.")?,
            waiting: gauge("palmgate_extraction_waiting", "Captures that wait for a worker.")?,
            ledger: gauge("palmgate_ledger_entries", "Entries in the ledger.")?,
            witnessed: gauge(
                "palmgate_ledger_witnessed",
                "Entries under the last checkpoint that the witness cosigned; 0 without one.",
            )?,
            log_writable: gauge(
                "palmgate_ledger_writable",
                "1 while decisions can be written to the ledger; scans are refused at 0.",
            )?,
            forgotten: gauge(
                "palmgate_tombstones",
                "Hashes of people and claims that the tenant's cloud has forgotten.",
            )?,
            breaches: gauge(
                "palmgate_breaches_unreported",
                "Breaches whose report to the authority is not made.",
            )?,
            clock_doubted: gauge(
                "palmgate_clock_doubted",
                "1 after a jump of the clock that no signed time has confirmed.",
            )?,
            cloud_round: gauge(
                "palmgate_cloud_last_round_timestamp_seconds",
                "When the store was last in step with its cloud; 0 before, and without one.",
            )?,
            broker_passes: gauge(
                "palmgate_broker_passes",
                "1 while messages to ourselves come back through the broker.",
            )?,
            reopened: {
                let reopened = IntCounter::new(
                    "palmgate_broker_listener_reopened_total",
                    "Times that the embedded broker's listener was dead and opened anew.",
                )?;
                registry.register(Box::new(reopened.clone()))?;
                reopened
            },
            space: gauge(
                "palmgate_state_available_bytes",
                "Room on the disk of the state directory.",
            )?,
            clock: gauge(
                "palmgate_clock_timestamp_seconds",
                "The box's clock, to be compared with that of the monitoring.",
            )?,
        })
    }
}

/// Whose certificate: the label of its expiry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Certificate {
    /// The gateway's own.
    Gateway,
    /// The store's authority.
    Authority,
    /// The store's at its cloud.
    Cloud,
    /// The terminal's that ends first.
    Terminal,
    /// An external broker's.
    Broker,
}

impl Certificate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Authority => "authority",
            Self::Cloud => "cloud",
            Self::Terminal => "terminal",
            Self::Broker => "broker",
        }
    }
}

/// Label values that are there from the start: what counts from 0 has a rate from the first event.
const QUEUES: [&str; 4] = ["requests", "answers", "conversation", "extraction"];
const FAULTS: [&str; 12] = [
    "unknown",
    "malformed",
    "unopened",
    "replayed",
    "expired",
    "flooding",
    "challenge",
    "join-for-another",
    "join-refused",
    "join-replayed",
    "join-too-often",
    "join-revoked",
];
const VOUCHED: [&str; 8] = [
    "living",
    "attack",
    "malformed",
    "unknown-sensor",
    "forged",
    "other-challenge",
    "other-pictures",
    "stale",
];
const OUTCOMES: [&str; 3] = ["accepted", "not-recognised", "not-live"];
const CLOUD: [[&str; 2]; 14] = [
    ["probe", "found"],
    ["probe", "not-found"],
    ["probe", "failed"],
    ["claim", "found"],
    ["claim", "not-found"],
    ["claim", "failed"],
    ["round", "done"],
    ["round", "failed"],
    ["outbox", "refused"],
    ["witness", "cosigned"],
    ["witness", "absent"],
    ["witness", "failed"],
    ["witness", "forged"],
    ["witness", "fork"],
];

impl Metrics {
    /// Metrics of the gateway whose state lies in `state_directory`.
    pub(crate) fn new(state_directory: PathBuf) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let steps = HistogramVec::new(
            HistogramOpts::new("palmgate_step_seconds", "Time of each step of a scan.").buckets(
                vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.5, 1.0],
            ),
            &["step"],
        )?;
        registry.register(Box::new(steps.clone()))?;
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let metrics = Self {
            decisions: counter(
                "palmgate_decisions_total",
                "Decisions by kind, purpose and outcome.",
                &["kind", "purpose", "outcome"],
            )?,
            steps,
            galleries: gauges(
                "palmgate_largest_gallery",
                "References of a purpose that the calibration can vouch for in a search.",
                &["purpose"],
            )?,
            people: gauges(
                "palmgate_people",
                "People whose enrolment this store holds.",
                &["custody"],
            )?,
            root: gauges(
                "palmgate_root_promise",
                "What becomes of a root that was replaced.",
                &["promise"],
            )?,
            build: gauges(
                "palmgate_build_info",
                "1; the program's version, and SHA-256 of its models and of the law pack in force.",
                &["version", "models", "pack"],
            )?,
            certificates: gauges(
                "palmgate_certificate_expiry_timestamp_seconds",
                "When a certificate ends; of the terminals' the one that ends first.",
                &["certificate"],
            )?,
            renewals: counter(
                "palmgate_certificate_renewals_total",
                "Certificates that were renewed, or could not be.",
                &["certificate", "outcome"],
            )?,
            requests: gauges(
                "palmgate_rights_requests",
                "Open requests of people, by urgency.",
                &["urgency"],
            )?,
            alarms: gauges(
                "palmgate_duty_alarm",
                "1 while the duty behind a rule is missed.",
                &["rule"],
            )?,
            gauges: Gauges::register(&registry)?,
            shed: counter("palmgate_shed_total", "Messages dropped at a full queue.", &["queue"])?,
            vouched: counter(
                "palmgate_sensor_verdicts_total",
                "Signed verdicts of sensors, by what came of them.",
                &["outcome"],
            )?,
            faults: counter(
                "palmgate_terminal_faults_total",
                "Messages of terminals that could not be used.",
                &["fault"],
            )?,
            cloud: counter(
                "palmgate_cloud_requests_total",
                "Requests to the cloud by kind and result.",
                &["kind", "result"],
            )?,
            erasures: counter("palmgate_erasures_total", "People erased, by rule.", &["rule"])?,
            recent: Mutex::new(VecDeque::new()),
            state_directory,
            registry,
        };
        metrics.log_writable(true);
        metrics.begin();
        Ok(metrics)
    }

    /// Shows what has not happened yet as 0.
    fn begin(&self) {
        for queue in QUEUES {
            self.shed.with_label_values(&[queue]);
        }
        for kind_and_result in CLOUD {
            self.cloud.with_label_values(&kind_and_result);
        }
        for (purpose, outcome) in Purpose::MATCHED.iter().flat_map(|p| OUTCOMES.map(|o| (p, o))) {
            self.decisions.with_label_values(&[
                kind(DecisionKind::Scan),
                purpose.as_str(),
                outcome,
            ]);
        }
        for step in ["detect", "total"] {
            self.steps.with_label_values(&[step]);
        }
        for outcome in VOUCHED {
            self.vouched.with_label_values(&[outcome]);
        }
        for fault in FAULTS {
            self.faults.with_label_values(&[fault]);
        }
        for which in [Certificate::Gateway, Certificate::Terminal] {
            for outcome in ["renewed", "failed"] {
                self.renewals.with_label_values(&[which.as_str(), outcome]);
            }
        }
        self.erasures.with_label_values(&[Rule::ERASURE.id()]);
    }

    /// What the program is made of.
    pub(crate) fn build(&self, models: [u8; 32], pack: [u8; 32]) {
        let [models, pack] = [models, pack].map(|hash| HEXLOWER.encode(&hash));
        let labels = [env!("CARGO_PKG_VERSION"), models.as_str(), pack.as_str()];
        self.build.with_label_values(&labels).set(1);
    }

    /// What the calibration can vouch for.
    pub(crate) fn calibrated(&self, settings: &Settings) {
        for (purpose, largest) in Purpose::MATCHED.into_iter().zip(settings.largest_galleries) {
            let largest = i64::try_from(largest).unwrap_or(i64::MAX);
            self.galleries.with_label_values(&[purpose.as_str()]).set(largest);
        }
    }

    /// When a certificate ends.
    pub(crate) fn certificate_ends(&self, which: Certificate, ends: Timestamp) {
        self.certificates.with_label_values(&[which.as_str()]).set(seconds(Some(ends)));
    }

    pub(crate) fn listener_reopened(&self) {
        self.gauges.reopened.inc();
    }

    pub(crate) fn renewed(&self, which: Certificate, done: bool) {
        let outcome = if done { "renewed" } else { "failed" };
        self.renewals.with_label_values(&[which.as_str(), outcome]).inc();
    }

    /// Shows the embedded broker's counters, too.
    pub(crate) fn add_broker(&self, counters: Arc<Counters>) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(BrokerCollector::new(counters)?))
    }

    pub(crate) fn root_promise(&self, promise: &str) {
        self.root.with_label_values(&[promise]).set(1);
    }

    pub(crate) fn witnessed(&self, entries: u64) {
        self.gauges.witnessed.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// Since when the state has a way back to the format before.
    pub(crate) fn uncommitted_since(&self, migrated: Option<Timestamp>) {
        self.gauges.uncommitted.set(seconds(migrated));
    }

    /// Since when an erasure waits for a recipient.
    pub(crate) fn unconfirmed_since(&self, oldest: Option<Timestamp>) {
        self.gauges.unconfirmed.set(seconds(oldest));
    }

    pub(crate) fn log_writable(&self, writable: bool) {
        self.gauges.log_writable.set(i64::from(writable));
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let kind = kind(decision.kind);
        let purpose = decision.purpose.map_or("none", Purpose::as_str);
        self.decisions.with_label_values(&[kind, purpose, decision.outcome]).inc();
    }

    pub(crate) fn erased(&self, rule: &str) {
        self.erasures.with_label_values(&[rule]).inc();
    }

    /// What is on the office's desk; alarms that are over go to 0.
    pub(crate) fn office(
        &self,
        requests: &[(&str, usize)],
        breaches: usize,
        alarms: &[Citation],
        before: &[Rule],
    ) {
        for (urgency, count) in requests {
            set(&self.requests.with_label_values(&[*urgency]), *count);
        }
        set(&self.gauges.breaches, breaches);
        for rule in before {
            self.alarms.with_label_values(&[rule.id()]).set(0);
        }
        for alarm in alarms {
            self.alarms.with_label_values(&[alarm.rule.id()]).set(1);
        }
    }

    pub(crate) fn shed(&self, queue: &'static str) {
        self.shed.with_label_values(&[queue]).inc();
    }

    pub(crate) fn vouched(&self, outcome: &'static str) {
        self.vouched.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn terminal_fault(&self, fault: &'static str) {
        self.faults.with_label_values(&[fault]).inc();
    }

    pub(crate) fn cloud(&self, kind: &'static str, result: &'static str) {
        if (kind, result) == ("round", "done") {
            self.gauges.cloud_round.set(seconds(Some(clock::now())));
        }
        self.cloud.with_label_values(&[kind, result]).inc();
    }

    pub(crate) fn scanned(&self, steps: StepTimes) {
        for (step, took) in steps.iter() {
            self.steps.with_label_values(&[step]).observe(took.as_secs_f64());
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT_SCANS {
            recent.pop_front();
        }
        recent.push_back(steps);
    }

    /// Takes the step times of recent scans.
    pub(crate) fn take_recent(&self) -> Vec<StepTimes> {
        std::mem::take(&mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }

    pub(crate) fn standing(&self, standing: &Standing, counts: &Counts) {
        for custody in [
            palmgate_protocol::Custody::Subject,
            palmgate_protocol::Custody::Split,
            palmgate_protocol::Custody::Operator,
        ] {
            set(
                &self.people.with_label_values(&[custody.as_str()]),
                standing.people[custody as usize],
            );
        }
        let gauges = &self.gauges;
        set(&gauges.from_cloud, standing.from_cloud);
        set(&gauges.erasing, standing.erasing);
        set(&gauges.in_work, standing.in_work);
        gauges.oldest.set(seconds(standing.oldest));
        gauges.soonest_expiry.set(seconds(standing.soonest_expiry));
        gauges.lease.set(seconds(standing.lease_until));
        set(&gauges.rows, counts.rows);
        gauges.complete.set(i64::from(counts.complete));
        set(&gauges.terminals, counts.terminals);
        set(&gauges.waiting, counts.waiting);
        set(&gauges.ledger, counts.ledger);
        set(&gauges.forgotten, counts.forgotten);
        gauges.clock_doubted.set(i64::from(standing.clock_doubted));
    }

    /// The text exposition format.
    pub(crate) fn expose(&self, broker_passes: bool) -> Vec<u8> {
        self.gauges.broker_passes.set(i64::from(broker_passes));
        self.gauges.clock.set(seconds(Some(clock::now())));
        if let Ok(disk) = rustix::fs::statvfs(&self.state_directory) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            self.gauges.space.set(i64::try_from(free).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

/// Counts that the event loop knows.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) rows: usize,
    pub(crate) complete: bool,
    pub(crate) terminals: usize,
    pub(crate) waiting: usize,
    pub(crate) ledger: usize,
    pub(crate) forgotten: usize,
}

fn set(gauge: &IntGauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn seconds(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| Duration::from_millis(at.as_millis().unsigned_abs()).as_secs().cast_signed())
}

/// The label of a kind of decision.
pub(crate) const fn kind(kind: DecisionKind) -> &'static str {
    match kind {
        DecisionKind::Scan => "scan",
        DecisionKind::Enrolment => "enrolment",
        DecisionKind::Right => "right",
        DecisionKind::Erasure => "erasure",
        DecisionKind::Shard => "shard",
        DecisionKind::Office => "office",
        DecisionKind::Pack => "pack",
    }
}
