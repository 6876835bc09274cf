//! Every job waits the same.

use super::starts::Starts;
use super::{Asked, Queue};

/// Every job waits the same.
#[derive(Debug)]
pub struct Constant {
    wait: f64,
    starts: Starts,
}

impl Constant {
    /// Returns a queue in which jobs wait so many seconds.
    pub fn new(wait: f64) -> Self {
        Self { wait, starts: Starts::default() }
    }
}

impl Queue for Constant {
    fn submit(&mut self, job: u32, _: Asked, now: f64) {
        self.starts.add(job, now + self.wait);
    }

    fn leave(&mut self, job: u32, _: f64) {
        self.starts.remove(job);
    }

    fn next(&self) -> Option<f64> {
        self.starts.next()
    }

    fn advance(&mut self, now: f64) -> Vec<(f64, u32)> {
        self.starts.until(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_start_in_the_order_they_came_after_the_same_time() {
        let mut queue = Constant::new(10.0);
        let asked = Asked { processors: 1, walltime: None };
        for job in [3, 1, 2] {
            queue.submit(job, asked, 0.0);
        }
        queue.submit(4, asked, 5.0);
        queue.leave(1, 6.0);
        assert_eq!(queue.next(), Some(10.0));
        assert_eq!(queue.advance(9.9), []);
        assert_eq!(queue.advance(20.0), [(10.0, 3), (10.0, 2), (15.0, 4)]);
        queue.leave(4, 20.0);
        assert_eq!((queue.next(), queue.advance(99.0)), (None, vec![]));
    }
}
