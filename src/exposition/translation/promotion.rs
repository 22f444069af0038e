//! Which attributes of a resource become labels of each of its series.

use serde::Deserialize;

use super::glob;

/// `resource_constant_labels`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLabels {
    /// Attribute names, `*` and `?` allowed.
    pub included: Vec<String>,
    /// Those of them that are not meant.
    pub excluded: Vec<String>,
}

/// `resource_to_telemetry_conversion`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conversion {
    pub enabled: bool,
    /// Leaves `service.name`, `service.namespace` and `service.instance.id` out.
    pub exclude_service_attributes: bool,
}

/// What an exporter was told about resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promotion<'a> {
    pub(crate) labels: &'a ResourceLabels,
    pub(crate) conversion: Conversion,
    /// Where a resource sets no `service.instance.id`, `instance` is something else that tells replicas apart.
    pub(crate) instance_fallback: bool,
}

impl Promotion<'_> {
    /// Whether an attribute becomes a label of every series.
    pub(crate) fn takes(self, key: &str) -> bool {
        let is_service = matches!(key, "service.name" | "service.namespace" | "service.instance.id");
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob::matches(pattern, key));
        (self.conversion.enabled && !(is_service && self.conversion.exclude_service_attributes))
            || (any(&self.labels.included) && !any(&self.labels.excluded))
    }
}
