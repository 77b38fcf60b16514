use super::{Counters, Reason};
use prometheus::{
    IntCounter, IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::Arc;

/// The door's counters as Prometheus metrics.
pub(crate) struct BrokerCollector {
    counters: Arc<Counters>,
    accepted: IntCounter,
    ended: IntCounterVec,
}

impl BrokerCollector {
    pub(crate) fn new(counters: Arc<Counters>) -> Result<Self, prometheus::Error> {
        let ended = Opts::new(
            "palmgate_broker_refused_or_ended_total",
            "Connections and subscriptions refused, and connections ended, by reason.",
        );
        Ok(Self {
            counters,
            accepted: IntCounter::new(
                "palmgate_broker_connections_total",
                "Connections that passed the embedded broker's door.",
            )?,
            ended: IntCounterVec::new(ended, &["reason"])?,
        })
    }
}

impl Collector for BrokerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.accepted.desc().into_iter().chain(self.ended.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let advance = |to: &IntCounter, value: u64| to.inc_by(value.saturating_sub(to.get()));
        advance(&self.accepted, self.counters.accepted());
        for reason in Reason::ALL {
            advance(&self.ended.with_label_values(&[reason.as_str()]), self.counters.of(*reason));
        }
        self.accepted.collect().into_iter().chain(self.ended.collect()).collect()
    }
}
