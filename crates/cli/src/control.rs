//! The client of a gateway's control socket.

use crate::format::say;
use anyhow::{Context, Result, bail};
use palmgate_gateway::{
    control::{
        AddTerminal, BrokerAddress, BrokerIdentity, Code, Committed, Counter, Decommissioned,
        ListedTerminal, PackView, Probed, RenameTerminal, RosterView, SOCKET, ScanSteps,
    },
    office::{ClockView, Done, Draft, HeldUse, Order, SignedTime, View},
};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Which gateway.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// State directory of the gateway on this box.
    #[arg(long, default_value = "/var/lib/palmgate")]
    pub state: PathBuf,
}

/// A gateway on this box.
pub struct Control {
    client: reqwest::Client,
    socket: PathBuf,
}

impl Control {
    /// The gateway with this state directory.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let socket = arguments.state.join(SOCKET);
        // The client prepares TLS even for a socket without it; a second call changes nothing. No
        // authority is trusted: a minimal box has none, and none is needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .tls_backend_preconfigured(tls)
            .build()?;
        Ok(Self { client, socket })
    }

    /// Adds a terminal and returns its one-time code.
    pub async fn add(&self, terminal: &AddTerminal) -> Result<Code> {
        let request = self.client.post(url("terminals")).body(serde_json::to_vec(terminal)?);
        let request = request.header("content-type", "application/json");
        self.answer(request).await
    }

    /// Makes a one-time code for a terminal under a new name; the old name ends when it is paired.
    pub async fn rename(&self, old: &str, new: &str) -> Result<Code> {
        let wanted = serde_json::to_vec(&RenameTerminal { name: new.to_owned() })?;
        self.answer(self.json(&format!("terminals/{old}/rename"), wanted)).await
    }

    /// The paired terminals.
    pub async fn list(&self) -> Result<Vec<ListedTerminal>> {
        self.answer(self.client.get(url("terminals"))).await
    }

    /// The roster that every terminal has.
    pub async fn roster(&self) -> Result<RosterView> {
        self.answer(self.client.get(url("roster"))).await
    }

    /// Removes a terminal.
    pub async fn revoke(&self, name: &str) -> Result<()> {
        let request = self.client.delete(url(&format!("terminals/{name}")));
        self.send(request).await.map(drop)
    }

    /// A certificate and key for an external broker.
    pub async fn broker_identity(&self, host: &str) -> Result<BrokerIdentity> {
        let address = BrokerAddress { host: host.to_owned() };
        let request = self.client.post(url("broker-identity")).body(serde_json::to_vec(&address)?);
        self.answer(request.header("content-type", "application/json")).await
    }

    /// Tries the broker as a terminal would; how long a new connection and a message took.
    pub async fn probe(&self) -> Result<std::time::Duration> {
        let probed: Probed = self.answer(self.client.post(url("broker-probe"))).await?;
        Ok(std::time::Duration::from_micros(probed.micros))
    }

    /// The public counter.
    pub async fn counter(&self) -> Result<Counter> {
        self.answer(self.client.get(url("counter"))).await
    }

    /// Takes the step times of recent scans.
    pub async fn steps(&self) -> Result<Vec<ScanSteps>> {
        self.answer(self.client.get(url("steps"))).await
    }

    /// What is on the office's desk.
    pub async fn office(&self) -> Result<View> {
        self.answer(self.client.get(url("office"))).await
    }

    /// Does what the office asks for.
    pub async fn order(&self, order: &Order) -> Result<Done> {
        self.answer(self.json("office", serde_json::to_vec(order)?)).await
    }

    /// The draft of a report to the authority; a dash is the store's own language.
    pub async fn draft(&self, id: u64, language: &str) -> Result<Draft> {
        self.answer(self.client.get(url(&format!("office/breach/{id}/{language}")))).await
    }

    /// Uses that legal holds kept.
    pub async fn held(&self) -> Result<Vec<HeldUse>> {
        self.answer(self.client.get(url("office/held"))).await
    }

    /// What is known of the clock.
    pub async fn clock(&self) -> Result<ClockView> {
        self.answer(self.client.get(url("clock"))).await
    }

    /// Confirms the clock with a signed time.
    pub async fn confirm(&self, time: &SignedTime) -> Result<()> {
        self.send(self.json("clock", serde_json::to_vec(time)?)).await.map(drop)
    }

    /// Puts the configured pack in force, if it holds.
    pub async fn reload(&self) -> Result<PackView> {
        self.answer(self.client.post(url("pack"))).await
    }

    /// Commits to the format of the state.
    pub async fn commit(&self) -> Result<Committed> {
        self.answer(self.client.post(url("state/commit"))).await
    }

    /// Forgets everybody.
    pub async fn decommission(&self) -> Result<Decommissioned> {
        self.answer(self.client.post(url("decommission"))).await
    }

    fn json(&self, path: &str, body: Vec<u8>) -> reqwest::RequestBuilder {
        self.client.post(url(path)).body(body).header("content-type", "application/json")
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        Ok(serde_json::from_slice(&self.send(request).await?)?)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        let answer = request.send().await.with_context(|| {
            let socket = self.socket.display();
            format!(
                "no gateway answers at {socket}: is palmgated running, with this state directory?"
            )
        })?;
        let refused = !answer.status().is_success();
        let body = answer.bytes().await?.to_vec();
        if refused {
            bail!("{}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

fn url(path: &str) -> String {
    format!("http://palmgated/{path}")
}

/// A small runtime for one command.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Prints the public counter.
pub(crate) fn counter(arguments: &Arguments) -> Result<ExitCode> {
    let counter = block_on(async { Control::new(arguments)?.counter().await })?;
    say(&serde_json::to_string_pretty(&counter)?);
    Ok(ExitCode::SUCCESS)
}

/// An external broker.
#[derive(clap::Args, Clone, Debug)]
pub struct BrokerArguments {
    /// DNS name or address that terminals dial.
    host: String,
    /// Directory to write `broker.pem`, `broker.key` and `authority.pem` to.
    out: PathBuf,
    #[command(flatten)]
    gateway: Arguments,
}

/// Writes what an external broker serves TLS with.
pub(crate) fn broker(arguments: &BrokerArguments) -> Result<ExitCode> {
    let BrokerArguments { host, out, gateway } = arguments;
    let identity = block_on(async { Control::new(gateway)?.broker_identity(host).await })?;
    write_broker(out, &gateway.state, &identity)?;
    say(&format!("wrote broker.pem, broker.key and authority.pem to {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the files; only their owner can read the key.
pub fn write_broker(out: &Path, state: &Path, identity: &BrokerIdentity) -> Result<()> {
    use std::{fs, io::Write, os::unix::fs::OpenOptionsExt};
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    fs::write(out.join("broker.pem"), &identity.chain_pem)?;
    fs::copy(state.join("authority.pem"), out.join("authority.pem"))?;
    let key = out.join("broker.key");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(key)?;
    Ok(file.write_all(identity.key_pem.as_bytes())?)
}
