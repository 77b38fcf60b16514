//! Prometheus metrics. Every label has a closed set of values; none can hold a person.

use crate::{
    broker::{BrokerCollector, Counters},
    work::StepTimes,
};
use palmgate_policy::{Citation, Decision, DecisionKind, Rule, Standing};
use palmgate_protocol::Timestamp;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::{
    collections::VecDeque,
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
    root: IntGaugeVec,
    requests: IntGaugeVec,
    alarms: IntGaugeVec,
    gauges: Gauges,
    shed: IntCounterVec,
    faults: IntCounterVec,
    cloud: IntCounterVec,
    erasures: IntCounterVec,
    recent: Mutex<VecDeque<StepTimes>>,
}

struct Gauges {
    from_cloud: IntGauge,
    oldest: IntGauge,
    erasing: IntGauge,
    in_work: IntGauge,
    lease: IntGauge,
    rows: IntGauge,
    terminals: IntGauge,
    waiting: IntGauge,
    ledger: IntGauge,
    witnessed: IntGauge,
    log_writable: IntGauge,
    forgotten: IntGauge,
    breaches: IntGauge,
    clock_doubted: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let steps = HistogramVec::new(
            HistogramOpts::new("palmgate_step_seconds", "Time of each step of a scan.").buckets(
                vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.5, 1.0],
            ),
            &["step"],
        )?;
        registry.register(Box::new(steps.clone()))?;
        let people = IntGaugeVec::new(
            Opts::new("palmgate_people", "People whose enrolment this store holds."),
            &["custody"],
        )?;
        registry.register(Box::new(people.clone()))?;
        let root = IntGaugeVec::new(
            Opts::new("palmgate_root_promise", "What becomes of a root that was replaced."),
            &["promise"],
        )?;
        registry.register(Box::new(root.clone()))?;
        let requests = IntGaugeVec::new(
            Opts::new("palmgate_rights_requests", "Open requests of people, by urgency."),
            &["urgency"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let alarms = IntGaugeVec::new(
            Opts::new("palmgate_duty_alarm", "1 while the duty behind a rule is missed."),
            &["rule"],
        )?;
        registry.register(Box::new(alarms.clone()))?;
        let metrics = Self {
            decisions: counter(
                "palmgate_decisions_total",
                "Decisions by kind, purpose and outcome.",
                &["kind", "purpose", "outcome"],
            )?,
            steps,
            people,
            root,
            requests,
            alarms,
            gauges: Gauges {
                from_cloud: gauge("palmgate_people_from_cloud", "People given by the cloud.")?,
                oldest: gauge(
                    "palmgate_oldest_enrolment_timestamp_seconds",
                    "When the oldest enrolment was made; 0 when there is none.",
                )?,
                erasing: gauge("palmgate_erasures_unfinished", "Erasures not yet durable.")?,
                in_work: gauge("palmgate_requests_in_work", "Requests without an answer.")?,
                lease: gauge(
                    "palmgate_shard_lease_timestamp_seconds",
                    "When the shard locks itself; 0 without a shard.",
                )?,
                rows: gauge("palmgate_references", "References open in memory.")?,
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
            },
            shed: counter("palmgate_shed_total", "Messages dropped at a full queue.", &["queue"])?,
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
            registry,
        };
        metrics.log_writable(true);
        Ok(metrics)
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

    pub(crate) fn log_writable(&self, writable: bool) {
        self.gauges.log_writable.set(i64::from(writable));
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let kind = kind(decision.kind);
        let purpose = decision.purpose.map_or("none", palmgate_protocol::Purpose::as_str);
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

    pub(crate) fn terminal_fault(&self, fault: &'static str) {
        self.faults.with_label_values(&[fault]).inc();
    }

    pub(crate) fn cloud(&self, kind: &'static str, result: &'static str) {
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
        gauges.lease.set(seconds(standing.lease_until));
        set(&gauges.rows, counts.rows);
        set(&gauges.terminals, counts.terminals);
        set(&gauges.waiting, counts.waiting);
        set(&gauges.ledger, counts.ledger);
        set(&gauges.forgotten, counts.forgotten);
        gauges.clock_doubted.set(i64::from(standing.clock_doubted));
    }

    /// The text exposition format.
    pub(crate) fn expose(&self) -> Vec<u8> {
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
