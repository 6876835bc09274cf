//! The native engine: what tasks are, who runs them, and how that survives a crash.

pub mod control;
pub mod dial;
pub mod disk;
pub mod ids;
pub mod journal;
pub mod lease;
pub mod protocol;
pub mod scheduler;
pub mod transport;
pub mod worker;
