//! Puts the families of all sources in order and writes them.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Choice, Escaping, Family, FamilyKind, Format, LeftOut, Page, PageSource,
    escaping::NameOf,
    gate::Gate,
    left_out::Reason,
    page::PageWriter,
    protobuf::ProtobufPage,
    sink::{Gone, Outlet, Sink},
    text::TextPage,
};

/// What one page is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub choice: Choice,
    pub gzip: bool,
    /// OpenMetrics' `_created` samples, which a Prometheus without created-timestamp ingestion stores as series of their own.
    pub created: bool,
}

/// A family and who writes it.
struct Planned {
    name: String,
    family: Family,
    /// (source, number of the family there)
    writers: Vec<(usize, usize)>,
}

/// Writes the page of `sources` to `outlet`. Blocks as long as the outlet does.
pub(crate) fn render(
    sources: &[Arc<dyn PageSource>],
    style: Style,
    left_out: &LeftOut,
    outlet: &mut dyn Outlet,
) -> Result<(), Gone> {
    let Choice { format, escaping } = style.choice;
    let plan = plan(sources, escaping, left_out);
    let names: HashSet<&str> = plan.iter().map(|planned| planned.name.as_str()).collect();
    let sink = Sink::new(outlet, style.gzip);
    let gate = Gate::new(escaping, left_out);
    let mut writer: Box<dyn PageWriter + '_> = match format {
        Format::Protobuf => Box::new(ProtobufPage::new(sink, gate)),
        _ => Box::new(TextPage::new(sink, gate, format.is_open_metrics(), style.created)),
    };
    for planned in &plan {
        let stripped = stem(planned).is_some_and(|stem| !stem.is_empty() && !names.contains(stem));
        writer.begin(&planned.family, &planned.name, stripped, planned.writers.len() > 1);
        for (source, number) in &planned.writers {
            if writer.is_gone() {
                return Err(Gone);
            }
            if let Some(source) = sources.get(*source) {
                source.render(*number, &mut Page::new(&mut *writer));
            }
        }
    }
    writer.finish()
}

/// The family's name in OpenMetrics, where the sample's suffix is not part of it.
fn stem(planned: &Planned) -> Option<&str> {
    match planned.family.kind {
        FamilyKind::Counter => planned.name.strip_suffix("_total"),
        FamilyKind::Info => planned.name.strip_suffix("_info"),
        _ => None,
    }
}

/// Groups families by the name they have on this page, sorted by it. The first of two that do not go together stays.
fn plan(sources: &[Arc<dyn PageSource>], escaping: Escaping, left_out: &LeftOut) -> Vec<Planned> {
    let mut plan: Vec<Planned> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (source, pages) in sources.iter().enumerate() {
        for (number, family) in pages.families().into_iter().enumerate() {
            let name = escaping.apply(&family.name, NameOf::Metric).into_owned();
            if name.is_empty() {
                left_out.add(Reason::Name, "", &family.help);
                continue;
            }
            match by_name.get(&name).and_then(|at| plan.get_mut(*at)) {
                Some(planned) if planned.family.kind == family.kind => planned.writers.push((source, number)),
                Some(_) => left_out.add(Reason::Conflict, &family.name, kind_name(family.kind)),
                None => {
                    by_name.insert(name.clone(), plan.len());
                    plan.push(Planned { name, family, writers: vec![(source, number)] });
                }
            }
        }
    }
    // The samples of a histogram are named like families of their own; a family of that name would mix with them.
    let kinds: HashMap<&str, FamilyKind> = plan.iter().map(|planned| (planned.name.as_str(), planned.family.kind)).collect();
    let hidden: HashSet<Cow<'_, str>> = plan
        .iter()
        .filter(|planned| belongs_to_another(&planned.name, &kinds))
        .map(|planned| Cow::Owned(planned.name.clone()))
        .collect();
    for name in &hidden {
        left_out.add(Reason::Conflict, name, "named like the samples of a histogram or summary");
    }
    plan.retain(|planned| !hidden.contains(planned.name.as_str()));
    plan.sort_by(|a, b| a.name.cmp(&b.name));
    plan
}

fn belongs_to_another(name: &str, kinds: &HashMap<&str, FamilyKind>) -> bool {
    let stem_is = |suffix: &str, kind: &[FamilyKind]| {
        name.strip_suffix(suffix).and_then(|stem| kinds.get(stem)).is_some_and(|found| kind.contains(found))
    };
    stem_is("_bucket", &[FamilyKind::Histogram])
        || stem_is("_sum", &[FamilyKind::Histogram, FamilyKind::Summary])
        || stem_is("_count", &[FamilyKind::Histogram, FamilyKind::Summary])
}

const fn kind_name(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter => "counter",
        FamilyKind::Gauge => "gauge",
        FamilyKind::Histogram => "histogram",
        FamilyKind::Summary => "summary",
        FamilyKind::Info => "info",
        FamilyKind::Unknown => "unknown",
    }
}

/// The page in pieces of about 64 KiB of text; false from `piece` ends it.
pub fn page_in_pieces(
    sources: &[Arc<dyn PageSource>],
    style: Style,
    left_out: &LeftOut,
    piece: &mut dyn FnMut(Bytes) -> bool,
) -> bool {
    let mut outlet = |bytes: Bytes| if piece(bytes) { Ok(()) } else { Err(Gone) };
    render(sources, style, left_out, &mut outlet).is_ok()
}

/// The whole page in memory, for what is small or not asked for over HTTP.
pub fn page_in_memory(sources: &[Arc<dyn PageSource>], style: Style, left_out: &LeftOut) -> Vec<u8> {
    let mut page = Vec::new();
    page_in_pieces(sources, style, left_out, &mut |piece| {
        page.extend_from_slice(&piece);
        true
    });
    page
}
