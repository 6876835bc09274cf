//! The pure parts of `dcluster map`: its argument tail, when it stops early, its job log.

pub mod halt;
pub mod inputs;
pub mod joblog;
