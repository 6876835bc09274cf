//! The only place that prints: words, tables, progress, and the printer that owns stdout and
//! stderr.

pub mod printer;
pub mod progress;
pub mod progress_lines;
pub mod table;
pub mod words;
