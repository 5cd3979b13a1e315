//! Pieces of a web page.

use std::fmt::Write;

/// Text that is no markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A table; the first column is text, the others are numbers.
pub fn table(class: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for name in header {
        // `write!` into a string cannot fail.
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// Names and values.
pub fn facts(facts: &[(&str, String)]) -> String {
    let mut out = String::from("<dl class=\"facts\">");
    for (name, value) in facts {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(name),
            escape(value)
        );
    }
    out.push_str("</dl>");
    out
}

/// A figure that one remembers.
pub struct Tile {
    /// What it is.
    pub name: String,
    /// The number.
    pub value: String,
    /// Its unit.
    pub unit: String,
    /// What to compare it with.
    pub note: String,
}

/// Figures in a row.
pub fn tiles(tiles: &[Tile]) -> String {
    let mut out = String::from("<section class=\"tiles\">");
    for tile in tiles {
        let _ = write!(
            out,
            "<div><h2>{}</h2><p class=\"figure\">{}<span>{}</span></p><p class=\"note\">{}</p></div>",
            escape(&tile.name),
            escape(&tile.value),
            escape(&tile.unit),
            escape(&tile.note)
        );
    }
    out.push_str("</section>");
    out
}

/// A whole page that needs nothing else.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{}</style></head><body><main>{body}</main></body></html>\n",
        escape(title),
        include_str!("report.css")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
        let html = table("", &["<h>"], &[vec!["<script>".to_owned()]]);
        assert!(!html.contains("<script>") && !html.contains("<h>"));
    }
}
