//! Policies against each other: what they cost and how long they let people wait. Down and left is better.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Frame};

/// One policy, or one setting of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Mark {
    /// What is written next to it.
    pub label: String,
    /// Core-hours billed for each useful one.
    pub cost: f64,
    /// The time, in seconds, or compared with the best.
    pub time: f64,
    /// Whether it is ours; with several of them a line leads from one to the next.
    pub own: bool,
}

/// A comparison.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Frontier {
    /// What the figure is of.
    pub title: String,
    /// What the upward axis counts, without its unit.
    pub time: String,
    /// Whether `time` of the marks is in seconds.
    pub seconds: bool,
    /// The marks.
    pub marks: Vec<Mark>,
}

/// Draws a comparison.
pub fn frontier(all: &Frontier) -> String {
    let marks: Vec<&Mark> = all.marks.iter().filter(|mark| mark.cost > 0.0 && mark.time > 0.0).collect();
    let says = marks.iter().map(|mark| format!("{}: {:.2} for one, {:.2}", mark.label, mark.cost, mark.time));
    let says =
        format!("Core-hours billed for each useful one, then {}. {}", all.time, says.collect::<Vec<_>>().join("; "));
    let mut canvas = Canvas::new(760, 460, &all.title, &says);
    let frame = Frame { left: 72.0, top: 56.0, width: 600.0, height: 340.0 };
    let cost = Axis::logarithmic(marks.iter().map(|mark| mark.cost), false);
    let time = Axis::logarithmic(marks.iter().map(|mark| mark.time), all.seconds);
    canvas.axes(frame, &cost, &time, true);
    let place = |mark: &Mark| frame.at(cost.place(mark.cost), time.place(mark.time));
    let own: Vec<(f64, f64)> = marks.iter().filter(|mark| mark.own).map(|mark| place(mark)).collect();
    if own.len() > 1 {
        canvas.path("sweep", &own, false);
    }
    let mut taken: Vec<(f64, f64)> = marks.iter().map(|mark| place(mark)).collect();
    let mut form = 0;
    for mark in &marks {
        let (x, y) = place(mark);
        if mark.own {
            canvas.mark("own", x, y, 0);
        } else {
            form += 1;
            canvas.mark("other", x, y, form);
        }
        // Beside its mark where nothing else is written, else a line higher or lower.
        let free = |y: f64, taken: &[(f64, f64)]| {
            taken.iter().all(|(other, line)| {
                (line - y).abs() > 11.0 || (other - (x + 11.0)).abs() > 90.0 || (*other, *line) == (x, y)
            })
        };
        let lines = [0.0, -13.0, 13.0, -26.0, 26.0, -39.0, 39.0];
        let line = lines.into_iter().map(|line| y + line).find(|line| free(*line, &taken)).unwrap_or(y);
        taken.push((x + 11.0, line));
        canvas.label(x + 11.0, line + 4.0, Anchor::Start, &mark.label);
    }
    canvas.label(72.0, 46.0, Anchor::Start, &axis_name(&all.time, time.unit));
    canvas.label(372.0, 436.0, Anchor::Middle, "core-hours billed for each useful one");
    canvas.label(frame.left + 8.0, frame.top + frame.height - 8.0, Anchor::Start, "↙ better");
    canvas.finish()
}

fn axis_name(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.to_owned() } else { format!("{name} ({unit})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_mark_and_ours_a_line() {
        let mark = |label: &str, cost, time, own| Mark { label: label.to_owned(), cost, time, own };
        let all = Frontier {
            title: "burst".to_owned(),
            time: "median response".to_owned(),
            seconds: true,
            marks: vec![
                mark("ours 0.5", 1.8, 200.0, true),
                mark("ours 0.8", 1.5, 300.0, true),
                mark("dask", 1.81, 200.0, false),
                mark("static", 6.0, 150.0, false),
                mark("nobody", 0.0, 0.0, false),
            ],
        };
        let svg = frontier(&all);
        for part in ["ours 0.5", "ours 0.8", "dask", "static", "class=\"sweep\"", "median response (min)", "aria-label"]
        {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert!(!svg.contains("nobody") && !svg.contains("NaN"));
        assert!(!frontier(&Frontier::default()).contains("NaN"));
    }
}
