//! Where the marks of an axis are, and what they say.

/// Marks on an axis from 0: how far it reaches, and each mark with its words.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) marks: Vec<(f64, String)>,
    /// What the numbers count: `min`.
    pub(super) unit: &'static str,
    logarithmic: bool,
}

impl Axis {
    /// Makes an axis for numbers from 0 to at least `largest`, with about so many marks.
    pub(super) fn numbers(largest: f64, marks: u32) -> Self {
        let largest = if largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
        let step = nice(largest / f64::from(marks));
        let count = (largest / step - 1e-9).ceil().max(1.0);
        let marks = (0..=count as u32).map(|at| (f64::from(at) * step, number(f64::from(at) * step)));
        Self { from: 0.0, to: count * step, marks: marks.collect(), unit: "", logarithmic: false }
    }

    /// Makes an axis for a time from 0 to `seconds`.
    pub(super) fn time(seconds: f64) -> Self {
        let seconds = if seconds > 0.0 && seconds.is_finite() { seconds } else { 1.0 };
        let (unit, length, steps) = unit(seconds);
        let wanted = seconds / length / 8.0;
        let step = steps.iter().copied().find(|step| *step >= wanted).unwrap_or_else(|| nice(wanted));
        let count = (seconds / length / step + 1e-9).floor() as u32;
        let marks = (0..=count).map(|at| (f64::from(at) * step * length, number(f64::from(at) * step)));
        Self { from: 0.0, to: seconds, marks: marks.collect(), unit, logarithmic: false }
    }

    /// Makes a logarithmic axis around positive values; with `unit`, they are seconds.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64> + Clone, is_time: bool) -> Self {
        let (least, largest) = bounds(values);
        let (unit, length) = if is_time { (unit(largest).0, unit(largest).1) } else { ("", 1.0) };
        // Some room on both sides, so that no mark lies on the frame.
        let (from, to) = (least / 1.25, largest * 1.25);
        let marks: Vec<f64> = if to / from < 5.0 {
            let step = nice((to - from) / length / 6.0);
            let first = (from / length / step).ceil() as u32;
            (0..8).map(|more| f64::from(first + more) * step).collect()
        } else {
            let decades = (from / length).log10().floor() as i32..=(to / length).log10().ceil() as i32;
            let factors: &[f64] = if to / from > 30.0 { &[1.0, 3.0] } else { &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0] };
            decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade))).collect()
        };
        let inside = |value: &f64| (from..=to).contains(&(value * length));
        let marks = marks.into_iter().filter(inside).map(|value| (value * length, number(value)));
        Self { from, to, marks: marks.collect(), unit, logarithmic: true }
    }

    /// Returns where a value lies, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

/// Returns the least and the largest of positive numbers.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let usable = values.filter(|value| value.is_finite() && *value > 0.0);
    let (least, largest) = usable.fold((f64::INFINITY, 0.0_f64), |(a, b), value| (a.min(value), b.max(value)));
    if largest > 0.0 { (least, largest) } else { (1.0, 1.0) }
}

/// Returns the unit in which a time of this length is read best, its seconds, and the steps people count in.
fn unit(seconds: f64) -> (&'static str, f64, &'static [f64]) {
    const SIXTY: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0];
    const DAY: [f64; 8] = [0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 12.0, 24.0];
    if seconds <= 180.0 {
        ("s", 1.0, &SIXTY)
    } else if seconds <= 3.0 * 3600.0 {
        ("min", 60.0, &SIXTY)
    } else if seconds <= 4.0 * 86_400.0 {
        ("h", 3600.0, &DAY)
    } else {
        ("days", 86_400.0, &[0.5, 1.0, 2.0, 5.0, 7.0, 14.0, 28.0])
    }
}

/// Rounds a step up to 1, 2 or 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| *factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Returns a number without decimals that say nothing: `1500`, `2.5`.
fn number(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded >= 10_000.0 { crate::ui::words::grouped(rounded as u64) } else { format!("{rounded}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, words)| words.as_str()).collect()
    }

    #[test]
    fn marks_are_round_numbers() {
        let axis = Axis::numbers(37.0, 4);
        assert_eq!((words(&axis), axis.to), (vec!["0", "10", "20", "30", "40"], 40.0));
        assert_eq!(words(&Axis::numbers(0.0, 4)), ["0", "0.5", "1"]);
        assert_eq!(words(&Axis::numbers(40_000.0, 4)), ["0", "10,000", "20,000", "30,000", "40,000"]);
        assert_eq!(Axis::numbers(40.0, 4).to, 40.0);
    }

    #[test]
    fn times_are_in_the_unit_that_people_would_use() {
        let axis = Axis::time(90.0);
        assert_eq!((axis.unit, words(&axis)), ("s", vec!["0", "15", "30", "45", "60", "75", "90"]));
        let axis = Axis::time(7200.0);
        assert_eq!((axis.unit, words(&axis)), ("min", vec!["0", "15", "30", "45", "60", "75", "90", "105", "120"]));
        let axis = Axis::time(30.0 * 3600.0);
        assert_eq!((axis.unit, words(&axis)), ("h", vec!["0", "4", "8", "12", "16", "20", "24", "28"]));
        assert_eq!(Axis::time(10.0 * 86_400.0).unit, "days");
        assert_eq!(Axis::time(0.0).to, 1.0);
    }

    #[test]
    fn logarithms_have_marks_inside() {
        let axis = Axis::logarithmic([60.0, 900.0].into_iter(), true);
        assert_eq!((axis.unit, words(&axis)), ("min", vec!["1", "1.5", "2", "3", "5", "7", "10", "15"]));
        assert_eq!(words(&Axis::logarithmic([2.0, 3.0].into_iter(), false)), ["2", "2.5", "3", "3.5"]);
        assert!(axis.place(60.0) > 0.0 && axis.place(900.0) < 1.0);
        assert!((axis.place((60.0_f64 * 900.0).sqrt()) - 0.5).abs() < 1e-9);
        assert!(Axis::logarithmic(std::iter::empty(), true).place(1.0).is_finite());
    }
}
