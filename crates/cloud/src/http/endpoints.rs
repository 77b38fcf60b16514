//! Version 1 of the interface. Bodies are CBOR; every refusal is a [`Problem`].

use super::{App, Store, blocking};
use crate::{clock, problem::Problem, registry::Registry};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use data_encoding::HEXLOWER;
use palmgate_protocol::{
    CODE_BYTES, ClaimHandle, MAX_PROBE_CODES, Name, Timestamp,
    cloud::{
        ClaimQuery, Erasure, Hello, ProbeQuery, Registration, Resolution, SearchAnswer,
        SearchQuery, ShardApplied,
    },
    decode, encode,
    limits::MAX_SEALED_RECORD_BYTES,
};
use palmgate_seal::envelope;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of a body that holds keys, ids and numbers only.
const SMALL: usize = 512;
const REGISTRATION: usize = MAX_SEALED_RECORD_BYTES + SMALL;
/// The codes of a probe, its embedding, and room for padding and envelope.
const PROBE: usize = MAX_PROBE_CODES * CODE_BYTES + 8 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Look-ups are answered at multiples of this after they arrived, so that neither a hit, which
/// has to be written down, nor a miss shows in the time.
const RESOLUTION_SLOT: Duration = Duration::from_millis(100);

pub(super) type Answer = Result<Response, Problem>;
pub(super) type Shared = State<Arc<App>>;
pub(super) type From = Extension<Store>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/hello", post(hello))
        .route("/v1/directory", get(directory))
        .route("/v1/registrations", post(register))
        .route("/v1/shard", get(shard))
        .route("/v1/shard/applied", post(applied))
        .route("/v1/resolve/probe", post(resolve_probe))
        .route("/v1/resolve/claim", post(resolve_claim))
        .route("/v1/search", post(search))
        .route("/v1/witness/add-checkpoint", post(super::witness::add_checkpoint))
        .route("/v1/erasures", post(erase))
        .route("/v1/erasures/{commitment}", get(erasure))
        .route("/v1/tombstones", get(tombstones))
}

/// The endpoint of a path, for metrics: a closed set.
pub(super) fn label(path: &str) -> &'static str {
    match path {
        "/v1/hello" => "hello",
        "/v1/directory" => "directory",
        "/v1/registrations" => "registrations",
        "/v1/shard" => "shard",
        "/v1/shard/applied" => "shard-applied",
        "/v1/resolve/probe" => "resolve-probe",
        "/v1/resolve/claim" => "resolve-claim",
        "/v1/erasures" => "erasures",
        "/v1/tombstones" => "tombstones",
        "/v1/search" => "search",
        "/v1/witness/add-checkpoint" => "add-checkpoint",
        "/v1/witness/heads" => "heads",
        "/healthz" => "healthz",
        "/metrics" => "metrics",
        _ if path.starts_with("/v1/erasures/") => "erasure",
        _ => "other",
    }
}

async fn hello(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let hello: Hello = read(request, SMALL).await?;
    let directory = blocking(move || {
        app.registry.hello(&store.name, &hello, store.resets)?;
        directory_of(&app)
    });
    Ok(cbor(directory.await?))
}

async fn directory(State(app): Shared) -> Answer {
    Ok(cbor(blocking(move || directory_of(&app)).await?))
}

fn directory_of(app: &App) -> Result<Vec<u8>, Problem> {
    Ok(encode(&app.registry.directory()?))
}

async fn register(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let registration: Registration = read(request, REGISTRATION).await?;
    blocking(move || app.registry.register(&store.name, &registration, clock::now())).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn shard(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let held = number(&request, "held")?;
    let _permit = app.shard_builds.acquire().await.map_err(Problem::internal)?;
    let building = app.clone();
    let shard = blocking(move || building.registry.shard(&store.name, held, clock::now())).await?;
    let Some(bytes) = shard else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    app.metrics.shard_sent(bytes.len());
    Ok(cbor(bytes))
}

async fn applied(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let applied: ShardApplied = read(request, SMALL).await?;
    blocking(move || app.registry.applied(&store.name, applied.version)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn resolve_probe(State(app): Shared, store: From, request: Request) -> Answer {
    let query: ProbeQuery = read(request, PROBE).await?;
    let claim = query.claim;
    resolve(app, store, claim, move |registry, store, now| {
        registry.resolve_probe(store, &query, now)
    })
    .await
}

async fn resolve_claim(State(app): Shared, store: From, request: Request) -> Answer {
    let query: ClaimQuery = read(request, SMALL).await?;
    let claim = query.claim;
    resolve(app, store, claim, move |registry, store, now| {
        registry.resolve_claim(store, &query, now)
    })
    .await
}

/// Bounded by store alone: there is no claim.
async fn search(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let query: SearchQuery = read(request, PROBE).await?;
    let arrived = Instant::now();
    app.resolutions.take(store.name.clone(), arrived).map_err(Problem::TooMany)?;
    let answer = blocking(move || app.registry.search(&store.name, &query, clock::now())).await?;
    in_a_slot(arrived).await;
    Ok(padded(&encode(&answer), SearchAnswer::WIRE_BYTES))
}

/// Look-ups are bounded by store and by claim, and answered in one size and in slots of time.
async fn resolve(
    app: Arc<App>,
    Extension(store): From,
    claim: ClaimHandle,
    look_up: impl FnOnce(&dyn Registry, &Name, Timestamp) -> Result<Resolution, Problem>
    + Send
    + 'static,
) -> Answer {
    let arrived = Instant::now();
    app.resolutions.take(store.name.clone(), arrived).map_err(Problem::TooMany)?;
    app.tries.take(claim, arrived).map_err(Problem::TooMany)?;
    let resolution = blocking(move || look_up(&*app.registry, &store.name, clock::now())).await?;
    in_a_slot(arrived).await;
    Ok(padded(&encode(&resolution), Resolution::WIRE_BYTES))
}

async fn in_a_slot(arrived: Instant) {
    let slots = arrived.elapsed().as_millis() / RESOLUTION_SLOT.as_millis() + 1;
    let answer_at = arrived + RESOLUTION_SLOT * u32::try_from(slots).unwrap_or(1);
    tokio::time::sleep_until(answer_at.into()).await;
}

fn padded(answer: &[u8], to: usize) -> Response {
    let padded = envelope::pad(answer, to);
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    (content_type, padded.expose().clone()).into_response()
}

async fn erase(State(app): Shared, Extension(store): From, request: Request) -> Answer {
    let erasure: Erasure = read(request, SMALL).await?;
    let state = blocking(move || app.registry.erase(&store.name, &erasure, clock::now())).await?;
    Ok(cbor(encode(&state)))
}

async fn erasure(
    State(app): Shared,
    Extension(store): From,
    Path(commitment): Path<String>,
) -> Answer {
    let commitment = HEXLOWER.decode(commitment.as_bytes()).map_err(|_| Problem::Malformed)?;
    let commitment = commitment.try_into().map_err(|_| Problem::Malformed)?;
    let state = blocking(move || app.registry.erasure(&store.name, &commitment)).await?;
    Ok(cbor(encode(&state)))
}

async fn tombstones(State(app): Shared, request: Request) -> Answer {
    let after = number(&request, "after")?;
    let page = blocking(move || app.registry.tombstones(after)).await?;
    Ok(cbor(encode(&page)))
}

/// The one number of a query; 0 when there is no query.
fn number(request: &Request, name: &str) -> Result<u64, Problem> {
    let Some(query) = request.uri().query() else { return Ok(0) };
    let value = query.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).ok_or(Problem::Malformed)
}

/// Reads a body of at most `limit` bytes and decodes it.
async fn read<T: for<'b> minicbor::Decode<'b, ()>>(
    request: Request,
    limit: usize,
) -> Result<T, Problem> {
    let header = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    if header(request.headers(), header::CONTENT_TYPE).as_deref() != Some("application/cbor") {
        return Err(Problem::NotCbor);
    }
    let announced = header(request.headers(), header::CONTENT_LENGTH);
    if announced.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > limit)
    {
        return Err(Problem::TooLarge);
    }
    decode(&body(request, limit).await?).map_err(|_| Problem::Malformed)
}

/// A body of at most `limit` bytes, if it arrives in time.
pub(super) async fn body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let body = axum::body::to_bytes(request.into_body(), limit);
    let body = tokio::time::timeout(BODY_DEADLINE, body).await.map_err(|_| Problem::TooSlow)?;
    // A body can also fail to arrive because the connection broke; then nobody reads this.
    body.map_err(|_| Problem::TooLarge)
}

fn cbor(body: impl Into<Bytes>) -> Response {
    ([(header::CONTENT_TYPE, "application/cbor")], body.into()).into_response()
}
