//! Gates that share their channels, and clients that are at all of them.

use super::crowd::Crowd;
use crate::support::{Gate, eventually};

pub(crate) const MESSAGES: usize = 40;

pub(crate) fn config(redis: &str) -> String {
    format!("[backplane]\nredis = \"{redis}\"\n[hold]\njitter = \"0%\"\n")
}

pub(crate) async fn gate(redis: &str) -> Gate {
    let gate = Gate::start_alone(&config(redis)).await;
    wait_for_backplane(&gate).await;
    gate
}

pub(crate) async fn gates(redis: &str) -> Vec<Gate> {
    vec![gate(redis).await, gate(redis).await, gate(redis).await]
}

/// Reasons why the gate is not ready, except for the site, which none of these gates has.
pub(crate) async fn unready(gate: &Gate) -> Vec<String> {
    let answer = gate.hook("GET", "/readyz", &[], "").await.json();
    let reasons = answer["reasons"].as_array().cloned().unwrap_or_default();
    let reasons = reasons.iter().map(|reason| reason.as_str().unwrap().to_owned());
    reasons.filter(|reason| !reason.contains("upstream")).collect()
}

pub(crate) async fn wait_for_backplane(gate: &Gate) {
    eventually("a gate that is ready", async || unready(gate).await.is_empty()).await;
}

/// Number of messages the clients got while `fault` happened between the publishes.
pub(crate) async fn through(gates: &[Gate], clients: usize, fault: impl AsyncFnOnce()) -> u64 {
    let mut crowd = Crowd::new(gates, clients, 3);
    crowd.publish(MESSAGES / 2).await;
    crowd.publish_during(MESSAGES, fault).await;
    crowd.publish(MESSAGES / 2).await;
    let told = crowd.finish().await;
    println!("{told:?}");
    told.resets
}
