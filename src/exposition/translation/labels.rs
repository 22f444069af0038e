//! Attributes → labels: of points, scopes and resources.
//!
//! `job` and `instance` come from the resource, `otel_scope_…` from the scope. An attribute that wants one of these names, or one that the
//! format keeps for itself (`le`, `quantile`), is shown as `exported_…`, as Prometheus does with its own; nothing is lost by it.

use std::{borrow::Cow, net::IpAddr};

use super::{Promotion, names::Strategy};
use crate::{
    exposition::LabelBlock,
    otlp::view::{AnyValueView, AttributesView, ResourceView, ScopeView},
};

pub(crate) type Pairs = Vec<(String, String)>;

/// What a resource gives to each of its series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// `job`, `instance`, and attributes that the configuration promotes.
    pub(crate) labels: Pairs,
    pub(crate) job: Option<String>,
    pub(crate) instance: Option<String>,
    /// The other attributes, for `target_info`; `None` if there is nothing to say or nothing to say it of.
    pub(crate) info: Option<LabelBlock>,
    /// For the log.
    pub(crate) service: String,
}

impl Target {
    pub(crate) fn new(resource: &ResourceView<'_>, peer: Option<IpAddr>, strategy: Strategy, promotion: Promotion<'_>) -> Self {
        let attributes = resource.attributes;
        let text = |key: &str| attributes.get(key).map(|value| value_text(value).into_owned());
        let service = text("service.name");
        let job = match (text("service.namespace"), &service) {
            (Some(namespace), Some(name)) if !namespace.is_empty() => Some(format!("{namespace}/{name}")),
            (_, name) => name.clone(),
        };
        let instance =
            text("service.instance.id").or_else(|| promotion.instance_fallback.then(|| fallback(attributes, peer)).flatten());
        let mut labels = Pairs::new();
        if let Some(job) = &job {
            labels.push(("job".to_owned(), job.clone()));
        }
        if let Some(instance) = &instance {
            labels.push(("instance".to_owned(), instance.clone()));
        }
        let (mut promoted, mut told) = (Pairs::new(), Pairs::new());
        for attribute in attributes.iter() {
            let key = attribute.key();
            let pair = || (strategy.label_name(key).into_owned(), value_text(attribute.value()).into_owned());
            if promotion.takes(key) {
                promoted.push(pair());
            }
            if !matches!(key, "service.name" | "service.namespace" | "service.instance.id") {
                told.push(pair());
            }
        }
        let says = !told.is_empty() && !labels.is_empty();
        let mut info = labels.clone();
        join(&mut labels, promoted);
        join(&mut info, told);
        Self { labels, job, instance, info: says.then(|| LabelBlock::new(info)), service: service.unwrap_or_default() }
    }
}

/// What tells one replica from the next where `service.instance.id` is not set.
fn fallback(attributes: AttributesView<'_>, peer: Option<IpAddr>) -> Option<String> {
    let text = |key: &str| attributes.get(key).map(|value| value_text(value).into_owned()).filter(|text| !text.is_empty());
    let host = || {
        let host = text("host.name")?;
        Some(text("process.pid").map_or_else(|| host.clone(), |pid| format!("{host}:{pid}")))
    };
    text("k8s.pod.name")
        .or_else(|| text("container.id"))
        .or_else(host)
        .or_else(|| peer.map(|peer| peer.to_canonical().to_string()))
}

/// `otel_scope_name`, `otel_scope_version`, `otel_scope_schema_url` and the scope's attributes.
pub(crate) fn scope_labels(scope: &ScopeView<'_>, schema_url: &str, strategy: Strategy) -> Pairs {
    let mut labels = vec![
        ("otel_scope_name".to_owned(), scope.name.to_owned()),
        ("otel_scope_version".to_owned(), scope.version.to_owned()),
        ("otel_scope_schema_url".to_owned(), schema_url.to_owned()),
    ];
    let named = |key: &str| strategy.label_name(&format!("otel_scope_{key}")).into_owned();
    let own = scope.attributes.iter();
    join(&mut labels, own.map(|attribute| (named(attribute.key()), value_text(attribute.value()).into_owned())).collect());
    labels
}

/// All labels of one series: `fixed` (resource, scope, configuration) and the point's attributes.
pub(crate) fn series_labels(fixed: &[&Pairs], attributes: AttributesView<'_>, reserved: &str, strategy: Strategy) -> LabelBlock {
    let mut labels: Vec<Label<'_>> = fixed
        .iter()
        .flat_map(|pairs| pairs.iter())
        .map(|(name, value)| {
            // One that the format keeps for itself steps aside here, too: `le` twice would cost the series all of its buckets.
            let name = if name == reserved { Cow::Owned(format!("exported_{name}")) } else { Cow::Borrowed(name.as_str()) };
            (name, Cow::Borrowed(value.as_str()))
        })
        .collect();
    // Of two fixed ones the first counts.
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels.dedup_by(|next, known| next.0 == known.0);
    let is_taken =
        |name: &str| name == reserved || name == "__name__" || labels.binary_search_by(|(known, _)| (**known).cmp(name)).is_ok();
    // Values of attributes that become one label are joined in the order of their original keys.
    let mut keyed: Vec<(&str, AnyValueView<'_>)> =
        attributes.iter().map(|attribute| (attribute.key(), attribute.value())).collect();
    keyed.sort_by(|a, b| a.0.cmp(b.0));
    let own = keyed.into_iter().map(|(key, value)| {
        let mut name = strategy.label_name(key);
        if name.is_empty() {
            name = Cow::Borrowed("_");
        }
        while is_taken(&name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        (name, value_text(value))
    });
    let own = joined(own.collect());
    labels.extend(own);
    LabelBlock::new(labels)
}

type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Each name once, with the values of those that had it in their order.
fn joined(mut labels: Vec<Label<'_>>) -> Vec<Label<'_>> {
    // Stable; a search for each of many would take the square of their number.
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels.dedup_by(|(name, value), (known, values)| {
        let is_same = name == known;
        if is_same {
            let values = values.to_mut();
            values.push(';');
            values.push_str(value);
        }
        is_same
    });
    labels
}

/// Adds labels behind those that are there. One whose name is there already steps aside; values of equal names among the new ones are joined.
fn join(labels: &mut Pairs, new: Pairs) {
    let new = new.into_iter().map(|(name, value)| {
        let name = if name.is_empty() { "_".to_owned() } else { name };
        let is_taken = name == "__name__" || labels.iter().any(|(known, _)| *known == name);
        (Cow::Owned(if is_taken { format!("exported_{name}") } else { name }), Cow::Owned(value))
    });
    let new = joined(new.collect());
    labels.extend(new.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())));
}

/// A value as a string: numbers as JSON writes them, lists and maps as JSON, bytes in base64.
pub(crate) fn value_text(value: AnyValueView<'_>) -> Cow<'_, str> {
    match value {
        AnyValueView::Empty => Cow::Borrowed(""),
        AnyValueView::String(text) => Cow::Borrowed(text),
        AnyValueView::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        AnyValueView::Int(value) => Cow::Owned(itoa::Buffer::new().format(value).to_owned()),
        AnyValueView::Double(value) => Cow::Owned(double_text(value)),
        AnyValueView::Bytes(bytes) => Cow::Owned(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)),
        AnyValueView::Array(_) | AnyValueView::KeyValues(_) => Cow::Owned(json(value, 0).to_string()),
    }
}

/// As Go's JSON writer: an exponent below 1e-6 and from 1e21 on.
fn double_text(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{value}")
}

/// Deeper than the scan lets anything be; views of unscanned bytes end here.
const DEPTH_MAX: u32 = 64;

fn json(value: AnyValueView<'_>, depth: u32) -> serde_json::Value {
    match value {
        _ if depth > DEPTH_MAX => serde_json::Value::Null,
        AnyValueView::Empty => serde_json::Value::Null,
        AnyValueView::Bool(value) => value.into(),
        AnyValueView::Int(value) => value.into(),
        AnyValueView::Double(value) => value.into(),
        AnyValueView::Array(array) => array.iter().map(|value| json(value, depth + 1)).collect(),
        AnyValueView::KeyValues(attributes) => {
            let entries: serde_json::Map<String, serde_json::Value> =
                attributes.iter().map(|attribute| (attribute.key().to_owned(), json(attribute.value(), depth + 1))).collect();
            entries.into()
        }
        AnyValueView::String(_) | AnyValueView::Bytes(_) => value_text(value).into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    };
    use prost::Message as _;

    use super::*;
    use crate::otlp::view::{DataView, MetricsView};

    fn labels(fixed: &[&Pairs], attributes: &[(&str, &str)], reserved: &str) -> Vec<(String, String)> {
        let attribute = |(key, value): &(&str, &str)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue((*value).to_owned())) }),
            ..KeyValue::default()
        };
        let point = NumberDataPoint { attributes: attributes.iter().map(attribute).collect(), ..NumberDataPoint::default() };
        let metric = Metric { data: Some(Data::Gauge(Gauge { data_points: vec![point] })), ..Metric::default() };
        let scopes = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { scope_metrics: scopes, ..ResourceMetrics::default() }],
        };
        let bytes = request.encode_to_vec();
        let resource = MetricsView::new(&bytes).resources().next().unwrap();
        let scope = resource.scopes().next().unwrap();
        let DataView::Gauge { points } = scope.items().next().unwrap().data else { panic!() };
        let point = points.iter().next().unwrap();
        let block = series_labels(fixed, point.attributes, reserved, Strategy::default());
        block.pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_step_aside_are_joined_and_the_first_fixed_one_counts() {
        let (resource, own) =
            (pairs(&[("job", "cart"), ("exported_job", "e"), ("le", "r")]), pairs(&[("zone", "a"), ("job", "no")]));
        let attributes = [("a_b", "2"), ("zone", "z"), ("a.b", "1"), ("job", "j"), ("le", "l"), ("", "empty"), ("__name__", "n")];
        let expected = [
            ("_", "empty"),
            ("a_b", "1;2"),
            ("exported___name__", "n"),
            ("exported_exported_job", "j"),
            ("exported_exported_le", "l"),
            ("exported_job", "e"),
            ("exported_le", "r"),
            ("exported_zone", "z"),
            ("job", "cart"),
            ("zone", "a"),
        ];
        assert_eq!(labels(&[&resource, &own], &attributes, "le"), pairs(&expected));
    }

    /// Each is found without going through the others: so many would not come to an end.
    #[test]
    fn a_point_may_have_a_hundred_thousand_attributes() {
        let names: Vec<String> = (0..100_000).map(|n| format!("a{n:06}")).collect();
        let attributes: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(labels(&[], &attributes, "le"), pairs(&attributes));
    }
}
