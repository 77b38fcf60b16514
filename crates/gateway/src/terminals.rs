//! Paired terminals: one-time codes, certificates, removal.

use crate::{clock, fabric::Fabric, store::Input};
use minicbor::{Decode, Encode};
use palmgate_policy::{Event, TerminalFacts};
use palmgate_protocol::{
    Name, PurposeSet, Secret, Timestamp, decode, encode,
    pairing::{PairAnswer, PairRequest},
    topic,
};
use palmgate_seal::{
    pairing::PairingCode,
    pki::{self, Authority, ClientAuth, Identity, Role},
};
use palmgate_vault::Vault;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc::UnboundedSender, watch};

/// How long a pairing code is good for.
const CODE_LIFETIME: Duration = Duration::from_mins(10);
/// Wrong tries before a code is void.
const CODE_TRIES: u8 = 5;
/// Codes that wait at once.
const MAX_CODES: usize = 64;
/// Terminals of one store.
const MAX_TERMINALS: usize = 1_000;
/// How long a terminal's certificate lasts.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(397 * 24);
/// The name in the certificate of an external broker; no terminal can have it.
const BROKER: &str = "broker";
/// Where the vault keeps the list.
const STATE: &str = "terminals";

/// A terminal as the list keeps it.
#[derive(Clone, Encode, Decode)]
pub(crate) struct Terminal {
    #[n(0)]
    pub(crate) name: Name,
    #[n(1)]
    pub(crate) purposes: PurposeSet,
    #[n(2)]
    pub(crate) enrols: bool,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) serial: Vec<u8>,
    #[n(4)]
    pub(crate) not_after: Timestamp,
}

#[derive(Default, Encode, Decode)]
struct List {
    #[n(0)]
    terminals: Vec<Terminal>,
    #[n(1)]
    revoked: Vec<minicbor::bytes::ByteVec>,
    #[n(2)]
    lists_issued: u64,
}

struct Waiting {
    secret: [u8; 5],
    purposes: PurposeSet,
    enrols: bool,
    until: Timestamp,
    tries: u8,
}

/// Why a terminal cannot be added, paired or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TerminalError {
    #[error("{0} is a name of the box itself: choose another")]
    Reserved(Name),
    #[error("{0} is paired already: revoke it first, or choose another name")]
    Paired(Name),
    #[error("{0} is not paired: `palmgate terminal list` shows who is")]
    Unknown(Name),
    #[error("too many terminals or codes: revoke some, or wait until codes expire")]
    Full,
    #[error(
        "the pairing code is wrong, used or expired: make a new one with `palmgate terminal add`"
    )]
    Code,
    #[error("the certificate request is unusable: {0}")]
    Request(pki::PkiError),
    #[error(transparent)]
    Vault(#[from] palmgate_vault::VaultError),
}

/// What the terminals need of the rest of the gateway.
pub(crate) struct TerminalsOptions {
    pub(crate) authority: Authority,
    pub(crate) identity: Identity,
    pub(crate) vault: Arc<Vault>,
    pub(crate) broker_host: String,
    pub(crate) broker_port: u16,
    pub(crate) store: Name,
    pub(crate) tenant: Name,
    pub(crate) tls: watch::Sender<Arc<rustls::ServerConfig>>,
    pub(crate) inputs: UnboundedSender<Input>,
}

/// The list of terminals, its owner.
pub(crate) struct Terminals {
    options: TerminalsOptions,
    list: Mutex<List>,
    waiting: Mutex<BTreeMap<Name, Waiting>>,
}

impl Terminals {
    /// The vault that the list lies in.
    pub(crate) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.options.vault)
    }

    /// Reads the list.
    pub(crate) fn load(options: TerminalsOptions) -> Result<Self, anyhow::Error> {
        let state = options.vault.state(STATE)?;
        let list = state.map(|list| decode::<List>(list.expose())).transpose()?.unwrap_or_default();
        let terminals =
            Self { options, list: Mutex::new(list), waiting: Mutex::new(BTreeMap::new()) };
        terminals.publish_tls()?;
        Ok(terminals)
    }

    /// Tells the policy and the fabric who is paired.
    pub(crate) fn announce(&self, fabric: &Fabric) {
        let list = self.lock();
        fabric.bar(list.revoked.iter().map(|serial| serial.as_slice()));
        for terminal in &list.terminals {
            fabric.admit(&terminal.name);
            self.fact(terminal);
        }
    }

    fn fact(&self, terminal: &Terminal) {
        let facts = TerminalFacts {
            name: terminal.name.clone(),
            purposes: terminal.purposes,
            enrols: terminal.enrols,
        };
        let _ = self.options.inputs.send(Input::Fact(Event::TerminalKnown(facts)));
    }

    /// Makes a one-time code for a new terminal.
    pub(crate) fn add(
        &self,
        name: Name,
        purposes: PurposeSet,
        enrols: bool,
    ) -> Result<Secret<String>, TerminalError> {
        if [topic::GATEWAY, BROKER].contains(&name.as_str()) {
            return Err(TerminalError::Reserved(name));
        }
        let list = self.lock();
        if list.terminals.iter().any(|terminal| terminal.name == name) {
            return Err(TerminalError::Paired(name));
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        waiting.retain(|_, code| now < code.until);
        if waiting.len() >= MAX_CODES || list.terminals.len() >= MAX_TERMINALS {
            return Err(TerminalError::Full);
        }
        let code = PairingCode::generate(self.options.authority.certificate_der());
        let secret = *code.secret();
        let until = now.after(CODE_LIFETIME);
        waiting.insert(name, Waiting { secret, purposes, enrols, until, tries: CODE_TRIES });
        Ok(code.text())
    }

    /// Turns a code and a certificate request into a terminal.
    pub(crate) fn pair(
        &self,
        request: &PairRequest,
        fabric: &Fabric,
    ) -> Result<PairAnswer, TerminalError> {
        let now = clock::now();
        let (purposes, enrols) = self.redeem(request, now)?;
        let options = &self.options;
        let issued = options
            .authority
            .issue(&request.csr_der, &request.name, Role::Client, now, CERTIFICATE_LIFETIME)
            .map_err(TerminalError::Request)?;
        let terminal = Terminal {
            name: request.name.clone(),
            purposes,
            enrols,
            serial: issued.serial,
            not_after: issued.not_after,
        };
        let mut list = self.lock();
        list.terminals.push(terminal.clone());
        options.vault.put_state(STATE, &encode(&*list))?;
        drop(list);
        fabric.admit(&terminal.name);
        self.fact(&terminal);
        tracing::info!(terminal = %terminal.name, "paired");
        let authority = options.authority.certificate_der();
        Ok(PairAnswer {
            chain_der: vec![issued.der.to_vec().into(), authority.to_vec().into()],
            authority_der: authority.to_vec(),
            broker_host: options.broker_host.clone(),
            broker_port: options.broker_port,
            gateway_time: now,
            store: options.store.clone(),
            tenant: options.tenant.clone(),
        })
    }

    fn redeem(
        &self,
        request: &PairRequest,
        now: Timestamp,
    ) -> Result<(PurposeSet, bool), TerminalError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let code = waiting.get_mut(&request.name).ok_or(TerminalError::Code)?;
        if now >= code.until || code.tries == 0 {
            return Err(TerminalError::Code);
        }
        let differing =
            code.secret.iter().zip(&request.secret).fold(0, |all, (a, b)| all | (a ^ b));
        if differing != 0 {
            code.tries -= 1;
            return Err(TerminalError::Code);
        }
        let rights = (code.purposes, code.enrols);
        waiting.remove(&request.name);
        Ok(rights)
    }

    /// A certificate and key for an external broker that terminals reach at `host`.
    pub(crate) fn broker_identity(&self, host: &str) -> Result<Identity, TerminalError> {
        let pending = Identity::generate();
        let name = BROKER.parse().map_err(|_| TerminalError::Full)?;
        let role = Role::Server { hosts: vec![host.to_owned()] };
        let authority = &self.options.authority;
        authority
            .issue(&pending.csr_der(), &name, role, clock::now(), CERTIFICATE_LIFETIME)
            .and_then(|issued| {
                pending.certified(vec![issued.der, authority.certificate_der().clone()])
            })
            .map_err(TerminalError::Request)
    }

    /// Removes a terminal: its certificate, its session and its connection.
    pub(crate) async fn revoke(&self, name: &Name, fabric: &Fabric) -> Result<(), TerminalError> {
        {
            let mut list = self.lock();
            let position = list.terminals.iter().position(|terminal| terminal.name == *name);
            let position = position.ok_or_else(|| TerminalError::Unknown(name.clone()))?;
            let terminal = list.terminals.remove(position);
            fabric.bar(std::iter::once(terminal.serial.as_slice()));
            list.revoked.push(terminal.serial.into());
            list.lists_issued += 1;
            self.options.vault.put_state(STATE, &encode(&*list))?;
        }
        if let Err(error) = self.publish_tls() {
            tracing::error!(%error, "the revocation list could not be renewed");
        }
        let _ = self.options.inputs.send(Input::Fact(Event::TerminalRemoved(name.clone())));
        fabric.remove(name).await;
        tracing::info!(terminal = %name, "revoked");
        Ok(())
    }

    /// The terminals, by name.
    pub(crate) fn list(&self) -> Vec<Terminal> {
        self.lock().terminals.clone()
    }

    /// Puts the present revocation list before new broker connections.
    fn publish_tls(&self) -> Result<(), pki::PkiError> {
        let options = &self.options;
        let list = self.lock();
        let serials: Vec<Vec<u8>> = list.revoked.iter().map(|serial| serial.to_vec()).collect();
        let number = list.lists_issued.max(1);
        drop(list);
        let revoked = options.authority.revocation_list(&serials, number, clock::now());
        let clients = ClientAuth::Required {
            authority_der: options.authority.certificate_der().clone(),
            revoked: Some(revoked),
        };
        let config = pki::server_config(&options.identity, clients)?;
        let _ = options.tls.send(Arc::new(config));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
