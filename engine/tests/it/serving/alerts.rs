//! Series of the alerts: an alert on the first event needs its series before the event.

use super::site::Site;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/heddle.rules.yml");

/// Series that exist where there are several nodes, or topics of Kafka, alone; their connectors' tests look for them.
const CLUSTER: [&str; 4] = [
    "heddle_ownership_",
    "heddle_partition_lost_records_total",
    "heddle_partition_given_up_partitions",
    "heddle_partition_retention_used_ratio",
];

/// Series that an alert uses: its name, and the labels that it selects by.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

/// Returns the series in an expression; a pattern of alternatives stands for a series each.
fn series(expression: &str) -> Vec<Series> {
    let mut found = Vec::new();
    let starts = expression.match_indices("heddle_").map(|(at, _)| at);
    for start in starts {
        let rest = &expression[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        let selectors = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let mut labels = vec![Vec::new()];
        for selector in selectors.map(|(inside, _)| inside).into_iter().flat_map(|inside| inside.split(',')) {
            let (label, pattern) = selector.split_once('=').unwrap();
            assert!(!label.ends_with('!'), "a negative selector needs no series: {selector}");
            let values: Vec<_> = pattern.trim_start_matches('~').trim_matches('"').split('|').collect();
            labels = labels
                .iter()
                .flat_map(|so_far| {
                    values.iter().map(move |value| {
                        [so_far.as_slice(), &[(label.to_owned(), (*value).to_owned())]].concat()
                    })
                })
                .collect();
        }
        found.extend(labels.into_iter().map(|labels| Series { name: name.clone(), labels }));
    }
    found
}

fn has(metrics: &str, wanted: &Series) -> bool {
    metrics.lines().any(|line| {
        let Some(rest) = line.strip_prefix(&wanted.name) else { return false };
        rest.starts_with([' ', '{'])
            && wanted.labels.iter().all(|(label, value)| {
                let label = format!("{label}=\"{value}\"");
                rest.split(['{', ',', '}']).any(|one| one == label)
            })
    })
}

#[test]
fn the_series_of_an_expression_are_found() {
    let of = |name: &str, result: &str| Series {
        name: name.to_owned(),
        labels: vec![("result".to_owned(), result.to_owned())],
    };
    assert_eq!(
        series("sum(rate(heddle_a_total{result=~\"x|y\"}[5m])) > heddle_b"),
        [
            of("heddle_a_total", "x"),
            of("heddle_a_total", "y"),
            Series { name: "heddle_b".into(), labels: vec![] }
        ]
    );
    assert!(has("heddle_a_total{channel=\"c\",result=\"x\"} 0", &of("heddle_a_total", "x")));
    assert!(!has("heddle_a_total{channel=\"c\",result=\"xy\"} 0", &of("heddle_a_total", "x")));
}

#[tokio::test]
async fn every_series_of_an_alert_exists_before_the_first_event() {
    let rules = std::fs::read_to_string(RULES).unwrap();
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let wanted: Vec<_> = expressions
        .flat_map(series)
        .filter(|one| !CLUSTER.iter().any(|cluster| one.name.starts_with(cluster)))
        .collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    let site = Site::start(|_| ()).await;
    let metrics =
        site.client.get(format!("{}/metrics", site.url)).send().await.unwrap().text().await.unwrap();
    let missing: Vec<_> = wanted.iter().filter(|one| !has(&metrics, one)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for reason in heddle_schemas::record::dlq::DeadReason::ALL {
        let labels = vec![("reason".to_owned(), reason.as_str().to_owned())];
        assert!(has(&metrics, &Series { name: "heddle_dlq_records_total".into(), labels }), "{reason:?}");
    }
}
