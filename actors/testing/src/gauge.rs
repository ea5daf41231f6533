//! Reads a node's metrics as Prometheus would.

use prometheus::Registry;

/// The values of all series of a metric, whose gauges and counters are summed.
///
/// # Panics
/// When there is no metric of this name: a misspelt name would read as 0.
#[must_use]
pub fn sum(registry: &Registry, name: &str) -> f64 {
    values(registry, name).sum()
}

/// The largest value of a metric's series.
///
/// # Panics
/// When there is no metric of this name.
#[must_use]
pub fn max(registry: &Registry, name: &str) -> f64 {
    values(registry, name).fold(0.0, f64::max)
}

fn values(registry: &Registry, name: &str) -> impl Iterator<Item = f64> {
    let families = registry.gather();
    let family = families.into_iter().find(|family| family.name() == name);
    let family = family.unwrap_or_else(|| panic!("there is no metric {name}"));
    let values: Vec<_> = family
        .get_metric()
        .iter()
        .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
        .collect();
    values.into_iter()
}
