//! The control socket: what an operator on the box itself may do. No verb reads, searches, lists or
//! exports people.

use crate::{
    held,
    http::Served,
    office::{ClockView, Done, Draft, HeldUse, Order, Refused, SignedTime, View},
    store::{Desk, Input},
    terminals::TerminalError,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use palmgate_policy::looks_like_card_number;
use palmgate_protocol::{Custody, Name, Purpose, PurposeSet, Secret, Timestamp};
use palmgate_seal::sign::VerifyingKey;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

/// The control socket's file name in the state directory.
pub const SOCKET: &str = "control.sock";

/// A terminal to add.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddTerminal {
    /// Its name.
    pub name: String,
    /// Purposes it may ask for.
    pub purposes: Vec<String>,
    /// Whether people may enrol at it.
    #[serde(default)]
    pub enrols: bool,
    /// Ed25519 keys of its sensors whose verdicts count, as 64 hexadecimal digits.
    #[serde(default)]
    pub sensors: Vec<String>,
}

/// The one-time code of a new terminal.
#[derive(Serialize, Deserialize)]
pub struct Code {
    /// To be typed or scanned at the terminal within ten minutes.
    pub code: String,
    /// DNS name or address that terminals dial.
    pub host: String,
    /// TCP port that pairing requests go to.
    pub port: u16,
}

/// The name that a terminal shall have from its next pairing on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameTerminal {
    /// The new name.
    pub name: String,
}

/// A paired terminal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListedTerminal {
    /// Its name.
    pub name: String,
    /// Purposes it may ask for.
    pub purposes: Vec<String>,
    /// Whether people may enrol at it.
    pub enrols: bool,
    /// Ed25519 keys of its sensors whose verdicts count, as 64 hexadecimal digits.
    #[serde(default)]
    pub sensors: Vec<String>,
    /// When its certificate ends, in milliseconds since the Unix epoch.
    pub certificate_ends_ms: i64,
}

/// The roster in force: what every terminal has.
#[derive(Debug, Serialize, Deserialize)]
pub struct RosterView {
    /// Rises with every change.
    pub sequence: u64,
    /// SHA-256 of what the gateway signed, in hexadecimal.
    pub hash: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// What the store holds: the public counter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counter {
    /// People enrolled, by custody.
    pub people: BTreeMap<String, usize>,
    /// People given by the cloud.
    pub from_cloud: usize,
    /// When the oldest enrolment was made, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// Erasures not yet durable.
    pub erasing: usize,
    /// When the shard locks itself, in milliseconds since the Unix epoch.
    pub lease_until_ms: Option<i64>,
}

/// The step times of one scan, in microseconds.
pub type ScanSteps = Vec<(String, u64)>;

/// Where terminals reach an external broker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerAddress {
    /// DNS name or IP address.
    pub host: String,
}

/// What an external broker serves TLS with.
#[derive(Serialize, Deserialize)]
pub struct BrokerIdentity {
    /// Certificate, then the store's authority (PEM).
    pub chain_pem: String,
    /// Private key (PEM).
    pub key_pem: String,
}

#[derive(Clone)]
struct Controlled {
    served: Served,
    inputs: UnboundedSender<Input>,
}

type Failure = (StatusCode, String);

/// Which pack is in force.
#[derive(Debug, Serialize, Deserialize)]
pub struct PackView {
    /// Name, version and hash.
    pub pack: String,
}

/// What a decommissioning did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Decommissioned {
    /// People whose keys are destroyed.
    pub people: usize,
}

/// What a commit of the state's format gave up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Committed {
    /// The format that the state could go back to; nothing if it could not.
    pub format: Option<u16>,
}

/// What a new connection to the broker, and a message through it, took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probed {
    /// From the dial to the message's arrival.
    pub micros: u64,
}

/// The routes of the control socket.
pub(crate) fn router(served: Served, inputs: UnboundedSender<Input>) -> Router {
    Router::new()
        .route("/terminals", get(list).post(add))
        .route("/roster", get(roster))
        .route("/terminals/{name}", delete(revoke))
        .route("/terminals/{name}/rename", post(rename))
        .route("/broker-identity", post(broker_identity))
        .route("/broker-probe", post(probe))
        .route("/counter", get(counter))
        .route("/steps", get(steps))
        .route("/office", get(view).post(order))
        .route("/office/breach/{id}/{language}", get(draft))
        .route("/office/held", get(held_uses))
        .route("/clock", get(clock).post(confirm))
        .route("/pack", post(reload))
        .route("/decommission", post(decommission))
        .route("/state/commit", post(commit))
        .with_state(Controlled { served, inputs })
}

async fn list(State(controlled): State<Controlled>) -> Json<Vec<ListedTerminal>> {
    let terminals = controlled.served.terminals.list().into_iter();
    let listed = terminals.map(|terminal| ListedTerminal {
        name: terminal.name.to_string(),
        purposes: terminal.purposes.iter().map(|purpose| purpose.to_string()).collect(),
        enrols: terminal.enrols,
        sensors: terminal.sensors.iter().map(|key| HEXLOWER.encode(&**key)).collect(),
        certificate_ends_ms: terminal.not_after.as_millis(),
    });
    Json(listed.collect())
}

async fn roster(State(controlled): State<Controlled>) -> Result<Json<RosterView>, Failure> {
    let current = controlled.served.terminals.roster();
    let current = current.ok_or_else(|| bad("there is no roster yet".to_owned()))?;
    Ok(Json(RosterView {
        sequence: current.sequence,
        hash: HEXLOWER.encode(&current.hash),
        since_ms: current.at.as_millis(),
    }))
}

async fn add(
    State(controlled): State<Controlled>,
    Json(wanted): Json<AddTerminal>,
) -> Result<Json<Code>, Failure> {
    let name = new_name(&wanted.name)?;
    let purposes: Result<PurposeSet, String> =
        wanted.purposes.iter().map(|purpose| purpose.parse::<Purpose>()).collect();
    let sensors: Option<Vec<_>> = wanted.sensors.iter().map(|key| sensor_key(key)).collect();
    let sensors = sensors.ok_or_else(|| bad("a sensor's key has 64 hexadecimal digits".into()))?;
    let purposes = purposes.map_err(bad)?;
    let code = controlled.served.terminals.add(name, purposes, wanted.enrols, sensors);
    shown(&controlled, code)
}

fn sensor_key(hex: &str) -> Option<VerifyingKey> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    Some(VerifyingKey(bytes.try_into().ok()?))
}

async fn rename(
    State(controlled): State<Controlled>,
    Path(old): Path<String>,
    Json(wanted): Json<RenameTerminal>,
) -> Result<Json<Code>, Failure> {
    let old: Name = old.parse().map_err(|error| bad(format!("{error}")))?;
    let code = controlled.served.terminals.rename(&old, new_name(&wanted.name)?);
    shown(&controlled, code)
}

fn new_name(wanted: &str) -> Result<Name, Failure> {
    if looks_like_card_number(wanted.as_bytes()) {
        return Err(bad("the name looks like a card number (rule P-PCI-1)".into()));
    }
    wanted.parse().map_err(|error| bad(format!("{error}")))
}

fn shown(
    controlled: &Controlled,
    code: Result<Secret<String>, TerminalError>,
) -> Result<Json<Code>, Failure> {
    let code = code.map_err(|error| bad(error.to_string()))?;
    let (host, port) = controlled.served.terminals.pairing_address();
    Ok(Json(Code { code: code.expose().clone(), host, port }))
}

fn bad(error: String) -> Failure {
    (StatusCode::BAD_REQUEST, error)
}

async fn broker_identity(
    State(controlled): State<Controlled>,
    Json(address): Json<BrokerAddress>,
) -> Result<Json<BrokerIdentity>, Failure> {
    let identity = controlled.served.terminals.broker_identity(&address.host);
    let identity = identity.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let key_pem = identity.plain_key_pem().expose().clone();
    Ok(Json(BrokerIdentity { chain_pem: identity.chain_pem(), key_pem }))
}

async fn probe(State(controlled): State<Controlled>) -> Result<Json<Probed>, Failure> {
    let took = controlled.served.probe.round_trip().await;
    let took = took.map_err(|error| (StatusCode::BAD_GATEWAY, error))?;
    Ok(Json(Probed { micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) }))
}

async fn revoke(
    State(controlled): State<Controlled>,
    Path(name): Path<String>,
) -> Result<(), Failure> {
    let name: Name = name.parse().map_err(|error| bad(format!("{error}")))?;
    let Served { terminals, fabric, .. } = &controlled.served;
    terminals.revoke(&name, fabric).await.map_err(|error| bad(error.to_string()))
}

async fn counter(State(controlled): State<Controlled>) -> Result<Json<Counter>, Failure> {
    let (reply, answer) = oneshot::channel();
    let gone = || (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping".to_owned());
    controlled.inputs.send(Input::Standing(reply)).map_err(|_| gone())?;
    let standing = answer.await.map_err(|_| gone())?;
    let custodies = [Custody::Subject, Custody::Split, Custody::Operator];
    let people =
        custodies.map(|custody| (custody.as_str().to_owned(), standing.people[custody as usize]));
    Ok(Json(Counter {
        people: people.into(),
        from_cloud: standing.from_cloud,
        oldest_ms: standing.oldest.map(Timestamp::as_millis),
        erasing: standing.erasing,
        lease_until_ms: standing.lease_until.map(Timestamp::as_millis),
    }))
}

async fn steps(State(controlled): State<Controlled>) -> Json<Vec<ScanSteps>> {
    let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let recent = controlled.served.metrics.take_recent();
    let scans = recent
        .iter()
        .map(|scan| scan.iter().map(|(step, took)| (step.to_owned(), micros(took))).collect());
    Json(scans.collect())
}

impl Controlled {
    /// Asks the store's task.
    async fn ask<T>(&self, asked: impl FnOnce(oneshot::Sender<T>) -> Desk) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = || (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping".to_owned());
        self.inputs.send(Input::Office(asked(reply))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

fn refused(refused: Refused) -> Failure {
    let status = match refused {
        Refused::Disk => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, refused.to_string())
}

async fn view(State(controlled): State<Controlled>) -> Result<Json<View>, Failure> {
    controlled.ask(Desk::View).await.map(Json)
}

async fn order(
    State(controlled): State<Controlled>,
    Json(order): Json<Order>,
) -> Result<Json<Done>, Failure> {
    controlled.ask(|reply| Desk::Order(order, reply)).await?.map(Json).map_err(refused)
}

async fn draft(
    State(controlled): State<Controlled>,
    Path((id, language)): Path<(u64, String)>,
) -> Result<Json<Draft>, Failure> {
    // A dash is the store's own language.
    let language = Some(language).filter(|language| language != "-");
    controlled.ask(|reply| Desk::Draft(id, language, reply)).await?.map(Json).map_err(refused)
}

async fn held_uses(State(controlled): State<Controlled>) -> Result<Json<Vec<HeldUse>>, Failure> {
    let vault = controlled.served.terminals.vault();
    let shown =
        tokio::task::spawn_blocking(move || held::show(&vault).map_err(|error| error.to_string()));
    let failed = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error);
    let shown = shown.await.map_err(|error| failed(error.to_string()))?;
    shown.map(Json).map_err(failed)
}

async fn clock(State(controlled): State<Controlled>) -> Result<Json<ClockView>, Failure> {
    controlled.ask(Desk::Clock).await.map(Json)
}

async fn confirm(
    State(controlled): State<Controlled>,
    Json(time): Json<SignedTime>,
) -> Result<(), Failure> {
    controlled.ask(|reply| Desk::Confirm(time.note, reply)).await?.map_err(refused)
}

async fn reload(State(controlled): State<Controlled>) -> Result<Json<PackView>, Failure> {
    let pack = controlled.ask(Desk::Reload).await?.map_err(refused)?;
    Ok(Json(PackView { pack }))
}

async fn decommission(
    State(controlled): State<Controlled>,
) -> Result<Json<Decommissioned>, Failure> {
    let people = controlled.ask(Desk::Decommission).await?;
    Ok(Json(Decommissioned { people }))
}

async fn commit(State(controlled): State<Controlled>) -> Result<Json<Committed>, Failure> {
    let given_up = controlled.ask(Desk::Commit).await?;
    let given_up = given_up.map_err(|()| refused(Refused::Disk))?;
    controlled.served.metrics.uncommitted_since(None);
    Ok(Json(Committed { format: given_up.map(|way_back| way_back.format) }))
}
