//! A row's key → the labels that a page shows and the attributes that derived metrics carry.

use super::{
    aggregate::OVERFLOW,
    dimensions::put_text_attribute,
    owners::{Owner, text},
    settings::{INSTANCE_ID, SERVICE_NAME, SPAN_KIND, SPAN_NAME, STATUS_CODE},
    text::label_name,
};
use crate::{
    exposition::LabelBlock,
    otlp::{
        view::{AttributesView, ResourceView, View},
        wire,
    },
    registry::Key,
};

/// The scope that derived metrics come from.
pub(super) const SCOPE: &str = "spanmetricsconnector";

/// The labels of a row, in the families that are shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) collector: Option<LabelBlock>,
    pub(super) tempo: Option<LabelBlock>,
}

/// Which labels there are, by the settings.
#[derive(Debug, Clone)]
pub(super) struct Labelling {
    pub(super) collector: bool,
    pub(super) tempo: bool,
    /// job, instance and scope.
    pub(super) with_target: bool,
    pub(super) with_service: bool,
    pub(super) with_name: bool,
    pub(super) with_kind: bool,
    pub(super) with_status: bool,
    /// The value of `collector.instance.id`.
    pub(super) instance_id: Option<Box<str>>,
}

pub(super) const fn kind_text(code: u8) -> &'static str {
    match code {
        0 => "SPAN_KIND_UNSPECIFIED",
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        _ => "",
    }
}

pub(super) const fn status_text(code: u8) -> &'static str {
    match code {
        0 => "STATUS_CODE_UNSET",
        1 => "STATUS_CODE_OK",
        2 => "STATUS_CODE_ERROR",
        _ => "",
    }
}

fn name_of<'a>(key: &Key<'a>) -> &'a str {
    let bytes = key.tail.get(..key.head.name_len as usize).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(name) => name,
        Err(error) => bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default(),
    }
}

/// Encoded extra attributes are fields 1 of a message, as a resource's are.
fn extra_attributes(extra: Option<&[u8]>) -> AttributesView<'_> {
    ResourceView::new(extra.unwrap_or_default()).attributes
}

impl Labelling {
    pub(super) fn shown(&self, owner: &Owner, key: Key<'_>, extra: Option<&[u8]>) -> Shown {
        Shown {
            collector: self.collector.then(|| self.collector_block(owner, &key, extra)),
            tempo: self.tempo.then(|| self.tempo_block(owner, &key, extra)),
        }
    }

    fn collector_block(&self, owner: &Owner, key: &Key<'_>, extra: Option<&[u8]>) -> LabelBlock {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(16);
        self.each(owner, key, |name, value| pairs.push((label_name(name), value.to_owned())));
        for attribute in extra_attributes(extra).iter() {
            pairs.push((label_name(attribute.key()), text(attribute.value()).into()));
        }
        if self.with_target {
            for (name, value) in [("otel_scope_name", SCOPE), ("otel_scope_version", ""), ("otel_scope_schema_url", "")] {
                pairs.push((name.to_owned(), value.to_owned()));
            }
            pairs.extend(target(owner));
        }
        joined(pairs)
    }

    fn tempo_block(&self, owner: &Owner, key: &Key<'_>, extra: Option<&[u8]>) -> LabelBlock {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(8);
        self.each(owner, key, |name, value| {
            let name = match name {
                SERVICE_NAME => "service".to_owned(),
                other => label_name(other),
            };
            pairs.push((name, value.to_owned()));
        });
        for attribute in extra_attributes(extra).iter() {
            let name = label_name(attribute.key());
            let taken = matches!(name.as_str(), "service" | "span_name" | "span_kind" | "status_code");
            pairs.push((if taken { format!("__{name}") } else { name }, text(attribute.value()).into()));
        }
        if self.with_target {
            pairs.extend(target(owner));
        }
        joined(pairs)
    }

    /// The default attributes of a row.
    fn each(&self, owner: &Owner, key: &Key<'_>, mut each: impl FnMut(&str, &str)) {
        if key.head.flags & OVERFLOW != 0 {
            each("otel.metric.overflow", "true");
            return;
        }
        if self.with_service {
            each(SERVICE_NAME, &owner.service);
        }
        if self.with_name {
            each(SPAN_NAME, name_of(key));
        }
        if self.with_kind {
            each(SPAN_KIND, kind_text(key.head.code >> 4));
        }
        if self.with_status {
            each(STATUS_CODE, status_text(key.head.code & 15));
        }
        if let Some(id) = &self.instance_id {
            each(INSTANCE_ID, id);
        }
    }

    /// Appends the row's attributes as `KeyValue` fields with number `field`.
    pub(super) fn encode(&self, owner: &Owner, key: &Key<'_>, extra: Option<&[u8]>, field: u32, out: &mut Vec<u8>) {
        if key.head.flags & OVERFLOW != 0 {
            wire::put_message(out, field, |out| {
                wire::put_bytes(out, 1, b"otel.metric.overflow");
                wire::put_message(out, 2, |out| wire::put_uint_always(out, 2, 1));
            });
            return;
        }
        self.each(owner, key, |name, value| put_text_attribute(out, field, name, value));
        for attribute in extra_attributes(extra).iter() {
            wire::put_bytes_always(out, field, attribute.bytes());
        }
    }
}

/// `job` and `instance`, as far as there are any.
fn target(owner: &Owner) -> impl Iterator<Item = (String, String)> {
    let pair = |name: &str, value: &Option<Box<str>>| value.as_ref().map(|value| (name.to_owned(), value.to_string()));
    pair("job", &owner.job).into_iter().chain(pair("instance", &owner.instance))
}

/// The labels of `target_info`: all attributes of the resource but those that job and instance are made of. `None` unless both are there.
pub(super) fn target_info(owner: &Owner) -> Option<LabelBlock> {
    if owner.job.is_none() || owner.instance.is_none() {
        return None;
    }
    let mut pairs: Vec<(String, String)> = ResourceView::new(&owner.resource)
        .attributes
        .iter()
        .filter(|attribute| !matches!(attribute.key(), SERVICE_NAME | "service.namespace" | "service.instance.id"))
        .map(|attribute| (label_name(attribute.key()), text(attribute.value()).into()))
        .collect();
    pairs.retain(|(name, _)| name != "job" && name != "instance");
    pairs.extend(target(owner));
    Some(joined(pairs))
}

/// Attributes that become one label are joined with `;` in the order of the attributes.
fn joined(mut pairs: Vec<(String, String)>) -> LabelBlock {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1.push(';');
            first.1.push_str(&later.1);
        }
        same
    });
    LabelBlock::new(pairs)
}
