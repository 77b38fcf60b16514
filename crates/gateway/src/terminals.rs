//! Paired terminals: certificates, renewal, removal. Their one-time codes are in [`codes`].

mod codes;
mod roster;

use crate::{clock::Believed, fabric::Fabric, identity::OwnIdentity, store::Input};
use codes::{Codes, Rights};
use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use palmgate_policy::{Event, TerminalFacts};
use palmgate_protocol::{
    Name, PurposeSet, Secret, Timestamp, decode, encode,
    limits::MAX_TERMINALS,
    pairing::{PairAnswer, PairRequest},
    terminal::{Refusal, Renewal},
    topic,
};
use palmgate_seal::{
    pairing::PairingCode,
    pki::{self, Authority, Certificate, ClientAuth, Identity, Role},
    sign::VerifyingKey,
};
use palmgate_vault::Vault;
pub(crate) use roster::Current as CurrentRoster;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

/// Sensors of one terminal: one in use, and another while it is exchanged.
pub(crate) const MAX_SENSORS: usize = 4;
const _: () = assert!(
    MAX_TERMINALS <= palmgate_ledger::receipt::MAX_OUTSTANDING,
    "as many as the receipt of an erasure can wait for"
);
/// The least time between two certificates for one terminal, where they last long enough.
const RENEWAL_PAUSE: Duration = Duration::from_mins(10);
/// How long a certificate lasts with which the gateway tries the broker.
const PROBE_LIFETIME: Duration = Duration::from_mins(10);
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
    /// Certificates that hold beside the last one, until the terminal has told that it uses it.
    #[n(5)]
    #[cbor(default)]
    earlier: Vec<Earlier>,
    /// Ed25519 keys of the sensors whose verdicts count, [`MAX_SENSORS`] at most.
    #[n(6)]
    #[cbor(default)]
    pub(crate) sensors: Vec<ByteArray<32>>,
    /// SHA-256 of the last certificate; lists from before rosters lack it.
    #[n(7)]
    certificate: Option<ByteArray<32>>,
}

/// A certificate before the last one.
#[derive(Clone, Encode, Decode)]
struct Earlier {
    #[n(0)]
    serial: ByteVec,
    #[n(1)]
    not_after: Timestamp,
    /// Its SHA-256.
    #[n(2)]
    certificate: Option<ByteArray<32>>,
}

impl Terminal {
    /// Leaves the terminal the certificate that it uses and gives the serials of all others.
    fn settle(&mut self, using: &[u8]) -> Option<Vec<ByteVec>> {
        let mut others = std::mem::take(&mut self.earlier);
        if self.serial != using {
            let used = others.iter().position(|one| one.serial.as_slice() == using);
            let Some(used) = used else {
                self.earlier = others;
                return None;
            };
            let used = others.swap_remove(used);
            let last = std::mem::replace(&mut self.serial, used.serial.into());
            let certificate = std::mem::replace(&mut self.certificate, used.certificate);
            others.push(Earlier { serial: last.into(), not_after: self.not_after, certificate });
            self.not_after = used.not_after;
        }
        Some(others.into_iter().map(|one| one.serial).collect())
    }

    /// Takes a new certificate beside the one in use.
    fn renewed(&mut self, issued: &Certificate) {
        let serial = std::mem::replace(&mut self.serial, issued.serial.clone()).into();
        let shown = Some(pki::fingerprint(&issued.der).into());
        let certificate = std::mem::replace(&mut self.certificate, shown);
        self.earlier.push(Earlier { serial, not_after: self.not_after, certificate });
        self.not_after = issued.not_after;
    }

    fn serials(self) -> impl Iterator<Item = ByteVec> {
        let earlier = self.earlier.into_iter().map(|one| one.serial);
        earlier.chain([ByteVec::from(self.serial)])
    }
}

#[derive(Default, Encode, Decode)]
struct List {
    #[n(0)]
    terminals: Vec<Terminal>,
    #[n(1)]
    revoked: Vec<ByteVec>,
    #[n(2)]
    lists_issued: u64,
    /// When the certificate ends that an external broker was given last.
    #[n(3)]
    broker_ends: Option<Timestamp>,
    /// The roster that was given last.
    #[n(4)]
    roster: Option<roster::Given>,
}

impl List {
    fn find(&mut self, name: &Name) -> Option<&mut Terminal> {
        self.terminals.iter_mut().find(|terminal| terminal.name == *name)
    }

    fn revoke(&mut self, serials: impl IntoIterator<Item = ByteVec>) {
        self.revoked.extend(serials);
        self.lists_issued += 1;
    }
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
    #[error("a terminal has at most {MAX_SENSORS} sensors' keys")]
    Sensors,
    #[error(
        "the pairing code is wrong, used or expired: make a new one with `palmgate terminal add`"
    )]
    Code,
    #[error("the certificate request is unusable: {0}")]
    Request(pki::PkiError),
    #[error("the certificate that {0} says it uses is none of its own, or was revoked")]
    Certificate(Name),
    #[error(transparent)]
    Vault(#[from] palmgate_vault::VaultError),
}

impl TerminalError {
    /// What a terminal is told.
    pub(crate) const fn refusal(&self) -> Refusal {
        match self {
            Self::Vault(_) => Refusal::Internal,
            _ => Refusal::Malformed,
        }
    }
}

/// What the terminals need of the rest of the gateway.
pub(crate) struct TerminalsOptions {
    pub(crate) authority: Arc<Authority>,
    pub(crate) identity: Arc<OwnIdentity>,
    pub(crate) clock: Arc<Believed>,
    /// How long a terminal's certificate lasts.
    pub(crate) lifetime: Duration,
    pub(crate) vault: Arc<Vault>,
    pub(crate) broker_host: String,
    pub(crate) broker_port: u16,
    pub(crate) https_port: u16,
    pub(crate) store: Name,
    pub(crate) tenant: Name,
    pub(crate) tls: watch::Sender<Arc<rustls::ServerConfig>>,
    pub(crate) inputs: UnboundedSender<Input>,
}

/// The list of terminals, its owner.
pub(crate) struct Terminals {
    options: TerminalsOptions,
    list: Mutex<List>,
    codes: Codes,
    /// When each terminal was last given a certificate.
    renewed: Mutex<BTreeMap<Name, Instant>>,
    roster: watch::Sender<Option<Arc<CurrentRoster>>>,
}

impl Terminals {
    /// The vault that the list lies in.
    pub(crate) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.options.vault)
    }

    /// What the gateway shows when it tries the broker as a terminal would.
    pub(crate) fn probe_tls(&self) -> Result<rustls::ClientConfig, pki::PkiError> {
        let Self { options: TerminalsOptions { authority, clock, .. }, .. } = self;
        let (pending, name) = (Identity::generate(), topic::PROBE.parse()?);
        let csr = pending.csr_der();
        let issued = authority.issue(&csr, &name, Role::Client, clock.now(), PROBE_LIFETIME)?;
        let identity = pending.certified(vec![issued.der, authority.certificate_der().clone()])?;
        let presented = Arc::new(pki::Presented::new(&identity)?);
        let time = Arc::<Believed>::clone(clock);
        pki::client_config_at(Some(&presented), authority.certificate_der(), time)
    }

    /// The gateway's own identity now.
    pub(crate) fn own(&self) -> Arc<Identity> {
        self.options.identity.current()
    }

    /// How long certificates last.
    pub(crate) const fn lifetime(&self) -> Duration {
        self.options.lifetime
    }

    /// Takes a new certificate for the gateway when its own is due, and with it a new roster. Blocks
    /// on the disk.
    pub(crate) fn renew_own(&self) -> Result<bool, anyhow::Error> {
        let renewed = self.options.identity.renew_if_due()?;
        if renewed {
            self.change(|_| {})?;
        }
        Ok(renewed)
    }

    /// Reads the list.
    pub(crate) fn load(options: TerminalsOptions) -> Result<Self, anyhow::Error> {
        let state = options.vault.state(STATE)?;
        let list = state.map(|list| decode::<List>(list.expose())).transpose()?.unwrap_or_default();
        let terminals = Self {
            options,
            list: Mutex::new(list),
            codes: Codes::default(),
            renewed: Mutex::default(),
            roster: watch::Sender::new(None),
        };
        terminals.change(|_| {})?;
        terminals.publish_tls()?;
        Ok(terminals)
    }

    /// Tells the policy and the fabric who is paired.
    pub(crate) fn announce(&self, fabric: &Fabric) {
        let list = self.lock();
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
        sensors: Vec<VerifyingKey>,
    ) -> Result<Secret<String>, TerminalError> {
        if sensors.len() > MAX_SENSORS {
            return Err(TerminalError::Sensors);
        }
        let sensors = sensors.into_iter().map(|key| ByteArray::from(key.0)).collect();
        self.may_have(&name)?;
        if self.lock().terminals.len() >= MAX_TERMINALS {
            return Err(TerminalError::Full);
        }
        let code = PairingCode::generate(self.options.authority.certificate_der());
        let rights = Rights { purposes, enrols, sensors, replaces: None };
        self.codes.add(name, *code.secret(), rights, Instant::now())?;
        Ok(code.text())
    }

    /// Makes a one-time code for a terminal that takes another's place: a name is part of the
    /// certificate, so that a new name needs a new one. The old name is revoked when the new one
    /// is paired.
    pub(crate) fn rename(&self, old: &Name, new: Name) -> Result<Secret<String>, TerminalError> {
        let terminal = self.list().into_iter().find(|terminal| terminal.name == *old);
        let terminal = terminal.ok_or_else(|| TerminalError::Unknown(old.clone()))?;
        self.may_have(&new)?;
        let code = PairingCode::generate(self.options.authority.certificate_der());
        let Terminal { purposes, enrols, sensors, .. } = terminal;
        let rights = Rights { purposes, enrols, sensors, replaces: Some(old.clone()) };
        self.codes.add(new, *code.secret(), rights, Instant::now())?;
        Ok(code.text())
    }

    /// Where terminals reach this gateway to be paired.
    pub(crate) fn pairing_address(&self) -> (String, u16) {
        (self.options.broker_host.clone(), self.options.https_port)
    }

    fn may_have(&self, name: &Name) -> Result<(), TerminalError> {
        if [topic::GATEWAY, topic::PROBE, BROKER].contains(&name.as_str()) {
            return Err(TerminalError::Reserved(name.clone()));
        }
        if self.lock().find(name).is_some() {
            return Err(TerminalError::Paired(name.clone()));
        }
        Ok(())
    }

    /// Turns a code and a certificate request into a terminal.
    pub(crate) async fn pair(
        &self,
        request: &PairRequest,
        fabric: &Fabric,
    ) -> Result<PairAnswer, TerminalError> {
        let rights = self.codes.redeem(&request.name, request.secret, Instant::now());
        let Rights { purposes, enrols, sensors, replaces } = rights.ok_or(TerminalError::Code)?;
        if replaces.is_none() && self.lock().terminals.len() >= MAX_TERMINALS {
            return Err(TerminalError::Full);
        }
        let issued = self.issue(&request.csr_der, &request.name)?;
        let terminal = Terminal {
            name: request.name.clone(),
            purposes,
            enrols,
            serial: issued.serial.clone(),
            not_after: issued.not_after,
            earlier: Vec::new(),
            sensors,
            certificate: Some(pki::fingerprint(&issued.der).into()),
        };
        self.change(|list| list.terminals.push(terminal.clone()))?;
        fabric.admit(&terminal.name);
        self.fact(&terminal);
        tracing::info!(terminal = %terminal.name, "paired");
        if let Some(old) = replaces {
            self.revoke(&old, fabric).await?;
        }
        let options = &self.options;
        Ok(PairAnswer {
            chain_der: self.chain(&issued),
            authority_der: options.authority.certificate_der().to_vec(),
            broker_host: options.broker_host.clone(),
            broker_port: options.broker_port,
            gateway_time: crate::clock::now(),
            store: options.store.clone(),
            tenant: options.tenant.clone(),
        })
    }

    /// Takes note of the certificate that a terminal uses, revokes its others, and gives it the
    /// next one if it asks for one and its own is due. Blocks on the disk.
    pub(crate) fn renew(
        &self,
        name: &Name,
        renewal: &Renewal,
    ) -> Result<Option<Vec<ByteVec>>, TerminalError> {
        let mut list = self.lock();
        let terminal = list.find(name).ok_or_else(|| TerminalError::Unknown(name.clone()))?;
        let others = terminal.settle(&renewal.using);
        let others = others.ok_or_else(|| TerminalError::Certificate(name.clone()))?;
        let not_after = terminal.not_after;
        let changed = !others.is_empty();
        if changed {
            list.revoke(others);
        }
        drop(list);
        let issued = match &renewal.csr_der {
            Some(csr_der) if self.may_renew(name, not_after) => Some(self.issue(csr_der, name)?),
            _ => None,
        };
        if changed || issued.is_some() {
            self.change(|list| {
                if let (Some(issued), Some(terminal)) = (&issued, list.find(name)) {
                    terminal.renewed(issued);
                }
            })?;
        }
        if changed {
            self.publish_tls().map_err(TerminalError::Request)?;
        }
        if issued.is_some() {
            tracing::info!(terminal = %name, "has a new certificate");
        }
        Ok(issued.map(|issued| self.chain(&issued)))
    }

    /// A certificate in the second half of its life may be replaced, now and then: what a terminal
    /// with a wrong clock or worse intentions asks for must not fill the revocation list.
    fn may_renew(&self, name: &Name, not_after: Timestamp) -> bool {
        let lifetime = self.options.lifetime;
        let pause = RENEWAL_PAUSE.min(lifetime / 20);
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = renewed.get(name).is_some_and(|at| at.elapsed() < pause);
        let may = not_after.since(self.options.clock.now()) < lifetime / 2 && !lately;
        if may {
            renewed.insert(name.clone(), Instant::now());
        }
        may
    }

    fn issue(&self, csr_der: &[u8], name: &Name) -> Result<Certificate, TerminalError> {
        let (now, lifetime) = (self.options.clock.now(), self.options.lifetime);
        let issued = self.options.authority.issue(csr_der, name, Role::Client, now, lifetime);
        issued.map_err(TerminalError::Request)
    }

    fn chain(&self, issued: &Certificate) -> Vec<ByteVec> {
        let authority = self.options.authority.certificate_der();
        vec![issued.der.to_vec().into(), authority.to_vec().into()]
    }

    /// Changes the list, durably.
    fn change(&self, change: impl FnOnce(&mut List)) -> Result<(), TerminalError> {
        let mut list = self.lock();
        change(&mut list);
        self.keep(&mut list)
    }

    /// Keeps a changed list, and with it the roster that follows from it.
    fn keep(&self, list: &mut List) -> Result<(), TerminalError> {
        let roster = self.roster_of(list);
        self.options.vault.put_state(STATE, &encode(list))?;
        self.show_roster(roster);
        Ok(())
    }

    /// Whether a terminal's certificate is one that it was given and that holds.
    pub(crate) fn holds(&self, name: &Name, serial: &[u8]) -> bool {
        self.lock().find(name).is_some_and(|terminal| {
            let mut earlier = terminal.earlier.iter();
            terminal.serial == serial || earlier.any(|one| one.serial.as_slice() == serial)
        })
    }

    /// When certificates end: the gateway's own, the terminals' first one, the external broker's.
    pub(crate) fn certificates_end(&self) -> [Option<Timestamp>; 3] {
        let own = self.options.identity.current().validity().until;
        let list = self.lock();
        let terminals = list.terminals.iter().map(|terminal| terminal.not_after).min();
        [Some(own), terminals, list.broker_ends]
    }

    /// A certificate and key for an external broker that terminals reach at `host`.
    pub(crate) fn broker_identity(&self, host: &str) -> Result<Identity, TerminalError> {
        let pending = Identity::generate();
        let name = BROKER.parse().map_err(|_| TerminalError::Full)?;
        let role = Role::Server { hosts: vec![host.to_owned()] };
        let authority = &self.options.authority;
        let (now, lifetime) = (self.options.clock.now(), self.options.lifetime);
        let identity = authority
            .issue(&pending.csr_der(), &name, role, now, lifetime)
            .and_then(|issued| {
                pending.certified(vec![issued.der, authority.certificate_der().clone()])
            })
            .map_err(TerminalError::Request)?;
        self.change(|list| list.broker_ends = Some(identity.validity().until))?;
        Ok(identity)
    }

    /// Removes a terminal: its certificate, its session and its connection.
    pub(crate) async fn revoke(&self, name: &Name, fabric: &Fabric) -> Result<(), TerminalError> {
        {
            let mut list = self.lock();
            let position = list.terminals.iter().position(|terminal| terminal.name == *name);
            let position = position.ok_or_else(|| TerminalError::Unknown(name.clone()))?;
            let terminal = list.terminals.remove(position);
            list.revoke(terminal.serials());
            self.keep(&mut list)?;
        }
        if let Err(error) = self.publish_tls() {
            tracing::error!(%error, "the revocation list could not be renewed");
        }
        let _ = self.options.inputs.send(Input::Fact(Event::TerminalRemoved(name.clone())));
        fabric.remove(name).await;
        tracing::info!(terminal = %name, "revoked");
        Ok(())
    }

    /// Keys of the sensors whose verdicts count at this terminal.
    pub(crate) fn sensors(&self, name: &Name) -> Vec<VerifyingKey> {
        let mut list = self.lock();
        let sensors = list.find(name).map(|terminal| terminal.sensors.iter());
        sensors.into_iter().flatten().map(|key| VerifyingKey(**key)).collect()
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
        let now = options.clock.now();
        let revoked = options.authority.revocation_list(&serials, number, now);
        let clients = ClientAuth::Required {
            authority_der: options.authority.certificate_der().clone(),
            revoked: Some(revoked),
        };
        let time = Arc::<Believed>::clone(&options.clock);
        let config = pki::server_config_at(options.identity.presented(), clients, time)?;
        let _ = options.tls.send(Arc::new(config));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::DAY;
    use palmgate_seal::pki::PkiError;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn issue(authority: &Authority, days: u32) -> Result<Certificate, PkiError> {
        let csr = Identity::generate().csr_der();
        authority.issue(&csr, &"till-1".parse()?, Role::Client, NOW, DAY * days)
    }

    fn terminal(first: &Certificate) -> Terminal {
        Terminal {
            name: "till-1".parse().unwrap(),
            purposes: PurposeSet::default(),
            enrols: false,
            serial: first.serial.clone(),
            not_after: first.not_after,
            earlier: Vec::new(),
            sensors: Vec::new(),
            certificate: None,
        }
    }

    #[test]
    fn the_certificate_in_use_is_never_the_one_that_is_revoked() {
        let authority = Authority::generate("store", NOW).unwrap();
        let [first, second, third] = [30, 60, 90].map(|days| issue(&authority, days).unwrap());
        let mut till = terminal(&first);
        till.renewed(&second);
        // The answer was lost: the terminal still uses the first one and asks again.
        let others = till.settle(&first.serial).unwrap();
        assert_eq!(others, [ByteVec::from(second.serial.clone())]);
        assert_eq!((&till.serial, till.not_after), (&first.serial, first.not_after));
        till.renewed(&third);
        assert_eq!((&till.serial, till.not_after), (&third.serial, third.not_after));
        // It has the third one now.
        let others = till.settle(&third.serial).unwrap();
        assert_eq!(others, [ByteVec::from(first.serial.clone())]);
        assert!(till.settle(&third.serial).unwrap().is_empty(), "and says so again");
        assert!(till.settle(&first.serial).is_none(), "a copy of the first changes nothing");
        assert!(till.settle(b"").is_none());
        assert_eq!(till.serials().collect::<Vec<_>>(), [ByteVec::from(third.serial)]);
    }

    #[test]
    fn a_removal_takes_every_certificate_that_holds() {
        let authority = Authority::generate("store", NOW).unwrap();
        let [first, second] = [30, 60].map(|days| issue(&authority, days).unwrap());
        let mut till = terminal(&first);
        till.renewed(&second);
        let mut list = List::default();
        list.revoke(till.serials());
        assert_eq!(list.revoked, [ByteVec::from(first.serial), ByteVec::from(second.serial)]);
        assert_eq!(list.lists_issued, 1);
    }

    #[test]
    fn a_list_from_before_renewals_is_read() {
        // [[[name, purposes, enrols, serial, not_after]], [], 0]
        let old = b"\x83\x81\x85\x66till-1\x01\xf4\x42\x41\x02\x05\x80\x00";
        let list: List = decode(old).unwrap();
        assert!(list.terminals[0].earlier.is_empty() && list.terminals[0].sensors.is_empty());
        assert!(list.broker_ends.is_none());
        assert_eq!(list.terminals[0].serial, [0x41, 2]);
    }
}
