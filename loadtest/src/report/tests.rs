use super::*;
use crate::outcome::fixture::outcome;

#[test]
fn a_page_needs_nothing_else_and_says_it_all() {
    let page = of_run(&outcome());
    for part in [
        "It did &lt;not&gt; hold",
        "class=\"verdict failed\"",
        "Latency by percentile",
        "Latency over time",
        "Throughput over time",
        "Errors over time",
        "SKU-1 at &lt;dc&gt;",
        "0123456789abcdef",
        "prefers-color-scheme: dark",
        "abandon_seconds = 2",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(
            !page.contains(outside),
            "{outside} refers to something else"
        );
    }
}

#[test]
fn every_element_is_closed() {
    let page = of_run(&outcome());
    for element in [
        "svg", "figure", "section", "table", "dl", "ul", "main", "text", "details",
    ] {
        let opened = page.matches(&format!("<{element}")).count();
        let closed = page.matches(&format!("</{element}>")).count();
        // `<text` is also the beginning of nothing else, `<table` of nothing else.
        assert_eq!(opened, closed, "{element}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(can_be_written(&dir.path().join("report.html")).is_ok());
    let failure = can_be_written(&dir.path().join("nowhere/report.html")).expect_err("no folder");
    assert_eq!(failure.exit, crate::cli::EXIT_USAGE);
    assert!(failure.message.contains("--report"), "{failure}");
}
