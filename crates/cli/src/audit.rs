//! `palmgate audit`: works on exported files, without a gateway and without a network.

use crate::format::say;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use palmgate_ledger::{receipt, verify};
use palmgate_seal::sign::VerifyingKey;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What to check.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Check an erasure receipt.
    Receipt {
        /// The receipt.
        file: PathBuf,
        /// The store's public key (`ledger.pub` in its state directory), from another source than
        /// the receipt.
        #[arg(long)]
        key: Option<PathBuf>,
        /// The cloud's public key (`cloud.pub` beside it), to check the cloud's confirmation.
        #[arg(long)]
        cloud_key: Option<PathBuf>,
    },
    /// Check a whole ledger: every entry against the signed checkpoint.
    Verify {
        /// The ledger's directory.
        directory: PathBuf,
        /// The store's public key.
        #[arg(long)]
        key: PathBuf,
    },
}

pub(crate) fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Receipt { file, key, cloud_key } => {
            check_receipt(&file, key.as_deref(), cloud_key.as_deref())
        }
        Verb::Verify { directory, key } => check_ledger(&directory, &key),
    }
}

fn check_receipt(file: &Path, key: Option<&Path>, cloud_key: Option<&Path>) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let key = key.map(read_key).transpose()?;
    let verified = receipt::verify(text.trim_end(), key.as_ref())?;
    if let Some(cloud_key) = cloud_key {
        verified.check_acknowledgement(&receipt::CLOUD.parse()?, &read_key(cloud_key)?)?;
    }
    say(&format!("receipt    holds, from store {} of tenant {}", verified.store, verified.tenant));
    say(&format!("commitment {}", HEXLOWER.encode(&verified.commitment)));
    say(&format!("rules      {}", verified.rules.join(", ")));
    say(&format!(
        "ledger     entry {}, root generation {}",
        verified.index, verified.root_generation
    ));
    for recipient in &verified.recipients {
        say(&format!("recipient  {}: {:?}", recipient.name, recipient.state));
    }
    say(&format!("status     {:?}", verified.status));
    if !verified.trusted {
        say("key        not compared: pass --key with the store's published key");
    }
    Ok(ExitCode::SUCCESS)
}

fn check_ledger(directory: &Path, key: &Path) -> Result<ExitCode> {
    let verified = verify::directory(directory, &read_key(key)?)?;
    say(&format!("ledger     holds: {verified:?}"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn read_key(file: &Path) -> Result<VerifyingKey> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|key| key.try_into().ok());
    let Some(key) = bytes else {
        bail!("{} is no public key: 64 hexadecimal digits are wanted", file.display());
    };
    Ok(VerifyingKey(key))
}
