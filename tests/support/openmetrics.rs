//! A strict reader of the OpenMetrics text format, as far as the service uses it: anything that
//! breaks the format's rules fails the test and says which line.

use std::collections::BTreeMap;

/// A metric family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) help: String,
    /// Values by name and labels, as written.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// The families of a page, by name.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut histograms: BTreeMap<(String, String), Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = Vec::new();
    for line in body.lines() {
        let wrong = |why: &str| -> ! { panic!("{why}: {line:?}") };
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name) = (words.next(), words.next().unwrap_or_default());
            let text = words.next().unwrap_or_default().to_owned();
            if name != current {
                // All lines of a family stand together.
                if families.contains_key(name) {
                    wrong("a family in two places");
                }
                if !is_name(name) {
                    wrong("no name");
                }
                current = name.to_owned();
                families.insert(current.clone(), Family::default());
            }
            let family = families.get_mut(&current).expect("just made");
            if !family.samples.is_empty() {
                wrong("metadata after a sample");
            }
            let field = match what {
                Some("TYPE") => &mut family.kind,
                Some("UNIT") => &mut family.unit,
                Some("HELP") => &mut family.help,
                _ => wrong("unknown metadata"),
            };
            if !field.is_empty() || text.is_empty() {
                wrong("metadata twice, or none");
            }
            *field = text;
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            wrong("no value");
        };
        let Ok(value) = value.parse::<f64>() else {
            wrong("the value is no number");
        };
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, labels)) => match labels.strip_suffix('}') {
                Some(labels) => (name, labels),
                None => wrong("labels without an end"),
            },
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let quoted = label.split_once('=').is_some_and(|(name, value)| {
                is_name(name) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"')
            });
            if !quoted {
                wrong("a label that is none");
            }
        }
        let Some(family) = families.get_mut(&current) else {
            wrong("a sample without a family");
        };
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => wrong("a type that is not expected"),
        };
        let suffix = name.strip_prefix(current.as_str()).unwrap_or("another");
        if !suffixes.contains(&suffix) {
            wrong("a sample with another name than its family");
        }
        if family.kind != "gauge" && value < 0.0 {
            wrong("a negative count");
        }
        // A histogram's series is told by its labels without the end of the bucket.
        let (end, others): (Vec<_>, Vec<_>) = labels
            .split(',')
            .partition(|label| label.starts_with("le="));
        let histogram = (current.clone(), others.join(","));
        if suffix == "_bucket" {
            let end = end.first().map(|end| end["le=".len()..].trim_matches('"'));
            let Some(Ok(end)) = end.map(str::parse::<f64>) else {
                wrong("a bucket without an end that is a number");
            };
            let buckets = histograms.entry(histogram.clone()).or_default();
            // Each has all that the ones before have.
            let before = buckets.last().copied().unwrap_or((f64::NEG_INFINITY, 0.0));
            if before.0 >= end || before.1 > value {
                wrong("buckets that do not grow");
            }
            buckets.push((end, value));
        }
        if suffix == "_count" {
            counts.push((histogram, value));
        }
        if !family.unit.is_empty() && !current.ends_with(&format!("_{}", family.unit)) {
            wrong("the unit is not in the name");
        }
        if family.samples.insert(series.to_owned(), value).is_some() {
            wrong("the same sample twice");
        }
    }
    for (histogram, count) in counts {
        let last = histograms
            .get(&histogram)
            .and_then(|buckets| buckets.last());
        assert_eq!(last, Some(&(f64::INFINITY, count)), "{histogram:?}");
    }
    for (name, family) in &families {
        assert!(!family.kind.is_empty(), "{name} has no type");
        assert!(!family.help.is_empty(), "{name} has no help");
    }
    families
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = |char: char| char.is_ascii_alphabetic() || char == '_';
    chars.next().is_some_and(first) && chars.all(|char| first(char) || char.is_ascii_digit())
}
