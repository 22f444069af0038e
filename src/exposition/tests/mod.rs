//! Pages are read back by readers of other making: a small text reader, prost, gzip from flate2.

#![allow(clippy::float_cmp, reason = "numbers come back as they were put in, to the bit")]

mod formats;
mod negotiation;
mod numbers;
mod streaming;

use std::{borrow::Cow, sync::Arc};

use super::*;
use super::{messages, reader};
use crate::internal_telemetry::Telemetry;

/// One sample as a source would write it.
#[derive(Debug, Clone)]
enum Said {
    Number {
        value: f64,
        start: u64,
        exemplar: Option<Exemplar>,
        time: Option<u64>,
    },
    Histogram {
        buckets: Vec<(f64, f64)>,
        exemplar: Option<Exemplar>,
        sum: Option<f64>,
        count: f64,
        native: Option<NativeHistogram>,
    },
    Summary {
        sum: f64,
        count: f64,
        quantiles: Vec<(f64, f64)>,
    },
}

#[derive(Default)]
struct Source(Vec<(Family, Vec<(LabelBlock, Said)>)>);

impl PageSource for Source {
    fn families(&self) -> Vec<Family> {
        self.0.iter().map(|(family, _)| family.clone()).collect()
    }

    fn render(&self, number: usize, page: &mut Page<'_>) {
        for (labels, said) in &self.0[number].1 {
            match said {
                Said::Number { value, start, exemplar, time } => page.number(labels, *value, *start, exemplar.as_ref(), *time),
                Said::Histogram { buckets, exemplar, sum, count, native } => {
                    let mut exemplar = exemplar.as_ref();
                    let buckets: Vec<Bucket<'_>> = buckets
                        .iter()
                        .map(|(upper_bound, cumulative)| {
                            let exemplar = exemplar.take_if(|exemplar| exemplar.value <= *upper_bound);
                            Bucket { upper_bound: *upper_bound, cumulative: *cumulative, exemplar }
                        })
                        .collect();
                    page.histogram(labels, *sum, *count, 7_000_000_000, &buckets, native.as_ref(), None);
                }
                Said::Summary { sum, count, quantiles } => page.summary(labels, *sum, *count, 0, quantiles, None),
            }
        }
    }
}

fn family(name: &str, kind: FamilyKind) -> Family {
    Family { name: Cow::Owned(name.to_owned()), kind, help: "Some \\ help\nin lines.".into(), unit: "".into() }
}

fn number(value: f64) -> Said {
    Said::Number { value, start: 0, exemplar: None, time: None }
}

fn labels(pairs: &[(&str, &str)]) -> LabelBlock {
    LabelBlock::new(pairs.iter().copied())
}

fn exemplar(value: f64) -> Exemplar {
    Exemplar { trace_id: [0xab; 16], span_id: [0xcd; 8], value, unix_nanos: 1_700_000_000_123_000_000, labels: Vec::new() }
}

fn left_out() -> LeftOut {
    LeftOut::new(&Telemetry::default(), "prometheus")
}

fn style(format: Format, escaping: Escaping) -> Style {
    Style { choice: Choice { format, escaping }, gzip: false, created: false }
}

fn page_of(sources: Vec<Source>, style: Style, left_out: &LeftOut) -> Vec<u8> {
    let sources: Vec<Arc<dyn PageSource>> = sources.into_iter().map(|source| Arc::new(source) as Arc<dyn PageSource>).collect();
    page_in_memory(&sources, style, left_out)
}

fn text_of(source: Source, format: Format, escaping: Escaping) -> String {
    String::from_utf8(page_of(vec![source], style(format, escaping), &left_out())).unwrap()
}
