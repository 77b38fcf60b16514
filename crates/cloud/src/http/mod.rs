//! The HTTP interface: who may come in, how much, how often.

mod endpoints;
pub(crate) mod tls;
pub(crate) mod witness;

use crate::{
    clock,
    config::Limits,
    limiter::Limiter,
    metrics::Metrics,
    problem::Problem,
    registry::{Health, Registry},
};
use axum::{
    Router,
    extract::{Request, State},
    http::header,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use palmgate_protocol::{ClaimHandle, Name};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tls::Peer;
use tokio::sync::Semaphore;
use witness::Witness;

/// Requests worked on at once.
const MAX_IN_FLIGHT: usize = 256;
/// Shards built at once; each may take as much memory as a store's whole shard.
const MAX_SHARD_BUILDS: usize = 2;

/// Everything that a request needs.
pub(crate) struct App {
    pub(crate) registry: Arc<dyn Registry>,
    witness: Option<Witness>,
    metrics: Metrics,
    requests: Limiter<Name>,
    resolutions: Limiter<Name>,
    tries: Limiter<ClaimHandle>,
    in_flight: Semaphore,
    shard_builds: Semaphore,
}

impl App {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        witness: Option<Witness>,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        let minute = Duration::from_mins(1);
        Self {
            requests: Limiter::new(limits.requests_per_minute, minute),
            resolutions: Limiter::new(limits.resolutions_per_minute, minute),
            tries: Limiter::new(limits.tries_per_claim_per_hour, 60 * minute),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            shard_builds: Semaphore::new(MAX_SHARD_BUILDS),
            registry,
            witness,
            metrics,
        }
    }

    /// The operator's count of resets for the store, when this certificate may speak for it.
    fn admit(&self, peer: &Peer) -> Result<Store, Problem> {
        let entry = self.registry.store(&peer.name)?;
        let entry = entry.filter(|entry| entry.accepts(&peer.fingerprint));
        let entry = entry.ok_or(Problem::CertificateNotCurrent)?;
        self.requests.take(peer.name.clone(), Instant::now()).map_err(Problem::TooMany)?;
        Ok(Store { name: peer.name.clone(), resets: entry.resets })
    }
}

/// The store that a request comes from.
#[derive(Clone)]
pub(crate) struct Store {
    name: Name,
    resets: u32,
}

/// What stores may ask.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    endpoints::routes()
        .merge(observed())
        .fallback(|| async { Problem::NotFound })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(middleware::from_fn_with_state(app.clone(), enter))
        .with_state(app.clone())
}

/// What the operator's monitoring may ask, on an address of its own.
pub(crate) fn monitoring(app: &Arc<App>) -> Router {
    observed().fallback(|| async { Problem::NotFound }).with_state(app.clone())
}

fn observed() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/v1/witness/heads", get(witness::heads))
}

/// Admits, counts and measures every request of a store.
async fn enter(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (endpoint, started) = (endpoints::label(request.uri().path()), Instant::now());
    let response = match admitted(&app, request).await {
        Ok((request, _permit)) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let outcome = response.extensions().get().map_or("ok", |problem: &Problem| problem.name());
    app.metrics.answered(endpoint, outcome, started.elapsed());
    response
}

async fn admitted(
    app: &Arc<App>,
    mut request: Request,
) -> Result<(Request, impl Drop + use<'_>), Problem> {
    let peer = request.extensions().get::<Peer>().cloned().ok_or(Problem::CertificateNotCurrent)?;
    let permit = app.in_flight.try_acquire().map_err(|_| Problem::Busy)?;
    let admitting = app.clone();
    let store = blocking(move || admitting.admit(&peer)).await?;
    request.extensions_mut().insert(store);
    Ok((request, permit))
}

/// Runs work on the disk away from the tasks that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(Problem::internal)?
}

async fn healthz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    blocking(move || match app.registry.health() {
        Health::Ready => Ok("ok\n"),
        Health::Waiting => Err(Problem::Busy),
        Health::Broken => Err(Problem::Internal),
    })
    .await
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = blocking(move || {
        let counts = app.registry.counts(clock::now())?;
        app.metrics.text(&counts).map_err(Problem::internal)
    });
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((content_type, text.await?).into_response())
}
