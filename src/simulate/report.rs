//! Outcomes for people: one run in sentences, many in a table, policies against each other.

use super::plot::{Frontier, Mark};
use super::{Run, Summary};
use crate::ui::table::{Align, Table};
use crate::ui::words::{count, duration, grouped};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// One run among others.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The log, or the model of the queue.
    pub trace: String,
    /// The workload.
    pub workload: String,
    /// The efficiency asked for, where several were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// The outcome.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Row {
    /// Returns the policy, with what is special about it: `ours 0.8`.
    fn label(&self) -> String {
        match self.efficiency {
            Some(efficiency) => format!("{} {efficiency}", self.summary.policy),
            None => self.summary.policy.clone(),
        }
    }
}

/// Returns core-seconds billed for each useful one; without any useful one there is no such number.
fn cost(summary: &Summary) -> Option<f64> {
    (summary.core_seconds_useful > 0.0).then(|| summary.core_seconds_billed / summary.core_seconds_useful)
}

fn time(seconds: f64) -> String {
    duration(Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 1e12) } else { 0.0 }))
}

/// Returns a number in three figures at least: `0.012`, `1.24`, `1,234`.
fn figure(value: f64) -> String {
    match value {
        _ if value >= 1000.0 => grouped(value.round() as u64),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), figure)
}

/// Returns one run in lines: a label and a sentence each.
pub fn sentences(run: &Run) -> String {
    let (summary, follows) = (&run.summary, &run.elasticity);
    let percent = |value: f64| format!("{} %", figure(value));
    let hours = |seconds: f64| figure(seconds / 3600.0);
    let useful = cost(summary).map_or_else(String::new, |cost| format!(", {} for each useful one", figure(cost)));
    let mut tasks = format!("{} finished", grouped(summary.tasks_finished));
    let given_up = format!("had not ended after {}, when the simulation was given up", time(run.seconds));
    for (number, what) in [
        (summary.tasks_parked.saturating_sub(run.unfinished), "parked: no job could run them, or they wait for such"),
        (run.unfinished, given_up.as_str()),
        (summary.tasks_killed_by_walltime, "runs ended by a walltime"),
    ] {
        if number > 0 {
            tasks = format!("{tasks}, {} {what}", grouped(number));
        }
    }
    let lines = [
        (
            "makespan",
            format!("{}{}", if run.unfinished > 0 { "more than " } else { "" }, time(summary.makespan_seconds)),
        ),
        (
            "response",
            match summary.tasks_finished {
                0 => "no task finished".to_owned(),
                _ => format!(
                    "half of the tasks within {}, 19 of 20 within {}",
                    time(summary.response_p50_seconds),
                    time(summary.response_p95_seconds)
                ),
            },
        ),
        ("billed", format!("{} core-hours{useful}", hours(summary.core_seconds_billed))),
        (
            "jobs",
            format!(
                "{} submitted, {} of no use, {} cancelled while pending",
                grouped(summary.jobs_submitted.into()),
                grouped(summary.jobs_useless.into()),
                grouped(summary.jobs_cancelled_pending.into())
            ),
        ),
        ("tasks", tasks),
        (
            "supply",
            format!(
                "too little {} of the time (on average {} of the maximum), too much {} ({}), another trend than \
                 demand {}",
                percent(follows.under_time),
                percent(follows.under_accuracy),
                percent(follows.over_time),
                percent(follows.over_accuracy),
                percent(follows.instability)
            ),
        ),
        (
            "bounds",
            format!(
                "{} below the minimum, {} above the maximum",
                time(summary.below_min_seconds),
                time(summary.above_max_seconds)
            ),
        ),
        match run.unfinished {
            0 => ("settled", format!("{} after the last task", time(summary.settle_seconds))),
            _ => ("settled", "never".to_owned()),
        },
    ];
    lines.map(|(label, text)| format!("  {label:<8}  {text}")).join("\n")
}

/// Returns a line for each run.
pub fn table(rows: &[Row]) -> Table {
    use Align::{Left, Right};
    let several_seeds = rows.iter().any(|row| row.summary.seed != rows[0].summary.seed);
    let mut columns = vec![("trace", Left), ("workload", Left), ("policy", Left)];
    columns.extend(several_seeds.then_some(("seed", Right)));
    columns.extend([
        ("makespan", Right),
        ("p50", Right),
        ("p95", Right),
        ("core-h", Right),
        ("÷ useful", Right),
        ("jobs", Right),
        ("useless", Right),
        ("kills", Right),
        ("parked", Right),
        ("settle", Right),
    ]);
    let mut table = Table::new(&columns);
    for row in rows {
        let summary = &row.summary;
        let mut cells = vec![row.trace.clone(), row.workload.clone(), row.label()];
        cells.extend(several_seeds.then(|| summary.seed.to_string()));
        cells.extend([
            time(summary.makespan_seconds),
            time(summary.response_p50_seconds),
            time(summary.response_p95_seconds),
            figure(summary.core_seconds_billed / 3600.0),
            ratio(cost(summary)),
            grouped(summary.jobs_submitted.into()),
            grouped(summary.jobs_useless.into()),
            grouped(summary.tasks_killed_by_walltime),
            grouped(summary.tasks_parked),
            time(summary.settle_seconds),
        ]);
        table.row(cells);
    }
    table
}

/// A policy over all cells; a cell is a trace, a workload and a seed.
#[derive(Clone, PartialEq, Debug)]
struct Overall {
    label: String,
    /// Geometric means over the cells, compared with the best policy of each: makespan, response, 95 % of it.
    makespan: f64,
    response: f64,
    slow: f64,
    /// Geometric mean of core-hours billed for each useful one.
    cost: f64,
    jobs: u64,
    useless: u64,
    kills: u64,
    unfinished: u64,
    settle: f64,
}

/// Sums the rows up, policies in order of their first row.
fn overall(rows: &[Row]) -> Vec<Overall> {
    let cell = |row: &Row| (row.trace.clone(), row.workload.clone(), row.summary.seed);
    let seconds: [fn(&Summary) -> f64; 3] =
        [|s| s.makespan_seconds, |s| s.response_p50_seconds, |s| s.response_p95_seconds];
    // A millisecond at least, so that nothing is divided by nothing.
    let usable = |value: f64| value.max(1e-3);
    let mut best: BTreeMap<(String, String, u64), [f64; 3]> = BTreeMap::new();
    for row in rows {
        let least = best.entry(cell(row)).or_insert([f64::INFINITY; 3]);
        for (least, of) in least.iter_mut().zip(seconds) {
            *least = least.min(usable(of(&row.summary)));
        }
    }
    let mut labels: Vec<String> = Vec::new();
    for row in rows {
        let label = row.label();
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let one = |label: String| {
        let own: Vec<&Row> = rows.iter().filter(|row| row.label() == label).collect();
        let mean = |logarithms: Vec<f64>| (logarithms.iter().sum::<f64>() / logarithms.len().max(1) as f64).exp();
        let compared = |at: usize| {
            mean(own.iter().map(|row| (usable(seconds[at](&row.summary)) / best[&cell(row)][at]).ln()).collect())
        };
        let sum = |of: fn(&Summary) -> u64| own.iter().map(|row| of(&row.summary)).sum();
        Overall {
            makespan: compared(0),
            response: compared(1),
            slow: compared(2),
            cost: mean(own.iter().filter_map(|row| cost(&row.summary)).map(f64::ln).collect()),
            jobs: sum(|s| s.jobs_submitted.into()),
            useless: sum(|s| s.jobs_useless.into()),
            kills: sum(|s| s.tasks_killed_by_walltime),
            unfinished: sum(|s| s.tasks_parked),
            settle: own.iter().map(|row| row.summary.settle_seconds).fold(0.0, f64::max),
            label,
        }
    };
    labels.into_iter().map(one).collect()
}

/// Returns a line for each policy: geometric means over all cells, times compared with the best of each cell.
pub fn comparison(rows: &[Row]) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("policy", Left),
        ("makespan ÷ best", Right),
        ("p50 ÷ best", Right),
        ("p95 ÷ best", Right),
        ("core-h ÷ useful", Right),
        ("jobs", Right),
        ("useless", Right),
        ("kills", Right),
        ("parked", Right),
        ("worst settle", Right),
    ]);
    for all in overall(rows) {
        table.row([
            all.label,
            figure(all.makespan),
            figure(all.response),
            figure(all.slow),
            figure(all.cost),
            grouped(all.jobs),
            grouped(all.useless),
            grouped(all.kills),
            grouped(all.unfinished),
            time(all.settle),
        ]);
    }
    table
}

/// Returns the figure of a comparison: seconds where there is one cell, else compared with the best of each.
pub fn frontier(rows: &[Row]) -> Frontier {
    let cells = cells(rows);
    let is_own = |label: &str| label.split(' ').next() == Some("ours");
    let seconds = cells == 1;
    let mark = |all: Overall| {
        let median = rows.iter().find(|row| row.label() == all.label).map(|row| row.summary.response_p50_seconds);
        let time = median.filter(|_| seconds).unwrap_or(all.response);
        Mark { own: is_own(&all.label), cost: all.cost, time, label: all.label }
    };
    let title = match rows {
        [first, ..] if seconds => format!("What it costs and how long it takes: {} on {}", first.workload, first.trace),
        _ => format!("What it costs and how long it takes: {}", count(cells as u64, "cell")),
    };
    let time = if seconds { "median response" } else { "median response ÷ that of the best policy, geometric mean" };
    Frontier { title, time: time.to_owned(), seconds, marks: overall(rows).into_iter().map(mark).collect() }
}

/// Returns how many combinations of trace, workload and seed there are.
pub fn cells(rows: &[Row]) -> usize {
    let all = rows.iter().map(|row| (&row.trace, &row.workload, row.summary.seed));
    all.collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::elasticity::Elasticity;

    fn row(workload: &str, policy: &str, efficiency: Option<f64>, makespan: f64, billed: f64) -> Row {
        let summary = Summary {
            policy: policy.to_owned(),
            seed: 1,
            makespan_seconds: makespan,
            response_p50_seconds: makespan / 2.0,
            response_p95_seconds: makespan * 0.9,
            core_seconds_billed: billed,
            core_seconds_useful: 3600.0,
            jobs_submitted: 12,
            tasks_finished: 2000,
            settle_seconds: 41.0,
            ..Summary::default()
        };
        Row { trace: "kth-sp2".to_owned(), workload: workload.to_owned(), efficiency, summary }
    }

    #[test]
    fn one_run_is_told_in_lines() {
        let mut summary = row("burst", "ours", None, 754.0, 4480.0).summary;
        summary.tasks_parked = 3;
        let elasticity = Elasticity {
            under_accuracy: 3.25,
            over_accuracy: 0.51,
            under_time: 12.0,
            over_time: 40.4,
            instability: 8.0,
        };
        let run = Run { summary, elasticity, seconds: 800.0, ..Run::default() };
        insta::assert_snapshot!(sentences(&run), @r"
          makespan  13 min
          response  half of the tasks within 6 min 17 s, 19 of 20 within 11 min
          billed    1.24 core-hours, 1.24 for each useful one
          jobs      12 submitted, 0 of no use, 0 cancelled while pending
          tasks     2,000 finished, 3 parked: no job could run them, or they wait for such
          supply    too little 12.0 % of the time (on average 3.25 % of the maximum), too much 40.4 % (0.51 %), another trend than demand 8.00 %
          bounds    0 ms below the minimum, 0 ms above the maximum
          settled   41.0 s after the last task
        ");
    }

    #[test]
    fn tasks_that_did_not_end_are_told() {
        let summary = Summary { makespan_seconds: 1.8e6, tasks_parked: 12, ..Summary::default() };
        let said = sentences(&Run { summary, unfinished: 10, seconds: 1.8e6, ..Run::default() });
        for words in [
            "makespan  more than 20 days 20 h",
            "2 parked",
            "10 had not ended after 20 days 20 h, when the simulation was given up",
            "settled   never",
            "response  no task finished",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn many_runs_are_a_table() {
        let rows = [row("burst", "ours", Some(0.8), 754.0, 4480.0), row("tail", "dask", None, 12.0, 36e6)];
        insta::assert_snapshot!(table(&rows).render(None), @r"
        TRACE    WORKLOAD  POLICY    MAKESPAN         P50     P95  CORE-H  ÷ USEFUL  JOBS  USELESS  KILLS  PARKED  SETTLE
        kth-sp2  burst     ours 0.8    13 min  6 min 17 s  11 min    1.24      1.24    12        0      0       0  41.0 s
        kth-sp2  tail      dask        12.0 s       6.0 s  10.8 s  10,000    10,000    12        0      0       0  41.0 s
        ");
    }

    #[test]
    fn policies_are_compared_cell_by_cell() {
        let rows = [
            row("burst", "ours", None, 100.0, 3600.0),
            row("burst", "dask", None, 200.0, 7200.0),
            row("tail", "ours", None, 900.0, 3600.0),
            row("tail", "dask", None, 450.0, 14_400.0),
        ];
        let all = overall(&rows);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(all.len() == 2 && all[0].label == "ours");
        // 1 and 2 times the best; 2 and 1 times.
        assert!(near(all[0].makespan, 2_f64.sqrt()) && near(all[1].makespan, 2_f64.sqrt()), "{all:?}");
        assert!(near(all[0].cost, 1.0) && near(all[1].cost, 8_f64.sqrt()), "{all:?}");
        let figure = frontier(&rows);
        assert!(!figure.seconds && figure.marks[0].own && !figure.marks[1].own);
        assert!(figure.title.contains("2 cells"));
        let single = frontier(&rows[..2]);
        assert!(single.seconds && single.marks[1].time == 100.0, "{single:?}");
    }

    #[test]
    fn json_has_the_trace_and_the_workload_before_the_outcome() {
        let json = serde_json::to_string(&row("burst", "ours", None, 1.0, 1.0)).unwrap();
        assert!(
            json.starts_with(
                r#"{"trace":"kth-sp2","workload":"burst","policy":"ours","seed":1,"makespan_seconds":1.0"#
            ),
            "{json}"
        );
        assert!(serde_json::to_string(&row("a", "ours", Some(0.5), 1.0, 1.0)).unwrap().contains(r#""efficiency":0.5"#));
    }
}
