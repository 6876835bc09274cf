//! The server: the one long-lived process of a cluster.

pub mod core;
pub mod record;
