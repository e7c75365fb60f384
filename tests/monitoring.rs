//! The dashboard, the alerts and their page speak of metrics that exist.

#![allow(clippy::unwrap_used, clippy::panic)]
mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use support::{Client, Gate, Metrics};

fn read(name: &str) -> String {
    let path = format!("{}/docs/operations/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The metrics of a gate that has all there are.
async fn metrics() -> Metrics {
    let gate = Gate::start_alone("[metrics]\nchannels = [\"news\"]\n").await;
    Metrics::parse(&Client::connect(gate.internal()).await.get("/metrics").await.text())
}

/// All texts below a key of that name.
fn texts(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, below) in map {
                match below {
                    Value::String(text) if name == key => found.push(text.clone()),
                    _ => texts(below, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|below| texts(below, key, found)),
        _ => {}
    }
}

/// The mistakes in an expression: metrics, labels or values of labels that do not exist.
fn mistakes(expression: &str, metrics: &Metrics) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = expression
        .split(|c| !word(c))
        .filter(|name| ["pollgate_", "process_"].iter().any(|start| name.starts_with(start)));
    let exists = |name: &str| {
        let histogram = |end| name.strip_suffix(end).and_then(|name| metrics.families.get(name));
        let ends = ["_bucket", "_sum", "_count"];
        metrics.families.get(name).is_some_and(|kind| kind != "histogram")
            || ends.iter().any(|end| histogram(end).is_some_and(|kind| kind == "histogram"))
    };
    let mut wrong: Vec<String> =
        names.filter(|name| !exists(name)).map(|name| format!("{name} in {expression}")).collect();
    for part in expression.split(['{', ',']).filter(|part| part.contains('"')) {
        let (label, rest) = part.split_once('=').unwrap();
        // Labels that Prometheus itself adds.
        if ["instance", "job"].contains(&label) {
            continue;
        }
        for value in rest.trim_start_matches('~').split('"').nth(1).unwrap().split('|') {
            let written = format!("{label}=\"{value}\"");
            if !metrics.series().any(|series| series.contains(&written)) {
                wrong.push(format!("{written} in {expression}"));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn every_expression_of_the_dashboard_is_about_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    let metrics = metrics().await;
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard, "definition", &mut expressions);
    assert!(expressions.len() > 20, "{expressions:?}");
    let wrong: Vec<_> = expressions.iter().flat_map(|e| mistakes(e, &metrics)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And it shows them all.
    let all = expressions.join("\n");
    let shown = |name: &&String| all.contains(name.as_str());
    let missing: Vec<_> = metrics.families.keys().filter(|name| !shown(name)).collect();
    let left_out = ["pollgate_channel_deliveries_total", "pollgate_channel_publishes_total"];
    assert_eq!(missing, left_out, "not on the dashboard");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
}

#[tokio::test]
async fn every_alert_is_about_metrics_that_exist_and_on_the_page() {
    let alerts = read("alerts.yaml");
    let page = read("monitoring.md");
    let metrics = metrics().await;
    let after = |key: &'static str| {
        alerts
            .lines()
            .filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(key))
    };
    let wrong: Vec<_> = after("expr: ").flat_map(|e| mistakes(e, &metrics)).collect();
    assert!(wrong.is_empty() && after("expr: ").count() > 5, "{wrong:#?}");
    for alert in after("alert: ") {
        assert!(page.contains(&format!("| `{alert}` |")), "{alert} is not on the page");
    }
}

#[tokio::test]
async fn the_page_names_every_metric_and_every_cause() {
    let page = read("monitoring.md");
    let metrics = metrics().await;
    for name in metrics.families.keys() {
        let named = [format!("`{name}`"), format!("`{name}{{")];
        assert!(named.iter().any(|written| page.contains(written)), "{name} is not on the page");
    }
    for series in metrics.series().filter(|series| series.contains("cause=")) {
        let cause = series.split('"').nth(1).unwrap();
        assert!(page.contains(&format!("`{cause}`")), "{series} is not on the page");
    }
}
