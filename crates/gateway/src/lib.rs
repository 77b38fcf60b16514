//! The daemon palmgated: carries out what the policy decides.
//!
//! One task ([`run`]) owns the store's state. Pictures are worked on by threads behind a bounded
//! queue, the disk is written by one thread in the order decided, each terminal has its own MLS
//! conversation, and the cloud is optional.

mod arguments;
pub mod broker;
mod bundle;
pub mod calibration;
mod clock;
mod cloud;
pub mod config;
pub mod control;
pub mod daemon;
mod decision_log;
mod extraction;
mod fabric;
mod forgotten;
mod held;
mod http;
mod identity;
mod in_use;
mod keeper;
mod kept;
pub mod law;
mod metrics;
pub mod office;
mod opened;
mod pressure;
mod probe;
mod receipts;
mod records;
mod references;
mod renewal;
mod run;
mod scribe;
mod slots;
mod store;
mod supervision;
pub mod synthetic;
mod terminals;
pub mod way_back;
mod witness;
mod work;

pub use arguments::Arguments;
pub use fabric::Freshness;
pub use in_use::Updates;
pub use keeper::RootKeeping;
pub use run::{Broker, Cloud, Gateway, Options, StartError, run};

/// The notice that people must have been shown before they consent.
pub const NOTICE: &str = "fr-cnil-1";

/// Where the configuration lies unless something else is said.
pub const CONFIGURATION: &str = "/etc/palmgate/palmgated.toml";
