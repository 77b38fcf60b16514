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
    held_back: IntCounter,
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
            held_back: IntCounter::new(
                "palmgate_broker_held_back_total",
                "Messages of terminals over their pace, which are read more slowly for it.",
            )?,
            ended: IntCounterVec::new(ended, &["reason"])?,
        })
    }
}

impl Collector for BrokerCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = [self.accepted.desc(), self.held_back.desc(), self.ended.desc()];
        counters.into_iter().flatten().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let advance = |to: &IntCounter, value: u64| to.inc_by(value.saturating_sub(to.get()));
        advance(&self.accepted, self.counters.accepted());
        advance(&self.held_back, self.counters.held_back());
        for reason in Reason::ALL {
            advance(&self.ended.with_label_values(&[reason.as_str()]), self.counters.of(*reason));
        }
        let counters = [self.accepted.collect(), self.held_back.collect(), self.ended.collect()];
        counters.into_iter().flatten().collect()
    }
}
