//! Configuration: layers, profiles, units, validation → [`spec::Spec`]. The only place that reads
//! environment variables and the home folder.

pub mod file;
pub mod keys;
pub mod layers;
pub mod problem;
pub mod spec;
pub mod units;
