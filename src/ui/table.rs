//! Tables without borders: a header in capitals, columns two spaces apart. Pure.

use super::words::escape;
use comfy_table::{CellAlignment, ContentArrangement, presets};

/// Which edge a column is set against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table with these columns and no row.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| (name.to_uppercase(), *align));
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row; control characters are escaped. Missing cells are empty, further ones dropped.
    pub fn row<I: IntoIterator<Item = T>, T: AsRef<str>>(&mut self, cells: I) {
        let cells = cells.into_iter().map(|cell| escape(cell.as_ref()));
        self.rows.push(cells.take(self.columns.len()).collect());
    }

    /// Returns whether there is no row: say why instead of printing an empty table.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the lines, without a newline at the end. Within `width` columns long cells fold.
    pub fn render(&self, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.columns.iter().map(|(name, _)| name));
        table.add_rows(self.rows.iter());
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        let last = self.columns.len().saturating_sub(1);
        for (i, (_, align)) in self.columns.iter().enumerate() {
            if let Some(column) = table.column_mut(i) {
                column.set_padding((0, if i == last { 0 } else { 2 }));
                column.set_cell_alignment(match align {
                    Align::Left => CellAlignment::Left,
                    Align::Right => CellAlignment::Right,
                });
            }
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_columns() {
        let mut table = Table::new(&[("task", Align::Left), ("memory", Align::Right), ("name", Align::Left)]);
        assert!(table.is_empty());
        table.row(["1.7", "1.9 GB", "gzip"]);
        table.row(["12", "640 MB", "a\x1b[31m\nb"]);
        let want = "\
TASK  MEMORY  NAME
1.7   1.9 GB  gzip
12    640 MB  a\\x1b[31m\\nb";
        assert_eq!(table.render(None), want);
        assert_eq!(table.render(Some(80)), want);
    }

    #[test]
    fn folds_to_its_width() {
        let mut table = Table::new(&[("task", Align::Right), ("command", Align::Left)]);
        table.row(["1", &"word ".repeat(60)]);
        table.row(["2", &"x".repeat(200)]);
        let text = table.render(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().count() > 5);
        assert_eq!(table.render(None).lines().count(), 3);
    }
}
