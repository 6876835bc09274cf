//! The `dcluster` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing else has installed a provider before main");
    ExitCode::from(dcluster::cli::start(std::env::args_os().collect()))
}
