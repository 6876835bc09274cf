//! What a task is called: in its environment, in output templates, in the default output paths.

use crate::runtime::ids::TaskId;
use crate::runtime::protocol::Body;

/// The names of one task.
#[derive(Clone, Debug)]
pub(super) struct Label {
    /// `ARRAY` or `ARRAY.INDEX`.
    pub(super) id: String,
    /// The submission's number.
    pub(super) array: String,
    /// The index that users see, unless it is a single task.
    pub(super) index: Option<u32>,
    /// The name as one component of a path: `/` replaced; the id when it has none.
    pub(super) name: String,
}

impl Label {
    pub(super) fn new(task: TaskId, body: &Body) -> Self {
        let index = body.indexes.index(task.element);
        let array = task.array.to_string();
        let id = match index {
            Some(index) => format!("{array}.{index}"),
            None => array.clone(),
        };
        let name = match body.name.as_str() {
            "" | "." | ".." => id.clone(),
            name => name.replace('/', "_"),
        };
        Self { id, array, index, name }
    }
}
