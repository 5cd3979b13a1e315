//! Charts as SVG: lines over one pair of axes.

use std::fmt::Write;

use super::{axis::Axis, html::escape};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 46.0;
/// Narrower phases have no name written above them.
const NAMED_MIN: f64 = 44.0;
/// Width of a letter of a phase's name, as near as can be told.
const LETTER: f64 = 6.2;

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// What counts.
    Solid,
    /// What it is compared with.
    Dashed,
    /// Solid, with the area below it filled.
    Area,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Number of its colour, 0 to 8.
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// Its points; it is broken where there is no value.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A stretch of the x axis with a name.
#[derive(Debug, Clone)]
pub struct Band {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Drawn in the background: it does not count.
    pub muted: bool,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it says.
    pub title: String,
    /// How it is to be read.
    pub note: String,
    /// From left to right.
    pub x: Axis,
    /// From below.
    pub y: Axis,
    /// Lines, the last one on top.
    pub lines: Vec<Line>,
    /// Stretches with names.
    pub bands: Vec<Band>,
    /// A value of the y axis that is not to be exceeded.
    pub limit: Option<(f64, String)>,
}

impl Chart {
    /// As a figure of a web page: title, legend, drawing.
    pub fn to_html(&self) -> String {
        let mut out = String::new();
        // `write!` into a string cannot fail.
        let _ = write!(
            out,
            "<figure><figcaption><h3>{}</h3><p>{}</p></figcaption>{}",
            escape(&self.title),
            escape(&self.note),
            self.legend()
        );
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        self.draw_bands(&mut out);
        self.draw_grid(&mut out);
        self.draw_limit(&mut out);
        for line in &self.lines {
            self.draw_line(line, &mut out);
        }
        out.push_str("</svg></figure>");
        out
    }

    fn legend(&self) -> String {
        let mut out = String::from("<ul class=\"legend\">");
        for line in &self.lines {
            let dash = match line.stroke {
                Stroke::Dashed => " dashed",
                Stroke::Solid | Stroke::Area => "",
            };
            let _ = write!(
                out,
                "<li><svg class=\"key\" viewBox=\"0 0 24 8\"><line class=\"line c{}{dash}\" x1=\"0\" x2=\"24\" y1=\"4\" y2=\"4\"/></svg>{}</li>",
                line.colour,
                escape(&line.name)
            );
        }
        out.push_str("</ul>");
        out
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw_bands(&self, out: &mut String) {
        for (n, band) in self.bands.iter().enumerate() {
            let (from, to) = (self.x(band.from), self.x(band.to));
            let class = match (band.muted, n % 2) {
                (true, _) => "band muted",
                (false, 0) => "band",
                (false, _) => "band odd",
            };
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                to - from,
                HEIGHT - TOP - BOTTOM
            );
            let room = (to - from - 8.0).max(0.0);
            if room < NAMED_MIN {
                continue;
            }
            // What does not fit is cut, and said in full by the title.
            let letters = (room / LETTER) as usize;
            let name = match band.name.chars().count() > letters {
                true => band.name.chars().take(letters - 1).chain(['…']).collect(),
                false => band.name.clone(),
            };
            let _ = write!(
                out,
                "<text class=\"phase\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>",
                from + 4.0,
                TOP - 8.0,
                escape(&name),
                escape(&band.name)
            );
        }
    }

    fn draw_grid(&self, out: &mut String) {
        let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, name) in &self.y.ticks {
            let y = self.y(*value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick y\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (value, name) in &self.x.ticks {
            let x = self.x(*value);
            // What stands at the right edge must not be cut off by it.
            let edge = if x > WIDTH - 2.0 * RIGHT { " edge" } else { "" };
            let _ = write!(
                out,
                "<line class=\"notch\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{base}\" y2=\"{:.1}\"/>\
                 <text class=\"tick x{edge}\" x=\"{x:.1}\" y=\"{:.1}\">{name}</text>",
                base + 4.0,
                base + 18.0
            );
        }
        let _ = write!(
            out,
            "<line class=\"base\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{base}\" y2=\"{base}\"/>\
             <text class=\"axis x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"axis y\" x=\"0\" y=\"12\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn draw_limit(&self, out: &mut String) {
        if let Some((value, name)) = &self.limit {
            let y = self.y(*value);
            let right = WIDTH - RIGHT;
            let _ = write!(
                out,
                "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"limit\" x=\"{right}\" y=\"{:.1}\">{}</text>",
                y - 5.0,
                escape(name)
            );
        }
    }

    fn draw_line(&self, line: &Line, out: &mut String) {
        for points in line.points.split(|(_, y)| y.is_none()) {
            let places: Vec<(f64, f64)> = points
                .iter()
                .filter_map(|(x, y)| Some((self.x(*x), self.y((*y)?))))
                .collect();
            let Some((first, last)) = places.first().zip(places.last()) else {
                continue;
            };
            if let [(x, y)] = places[..] {
                let colour = line.colour;
                let _ = write!(
                    out,
                    "<circle class=\"dot c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"
                );
                continue;
            }
            let path: String = places
                .iter()
                .enumerate()
                .map(|(n, (x, y))| format!("{}{x:.1},{y:.1}", if n == 0 { 'M' } else { 'L' }))
                .collect();
            if line.stroke == Stroke::Area {
                let base = HEIGHT - BOTTOM;
                let _ = write!(
                    out,
                    "<path class=\"area c{}\" d=\"{path}L{:.1},{base}L{:.1},{base}Z\"/>",
                    line.colour, last.0, first.0
                );
            }
            let dash = match line.stroke {
                Stroke::Dashed => " dashed",
                Stroke::Solid | Stroke::Area => "",
            };
            let _ = write!(
                out,
                "<path class=\"line c{}{dash}\" d=\"{path}\"><title>{}</title></path>",
                line.colour,
                escape(&line.name)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "a < b".to_owned(),
            note: String::new(),
            x: Axis::time(10.0),
            y: Axis::linear("ms", 4.0),
            lines: vec![Line {
                name: "one".to_owned(),
                colour: 3,
                stroke: Stroke::Solid,
                points: vec![
                    (0.0, Some(0.0)),
                    (5.0, Some(4.0)),
                    (6.0, None),
                    (10.0, Some(2.0)),
                ],
            }],
            bands: vec![Band {
                name: "a phase with a long name".to_owned(),
                from: 0.0,
                to: 1.0,
                muted: true,
            }],
            limit: Some((2.0, "objective".to_owned())),
        }
    }

    #[test]
    fn lines_lie_where_their_values_are_and_break_where_there_are_none() {
        let html = chart().to_html();
        assert!(html.contains("d=\"M56.0,254.0L500.0,26.0\""), "{html}");
        assert!(html.contains("cx=\"944.0\" cy=\"140.0\""), "{html}");
        assert!(
            html.contains("class=\"limit\" x1=\"56\" x2=\"944\" y1=\"140.0\""),
            "{html}"
        );
    }

    #[test]
    fn text_is_escaped_and_long_names_are_cut() {
        let html = chart().to_html();
        assert!(html.contains("a &lt; b") && !html.contains("a < b"));
        assert!(
            html.contains("a phase with…") || html.contains("a phase wit…"),
            "{html}"
        );
        assert!(html.contains("<title>a phase with a long name</title>"));
    }
}
