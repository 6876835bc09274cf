//! How well supply follows demand: the elasticity metrics of the SPEC research group.

use super::metrics::Series;
use serde::Serialize;

/// Seconds between the looks at which changes are compared.
const LOOK: f64 = 30.0;

/// How well supply followed demand, all in per cent. Accuracies are shares of the most that there may be,
/// time shares and the instability are shares of the time from the first task's arrival until nothing was
/// wanted nor held.
///
/// Herbst et al., Ready for Rain? A View from SPEC Research on the Future of Cloud Metrics, SPEC-RG-2016-01.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Elasticity {
    /// Accuracy of under-provisioning: wanted and not held, on average.
    pub under_accuracy: f64,
    /// Accuracy of over-provisioning: held and not wanted, on average.
    pub over_accuracy: f64,
    /// Share of the time with less than was wanted.
    pub under_time: f64,
    /// Share of the time with more than was wanted.
    pub over_time: f64,
    /// Share of the time in which supply and demand did not change in the same direction, taken every 30 s.
    pub instability: f64,
}

impl Elasticity {
    /// Compares supply with demand over a time, where `most` is the most that there may be of either.
    pub(super) fn of(demand: &Series, held: &Series, most: f64, (from, to): (f64, f64)) -> Self {
        let to = last_use(demand, to).max(last_use(held, to));
        if to <= from || most <= 0.0 {
            return Self::default();
        }
        let mut times: Vec<f64> = demand.iter().chain(held).map(|(at, _)| *at).collect();
        times.extend([from, to]);
        times.retain(|at| (from..=to).contains(at));
        times.sort_by(f64::total_cmp);
        let (mut wanted, mut had) = (Cursor::new(demand), Cursor::new(held));
        let mut all = Self::default();
        for pair in times.windows(2) {
            let span = pair[1] - pair[0];
            let (wanted, had) = (wanted.at(pair[0]), had.at(pair[0]));
            all.under_accuracy += (wanted - had).max(0.0) * span;
            all.over_accuracy += (had - wanted).max(0.0) * span;
            all.under_time += if wanted > had { span } else { 0.0 };
            all.over_time += if had > wanted { span } else { 0.0 };
        }
        let percent = 100.0 / (to - from);
        all.under_accuracy *= percent / most;
        all.over_accuracy *= percent / most;
        all.under_time *= percent;
        all.over_time *= percent;
        all.instability = instability(demand, held, from, to);
        all
    }
}

fn instability(demand: &Series, held: &Series, from: f64, to: f64) -> f64 {
    let (mut wanted, mut had) = (Cursor::new(demand), Cursor::new(held));
    let looks = ((to - from) / LOOK).floor() as u64;
    let mut before = (wanted.at(from), had.at(from));
    let mut differ = 0_u64;
    for look in 1..=looks {
        let at = from + look as f64 * LOOK;
        let now = (wanted.at(at), had.at(at));
        differ += u64::from(now.0.total_cmp(&before.0) != now.1.total_cmp(&before.1));
        before = now;
    }
    100.0 * differ as f64 / looks.max(1) as f64
}

/// Returns until when there is something, `end` at the latest.
fn last_use(series: &Series, end: f64) -> f64 {
    series.last().map_or(0.0, |(at, value)| if *value > 0.0 { end } else { *at })
}

/// Reads a series forwards.
struct Cursor<'a> {
    series: &'a Series,
    next: usize,
}

impl<'a> Cursor<'a> {
    fn new(series: &'a Series) -> Self {
        Self { series, next: 0 }
    }

    /// Returns the value at a time; times only grow.
    fn at(&mut self, time: f64) -> f64 {
        while self.series.get(self.next).is_some_and(|(at, _)| *at <= time) {
            self.next += 1;
        }
        self.next.checked_sub(1).map_or(0.0, |last| self.series[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_there_may_be_and_of_the_time() {
        // 8 of 16 wanted for 100 s, held from 50 to 150 s; 10 s before the first task do not count.
        let demand = vec![(10.0, 8.0), (110.0, 0.0)];
        let held = vec![(0.0, 0.0), (60.0, 8.0), (160.0, 0.0)];
        let found = Elasticity::of(&demand, &held, 16.0, (10.0, 7000.0));
        let third = 100.0 / 3.0;
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(found.under_time, third) && near(found.over_time, third), "{found:?}");
        assert!(near(found.under_accuracy, third / 2.0) && near(found.over_accuracy, third / 2.0), "{found:?}");
        // Of the 5 looks, supply alone rises before the second, demand alone falls before the fourth, and
        // supply before the last.
        assert!(near(found.instability, 60.0), "{found:?}");
    }

    #[test]
    fn supply_that_is_demand_is_perfect_and_nothing_is_nothing() {
        let same = vec![(0.0, 3.0), (40.0, 5.0), (90.0, 0.0)];
        assert_eq!(Elasticity::of(&same, &same, 8.0, (0.0, 100.0)), Elasticity::default());
        assert_eq!(Elasticity::of(&Vec::new(), &Vec::new(), 8.0, (0.0, 0.0)), Elasticity::default());
        let never = Elasticity::of(&vec![(0.0, 4.0)], &Vec::new(), 8.0, (0.0, 60.0));
        assert!(never.under_accuracy == 50.0 && never.under_time == 100.0);
    }
}
