//! `palmgate audit`: works on exported files, without a gateway and without a network.

use crate::format::say;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use palmgate_ledger::{Evidence, receipt, verify};
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
        /// The public key of the tenant's cloud (`cloud.pub` beside the store's): checks its own
        /// signature in the receipt, too.
        #[arg(long)]
        cloud_key: Option<PathBuf>,
    },
    /// Check a consent receipt.
    Consent {
        /// The receipt (JSON-LD).
        file: PathBuf,
        /// The store's public key (`ledger.pub` in its state directory).
        #[arg(long)]
        key: PathBuf,
    },
    /// Check a whole ledger: every entry against the signed checkpoint.
    Verify {
        /// The ledger's directory.
        directory: PathBuf,
        /// The store's public key.
        #[arg(long)]
        key: PathBuf,
        /// A checkpoint seen before, which the ledger must continue.
        #[arg(long)]
        since: Option<PathBuf>,
    },
    /// Print the evidence for one entry of an exported ledger, for who has nothing but the key.
    Prove {
        /// The ledger's directory.
        directory: PathBuf,
        /// The entry, counted from 0.
        #[arg(long)]
        entry: u64,
        /// The store's public key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Check that a ledger grew from one signed checkpoint to another.
    Consistency {
        /// The earlier checkpoint.
        earlier: PathBuf,
        /// The later checkpoint.
        later: PathBuf,
        /// The consistency proof (JSON) between them, or the ledger's directory to make it from.
        #[arg(long)]
        proof: PathBuf,
        /// The store's public key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Check the evidence for one entry.
    Entry {
        /// What `palmgate audit prove` printed.
        file: PathBuf,
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
        Verb::Consent { file, key } => check_consent(&file, &read_key(&key)?),
        Verb::Verify { directory, key, since } => check_ledger(&directory, &key, since.as_deref()),
        Verb::Prove { directory, entry, key } => {
            say(&verify::prove(&directory, &read_key(&key)?, entry)?.to_json());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Consistency { earlier, later, proof, key } => {
            check_growth(&earlier, &later, &proof, &read_key(&key)?)
        }
        Verb::Entry { file, key } => check_entry(&file, &read_key(&key)?),
    }
}

fn check_receipt(file: &Path, key: Option<&Path>, cloud: Option<&Path>) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let key = key.map(read_key).transpose()?;
    let verified = receipt::verify(text.trim_end(), key.as_ref())?;
    if let Some(cloud) = cloud {
        verified.check_acknowledgement(&receipt::CLOUD.parse()?, &read_key(cloud)?)?;
        say("cloud      confirmed under its own signature");
    }
    say(&format!("receipt    holds, from store {} of tenant {}", verified.store, verified.tenant));
    say(&format!("commitment {}", HEXLOWER.encode(&verified.commitment)));
    say(&format!("rules      {}", verified.rules.join(", ")));
    say(&format!(
        "ledger     entry {}, root generation {}",
        verified.index, verified.root_generation
    ));
    for recipient in &verified.recipients {
        say(&recipient_line(recipient)?);
    }
    say(&format!("status     {:?}", verified.status));
    if !verified.trusted {
        say("key        not compared: pass --key with the store's published key");
    }
    Ok(ExitCode::SUCCESS)
}

/// A recipient in the receipt's own words.
fn recipient_line(recipient: &receipt::Recipient) -> Result<String> {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let state = word(serde_json::to_value(recipient.state)?);
    let reason = match recipient.reason {
        Some(reason) => format!(" ({})", word(serde_json::to_value(reason)?)),
        None => String::new(),
    };
    let names: Vec<_> = recipient.outstanding.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    Ok(format!("recipient  {}: {state}{reason}{names}", recipient.name))
}

fn check_consent(file: &Path, key: &VerifyingKey) -> Result<ExitCode> {
    let receipt = palmgate_law::ConsentReceipt::verify(read(file)?.trim_end(), key)?;
    let text = |pointer: &str| {
        let value = receipt.pointer(pointer).and_then(serde_json::Value::as_str);
        value.unwrap_or("not stated").to_owned()
    };
    say(&format!("receipt    holds, from store {}", text("/dpv:hasLocation")));
    say(&format!("controller {}", text("/dpv:hasDataController/dpv:hasName")));
    say(&format!("purpose    {}", text("/dpv:hasPurpose/dct:description")));
    say(&format!("given      {}", text("/dpv:hasConsentStatus/dct:date")));
    say(&format!("ends       {}", text("/dpv:hasConsentStatus/dct:valid")));
    say(&format!("notice     {}", text("/dpv:hasNotice/dct:identifier")));
    say(&format!("law pack   {}", text("/law:hash")));
    Ok(ExitCode::SUCCESS)
}

fn check_ledger(directory: &Path, key: &Path, since: Option<&Path>) -> Result<ExitCode> {
    let key = read_key(key)?;
    let verified = match since {
        None => verify::directory(directory, &key)?,
        Some(earlier) => verify::directory_since(directory, &key, &read(earlier)?)?,
    };
    say(&format!("ledger     {} holds", verified.origin));
    say(&format!("entries    {} signed, {} not signed yet", verified.size, verified.unsigned));
    if verified.pruned > 0 {
        say(&format!("pruned     {}: their time was up, their hashes are left", verified.pruned));
    }
    say(&format!("root       {}", HEXLOWER.encode(&verified.root)));
    if since.is_none() {
        say("history    not compared: pass --since with a checkpoint seen before");
    }
    Ok(ExitCode::SUCCESS)
}

fn check_growth(
    earlier: &Path,
    later: &Path,
    proof: &Path,
    key: &VerifyingKey,
) -> Result<ExitCode> {
    let (earlier, later) = (read(earlier)?, read(later)?);
    let proof = if proof.is_dir() {
        verify::continuation(proof, key, &earlier)?
    } else {
        serde_json::from_str(&read(proof)?).with_context(|| proof.display().to_string())?
    };
    let (from, to) = verify::grew(&earlier, &later, &proof, key)?;
    say(&format!("ledger     {} grew from {} to {} entries", to.origin, from.size, to.size));
    Ok(ExitCode::SUCCESS)
}

fn check_entry(file: &Path, key: &VerifyingKey) -> Result<ExitCode> {
    let (entry, checkpoint) = Evidence::parse(&read(file)?)?.verify(key)?;
    say(&format!("entry      stands in {}, {} entries", checkpoint.origin, checkpoint.size));
    say(&entry.to_line()?);
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

pub(crate) fn read_key(file: &Path) -> Result<VerifyingKey> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|key| key.try_into().ok());
    let Some(key) = bytes else {
        bail!("{} is no public key: 64 hexadecimal digits are wanted", file.display());
    };
    Ok(VerifyingKey(key))
}
