//! `service:` → pipelines and extensions whose references lead somewhere.

use super::{PipelineEntry, Reference, sections::Sections};
use crate::{
    component::Tables,
    config::{Diagnostics, Node, Origin, Value, collector::Kind, suggest},
    signal::{ComponentId, Signal},
};

#[derive(Default)]
pub(super) struct Service {
    pub(super) extensions: Vec<Reference>,
    pub(super) missing_extensions: Vec<ComponentId>,
    pub(super) pipelines: Vec<PipelineEntry>,
    pub(super) telemetry: Option<Node>,
}

pub(super) const KEYS: &[&str] = &["extensions", "pipelines", "telemetry"];
pub(super) const PIPELINE_KEYS: &[&str] = &["receivers", "processors", "exporters"];

pub(super) fn read(node: &Node, sections: &mut Sections, tables: &Tables, found: &mut Diagnostics) -> Service {
    for (kind, example) in [(Kind::Receiver, "otlp: {protocols: {grpc: }}"), (Kind::Exporter, "debug:")] {
        if !sections.has_any(kind) {
            let origin = node.get(kind.section()).map_or(node.origin, |section| section.origin);
            let message = format!("the file has no {}s", kind.word());
            found.error(origin, message, Some(format!("`{}: {{{example}}}`", kind.section())));
        }
    }
    let nothing = Node::null();
    let service = node.get("service").unwrap_or(&nothing);
    if !matches!(service.value, Value::Map(_) | Value::Null) {
        found.error(service.origin, format!("`service` is a map, not {}", service.kind()), None);
    }
    let mut read = Service { telemetry: service.get("telemetry").cloned(), ..Service::default() };
    if let Some(list) = service.get("extensions") {
        for reference in references(list, found) {
            if sections.find(Kind::Extension, &reference.id).is_none() {
                if !sections.use_absent(Kind::Extension, &reference.id) {
                    undefined(Kind::Extension, &reference, sections, found);
                }
                read.missing_extensions.push(reference.id);
            } else if read.extensions.iter().all(|known| known.id != reference.id) {
                read.extensions.push(reference);
            }
        }
    }
    let pipelines = service.get("pipelines").unwrap_or(&nothing);
    if !matches!(pipelines.value, Value::Map(_) | Value::Null) {
        found.error(pipelines.origin, format!("`pipelines` is a map, not {}", pipelines.kind()), None);
    } else if pipelines.entries().is_empty() {
        let help = "`service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}`".to_owned();
        let origin = if pipelines.origin == Origin::default() { service.origin } else { pipelines.origin };
        found.error(origin, "the file has no pipelines", Some(help));
    }
    for (key, body) in pipelines.entries() {
        if let Some((signal, id)) = pipeline_id(key, found) {
            read.pipelines.push(pipeline(signal, id, key, body, sections, tables, found));
        }
    }
    read
}

/// Says which keys of `service` and of its pipelines there are none of.
pub(super) fn tell_unknown_keys(file: &Node, found: &mut Diagnostics) {
    let Some(service) = file.get("service") else { return };
    unknown_keys(service, KEYS, found);
    for (_, body) in service.get("pipelines").map_or(&[][..], Node::entries) {
        unknown_keys(body, PIPELINE_KEYS, found);
    }
}

fn unknown_keys(node: &Node, keys: &[&str], found: &mut Diagnostics) {
    for (key, _) in node.entries() {
        let name = key.word().map_or("", |word| word);
        if !keys.contains(&name) {
            let near = suggest::nearest(name, keys.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| format!("valid keys: {}", suggest::list(keys.iter().copied())));
            found.error(key.origin, format!("there is no key `{name}` here"), Some(help));
        }
    }
}

/// `traces`, `traces/x`
fn pipeline_id(key: &Node, found: &mut Diagnostics) -> Option<(Signal, String)> {
    let text = key.word().map_or("", |word| word);
    let id = match ComponentId::parse(text) {
        Ok(id) => id,
        Err(wrong) => {
            let help = "a pipeline is `traces`, `metrics` or `logs`, or one of them with a name: `traces/x`".to_owned();
            found.error(key.origin, format!("`{text}` is not the name of a pipeline: {wrong}"), Some(help));
            return None;
        }
    };
    if let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.as_str() == id.type_name()) {
        return Some((signal, id.as_str().to_owned()));
    }
    if id.type_name() == "profiles" {
        let help = "leave the pipeline out; senders of profiles are answered that nobody takes them here".to_owned();
        found.error(key.origin, "weir takes traces, metrics and logs, and no profiles", Some(help));
    } else {
        let near = suggest::nearest(id.type_name(), Signal::ALL.into_iter().map(Signal::as_str));
        let help =
            near.map_or("a pipeline is `traces`, `metrics` or `logs`".to_owned(), |near| format!("did you mean `{near}`?"));
        found.error(key.origin, format!("there is no signal `{}`", id.type_name()), Some(help));
    }
    None
}

/// A list of ids. Text with commas is not one: the Collector does not take it here either.
fn references(list: &Node, found: &mut Diagnostics) -> Vec<Reference> {
    let items = match &list.value {
        Value::List(items) => items,
        Value::Null => return Vec::new(),
        _ => {
            let help = list.word().map(|word| format!("write a list: `[{word}]`"));
            found.error(list.origin, format!("expected a list of component ids, found {}", list.kind()), help);
            return Vec::new();
        }
    };
    let mut references = Vec::with_capacity(items.len());
    for item in items {
        let text = item.text.as_ref().or(item.word());
        match text.map(|text| (text, ComponentId::parse(text))) {
            Some((_, Ok(id))) => references.push(Reference { id, origin: item.origin }),
            Some((text, Err(wrong))) => found.error(item.origin, format!("`{text}` is not a component id: {wrong}"), None),
            None => found.error(item.origin, format!("expected a component id, found {}", item.kind()), None),
        }
    }
    references
}

fn pipeline(
    signal: Signal,
    id: String,
    key: &Node,
    body: &Node,
    sections: &mut Sections,
    tables: &Tables,
    found: &mut Diagnostics,
) -> PipelineEntry {
    if !matches!(body.value, Value::Map(_) | Value::Null) {
        found.error(body.origin, format!("a pipeline is a map, not {}", body.kind()), None);
    }
    let mut entry =
        PipelineEntry { signal, id, origin: key.origin, receivers: Vec::new(), processors: Vec::new(), exporters: Vec::new() };
    for kind in [Kind::Receiver, Kind::Processor, Kind::Exporter] {
        let written = body.get(kind.section()).map(|list| (references(list, found), list.origin));
        if kind != Kind::Processor && written.as_ref().is_none_or(|(list, _)| list.is_empty()) {
            let complained = body.get(kind.section()).is_some_and(|list| {
                !matches!(&list.value, Value::Null) && list.items().is_empty() && !matches!(list.value, Value::List(_))
            });
            if !complained {
                let origin = written.as_ref().map_or(key.origin, |(_, origin)| *origin);
                found.error(origin, format!("the pipeline `{}` needs at least one {}", entry.id, kind.word()), None);
            }
        }
        let mut kept: Vec<Reference> = Vec::new();
        for reference in written.map(|(list, _)| list).unwrap_or_default() {
            if kept.iter().any(|known| known.id == reference.id) {
                // The Collector takes a receiver or exporter that is named twice for one.
                if kind == Kind::Processor {
                    let message = format!("the processor `{}` is twice in the pipeline `{}`", reference.id, entry.id);
                    let help = format!("declare a second one under a name: `{}/2`", reference.id.type_name());
                    found.error(reference.origin, message, Some(help));
                }
                continue;
            }
            if resolve(kind, signal, &reference, sections, tables, found) {
                kept.push(reference);
            }
        }
        match kind {
            Kind::Receiver => entry.receivers = kept,
            Kind::Processor => entry.processors = kept,
            _ => entry.exporters = kept,
        }
    }
    entry
}

/// Whether a reference in a pipeline leads to a component that handles its signal.
fn resolve(
    kind: Kind,
    signal: Signal,
    reference: &Reference,
    sections: &mut Sections,
    tables: &Tables,
    found: &mut Diagnostics,
) -> bool {
    if let Some(declared) = sections.find(kind, &reference.id) {
        let signals = match kind {
            Kind::Receiver => tables.receivers.get(declared.factory).map(|row| row.signals),
            Kind::Processor => tables.processors.get(declared.factory).map(|row| row.signals),
            _ => tables.exporters.get(declared.factory).map(|row| row.signals),
        };
        let signals = signals.unwrap_or_default();
        if !signals.contains(&signal) {
            let takes = suggest::list(signals.iter().map(|signal| signal.as_str()));
            let message = format!("the {} `{}` does not handle {signal}", kind.word(), reference.id.type_name());
            found.error(reference.origin, message, Some(format!("it handles {takes}")));
            return false;
        }
        return true;
    }
    let connects = kind != Kind::Processor;
    if connects && sections.find(Kind::Connector, &reference.id).is_some() {
        return true;
    }
    let absent = sections.use_absent(kind, &reference.id) | (connects && sections.use_absent(Kind::Connector, &reference.id));
    if !absent {
        undefined(kind, reference, sections, found);
    }
    false
}

fn undefined(kind: Kind, reference: &Reference, sections: &Sections, found: &mut Diagnostics) {
    let id = reference.id.as_str();
    let connectors = sections.of(Kind::Connector).filter(|_| matches!(kind, Kind::Receiver | Kind::Exporter));
    let declared: Vec<&str> = sections.of(kind).chain(connectors).map(|declared| declared.id.as_str()).collect();
    let help = if let Some(near) = suggest::nearest(id, declared.iter().copied()) {
        format!("did you mean `{near}`?")
    } else if let Some(other) = Kind::ALL.into_iter().find(|other| sections.find(*other, &reference.id).is_some()) {
        format!("`{id}` is declared in `{}`", other.section())
    } else {
        format!("declare it: `{}: {{{id}: }}`", kind.section())
    };
    found.error(reference.origin, format!("the {} `{id}` is not declared", kind.word()), Some(help));
}
