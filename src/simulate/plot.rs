//! Plots as SVG, readable on light and on dark pages and by those who hear them.

mod axis;
mod canvas;
mod frontier;
mod supply;

pub use frontier::{Frontier, Mark, frontier};
pub use supply::{Steps, Supply, supply};
