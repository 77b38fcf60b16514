//! What the tests here share with the tests over the network.
#![allow(dead_code, reason = "shared with the tests over the network")]

#[path = "../tests/common/cluster.rs"]
pub(crate) mod cluster;
#[path = "../tests/common/people.rs"]
pub(crate) mod people;
