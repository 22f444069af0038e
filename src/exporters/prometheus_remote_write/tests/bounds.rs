//! What outside bytes can make of an attempt, and which time a point has that came without one.

use super::{
    super::translate::{Lost, translate},
    *,
};

fn attempt(batch: &Batch, settings: &str, held_max: usize) -> super::super::translate::Translated {
    let mut found = Diagnostics::default();
    let config = Config::read(&node(&format!("endpoint: http://x/api/v1/write\n{settings}")), &mut found);
    assert!(!found.has_errors(), "{found:?}");
    translate(&config.0, &Request::of(batch.clone()), &[UnixNanos(7_000_000)], held_max)
}

#[test]
fn an_attempt_takes_no_more_memory_than_it_may() {
    let names: Vec<String> = (0..1000).map(|n| format!("s{n}")).collect();
    let points: Vec<(&str, i64, f64)> = names.iter().map(|name| (name.as_str(), 0, 1.0)).collect();
    let batch = metrics(&json!([gauge("g", &points)]));
    let whole = attempt(&batch, "", usize::MAX);
    assert_eq!((whole.points.len(), whole.formless.len()), (1000, 0));
    let half = attempt(&batch, "", whole.held / 2);
    assert!(half.held <= whole.held / 2 && (490..=510).contains(&half.points.len()), "{} in {}", half.points.len(), half.held);
    // Item by item: what is beyond is named, and the first ones go on.
    assert_eq!(half.formless, (half.points.len() as u64..1000).collect::<Vec<_>>());
    let lost: Vec<(Lost, u64)> = half.lost.iter().map(|lost| (lost.reason, lost.count)).collect();
    assert_eq!(lost, [(Lost::Size, half.formless.len() as u64)]);
}

#[test]
fn what_targets_say_of_themselves_is_bounded() {
    let point = json!([gauge("g", &[("a", 0, 1.0)])]);
    let of = |attribute: &str| {
        request_of(&[("service.name", "cart"), ("service.instance.id", "i"), ("text", attribute)], &point)["resourceMetrics"][0]
            .clone()
    };
    let batch = |texts: &[String]| batch(&json!({"resourceMetrics": texts.iter().map(|text| of(text)).collect::<Vec<_>>()}));
    // One that is too long: its points are not.
    let translated = attempt(&batch(&["x".repeat(70_000), "short".to_owned()]), "", usize::MAX);
    assert_eq!((translated.points.len(), translated.infos.len(), translated.formless.len()), (2, 1, 0));
    let lost: Vec<(&str, Lost)> = translated.lost.iter().map(|lost| (lost.metric.as_str(), lost.reason)).collect();
    assert_eq!(lost, [("target_info", Lost::Size)]);
    // Many long ones.
    let texts: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(50_000))).collect();
    let translated = attempt(&batch(&texts), "", 1_000_000);
    assert!(translated.held <= 1_000_000 && (10..20).contains(&translated.infos.len()), "{}", translated.infos.len());
}

/// Each name is found without going through the others: a hundred thousand would not come to an end.
#[test]
fn a_resource_with_many_attributes_is_read() {
    let names: Vec<String> = (0..100_000).map(|n| format!("a{n}")).collect();
    let mut resource: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    resource.extend([("service.name", "cart"), ("service.instance.id", "i")]);
    let mut request = request_of(&resource, &json!([gauge("g", &[("a", 0, 1.0)])]));
    request["resourceMetrics"][0]["scopeMetrics"][0]["scope"] =
        json!({"name": "lib", "attributes": attributes(&resource[..100_000])});
    let more = "resource_to_telemetry_conversion: {enabled: true}";
    let translated = attempt(&batch(&request), more, usize::MAX);
    assert_eq!((translated.points.len(), translated.infos.len()), (0, 0));
    let lost: Vec<(&str, Lost)> = translated.lost.iter().map(|lost| (lost.metric.as_str(), lost.reason)).collect();
    assert_eq!(lost, [("g", Lost::Size)]);
}

/// An attempt after the first one writes the same sample, not another one at a later time.
#[tokio::test]
async fn a_point_without_a_time_has_the_one_of_its_record() {
    let fake = healthy().await;
    let exporter = exporter(&fake, "");
    let timeless = |name: &str| metrics(&json!([{"name": name, "gauge": {"dataPoints": [{"asDouble": 1.0}]}}]));
    let (reader, topics) = ("metrics".into(), TopicNames::new(vec!["metrics".to_owned()]));
    let origin = |offset: u64, millis: i64| Origin {
        position: Position { topic: TopicId(0), shard: 0, offset },
        received: UnixNanos(((START + millis) * 1_000_000) as u64),
        items: Items::all(1),
    };
    let parts = [origin(0, 5), origin(1, 9)];
    for _ in 0..2 {
        let provenance = Provenance { reader: &reader, journal: JournalId([1; 16]), topics: &topics, parts: &parts };
        let request =
            Request { parts: [timeless("a"), timeless("b")].into_iter().collect(), items: 2, ..Request::of(timeless("a")) };
        assert_eq!(exporter.export_from(provenance, request).await, Outcome::DELIVERED);
    }
    let state = fake.state.lock();
    let name = |metric: &str| format!("{metric}{{instance=\"i\",job=\"cart\"}}");
    assert_eq!((state.floats(&name("a")), state.floats(&name("b"))), (vec![(START + 5, 1.0)], vec![(START + 9, 1.0)]));
}
