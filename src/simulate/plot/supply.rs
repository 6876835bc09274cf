//! What was wanted against what there was, over time.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Frame};

/// Most points of a line: more of them are not seen.
const POINTS_MAX: usize = 1500;

/// Steps over time, each a second and the value from then on, in order.
pub type Steps = Vec<(f64, f64)>;

/// One run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Supply {
    /// What the figure is of.
    pub title: String,
    /// Seconds until its end.
    pub seconds: f64,
    /// Cores that ready and running tasks want.
    pub wanted: Steps,
    /// Cores of the jobs that have started.
    pub held: Steps,
    /// Cores in use by tasks.
    pub busy: Steps,
    /// Jobs that are pending.
    pub pending: Steps,
}

/// Draws cores wanted, held and busy, and below them the jobs that are pending.
pub fn supply(run: &Supply) -> String {
    let largest = |steps: &Steps| steps.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let says = format!(
        "Cores over {}: at most {:.0} wanted, {:.0} held by jobs, {:.0} busy; at most {:.0} jobs pending",
        crate::ui::words::duration(std::time::Duration::from_secs_f64(run.seconds.clamp(0.0, 1e9))),
        largest(&run.wanted),
        largest(&run.held),
        largest(&run.busy),
        largest(&run.pending),
    );
    let mut canvas = Canvas::new(860, 430, &run.title, &says);
    let time = Axis::time(run.seconds);
    // A queue of thousands of tasks would make the supply a flat line: then it is cut, and that is said.
    let supply = largest(&run.held).max(largest(&run.busy)).max(1.0);
    let cut = largest(&run.wanted) > 5.0 * supply;
    let cores = Axis::numbers(if cut { 1.5 * supply } else { largest(&run.wanted).max(supply) }, 5);
    let top = Frame { left: 64.0, top: 62.0, width: 776.0, height: 220.0 };
    canvas.axes(top, &time, &cores, false);
    let points = |frame: Frame, steps: &Steps, axis: &Axis| -> Vec<(f64, f64)> {
        corners(&thinned(steps, run.seconds), run.seconds)
            .into_iter()
            .map(|(at, value)| frame.at(time.place(at), axis.place(value)))
            .collect()
    };
    for (class, steps) in [("held", &run.held), ("busy", &run.busy)] {
        let mut area = points(top, steps, &cores);
        if let (Some(first), Some(last)) = (area.first().copied(), area.last().copied()) {
            let (_, bottom) = top.at(0.0, 0.0);
            area.extend([(last.0, bottom), (first.0, bottom)]);
        }
        canvas.path(class, &area, true);
    }
    canvas.path("wanted", &points(top, &run.wanted, &cores), false);
    let below = Frame { top: 320.0, height: 60.0, ..top };
    let jobs = Axis::numbers(largest(&run.pending), 2);
    canvas.axes(below, &time, &jobs, true);
    canvas.path("pending", &points(below, &run.pending, &jobs), false);
    legend(&mut canvas, if cut { "cores wanted (cut off above)" } else { "cores wanted" });
    canvas.label(64.0, 312.0, Anchor::Start, "jobs pending");
    canvas.label(452.0, 418.0, Anchor::Middle, &format!("time ({})", time.unit));
    canvas.finish()
}

fn legend(canvas: &mut Canvas, wanted: &str) {
    let y = 44.0;
    canvas.path("wanted", &[(64.0, y), (92.0, y)], false);
    canvas.label(98.0, y + 4.0, Anchor::Start, wanted);
    let swatch = |x: f64| [(x, y - 5.0), (x + 18.0, y - 5.0), (x + 18.0, y + 5.0), (x, y + 5.0)];
    canvas.path("held", &swatch(290.0), true);
    canvas.label(314.0, y + 4.0, Anchor::Start, "held by jobs");
    canvas.path("busy", &swatch(410.0), true);
    canvas.label(434.0, y + 4.0, Anchor::Start, "busy with tasks");
}

/// Returns the corners of a staircase until `end`.
fn corners(steps: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::with_capacity(2 * steps.len() + 2);
    for (at, value) in steps.iter().filter(|(at, _)| *at <= end) {
        corners.extend(corners.last().map(|(_, before)| (*at, *before)));
        corners.push((*at, *value));
    }
    corners.extend(corners.last().map(|(_, last)| (end, *last)));
    corners
}

/// Returns as many steps as can be seen: the mean over equal times where there are more.
fn thinned(steps: &[(f64, f64)], end: f64) -> Steps {
    if steps.len() <= POINTS_MAX {
        return steps.to_vec();
    }
    let width = end / POINTS_MAX as f64;
    let mut sums = vec![0.0; POINTS_MAX];
    let ends = steps.iter().skip(1).map(|(at, _)| *at).chain([end]);
    for ((at, value), until) in steps.iter().zip(ends) {
        let (from, until) = (at.max(0.0), until.min(end));
        let place = |at: f64| ((at / width) as usize).min(POINTS_MAX - 1);
        for (slot, sum) in sums.iter_mut().enumerate().take(place(until) + 1).skip(place(from)) {
            let overlap = until.min((slot + 1) as f64 * width) - from.max(slot as f64 * width);
            *sum += value * overlap.max(0.0);
        }
    }
    sums.iter().enumerate().map(|(place, sum)| (place as f64 * width, sum / width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Supply {
        Supply {
            title: "ours on <kth> & \"burst\"".to_owned(),
            seconds: 1800.0,
            wanted: vec![(0.0, 200.0), (600.0, 100.0), (1500.0, 0.0)],
            held: vec![(0.0, 0.0), (300.0, 80.0), (1600.0, 0.0)],
            busy: vec![(0.0, 0.0), (330.0, 80.0), (1500.0, 0.0)],
            pending: vec![(0.0, 10.0), (300.0, 0.0)],
        }
    }

    #[test]
    fn says_what_it_shows_and_stays_xml() {
        let svg = supply(&run());
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
        for part in [
            "aria-label=\"ours on &lt;kth&gt; &amp; &quot;burst&quot;. Cores over 30 min: at most 200 wanted, 80 held",
            "time (min)",
            "cores wanted",
            "jobs pending",
            "prefers-color-scheme:dark",
        ] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg, supply(&run()));
    }

    #[test]
    fn an_empty_run_can_be_drawn_too() {
        let svg = supply(&Supply::default());
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn what_is_cut_off_is_said() {
        let deep = Supply { wanted: vec![(0.0, 20_000.0)], ..run() };
        assert!(supply(&deep).contains("cut off above"));
        assert!(!supply(&run()).contains("cut off above"));
    }

    #[test]
    fn many_steps_keep_their_mean() {
        let steps: Steps = (0..20_000).map(|at| (f64::from(at) / 10.0, f64::from(at % 2) * 10.0)).collect();
        let thin = thinned(&steps, 2000.0);
        assert_eq!(thin.len(), POINTS_MAX);
        let mean = thin.iter().map(|(_, value)| value).sum::<f64>() / thin.len() as f64;
        assert!((mean - 5.0).abs() < 0.01, "{mean}");
        assert!(thin.iter().all(|(_, value)| (2.0..=8.0).contains(value)));
    }
}
