//! Configuration: layers, profiles, units, validation → [`spec::Spec`]. The only place that reads
//! environment variables and the home folder.

pub mod check;
pub mod environment;
pub mod file;
pub mod host;
pub mod keys;
pub mod layers;
pub mod options;
pub mod paths;
pub mod problem;
pub mod resolve;
pub mod sources;
pub mod spec;
pub mod trust;
pub mod units;
pub mod values;
