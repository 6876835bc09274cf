//! The graph of a workflow as JSON: `{"name", "tasks": [{"id", "category", "run_s", "cores", "memory_bytes",
//! "parents": [id]}]}`; other keys are skipped.

use super::{Task, Workload};
use crate::simulate::input::{Input, InputError};
use crate::simulate::trace::stem;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Most tasks of a workflow.
const TASKS_MAX: usize = 5_000_000;
/// Longest run in seconds: 10 years. The times of all tasks of a workflow add up in milliseconds.
const RUN_MAX: f64 = 3652.5 * 86_400.0;

#[derive(Deserialize)]
struct Graph {
    #[serde(default)]
    name: Option<String>,
    tasks: Vec<Value>,
}

#[derive(Deserialize)]
struct Row {
    id: u64,
    #[serde(default)]
    category: Option<String>,
    run_s: f64,
    #[serde(default)]
    cores: Option<f64>,
    #[serde(default)]
    memory_bytes: Option<f64>,
    #[serde(default)]
    parents: Vec<u64>,
}

pub(super) fn read(path: &Path) -> Result<Workload, InputError> {
    parse(Input::open(path)?)
}

fn parse(input: Input) -> Result<Workload, InputError> {
    let file = input.file.clone();
    let shape = "an object with a list `tasks`, each with id, category, run_s, cores, memory_bytes and parents";
    let graph: Graph = serde_json::from_reader(input.rest()).map_err(|error| {
        let what = if error.is_data() { "is no workflow" } else { "is no JSON" };
        let line = u64::try_from(error.line()).ok().filter(|line| *line > 0);
        InputError { line, ..InputError::new(&file, format!("it {what}: {error}"), format!("a workflow is {shape}")) }
    })?;
    let bad = |what: String| InputError::new(&file, what, format!("a workflow is {shape}"));
    if graph.tasks.is_empty() || graph.tasks.len() > TASKS_MAX {
        return Err(bad(format!("it has {} tasks", graph.tasks.len())));
    }
    let mut rows = Vec::with_capacity(graph.tasks.len());
    for (place, value) in graph.tasks.into_iter().enumerate() {
        let name = value.get("id").map_or_else(|| format!("number {}", place + 1), |id| format!("with id {id}"));
        let row: Row = serde_json::from_value(value).map_err(|error| bad(format!("the task {name}: {error}")))?;
        let seconds = row.run_s;
        if !seconds.is_finite() || seconds < 0.0 {
            return Err(bad(format!("the task {name}: run_s is {seconds}, which is no time")));
        }
        if seconds > RUN_MAX {
            return Err(bad(format!("the task {name}: run_s is {seconds:?}, more than 10 years")));
        }
        rows.push(row);
    }
    let order = order(&rows).map_err(bad)?;
    let name = graph.name.filter(|name| !name.is_empty()).unwrap_or_else(|| stem(&file));
    Ok(workload(name, &rows, &order))
}

/// Returns the places of the tasks with parents before children, otherwise in the order of the file.
fn order(rows: &[Row]) -> Result<Vec<usize>, String> {
    let mut places = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        if places.insert(row.id, place).is_some() {
            return Err(format!("two tasks have the id {}", row.id));
        }
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    let mut unfinished = vec![0_usize; rows.len()];
    for (place, row) in rows.iter().enumerate() {
        for parent in row.parents.iter().collect::<BTreeSet<_>>() {
            let parent = places
                .get(parent)
                .ok_or_else(|| format!("the task {} has the parent {parent}, which is not there", row.id))?;
            children[*parent].push(place);
            unfinished[place] += 1;
        }
    }
    let mut ready: BTreeSet<usize> = (0..rows.len()).filter(|place| unfinished[*place] == 0).collect();
    let mut order = Vec::with_capacity(rows.len());
    while let Some(place) = ready.pop_first() {
        order.push(place);
        for child in &children[place] {
            unfinished[*child] -= 1;
            if unfinished[*child] == 0 {
                ready.insert(*child);
            }
        }
    }
    if order.len() < rows.len() {
        return Err(format!("the tasks {} wait for each other", cycle(rows, &places, &unfinished)));
    }
    Ok(order)
}

/// Returns some tasks that wait for each other: `1, 5, 7`.
fn cycle(rows: &[Row], places: &BTreeMap<u64, usize>, unfinished: &[usize]) -> String {
    let stuck = |place: &usize| unfinished[*place] > 0;
    // From parent to parent among those that never get ready: some task comes twice.
    let mut path: Vec<usize> = (0..rows.len()).filter(stuck).take(1).collect();
    loop {
        let last = path.last().map_or(&[][..], |last| &rows[*last].parents);
        let Some(next) = last.iter().map(|id| places[id]).find(stuck) else { break };
        if let Some(start) = path.iter().position(|place| *place == next) {
            path.drain(..start);
            break;
        }
        path.push(next);
    }
    let ids = path.iter().take(10).map(|place| rows[*place].id.to_string()).collect::<Vec<_>>();
    ids.join(", ") + if path.len() > 10 { ", …" } else { "" }
}

fn workload(name: String, rows: &[Row], order: &[usize]) -> Workload {
    let mut new_places = BTreeMap::new();
    for (new, old) in order.iter().enumerate() {
        new_places.insert(rows[*old].id, new as u32);
    }
    let cores = |row: &Row| row.cores.map_or(1, |cores| cores.ceil().clamp(1.0, 1e6) as u32);
    let memory = |row: &Row| row.memory_bytes.map_or(0, |bytes| bytes.max(0.0) as u64);
    let mut classes: BTreeMap<(String, u32), (u32, u64)> = BTreeMap::new();
    let mut names = Vec::new();
    for place in order {
        let row = &rows[*place];
        let (category, cores) = (template(row.category.as_deref().unwrap_or("task")), cores(row));
        let class = classes.entry((category.clone(), cores)).or_insert_with(|| {
            names.push(category);
            (names.len() as u32 - 1, 0)
        });
        class.1 = class.1.max(memory(row));
    }
    // One category with different cores is several classes, and their names differ.
    let mut seen = BTreeSet::new();
    for ((_, cores), (class, _)) in &classes {
        if !seen.insert(names[*class as usize].clone()) {
            names[*class as usize] = format!("{} ({cores} cores)", names[*class as usize]);
        }
    }
    let task = |place: &usize| {
        let row = &rows[*place];
        let cores = cores(row);
        let (class, memory_bytes) = classes[&(template(row.category.as_deref().unwrap_or("task")), cores)];
        let parents: BTreeSet<u32> = row.parents.iter().map(|id| new_places[id]).collect();
        let parents = parents.into_iter().collect();
        // What was measured is what a task used; people ask once for all that are alike.
        Task { class, arrives: 0.0, run: row.run_s, cores, memory_bytes, parents }
    };
    Workload { name, tasks: order.iter().map(task).collect(), classes: names }
}

/// Returns a category without the numbers of its inputs: `sequence_17` and `sequence_4` are one template.
fn template(category: &str) -> String {
    let part = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { "#".to_owned() } else { part.to_owned() }
    };
    category.split('_').map(part).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Workload, InputError> {
        parse(Input::new("w/flow.json.gz", std::io::Cursor::new(text.as_bytes().to_vec()))?)
    }

    #[test]
    fn parents_come_before_children_and_classes_are_templates() {
        let flow = read(
            r#"{"source": "x", "tasks": [
                {"id": 7, "category": "join", "run_s": 2, "parents": [3, 5, 3], "output_bytes": 1},
                {"id": 3, "category": "part_1", "run_s": 1.5, "cores": 1, "memory_bytes": 10, "parents": [9]},
                {"id": 5, "category": "part_2", "run_s": 0, "cores": 1, "memory_bytes": 30, "parents": []},
                {"id": 9, "category": "part_3", "run_s": 1, "cores": 4, "memory_bytes": null}]}"#,
        )
        .unwrap();
        assert_eq!(flow.name, "flow");
        assert_eq!(flow.classes, ["part_#", "part_# (4 cores)", "join"]);
        let tasks: Vec<_> =
            flow.tasks.iter().map(|task| (task.class, task.run, task.cores, task.memory_bytes)).collect();
        // In the order of the file as far as parents allow it; a class asks for what its largest task used.
        assert_eq!(tasks, [(0, 0.0, 1, 30), (1, 1.0, 4, 0), (0, 1.5, 1, 30), (2, 2.0, 1, 0)]);
        let parents: Vec<_> = flow.tasks.iter().map(|task| task.parents.clone()).collect();
        assert_eq!(parents, [vec![], vec![], vec![1], vec![0, 2]]);
        assert_eq!(flow.core_seconds(), 7.5);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read("\u{feff}{\"tasks\": [{\"id\": 1, \"run_s\": 2}]}").unwrap().tasks.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_workflow_is_said() {
        let tasks = |rows: &str| format!(r#"{{"name": "a", "tasks": [{rows}]}}"#);
        for (text, place, words) in [
            ("{\n\"tasks\": [}".to_owned(), "w/flow.json.gz:2", "is no JSON"),
            ("[]".to_owned(), "w/flow.json.gz:1", "is no workflow"),
            ("{}".to_owned(), "w/flow.json.gz:1", "missing field `tasks`"),
            (tasks(""), "w/flow.json.gz", "it has 0 tasks"),
            (tasks(r#"{"id": 1, "parents": []}"#), "w/flow.json.gz", "with id 1: missing field `run_s`"),
            (tasks(r#"{"run_s": 1}"#), "w/flow.json.gz", "number 1: missing field `id`"),
            (tasks(r#"{"id": 1, "run_s": -1}"#), "w/flow.json.gz", "with id 1: run_s is -1"),
            (
                tasks(r#"{"id": 7, "run_s": 3.2e8}"#),
                "w/flow.json.gz",
                "with id 7: run_s is 320000000.0, more than 10 years",
            ),
            (tasks(r#"{"id": 7, "run_s": 1e300}"#), "w/flow.json.gz", "run_s is 1e300, more than 10 years"),
            (tasks(r#"{"id": 1, "run_s": 1, "parents": [2]}"#), "w/flow.json.gz", "the parent 2, which is not there"),
            (tasks(r#"{"id": 1, "run_s": 1}, {"id": 1, "run_s": 1}"#), "w/flow.json.gz", "two tasks have the id 1"),
            (
                tasks(
                    r#"{"id": 0, "run_s": 1, "parents": [1]}, {"id": 1, "run_s": 1, "parents": [9, 2]},
                       {"id": 2, "run_s": 1, "parents": [1]}, {"id": 9, "run_s": 1}"#,
                ),
                "w/flow.json.gz",
                "the tasks 1, 2 wait for each other",
            ),
            (tasks(r#"{"id": 4, "run_s": 1, "parents": [4]}"#), "w/flow.json.gz", "the tasks 4 wait for each other"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.place(), place, "{error}");
            assert!(error.what.contains(words), "{error}");
        }
    }
}
