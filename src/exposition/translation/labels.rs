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
        let mut info = labels.clone();
        let promoted = labels.len();
        for attribute in attributes.iter() {
            let key = attribute.key();
            let value = value_text(attribute.value());
            let is_service = matches!(key, "service.name" | "service.namespace" | "service.instance.id");
            if promotion.takes(key) {
                join(&mut labels, promoted, &strategy.label_name(key), &value);
            }
            if !is_service {
                join(&mut info, promoted, &strategy.label_name(key), &value);
            }
        }
        let says = info.len() > promoted && promoted > 0;
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
    for attribute in scope.attributes.iter() {
        let name = format!("otel_scope_{}", attribute.key());
        join(&mut labels, 3, &strategy.label_name(&name), &value_text(attribute.value()));
    }
    labels
}

/// All labels of one series: `fixed` (resource, scope, configuration) and the point's attributes.
pub(crate) fn series_labels(fixed: &[&Pairs], attributes: AttributesView<'_>, reserved: &str, strategy: Strategy) -> LabelBlock {
    let mut keyed: Vec<(&str, Cow<'_, str>, Cow<'_, str>)> = attributes
        .iter()
        .map(|attribute| (attribute.key(), strategy.label_name(attribute.key()), value_text(attribute.value())))
        .collect();
    // Values of attributes that become one label are joined in the order of their original keys.
    keyed.sort_by(|a, b| a.0.cmp(b.0));
    let mut labels: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        Vec::with_capacity(keyed.len() + fixed.iter().map(|pairs| pairs.len()).sum::<usize>());
    for (name, value) in fixed.iter().flat_map(|pairs| pairs.iter()) {
        // One that the format keeps for itself steps aside here, too: `le` twice would cost the series all of its buckets.
        let name = if name == reserved { Cow::Owned(format!("exported_{name}")) } else { Cow::Borrowed(name.as_str()) };
        if !labels.iter().any(|(known, _)| *known == name) {
            labels.push((name, Cow::Borrowed(value)));
        }
    }
    let first = labels.len();
    for (_, name, value) in keyed {
        let mut name = if name.is_empty() { Cow::Borrowed("_") } else { name };
        while name == reserved || name == "__name__" || labels.iter().take(first).any(|(known, _)| *known == name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        match labels.iter_mut().skip(first).find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                let joined = joined.to_mut();
                joined.push(';');
                joined.push_str(&value);
            }
            None => labels.push((name, value)),
        }
    }
    LabelBlock::new(labels)
}

/// Adds a label behind the first `fixed` ones; a name that is there already has the values joined, or, among the fixed ones, steps aside.
fn join(labels: &mut Pairs, fixed: usize, name: &str, value: &str) {
    let name = if name.is_empty() { "_" } else { name };
    let name = if name == "__name__" || labels.iter().take(fixed).any(|(known, _)| known == name) {
        format!("exported_{name}")
    } else {
        name.to_owned()
    };
    match labels.iter_mut().skip(fixed).find(|(known, _)| *known == name) {
        Some((_, joined)) => {
            joined.push(';');
            joined.push_str(value);
        }
        None => labels.push((name, value.to_owned())),
    }
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
