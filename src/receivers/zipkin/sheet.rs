//! Zipkin's spans → the body of an OTLP request, by the words of the Collector's receiver.
//!
//! Spans of one service (and with the same tags about the process) are one resource; tags that OpenTelemetry's exporters made of a status, a
//! scope, a link or a kind become these again.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::span::{Endpoint, Kind, Span};
use crate::{
    door::{Refusal, Ticket},
    otlp::wire::{put_bytes, put_bytes_always, put_double_always, put_fixed64, put_message, put_uint, put_uint_always},
    receivers::request::Held,
};

/// Tags that say something of the process, beside `k8s.…`, and not of the span.
const OF_RESOURCE: &[&str] = &[
    "aws.ecs.cluster.arn",
    "aws.ecs.container.arn",
    "aws.ecs.launchtype",
    "aws.ecs.task.arn",
    "aws.ecs.task.family",
    "aws.ecs.task.revision",
    "aws.eks.cluster.arn",
    "aws.log.group.arns",
    "aws.log.group.names",
    "aws.log.stream.arns",
    "aws.log.stream.names",
    "cloud.account.id",
    "cloud.availability_zone",
    "cloud.platform",
    "cloud.provider",
    "cloud.region",
    "container.id",
    "container.image.name",
    "container.image.tag",
    "container.name",
    "container.runtime",
    "deployment.environment",
    "device.id",
    "device.model.identifier",
    "device.model.name",
    "faas.id",
    "faas.instance",
    "faas.max_memory",
    "faas.name",
    "faas.version",
    "host.arch",
    "host.id",
    "host.image.id",
    "host.image.name",
    "host.image.version",
    "host.name",
    "host.type",
    "os.description",
    "os.name",
    "os.type",
    "os.version",
    "process.command",
    "process.command_args",
    "process.command_line",
    "process.executable.name",
    "process.executable.path",
    "process.owner",
    "process.pid",
    "process.runtime.description",
    "process.runtime.name",
    "process.runtime.version",
    "service.instance.id",
    "service.name",
    "service.namespace",
    "service.version",
    "telemetry.auto.version",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "webengine.description",
    "webengine.name",
    "webengine.version",
];
const SERVICE_NAME: &str = "service.name";
/// The name of the attribute that a service's name was taken from, where it was another.
const SERVICE_NAME_SOURCE: &str = "otlp.service.name.source";
/// What the Collector notes on spans without a time.
const NO_START: &str = "otel.zipkin.absentField.startTime";
/// Links that a span may have in tags.
const LINKS_MAX: usize = 128;
/// JSON in a tag or an annotation that is read; read, it takes up to sixteen times as much. Longer ones stay the texts they are.
const JSON_BYTES_MAX: usize = 64 * 1024;

/// What a group or a scope takes beside the bytes of its name, in the list and in the table.
const PLACE_BYTES: usize = 256;
/// Numbers and lengths of the two fields that a group or a scope and its name are, at most.
const HEADS_BYTES: usize = 22;

/// A request being written.
pub(super) struct Sheet {
    /// Stands for what the spans were read from, and for what is written.
    ticket: Ticket,
    /// Bytes of what the spans are read from.
    source_bytes: usize,
    /// Bytes that the groups take.
    held_bytes: usize,
    /// Why nothing more is taken.
    full: Option<Refusal>,
    groups: Vec<Group>,
    /// By the bytes of their resources.
    places: HashMap<Vec<u8>, usize>,
    /// Places in a group's `scopes`, by the group's place and the bytes of the scope.
    scope_places: HashMap<(usize, Vec<u8>), usize>,
    parse_tags: bool,
}

struct Group {
    resource: Vec<u8>,
    /// Scopes and their spans.
    scopes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Sheet {
    /// `parse_tags`: tags that read as numbers or booleans become such. `ticket`: has room for what the spans are read from, `source_bytes`, and
    /// grows by what is written.
    pub(super) fn new(parse_tags: bool, ticket: Ticket, source_bytes: usize) -> Self {
        Self {
            ticket,
            source_bytes,
            held_bytes: 0,
            full: None,
            groups: Vec::new(),
            places: HashMap::new(),
            scope_places: HashMap::new(),
            parse_tags,
        }
    }

    /// Why there was no room, where that is why [`Self::add`] failed.
    pub(super) fn full(self) -> Option<Refusal> {
        self.full
    }

    /// Room for `more` bytes beside what is read and written.
    fn room(&mut self, more: usize) -> Result<(), Refusal> {
        let wanted = self.source_bytes.saturating_add(self.held_bytes).saturating_add(more);
        if self.ticket.try_grow(wanted) { Ok(()) } else { Err(self.ticket.refusal(wanted)) }
    }

    /// An error where there is no room for more.
    pub(super) fn add(&mut self, span: &Span<'_>) -> Result<(), String> {
        self.write(span);
        self.room(0).map_err(|refusal| {
            let said = refusal.to_string();
            self.full = Some(refusal);
            said
        })
    }

    fn write(&mut self, span: &Span<'_>) {
        let mut tags: Vec<(&str, &str)> = span.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        let resource = resource(span, &mut tags);
        let scope = scope(&mut tags);
        let place = if let Some(place) = self.places.get(&resource) {
            *place
        } else {
            // Each name is there twice, in the list and in the table.
            self.held_bytes += PLACE_BYTES + 2 * resource.len();
            self.places.insert(resource.clone(), self.groups.len());
            self.groups.push(Group { resource, scopes: Vec::new() });
            self.groups.len() - 1
        };
        let Some(group) = self.groups.get_mut(place) else { return };
        let at = match self.scope_places.entry((place, scope)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.held_bytes += PLACE_BYTES + 2 * new.key().1.len();
                group.scopes.push((new.key().1.clone(), Vec::new()));
                *new.insert(group.scopes.len() - 1)
            }
        };
        if let Some((_, out)) = group.scopes.get_mut(at) {
            let before = out.capacity();
            put_message(out, 2, |out| put_span(out, span, tags, self.parse_tags));
            self.held_bytes += out.capacity() - before;
        }
    }

    /// The body of an `ExportTraceServiceRequest`; a refusal where there is no room to put it together.
    pub(super) fn finish(mut self) -> Result<Held, Refusal> {
        let scopes = self.groups.iter().flat_map(|group| &group.scopes);
        let len = self.groups.iter().map(|group| group.resource.len() + HEADS_BYTES).sum::<usize>()
            + scopes.map(|(scope, spans)| scope.len() + spans.len() + HEADS_BYTES).sum::<usize>();
        self.room(len)?;
        let Self { groups, mut ticket, .. } = self;
        let mut out = Vec::with_capacity(len);
        for Group { resource, scopes } in groups {
            put_message(&mut out, 1, |out| {
                put_bytes_always(out, 1, &resource);
                for (scope, spans) in scopes {
                    put_message(out, 2, |out| {
                        put_bytes_always(out, 1, &scope);
                        out.extend_from_slice(&spans);
                    });
                }
            });
        }
        out.shrink_to_fit();
        ticket.shrink(out.len());
        Ok(Held { payload: Bytes::from(out), ticket })
    }
}

/// Takes a tag out.
fn take<'t>(tags: &mut Vec<(&'t str, &'t str)>, name: &str) -> Option<&'t str> {
    let at = tags.iter().position(|(known, _)| *known == name)?;
    Some(tags.remove(at).1)
}

/// By name; of several with one name the last wins, as in a map.
fn last_of_each<'a, 't>(tags: &'a mut [(&'t str, &'t str)]) -> impl Iterator<Item = (&'t str, &'t str)> + 'a {
    // Stable: of one name, what came last stays last.
    tags.sort_by_key(|(name, _)| *name);
    tags.chunk_by(|(name, _), (next, _)| name == next).filter_map(|same| same.last().copied())
}

fn resource<'t>(span: &'t Span<'_>, tags: &mut Vec<(&'t str, &'t str)>) -> Vec<u8> {
    let mut attributes: Vec<(&str, &str)> = Vec::new();
    let source = take(tags, SERVICE_NAME_SOURCE).filter(|source| !source.is_empty()).unwrap_or(SERVICE_NAME);
    if !span.local.service.is_empty() {
        attributes.push((source, &span.local.service));
    }
    tags.retain(|(name, value)| {
        let is_of_resource = name.starts_with("k8s.") || OF_RESOURCE.binary_search(name).is_ok();
        if is_of_resource {
            attributes.push((name, value));
        }
        !is_of_resource
    });
    let mut out = Vec::new();
    for (name, value) in last_of_each(&mut attributes) {
        put_attribute(&mut out, 1, name, |out| put_bytes_always(out, 1, value.as_bytes()));
    }
    out
}

fn scope<'t>(tags: &mut Vec<(&'t str, &'t str)>) -> Vec<u8> {
    let mut either = |names: [&str; 2]| names.into_iter().filter_map(|name| take(tags, name)).last().unwrap_or_default();
    let (name, version) =
        (either(["otel.library.name", "otel.scope.name"]), either(["otel.library.version", "otel.scope.version"]));
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, version.as_bytes());
    out
}

fn put_attribute(out: &mut Vec<u8>, field: u32, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, field, |out| {
        put_bytes_always(out, 1, name.as_bytes());
        put_message(out, 2, value);
    });
}

fn put_text(out: &mut Vec<u8>, field: u32, name: &str, value: &str) {
    put_attribute(out, field, name, |out| put_bytes_always(out, 1, value.as_bytes()));
}

fn put_int(out: &mut Vec<u8>, field: u32, name: &str, value: i64) {
    put_attribute(out, field, name, |out| put_uint_always(out, 3, value as u64));
}

fn put_span<'t>(out: &mut Vec<u8>, span: &Span<'_>, mut tags: Vec<(&'t str, &'t str)>, parse: bool) {
    put_bytes(out, 1, &span.trace_id);
    put_bytes(out, 2, &span.id);
    put_bytes(out, 3, take(&mut tags, "w3c.tracestate").unwrap_or_default().as_bytes());
    // A span that names itself as its parent has none.
    if let Some(parent) = span.parent.filter(|parent| *parent != span.id) {
        put_bytes(out, 4, &parent);
    }
    put_bytes(out, 5, span.name.as_bytes());
    put_uint(out, 6, kind(span.kind, &mut tags));
    let start = span.start.saturating_mul(1000);
    put_fixed64(out, 7, start);
    put_fixed64(out, 8, start.saturating_add(span.duration.saturating_mul(1000)));
    let links = links(&mut tags);
    let status = status(&mut tags);
    let local = put_endpoint(out, &span.local, ["", "network.local.address", "net.host.port"]);
    let remote = put_endpoint(out, &span.remote, ["service.peer.name", "network.peer.address", "net.peer.port"]);
    if span.start == 0 {
        put_attribute(out, 9, NO_START, |out| put_uint_always(out, 2, 1));
    }
    // A name stands once in a span: what Zipkin has a field for is not said again by a tag.
    let is_written =
        |name: &str| local.iter().chain(&remote).any(|own| *own == Some(name)) || (name == NO_START && span.start == 0);
    for (name, value) in last_of_each(&mut tags) {
        if !is_written(name) {
            put_tag(out, name, value, parse);
        }
    }
    for (time, text) in &span.annotations {
        put_message(out, 11, |out| put_event(out, time.saturating_mul(1000), text));
    }
    for link in links {
        put_bytes_always(out, 13, &link);
    }
    if let Some((code, message)) = status {
        put_message(out, 15, |out| {
            put_bytes(out, 2, message.as_bytes());
            put_uint(out, 3, code);
        });
    }
}

fn kind<'t>(kind: Kind, tags: &mut Vec<(&'t str, &'t str)>) -> u64 {
    match kind {
        Kind::Client => 3,
        Kind::Server => 2,
        Kind::Producer => 4,
        Kind::Consumer => 5,
        Kind::Unspecified => u64::from(take(tags, "span.kind") == Some("internal")),
    }
}

/// Code and message. An `error` tag is an error whatever it says, as in Zipkin, unless it says `false`; what it says beyond `true` stays.
fn status<'t>(tags: &mut Vec<(&'t str, &'t str)>) -> Option<(u64, Cow<'t, str>)> {
    let code = take(tags, "otel.status_code").map(|code| match code {
        "STATUS_CODE_OK" | "OK" | "Ok" => 1,
        "STATUS_CODE_ERROR" | "ERROR" | "Error" => 2,
        _ => 0,
    });
    let message = code.and_then(|_| take(tags, "otel.status_description")).unwrap_or_default();
    let error = tags.iter().find(|(name, _)| *name == "error").map(|(_, text)| *text);
    match error {
        Some("true" | "") => {
            take(tags, "error");
            Some((2, Cow::Borrowed(message)))
        }
        Some(text) if text != "false" && code.is_none() => Some((2, Cow::Borrowed(text))),
        _ => code.map(|code| (code, Cow::Borrowed(message))),
    }
}

fn put_tag(out: &mut Vec<u8>, name: &str, text: &str, parse: bool) {
    put_attribute(out, 9, name, |out| {
        let is_whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
        let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        match (text.parse::<i64>(), text.parse::<f64>()) {
            _ if !parse => put_bytes_always(out, 1, text.as_bytes()),
            _ if text == "true" || text == "false" => put_uint_always(out, 2, u64::from(text == "true")),
            (Ok(value), _) => put_uint_always(out, 3, value as u64),
            // A whole number that has no room stays what it is.
            (Err(_), Ok(value)) if is_number && !is_whole => put_double_always(out, 4, value),
            _ => put_bytes_always(out, 1, text.as_bytes()),
        }
    });
}

/// `names`: of the service, the address and the port; an empty one is not written. Which were is answered.
fn put_endpoint<'n>(out: &mut Vec<u8>, endpoint: &Endpoint<'_>, names: [&'n str; 3]) -> [Option<&'n str>; 3] {
    let [service, ip, port] = names;
    let address = if endpoint.ipv4.is_empty() { &endpoint.ipv6 } else { &endpoint.ipv4 };
    let (has_service, has_address) = (!endpoint.service.is_empty() && !service.is_empty(), !address.is_empty());
    if has_service {
        put_text(out, 9, service, &endpoint.service);
    }
    if has_address {
        put_text(out, 9, ip, address);
    }
    if endpoint.port > 0 {
        put_int(out, 9, port, i64::from(endpoint.port));
    }
    [has_service.then_some(service), has_address.then_some(ip), (endpoint.port > 0).then_some(port)]
}

/// `name`, or what OpenTelemetry's exporters make of an event: `name|{attributes as JSON}|dropped`.
fn put_event(out: &mut Vec<u8>, time: u64, text: &str) {
    put_fixed64(out, 1, time);
    let parsed = text.split_once('|').and_then(|(name, rest)| {
        let (attributes, dropped) = rest.rsplit_once('|')?;
        let attributes = object(attributes)?;
        Some((name, attributes, dropped.parse::<u32>().ok()?))
    });
    match parsed {
        None => put_bytes(out, 2, text.as_bytes()),
        Some((name, attributes, dropped)) => {
            put_bytes(out, 2, name.as_bytes());
            for (name, value) in &attributes {
                put_json(out, 3, name, value);
            }
            put_uint(out, 4, u64::from(dropped));
        }
    }
}

/// Attributes as exporters write them; `None` for other text, and for more of it than is read.
fn object(text: &str) -> Option<Map<String, Value>> {
    if text.len() > JSON_BYTES_MAX {
        return None;
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(attributes)) => Some(attributes),
        _ => None,
    }
}

fn put_json(out: &mut Vec<u8>, field: u32, name: &str, value: &Value) {
    match value {
        Value::String(text) => put_text(out, field, name, text),
        Value::Bool(value) => put_attribute(out, field, name, |out| put_uint_always(out, 2, u64::from(*value))),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => put_int(out, field, name, whole),
            (None, Some(value)) => put_attribute(out, field, name, |out| put_double_always(out, 4, value)),
            (None, None) => put_text(out, field, name, &number.to_string()),
        },
        Value::Null => {}
        nested @ (Value::Array(_) | Value::Object(_)) => put_text(out, field, name, &nested.to_string()),
    }
}

/// Takes out `otlp.link.0` and so on: `trace id|span id|trace state|{attributes as JSON}|dropped`. One that is not so stays a tag.
fn links<'t>(tags: &mut Vec<(&'t str, &'t str)>) -> Vec<Vec<u8>> {
    let mut links = Vec::new();
    for number in 0..LINKS_MAX {
        let name = format!("otlp.link.{number}");
        let Some(text) = tags.iter().find(|(known, _)| *known == name).map(|(_, text)| *text) else { break };
        let Some(link) = link(text) else { continue };
        take(tags, &name);
        links.push(link);
    }
    links
}

fn link(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.splitn(4, '|');
    let trace_id: [u8; 16] = super::span::id(parts.next()?)?;
    let span_id: [u8; 8] = super::span::id(parts.next()?)?;
    let state = parts.next()?;
    let (attributes, dropped) = parts.next()?.rsplit_once('|')?;
    let attributes = object(attributes)?;
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &trace_id);
    put_bytes(&mut out, 2, &span_id);
    put_bytes(&mut out, 3, state.as_bytes());
    for (name, value) in &attributes {
        put_json(&mut out, 4, name, value);
    }
    put_uint(&mut out, 5, u64::from(dropped.parse::<u32>().ok()?));
    Some(out)
}
