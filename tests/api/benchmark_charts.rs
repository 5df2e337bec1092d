//! Checks that the charts in `docs/charts` show the figures of `docs/benchmarks.md`.

use std::path::Path;

use crate::charts::{DIRECTORY, PAGE, draw, missing, write};

/// `UPDATE_SNAPSHOTS=1 cargo test --test api benchmark_charts` draws the charts again.
#[test]
fn the_charts_show_the_figures_of_the_table() {
    if std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1") {
        write();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert_eq!(missing(&page), [], "{PAGE} lacks rows with two values, which benches/targets/charts.rs names");
    for (file, drawing) in draw(&page) {
        let stored = std::fs::read_to_string(Path::new(DIRECTORY).join(file)).unwrap_or_default();
        assert!(stored == drawing, "{file} is out of date: UPDATE_SNAPSHOTS=1 cargo test --test api benchmark_charts");
        assert!(page.contains(&format!("(charts/{file})")), "{PAGE} does not show {file}");
    }
}
