//! Reference cloud of one tenant: registry, shards, resolution of misses, erasure relay.
//!
//! A store's gateway registers an enrolment; the cloud puts it into that store's shard, and into
//! another store's only after the person asked to be recognised there. It can read `operator`
//! records, never `split` ones, and is not told of `subject` ones. It answers no question but
//! about the one person whose claim was shown.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/hello` | `Hello` → `Directory` |
//! | `GET /v1/directory` | `Directory` |
//! | `POST /v1/registrations` | `Registration` → 204 |
//! | `GET /v1/shard?held=N` | `Shard`, or 204 |
//! | `POST /v1/shard/applied` | `ShardApplied` → 204 |
//! | `POST /v1/resolve/probe` | `ProbeQuery` → padded `Resolution` |
//! | `POST /v1/resolve/claim` | `ClaimQuery` → padded `Resolution` |
//! | `POST /v1/erasures` | `Erasure` → `ErasureState` |
//! | `GET /v1/erasures/{commitment in hexadecimal}` | `ErasureState` |
//! | `GET /v1/tombstones?after=N` | `Tombstones` |
//! | `POST /v1/search` | `SearchQuery` → padded `SearchAnswer` |
//! | `POST /v1/witness/add-checkpoint` | C2SP tlog-witness |
//! | `GET /v1/witness/heads` | the checkpoints cosigned last, as text |
//! | `GET /healthz`, `GET /metrics` | text |
//!
//! The messages are those of [`palmgate_protocol::cloud`] in CBOR, over HTTP/1.1 and mutual TLS
//! 1.3; refusals are `application/problem+json` (RFC 9457) with the type
//! `urn:palmgate:problem:NAME`. A store is whoever shows a certificate that is listed under its
//! name in the state directory.
//!
//! # What is at rest
//! Every row is sealed: a person's under a key of their own, which erasure destroys with the root
//! above it; the rest under a state key. Names of rows are keyed hashes. The root key lies in a
//! file of mode 0600 in the same state directory, so a stolen disk is readable unless something
//! below seals it; and destroying the root is as good as the medium's way to overwrite. A cloud
//! in production keeps its state on an encrypted disk.

pub mod bundle;
pub mod check;
pub mod clock;
mod config;
mod embedded;
mod files;
mod http;
mod layout;
mod limiter;
mod metrics;
pub mod offboard;
mod postgres;
mod problem;
pub mod program;
pub mod provision;
mod registry;
mod root;
mod search;
mod service;
mod tenant;
mod tombstones;

#[cfg(test)]
mod shared;

pub use embedded::{DiskError, KeyError};
pub use files::FileError;
pub use layout::{LayoutError, StoreEntry};
pub use postgres::DatabaseError;
#[doc(hidden)]
pub use postgres::synthetic;
pub use registry::OpenError;
pub use service::{Options, ServeError, Service, serve};
