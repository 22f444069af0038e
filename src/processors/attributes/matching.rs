//! Which items an `include` or `exclude` means.

use regex::Regex;
use serde::Deserialize;

use super::super::actions::{Written, compile, plain_text, text_of};
use crate::{
    config::{Diagnostics, Node},
    otlp::{
        edit::Place,
        view::{AttributesView, LogRecordView, MetricView, SpanView},
    },
    signal::Signal,
};

/// A section as written. All that is given must match; within a list of names, one is enough.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// `strict`: equal; `regexp`: the pattern is found in it.
    match_type: String,
    /// How the Collector caches results of patterns; we need no cache.
    regexp: Option<RegexpSettings>,
    /// Spans: values of the resource's `service.name`.
    services: Vec<String>,
    span_names: Vec<String>,
    /// Spans: `SPAN_KIND_SERVER` and so on.
    span_kinds: Vec<String>,
    /// Log records: the body as text.
    log_bodies: Vec<String>,
    log_severity_texts: Vec<String>,
    log_severity_number: Option<SeveritySettings>,
    metric_names: Vec<String>,
    /// All of these attributes of the item must be there and, where a value is given, have it.
    attributes: Vec<AttributeSettings>,
    /// The same of the resource.
    resources: Vec<AttributeSettings>,
    /// All of these must be the instrumentation scope.
    libraries: Vec<LibrarySettings>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RegexpSettings {
    cacheenabled: bool,
    cachemaxnumentries: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SeveritySettings {
    /// The lowest severity number that matches.
    min: i32,
    /// Whether records without a severity match.
    match_undefined: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AttributeSettings {
    key: String,
    value: Option<Written>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LibrarySettings {
    name: String,
    /// Not given: any. Empty: none.
    version: Option<String>,
}

/// A checked section.
#[derive(Debug, Default)]
pub(super) struct Properties {
    services: Option<Texts>,
    span_names: Option<Texts>,
    span_kinds: Option<Texts>,
    log_bodies: Option<Texts>,
    log_severity_texts: Option<Texts>,
    log_severity: Option<(i32, bool)>,
    metric_names: Option<Texts>,
    attributes: Vec<AttributeTest>,
    resources: Vec<AttributeTest>,
    libraries: Vec<(Texts, Option<Texts>)>,
}

/// One of several texts.
#[derive(Debug)]
enum Texts {
    Equal(Vec<String>),
    Found(Vec<Regex>),
}

impl Texts {
    fn match_one(&self, text: &str) -> bool {
        match self {
            Self::Equal(list) => list.iter().any(|wanted| wanted == text),
            Self::Found(list) => list.iter().any(|pattern| pattern.is_match(text)),
        }
    }
}

#[derive(Debug)]
struct AttributeTest {
    key: String,
    value: ValueTest,
}

#[derive(Debug)]
enum ValueTest {
    Any,
    Equal(Written),
    Found(Regex),
}

/// What is matched, beside its attributes.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    Span(&'a SpanView<'a>),
    LogRecord(&'a LogRecordView<'a>),
    Metric(&'a MetricView<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MatchType {
    Strict,
    Regexp,
}

/// The numbers of span kinds are places in this list.
const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// What the Collector takes as the name of a service that has none.
const NO_SERVICE: &str = "<nil-service-name>";

/// Builds the parts of a section and tells what is wrong with them.
struct Reader<'a> {
    node: &'a Node,
    match_type: Option<MatchType>,
    found: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.found.error(self.node.nearest(path).origin, message, None);
    }

    /// `None` for an empty list; without a match type, which was told of already, too.
    fn texts(&mut self, key: &str, list: &[String]) -> Option<Texts> {
        if list.is_empty() {
            return None;
        }
        match self.match_type? {
            MatchType::Strict => Some(Texts::Equal(list.to_vec())),
            MatchType::Regexp => Some(Texts::Found(list.iter().filter_map(|pattern| self.pattern(key, pattern)).collect())),
        }
    }

    fn pattern(&mut self, key: &str, pattern: &str) -> Option<Regex> {
        compile(pattern).map_err(|problem| self.error(key, format!("`{pattern}`: {problem}"))).ok()
    }

    fn attributes(&mut self, key: &str, list: &[AttributeSettings]) -> Vec<AttributeTest> {
        let mut tests = Vec::with_capacity(list.len());
        for wanted in list {
            if wanted.key.is_empty() {
                self.error(key, format!("each of `{key}` needs a `key`"));
                continue;
            }
            let value = match (&wanted.value, self.match_type) {
                (None | Some(Written::Null), _) => ValueTest::Any,
                (Some(Written::Text(pattern)), Some(MatchType::Regexp)) => match self.pattern(key, pattern) {
                    Some(pattern) => ValueTest::Found(pattern),
                    None => continue,
                },
                (Some(other), Some(MatchType::Regexp)) => {
                    let kind = other.kind();
                    self.error(
                        key,
                        format!("with `match_type: regexp` the value of `{}` must be text, this is {kind}", wanted.key),
                    );
                    continue;
                }
                (Some(value), Some(MatchType::Strict)) => ValueTest::Equal(value.clone()),
                (Some(_), None) => continue,
            };
            tests.push(AttributeTest { key: wanted.key.clone(), value });
        }
        tests
    }
}

impl Properties {
    pub(super) fn read(written: &Settings, node: &Node, found: &mut Diagnostics) -> Self {
        let match_type = match &*written.match_type.to_ascii_lowercase() {
            "strict" => Some(MatchType::Strict),
            "regexp" => Some(MatchType::Regexp),
            _ => None,
        };
        let mut reader = Reader { node, match_type, found };
        if match_type.is_none() && written.needs_match_type() {
            reader.error(
                "match_type",
                match &*written.match_type {
                    "" => "`match_type` is required: strict or regexp".to_owned(),
                    other => format!("`{other}` is no match type; these are: strict, regexp"),
                },
            );
        }
        if written.regexp.is_some() {
            let origin = node.nearest("regexp").origin;
            reader.found.ineffective(origin, "`regexp` has no effect", "patterns match in linear time, without a cache");
        }
        if match_type == Some(MatchType::Strict)
            && let Some(unknown) = written.span_kinds.iter().find(|kind| !SPAN_KINDS.iter().skip(1).any(|known| known == kind))
        {
            let list = SPAN_KINDS.get(1..).unwrap_or_default().join(", ");
            reader.error("span_kinds", format!("`{unknown}` is no span kind; these are: {list}"));
        }
        let libraries = written.libraries.iter().filter_map(|library| {
            let name = reader.texts("libraries", std::slice::from_ref(&library.name))?;
            Some((name, library.version.as_ref().and_then(|version| reader.texts("libraries", std::slice::from_ref(version)))))
        });
        Self {
            libraries: libraries.collect(),
            services: reader.texts("services", &written.services),
            span_names: reader.texts("span_names", &written.span_names),
            span_kinds: reader.texts("span_kinds", &written.span_kinds),
            log_bodies: reader.texts("log_bodies", &written.log_bodies),
            log_severity_texts: reader.texts("log_severity_texts", &written.log_severity_texts),
            log_severity: written.log_severity_number.as_ref().map(|severity| (severity.min, severity.match_undefined)),
            metric_names: reader.texts("metric_names", &written.metric_names),
            attributes: reader.attributes("attributes", &written.attributes),
            resources: reader.attributes("resources", &written.resources),
        }
    }

    pub(super) fn has_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    /// Whether the section can be used in a pipeline of this signal; the error is what to say.
    pub(super) fn check(&self, signal: Signal) -> Result<(), String> {
        // Each key with the signals it is for.
        let traces: &[Signal] = &[Signal::Traces];
        let (logs, metrics): (&[Signal], &[Signal]) = (&[Signal::Logs], &[Signal::Metrics]);
        let both: &[Signal] = &[Signal::Traces, Signal::Logs];
        let keys = [
            ("services", self.services.is_some(), traces),
            ("span_names", self.span_names.is_some(), traces),
            ("span_kinds", self.span_kinds.is_some(), traces),
            ("log_bodies", self.log_bodies.is_some(), logs),
            ("log_severity_texts", self.log_severity_texts.is_some(), logs),
            ("log_severity_number", self.log_severity.is_some(), logs),
            ("metric_names", self.metric_names.is_some(), metrics),
            ("attributes", !self.attributes.is_empty(), both),
            ("libraries", !self.libraries.is_empty(), both),
            ("resources", !self.resources.is_empty(), &Signal::ALL),
        ];
        if let Some((wrong, ..)) = keys.iter().find(|(_, given, signals)| *given && !signals.contains(&signal)) {
            return Err(format!("`{wrong}` cannot be matched in a {signal} pipeline"));
        }
        if keys.iter().any(|(_, given, _)| *given) {
            return Ok(());
        }
        let names: Vec<String> =
            keys.iter().filter(|(.., signals)| signals.contains(&signal)).map(|(name, ..)| format!("`{name}`")).collect();
        Err(format!("says nothing to match: in a {signal} pipeline give at least one of {}", names.join(", ")))
    }

    /// Whether the section decides anything about an item: of a metric the Collector looks at the name alone, and without one not at all.
    pub(super) fn look_at(&self, item: Item<'_>) -> bool {
        !matches!(item, Item::Metric(_)) || self.metric_names.is_some()
    }

    /// Whether an item has all of the properties.
    pub(super) fn matches(&self, place: &Place<'_>, item: Item<'_>, attributes: AttributesView<'_>) -> bool {
        let of_kind = match item {
            Item::Metric(metric) => return self.metric_names.as_ref().is_none_or(|names| names.match_one(metric.name)),
            Item::Span(span) => {
                self.services.as_ref().is_none_or(|services| match place.resource.attributes.get("service.name") {
                    Some(name) => services.match_one(&text_of(name)),
                    None => services.match_one(NO_SERVICE),
                }) && self.span_names.as_ref().is_none_or(|names| names.match_one(span.name))
                    && self.span_kinds.as_ref().is_none_or(|kinds| {
                        let name = usize::try_from(span.kind).ok().and_then(|kind| SPAN_KINDS.get(kind));
                        kinds.match_one(name.copied().unwrap_or_default())
                    })
            }
            Item::LogRecord(record) => {
                self.log_bodies.as_ref().is_none_or(|bodies| bodies.match_one(&text_of(record.body())))
                    && self.log_severity_texts.as_ref().is_none_or(|texts| texts.match_one(record.severity_text))
                    && self.log_severity.is_none_or(|(min, undefined)| match record.severity_number {
                        0 => undefined,
                        number => number >= min,
                    })
            }
        };
        of_kind
            && self.libraries.iter().all(|(name, version)| {
                name.match_one(place.scope.name) && version.as_ref().is_none_or(|version| version.match_one(place.scope.version))
            })
            && self.resources.iter().all(|test| test.matches(place.resource.attributes))
            && self.attributes.iter().all(|test| test.matches(attributes))
    }
}

impl Settings {
    /// Whether there is anything that is compared as text or value.
    fn needs_match_type(&self) -> bool {
        let lists =
            [&self.services, &self.span_names, &self.span_kinds, &self.log_bodies, &self.log_severity_texts, &self.metric_names];
        lists.iter().any(|list| !list.is_empty())
            || !self.libraries.is_empty()
            || self.attributes.iter().chain(&self.resources).any(|attribute| attribute.value.is_some())
            || !self.match_type.is_empty()
    }
}

impl AttributeTest {
    fn matches(&self, attributes: AttributesView<'_>) -> bool {
        let Some(value) = attributes.get(&self.key) else { return false };
        match &self.value {
            ValueTest::Any => true,
            ValueTest::Equal(wanted) => wanted.equals(value),
            ValueTest::Found(pattern) => plain_text(value).is_some_and(|text| pattern.is_match(&text)),
        }
    }
}
