//! Renews the gateway's own certificate while it runs.

use crate::{
    metrics::{Certificate, Metrics},
    terminals::Terminals,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::spawn_blocking};

/// How often the remaining life is looked at, where certificates last long enough.
const TICK: Duration = Duration::from_mins(1);

/// Looks at the remaining life until `stop` changes. What fails is tried again at the next tick: two
/// thirds of a life are over then, and one is left.
pub(crate) async fn run(
    terminals: Arc<Terminals>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TICK.min(terminals.lifetime() / 20));
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = tick.tick() => {}
        }
        let renewing = Arc::clone(&terminals);
        match spawn_blocking(move || renewing.renew_own()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                metrics.renewed(Certificate::Gateway, true);
                tracing::info!("the gateway has a new certificate");
            }
            Ok(Err(error)) => {
                metrics.renewed(Certificate::Gateway, false);
                tracing::error!(%error, "the gateway's certificate could not be renewed");
            }
            Err(_) => return,
        }
    }
}
