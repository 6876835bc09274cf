//! dcluster.
fn main() {}
