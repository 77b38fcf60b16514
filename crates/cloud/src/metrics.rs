//! What Prometheus may see: endpoints, outcomes, counts. No label can hold a person or an id.

use crate::registry::Counts;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::time::Duration;

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    shard_bytes: IntCounter,
    members: IntGaugeVec,
    stores: IntGauge,
    unconfirmed_removals: IntGauge,
    overdue_removals: IntGauge,
    unfinished_erasures: IntGauge,
    tombstones: IntGauge,
    indexed: IntGauge,
    forks: IntCounter,
}

const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "palmgate_registry_requests_total",
            "Requests by endpoint and outcome: ok, or the type of the problem.",
        );
        let seconds = HistogramOpts::new(
            "palmgate_registry_request_seconds",
            "Time to answer, by endpoint; look-ups are answered in slots of fixed length.",
        )
        .buckets(BUCKETS.to_vec());
        let members = Opts::new("palmgate_registry_members", "People registered, by custody.");
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["endpoint", "outcome"])?,
            seconds: HistogramVec::new(seconds, &["endpoint"])?,
            shard_bytes: IntCounter::new(
                "palmgate_registry_shard_bytes_total",
                "Bytes of shards sent.",
            )?,
            members: IntGaugeVec::new(members, &["custody"])?,
            stores: gauge("palmgate_registry_stores", "Stores that said hello.")?,
            unconfirmed_removals: gauge(
                "palmgate_registry_unconfirmed_removals",
                "Removals that a store has not confirmed.",
            )?,
            overdue_removals: gauge(
                "palmgate_registry_overdue_removals",
                "Removals that a store has not confirmed within 24 hours; anything but 0 is an alarm.",
            )?,
            unfinished_erasures: gauge(
                "palmgate_registry_unfinished_erasures",
                "Erasures whose key is not destroyed yet; anything but 0 for long is an alarm.",
            )?,
            tombstones: gauge("palmgate_registry_tombstones", "Hashes of what was forgotten.")?,
            indexed: gauge(
                "palmgate_registry_indexed_embeddings",
                "Embeddings that this process searches.",
            )?,
            forks: IntCounter::new(
                "palmgate_registry_ledger_forks_total",
                "Checkpoints that do not continue what was cosigned; anything but 0 is an alarm.",
            )?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.requests.clone()))?;
        self.registry.register(Box::new(self.seconds.clone()))?;
        self.registry.register(Box::new(self.shard_bytes.clone()))?;
        self.registry.register(Box::new(self.members.clone()))?;
        self.registry.register(Box::new(self.forks.clone()))?;
        for gauge in [
            &self.stores,
            &self.unconfirmed_removals,
            &self.overdue_removals,
            &self.unfinished_erasures,
            &self.tombstones,
            &self.indexed,
        ] {
            self.registry.register(Box::new(gauge.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn answered(&self, endpoint: &str, outcome: &str, took: Duration) {
        self.requests.with_label_values(&[endpoint, outcome]).inc();
        self.seconds.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    pub(crate) fn fork_seen(&self) {
        self.forks.inc();
    }

    pub(crate) fn shard_sent(&self, bytes: usize) {
        self.shard_bytes.inc_by(bytes as u64);
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self, counts: &Counts) -> Result<String, prometheus::Error> {
        let set = |gauge: &IntGauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for (custody, members) in counts.members {
            set(&self.members.with_label_values(&[custody.as_str()]), members);
        }
        set(&self.stores, counts.stores);
        set(&self.unconfirmed_removals, counts.unconfirmed_removals);
        set(&self.overdue_removals, counts.overdue_removals);
        set(&self.unfinished_erasures, counts.unfinished_erasures);
        set(&self.tombstones, counts.tombstones);
        set(&self.indexed, counts.indexed);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
