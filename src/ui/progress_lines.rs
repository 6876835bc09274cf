//! When progress is worth a line, what the line says, and how much time is left. Pure: the time
//! since the start is passed in.

use super::words::{count, duration, grouped, percent_whole, rough_duration};
use std::time::Duration;

/// What has become of the tasks so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All tasks.
    pub total: u64,
    /// Ended, well or not.
    pub ended: u64,
    /// Of those, failed.
    pub failed: u64,
}

/// Tasks that must have ended, or time that must have passed, before "left" is said.
const ENDED_MIN: u64 = 5;
const ELAPSED_MIN: Duration = Duration::from_secs(30);
/// Shortest time between two values of "left": a number that jitters is not read.
const LEFT_EVERY: Duration = Duration::from_secs(5);

/// How much time is left, from the rate so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    shown: Option<(Duration, Duration)>,
}

impl Left {
    /// Returns `about 12 min left`, or `measuring` while nothing can be said.
    pub fn text(&mut self, elapsed: Duration, counts: Counts) -> String {
        if let Some((at, left)) = self.shown
            && elapsed.saturating_sub(at) < LEFT_EVERY
        {
            return about(left);
        }
        match estimate(elapsed, counts) {
            Some(left) => {
                self.shown = Some((elapsed, left));
                about(left)
            }
            None => "measuring".to_owned(),
        }
    }
}

fn about(left: Duration) -> String {
    format!("about {} left", rough_duration(left))
}

fn estimate(elapsed: Duration, counts: Counts) -> Option<Duration> {
    if counts.ended == 0 || (counts.ended < ENDED_MIN && elapsed < ELAPSED_MIN) {
        return None;
    }
    let remaining = u128::from(counts.total.saturating_sub(counts.ended));
    let milliseconds = elapsed.as_millis() * remaining / u128::from(counts.ended);
    Some(Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX)))
}

/// Returns what both faces say: `40 % (4,000 of 10,000), 2 failed, about 12 min left`.
pub fn sentence(left: &mut Left, elapsed: Duration, counts: Counts) -> String {
    let mut text = format!(
        "{} ({} of {})",
        percent_whole(counts.ended, counts.total),
        grouped(counts.ended),
        grouped(counts.total)
    );
    if counts.failed > 0 {
        text.push_str(&format!(", {} failed", grouped(counts.failed)));
    }
    if counts.ended < counts.total {
        text.push_str(", ");
        text.push_str(&left.text(elapsed, counts));
    }
    text
}

/// Returns the line that stays at the end: `Done: 10,000 tasks in 12 min`.
pub fn last_line(elapsed: Duration, counts: Counts) -> String {
    let time = duration(elapsed);
    if counts.ended < counts.total {
        let done = grouped(counts.ended);
        let failed = grouped(counts.failed);
        let total = count(counts.total, "task");
        format!("Stopped: {done} of {total} ended, {failed} failed, in {time}")
    } else if counts.failed > 0 {
        let failed = grouped(counts.failed);
        let total = count(counts.total, "task");
        format!("Failed: {failed} of {total}, in {time}")
    } else {
        format!("Done: {} in {time}", count(counts.total, "task"))
    }
}

/// Minutes after which a line is due; then one every [`MINUTES_LATER`].
const MINUTES: [u64; 4] = [1, 2, 5, 10];
const MINUTES_LATER: u64 = 10;

/// Decides when a line is due where there is no terminal.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    left: Left,
    started: bool,
    next_minutes: u64,
    next_failed: u64,
}

impl Lines {
    /// Returns the line that is due now, if one is: at the start, at the 1st, 10th, 100th…
    /// failure, after 1, 2, 5, 10 minutes and every 10 from there.
    pub fn due(&mut self, elapsed: Duration, counts: Counts) -> Option<String> {
        if !self.started {
            self.started = true;
            self.next_minutes = MINUTES[0];
            self.next_failed = 1;
            if counts.ended == 0 {
                return Some(format!("Progress: {} to run", count(counts.total, "task")));
            }
        }
        let minutes = elapsed.as_secs() / 60;
        let by_time = minutes >= self.next_minutes;
        while minutes >= self.next_minutes {
            let next = MINUTES.into_iter().find(|m| *m > self.next_minutes);
            let later = (self.next_minutes / MINUTES_LATER + 1) * MINUTES_LATER;
            self.next_minutes = next.unwrap_or(later);
        }
        let by_failure = counts.failed >= self.next_failed;
        while counts.failed >= self.next_failed {
            self.next_failed = self.next_failed.saturating_mul(10);
            if self.next_failed == u64::MAX {
                break;
            }
        }
        (by_time || by_failure).then(|| format!("Progress: {}", sentence(&mut self.left, elapsed, counts)))
    }

    /// Returns how long until a line is due by time alone.
    pub fn next_in(&self, elapsed: Duration) -> Duration {
        Duration::from_secs(self.next_minutes * 60).saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, ended: u64, failed: u64) -> Counts {
        Counts { total, ended, failed }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lines_are_few() {
        let mut lines = Lines::default();
        let mut printed = Vec::new();
        for second in 0..=45 * 60 {
            let now = counts(10_000, second, second / 600);
            if let Some(line) = lines.due(seconds(second), now) {
                printed.push((second, line));
            }
        }
        let at: Vec<_> = printed.iter().map(|(second, _)| *second).collect();
        assert_eq!(at, [0, 60, 120, 300, 600, 1200, 1800, 2400]);
        assert_eq!(printed[0].1, "Progress: 10,000 tasks to run");
        assert_eq!(printed[4].1, "Progress: 6 % (600 of 10,000), 1 failed, about 2 h 40 min left");
        assert_eq!(lines.next_in(seconds(2700)), seconds(300));
    }

    #[test]
    fn failures_are_told_once_per_size() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        for failed in 0..=2000 {
            if lines.due(seconds(failed / 100), counts(9999, failed, failed)).is_some() {
                told.push(failed);
            }
        }
        assert_eq!(told, [0, 1, 10, 100, 1000]);
        let jump = lines.due(seconds(21), counts(99_999, 50_000, 50_000));
        assert!(jump.is_some());
        let still = lines.due(seconds(22), counts(99_999, 50_001, 50_001));
        assert_eq!(still, None);
    }

    #[test]
    fn left_is_measured_first_and_then_calm() {
        let mut left = Left::default();
        assert_eq!(left.text(seconds(29), counts(100, 4, 0)), "measuring");
        assert_eq!(left.text(seconds(31), counts(100, 0, 0)), "measuring");
        assert_eq!(left.text(seconds(31), counts(100, 1, 0)), "about 51 min left");
        assert_eq!(left.text(seconds(33), counts(100, 50, 0)), "about 51 min left");
        assert_eq!(left.text(seconds(36), counts(100, 50, 0)), "about 36 s left");
        let mut left = Left::default();
        assert_eq!(left.text(seconds(1), counts(10, 5, 0)), "about 1 s left");
    }

    #[test]
    fn sentences() {
        let mut left = Left::default();
        let text = sentence(&mut left, seconds(480), counts(10_000, 4_000, 2));
        assert_eq!(text, "40 % (4,000 of 10,000), 2 failed, about 12 min left");
        let text = sentence(&mut left, seconds(480), counts(10, 10, 0));
        assert_eq!(text, "100 % (10 of 10)");
        let last = |total, ended, failed| last_line(seconds(720), counts(total, ended, failed));
        assert_eq!(last(1, 1, 0), "Done: 1 task in 12 min");
        assert_eq!(last(10_000, 10_000, 2), "Failed: 2 of 10,000 tasks, in 12 min");
        assert_eq!(last(9, 3, 1), "Stopped: 3 of 9 tasks ended, 1 failed, in 12 min");
    }
}
