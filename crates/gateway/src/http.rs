//! HTTPS on the store's network: pairing, health, metrics. No personal data passes here.

use crate::{
    fabric::Fabric,
    metrics::{Certificate, Metrics},
    probe::Probe,
    terminals::{TerminalError, Terminals},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use palmgate_protocol::{decode, encode, pairing};
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The broker counts as dead when a message to ourselves took longer than this.
const BROKER_SILENCE: Duration = Duration::from_secs(12);
/// The event loop counts as stuck when it did not tick for this long.
const LOOP_SILENCE: Duration = Duration::from_secs(5);

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) alive: watch::Receiver<Instant>,
    pub(crate) pairing: Arc<tokio::sync::Semaphore>,
    pub(crate) probe: Probe,
}

/// The routes of the HTTPS listener.
pub(crate) fn router(served: Served) -> Router {
    Router::new()
        .route(pairing::PATH, post(pair))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(DefaultBodyLimit::max(pairing::MAX_PAIRING_BYTES))
        .with_state(served)
}

impl Served {
    /// Whether the event loop still ticks.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.borrow().elapsed() < LOOP_SILENCE
    }

    /// Whether messages pass through the broker.
    pub(crate) fn broker_passes(&self) -> bool {
        self.fabric.last_round_trip().is_some_and(|ago| ago < BROKER_SILENCE)
    }
}

/// Pairing requests are few: one at a time, so that a flood costs nobody else anything.
async fn pair(State(served): State<Served>, body: Bytes) -> Response {
    let Ok(_turn) = served.pairing.try_acquire() else {
        return problem(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "another pairing is in progress: try again",
        );
    };
    let request = match decode::<pairing::PairRequest>(&body) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "malformed", &error.to_string()),
    };
    match served.terminals.pair(&request, &served.fabric).await {
        Ok(answer) => {
            ([(header::CONTENT_TYPE, pairing::MEDIA_TYPE)], encode(&answer)).into_response()
        }
        Err(error @ TerminalError::Code) => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            problem(StatusCode::FORBIDDEN, "code", &error.to_string())
        }
        Err(error @ TerminalError::Vault(_)) => {
            tracing::error!(%error, "pairing failed");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the box could not do it: see its log",
            )
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, "refused", &error.to_string()),
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let kinds = [Certificate::Gateway, Certificate::Terminal, Certificate::Broker];
    for (which, ends) in kinds.into_iter().zip(served.terminals.certificates_end()) {
        if let Some(ends) = ends {
            served.metrics.certificate_ends(which, ends);
        }
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = served.metrics.expose(served.broker_passes());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The process works: the event loop ticks.
async fn healthz(State(served): State<Served>) -> Response {
    let alive = served.is_alive();
    let status = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "alive": alive }))).into_response()
}

/// Terminals can be served: messages pass through the broker, too.
async fn readyz(State(served): State<Served>) -> Response {
    let (alive, broker) = (served.is_alive(), served.broker_passes());
    let status = if alive && broker { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "alive": alive, "broker": broker }))).into_response()
}

/// An RFC 9457 problem.
fn problem(status: StatusCode, kind: &str, detail: &str) -> Response {
    let body = json!({
        "type": format!("urn:palmgate:problem:{kind}"),
        "title": status.canonical_reason().unwrap_or("problem"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
