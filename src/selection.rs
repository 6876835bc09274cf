//! What users type for elements of arrays: `--array 1-1000:2` and task ids (`3`, `3.7`, `3.1-5`),
//! and how ids are printed. Pure.

use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Indexes, TaskRef};
use std::str::FromStr;

/// Elements one array may have.
pub const ARRAY_MAX: u64 = 10_000_000;

/// A parsed `--array`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArraySpec {
    /// The indexes.
    pub indexes: Indexes,
    /// Elements that may run at once: Slurm's `%N` at the end.
    pub at_most: Option<u32>,
}

/// Text that is no array or task id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectionError {
    /// Not an array.
    #[error("`{0}` is not an array like 1-1000, 0-9, 1-100:2 or 1,3,7")]
    Array(String),
    /// A range that ends before it begins.
    #[error("`{0}` ends before it begins")]
    Backwards(String),
    /// Too large.
    #[error("`{0}` has more than {ARRAY_MAX} elements")]
    TooLarge(String),
    /// Not a task id.
    #[error("`{0}` is not a task id like 3, 3.7 or 3.1-5")]
    Id(String),
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads `5` or `1-5`.
fn range(text: &str) -> Option<(u32, u32)> {
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(text).map(|n| (n, n)),
    }
}

impl FromStr for ArraySpec {
    type Err = SelectionError;

    /// Reads what Slurm reads: a bare number is that one index.
    fn from_str(text: &str) -> Result<Self, SelectionError> {
        let shown = || text.escape_debug().to_string();
        let malformed = || SelectionError::Array(shown());
        let (list, at_most) = match text.split_once('%') {
            Some((list, at_most)) => {
                let at_most = number(at_most).filter(|n| *n > 0).ok_or_else(malformed)?;
                (list, Some(at_most))
            }
            None => (text, None),
        };
        let mut parts = Vec::new();
        let mut total = 0;
        for part in list.split(',') {
            let (ends, step) = part.split_once(':').unwrap_or((part, "1"));
            let step = number(step).filter(|n| *n > 0).ok_or_else(malformed)?;
            let (first, last) = range(ends).ok_or_else(malformed)?;
            let distance = last.checked_sub(first).ok_or_else(|| SelectionError::Backwards(shown()))?;
            total += u64::from(distance / step) + 1;
            if total > ARRAY_MAX {
                return Err(SelectionError::TooLarge(shown()));
            }
            parts.push((first, last, step));
        }
        let indexes = match parts[..] {
            [(first, last, step)] => Indexes::Range { first, count: (last - first) / step + 1, step },
            _ => list_of(&parts),
        };
        Ok(Self { indexes, at_most })
    }
}

fn list_of(parts: &[(u32, u32, u32)]) -> Indexes {
    let mut list: Vec<u32> = parts
        .iter()
        .flat_map(|&(first, last, step)| (0..=(last - first) / step).map(move |element| first + element * step))
        .collect();
    list.sort_unstable();
    list.dedup();
    Indexes::List(list)
}

/// Some tasks, as a user named them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Selection {
    /// The submission.
    pub array: ArrayId,
    /// First and last index; `None` = all of it.
    pub indexes: Option<(u32, u32)>,
}

impl Selection {
    /// Reads `3`, `3.7`, `3.1-5` and `3.1-5,9`.
    pub fn parse(text: &str) -> Result<Vec<Self>, SelectionError> {
        let malformed = || SelectionError::Id(text.escape_debug().to_string());
        let (array, indexes) = match text.split_once('.') {
            Some((array, indexes)) => (array, Some(indexes)),
            None => (text, None),
        };
        let array = number(array).filter(|n| *n > 0).ok_or_else(malformed)?;
        let array = ArrayId(array);
        let Some(indexes) = indexes else {
            let indexes = None;
            return Ok(vec![Self { array, indexes }]);
        };
        let mut selections = Vec::new();
        for part in indexes.split(',') {
            let (first, last) = range(part).ok_or_else(malformed)?;
            if last < first {
                return Err(SelectionError::Backwards(text.escape_debug().to_string()));
            }
            selections.push(Self { array, indexes: Some((first, last)) });
        }
        Ok(selections)
    }

    /// Returns the elements it means in a submission with these indexes.
    pub fn elements<'a>(&self, of: &'a Indexes) -> impl Iterator<Item = u32> + use<'a> {
        let wanted = self.indexes;
        (0..of.count()).filter(move |&element| match (wanted, of.index(element)) {
            (None, _) => true,
            (Some((first, last)), Some(index)) => (first..=last).contains(&index),
            (Some(_), None) => false,
        })
    }
}

/// Returns a task's id as users know it: `3.7`, or `3` for a single task.
pub fn task_id(task: TaskId, indexes: &Indexes) -> String {
    match indexes.index(task.element) {
        Some(index) => format!("{}.{index}", task.array),
        None => task.array.to_string(),
    }
}

/// Returns the id of a task or a whole submission; `indexes` are those of its submission.
pub fn reference_id(reference: TaskRef, indexes: &Indexes) -> String {
    match reference {
        TaskRef::Array(array) => array.to_string(),
        TaskRef::Task(task) => task_id(task, indexes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(text: &str) -> Indexes {
        text.parse::<ArraySpec>().unwrap().indexes
    }

    #[test]
    fn arrays() {
        for (text, first, count, step) in [
            ("1-1000", 1, 1000, 1),
            ("0-9", 0, 10, 1),
            ("1-100:2", 1, 50, 2),
            ("5", 5, 1, 1),
            ("4294967295", u32::MAX, 1, 1),
        ] {
            assert_eq!(array(text), Indexes::Range { first, count, step }, "{text}");
        }
        assert_eq!(array("7,1,3,1-2"), Indexes::List(vec![1, 2, 3, 7]));
        assert_eq!("1-9%4".parse::<ArraySpec>().unwrap().at_most, Some(4));
        for text in [
            "",
            "a",
            "1-",
            "-1",
            "9-1",
            "1-2-3",
            "1:0",
            "1,",
            "1-20000000",
            "1 ",
            "+1",
            "1%0",
            "4294967296",
            "1-9999999,1-9999999",
        ] {
            assert!(text.parse::<ArraySpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn lists_count_and_find_their_elements() {
        let list = array("7,1,3");
        assert_eq!(list.count(), 3);
        for (element, index) in [(0, 1), (1, 3), (2, 7)] {
            assert_eq!(list.index(element), Some(index));
            assert_eq!(list.element(index), Some(element));
        }
        assert_eq!((list.index(3), list.element(2)), (None, None));
    }

    #[test]
    fn selections() {
        let parse = |text| {
            let found = Selection::parse(text)?;
            Ok::<_, SelectionError>(found.iter().map(|s| (s.array.0, s.indexes)).collect())
        };
        assert_eq!(parse("3"), Ok(vec![(3, None)]));
        assert_eq!(parse("3.7"), Ok(vec![(3, Some((7, 7)))]));
        assert_eq!(parse("3.1-5,9"), Ok(vec![(3, Some((1, 5))), (3, Some((9, 9)))]));
        for text in ["3.", "", ".1", "0", "3.x", "3.5-1", "3.1.2", "a", "3-4", "3.1-"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let elements = |text: &str, of: &str| {
            let selections = Selection::parse(text).unwrap();
            selections[0].elements(&array(of)).collect::<Vec<_>>()
        };
        assert_eq!(elements("3.3-6", "1-9:2"), [1, 2]);
        assert_eq!(elements("3", "7,9"), [0, 1]);
    }

    #[test]
    fn ids_are_printed_as_typed() {
        let task = TaskId { array: ArrayId(3), element: 1 };
        assert_eq!(task_id(task, &array("5-9:2")), "3.7");
        assert_eq!(reference_id(TaskRef::Task(task), &Indexes::Single), "3");
        assert_eq!(reference_id(TaskRef::Array(ArrayId(4)), &Indexes::Single), "4");
    }
}
