//! Sizes and durations as people write them, and as they read them. Everything behind this module
//! counts bytes and seconds.

mod duration;
mod size;

pub use duration::{DurationError, LONGEST_SECONDS, clock_duration, human_duration, parse_duration};
pub use size::{SizeError, exact_size, human_size, mebibytes_down, mebibytes_up, parse_size};
