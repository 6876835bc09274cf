//! The page that is drawn on: a frame with axes, texts and paths. Every text is escaped.

use super::axis::Axis;
use std::fmt::Write;

/// Colours on light and on dark pages. Nothing is told by colour alone: lines differ in width and dashes, areas
/// in shade, and marks in form.
const STYLE: &str = "\
.back{fill:#fff}text{fill:#1f2937;font:12px system-ui,sans-serif}.title{font-size:14px;font-weight:600}\
.soft{fill:#4b5563}.grid{stroke:#e5e7eb;fill:none}.axis{stroke:#6b7280;fill:none}\
.wanted{stroke:#c2410c;stroke-width:2;fill:none}.held{fill:#bfdbfe;stroke:#60a5fa}.busy{fill:#1d4ed8}\
.pending{stroke:#6d28d9;stroke-width:1.5;fill:none;stroke-dasharray:5 2}\
.own{fill:#c2410c;stroke:#c2410c}.other{fill:#fff;stroke:#1d4ed8;stroke-width:2}\
.sweep{stroke:#c2410c;stroke-width:1.5;fill:none;stroke-dasharray:5 3}\
@media(prefers-color-scheme:dark){.back{fill:#0d1117}text{fill:#e5e7eb}.soft{fill:#9ca3af}\
.grid{stroke:#1f2937}.axis{stroke:#6b7280}.wanted{stroke:#fb923c}.held{fill:#1e3a5f;stroke:#3b82f6}\
.busy{fill:#60a5fa}.pending{stroke:#c4b5fd}.own{fill:#fb923c;stroke:#fb923c}\
.other{fill:#0d1117;stroke:#60a5fa}.sweep{stroke:#fb923c}}";

/// A part of the page with two axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Frame {
    /// Returns the point of two places from 0 to 1; the second one counts upwards.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.width * x.clamp(0.0, 1.0), self.top + self.height * (1.0 - y.clamp(0.0, 1.0)))
    }
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A page.
#[derive(Debug)]
pub(super) struct Canvas {
    svg: String,
}

impl Canvas {
    /// Begins a page; `says` is for those who cannot see it.
    pub(super) fn new(width: u32, height: u32, title: &str, says: &str) -> Self {
        let (title, says) = (escape(title), escape(says));
        let mut canvas = Self { svg: String::new() };
        canvas.write(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}. {says}\"><title>{title}</title><desc>{says}</desc>\
             <style>{STYLE}</style><rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
        ));
        canvas.text(16.0, 22.0, Anchor::Start, "title", &title);
        canvas
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.svg.write_fmt(text);
    }

    /// Writes a text that is escaped already.
    fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, escaped: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.write(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{escaped}</text>\n"
        ));
    }

    pub(super) fn label(&mut self, x: f64, y: f64, anchor: Anchor, text: &str) {
        self.text(x, y, anchor, "soft", &escape(text));
    }

    /// Draws lines at the marks of both axes, and their words.
    pub(super) fn axes(&mut self, frame: Frame, x: &Axis, y: &Axis, x_words: bool) {
        for (value, words) in &y.marks {
            let (left, height) = frame.at(0.0, y.place(*value));
            self.write(format_args!("<path class=\"grid\" d=\"M{left:.1} {height:.1}h{:.1}\"/>", frame.width));
            self.label(left - 6.0, height + 4.0, Anchor::End, words);
        }
        let (_, bottom) = frame.at(0.0, 0.0);
        for (value, words) in &x.marks {
            let (place, _) = frame.at(x.place(*value), 0.0);
            self.write(format_args!("<path class=\"grid\" d=\"M{place:.1} {bottom:.1}v{:.1}\"/>", -frame.height));
            if x_words {
                self.label(place, bottom + 17.0, Anchor::Middle, words);
            }
        }
        let Frame { left, top, width, height } = frame;
        self.write(format_args!("<path class=\"axis\" d=\"M{left:.1} {top:.1}v{height:.1}h{width:.1}\"/>\n"));
    }

    /// Draws a path through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let mut path = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        let end = if closed { "Z" } else { "" };
        self.write(format_args!("<path class=\"{class}\" d=\"{path}{end}\"/>\n"));
    }

    /// Draws a mark: one of five forms.
    pub(super) fn mark(&mut self, class: &str, x: f64, y: f64, form: usize) {
        match form % 5 {
            0 => self.write(format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>")),
            1 => self.path(
                class,
                &[(x - 5.0, y - 5.0), (x + 5.0, y - 5.0), (x + 5.0, y + 5.0), (x - 5.0, y + 5.0)],
                true,
            ),
            2 => self.path(class, &[(x, y - 6.5), (x + 6.0, y + 4.5), (x - 6.0, y + 4.5)], true),
            3 => self.path(class, &[(x, y - 7.0), (x + 7.0, y), (x, y + 7.0), (x - 7.0, y)], true),
            _ => self.path(class, &[(x, y + 6.5), (x + 6.0, y - 4.5), (x - 6.0, y - 4.5)], true),
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// Returns a text that no reader of XML takes for anything else.
fn escape(text: &str) -> String {
    let text = crate::ui::words::escape(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
