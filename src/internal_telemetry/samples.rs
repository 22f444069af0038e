//! Families of our own metrics as they are read at one instant.
//!
//! Most of them live in the `prometheus` crate's registry and are only added to; what is cheaper to compute when somebody looks (the
//! books of a consumer, the process) is written here by callbacks.

use std::collections::BTreeMap;

use prometheus::proto;

use super::names;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    Number(f64),
    /// Upper bound and cumulative count of each bucket without +Inf, then count and sum.
    Histogram {
        buckets: Vec<(f64, u64)>,
        count: u64,
        sum: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
    pub value: SampleValue,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SampleFamily {
    pub help: String,
    pub kind: SampleKind,
    pub samples: Vec<Sample>,
}

/// What the callbacks of [`super::Telemetry::on_scrape`] write to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    families: BTreeMap<String, SampleFamily>,
}

impl Samples {
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.push(name, help, SampleKind::Counter, labels, SampleValue::Number(value as f64));
    }

    /// A counter that is not whole (seconds).
    pub fn float_counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.push(name, help, SampleKind::Counter, labels, SampleValue::Number(value));
    }

    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.push(name, help, SampleKind::Gauge, labels, SampleValue::Number(value));
    }

    /// The memory that request bodies take.
    pub fn requests(&mut self, bytes: usize, bytes_max: usize) {
        self.gauge(names::REQUESTS_BYTES, "Bytes of request bodies in memory.", &[], bytes as f64);
        self.gauge(names::REQUESTS_MAX_BYTES, "Bytes of request bodies that may be in memory.", &[], bytes_max as f64);
    }

    /// The journal's room on disk, and whether it takes data.
    pub fn journal(&mut self, room: &JournalRoom) {
        let mut room_of = |(bytes, max): (&str, &str), what: &str, (used, used_max): (u64, u64)| {
            self.gauge(bytes, &format!("Bytes of the journal's {what} on disk."), &[], used as f64);
            self.gauge(max, &format!("Bytes that the journal's {what} may take on disk."), &[], used_max as f64);
        };
        room_of((names::JOURNAL_BYTES, names::JOURNAL_MAX_BYTES), "files", room.whole);
        room_of((names::JOURNAL_RECORDS_BYTES, names::JOURNAL_RECORDS_MAX_BYTES), "records", room.records);
        room_of((names::JOURNAL_LETTERS_BYTES, names::JOURNAL_LETTERS_MAX_BYTES), "dead letters", room.letters);
        self.gauge(
            names::JOURNAL_REFUSING,
            "1 while the journal takes no data: full, or the disk fails.",
            &[],
            f64::from(u8::from(room.is_refusing)),
        );
    }

    /// What the journal holds for a consumer that the configuration does not have.
    pub fn orphan(&mut self, orphan: &Orphan<'_>) {
        let labels = [("consumer", orphan.consumer), ("topic", orphan.topic)];
        let help = "Items, at most, that are held for a consumer that the configuration does not have.";
        self.gauge(names::JOURNAL_ORPHAN_ITEMS, help, &labels, orphan.items as f64);
        let help = "Bytes, at most, that are held for a consumer that the configuration does not have.";
        self.gauge(names::JOURNAL_ORPHAN_BYTES, help, &labels, orphan.bytes as f64);
        let help = "Items that were let go for a consumer that the configuration does not have, by `weir journal rm`.";
        self.counter(names::JOURNAL_ORPHAN_REMOVED, help, &labels, orphan.removed_items);
    }

    /// A consumer's books: the law is `accepted = delivered + Σ dropped + held`, and each term is counted by itself.
    pub fn books(&mut self, books: &Books<'_>) {
        let labels = [("pipeline", books.pipeline), ("component", books.component), ("signal", books.signal)];
        self.counter(names::CONSUMER_ACCEPTED, "Items appended for this consumer.", &labels, books.accepted);
        self.counter(names::CONSUMER_DELIVERED, "Items this consumer is done with.", &labels, books.delivered);
        for (reason, items) in books.dropped {
            let labels = [labels[0], labels[1], labels[2], ("reason", *reason)];
            self.counter(names::CONSUMER_DROPPED, "Items this consumer will never deliver, by reason.", &labels, *items);
        }
        self.gauge(names::CONSUMER_HELD_ITEMS, "Items beyond this consumer's cursor.", &labels, books.held_items as f64);
        self.gauge(names::CONSUMER_HELD_BYTES, "Bytes beyond this consumer's cursor.", &labels, books.held_bytes as f64);
    }

    /// How far behind a consumer is, and how its destination does.
    pub fn lag(&mut self, lag: &Lag<'_>) {
        let labels = [("pipeline", lag.pipeline), ("component", lag.component), ("signal", lag.signal)];
        let help = "Age of the oldest item beyond this consumer's cursor; 0: there is none.";
        self.gauge(names::CONSUMER_LAG_SECONDS, help, &labels, lag.seconds);
        let help = "Requests that failed and wait beside the others to be tried again.";
        self.gauge(names::CONSUMER_PARKED, help, &labels, lag.parked_requests as f64);
        if let Some(seconds) = lag.failing_seconds {
            let help = "For how long this consumer's destination has failed; 0: it works.";
            self.gauge(names::CONSUMER_FAILING_SECONDS, help, &labels, seconds);
        }
    }

    /// Who looks at what passes, and what they did not see.
    pub fn taps(&mut self, open: u64, waiting_bytes: u64, lost: u64) {
        self.gauge(names::TAPS, "Taps that are open (`weir tap`).", &[], open as f64);
        self.gauge(names::TAP_WAITING_BYTES, "Bytes that wait to be looked at for taps.", &[], waiting_bytes as f64);
        self.counter(names::TAP_LOST, "Samples that taps left out because they or their readers were too slow.", &[], lost);
    }

    /// The families in order of name.
    pub fn families(&self) -> impl Iterator<Item = (&str, &SampleFamily)> {
        self.families.iter().map(|(name, family)| (name.as_str(), family))
    }

    /// The number at `name` with exactly these labels (in any order).
    pub fn number(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = sorted(labels);
        let sample = self.families.get(name)?.samples.iter().find(|sample| sample.labels == wanted)?;
        match &sample.value {
            SampleValue::Number(number) => Some(*number),
            SampleValue::Histogram { .. } => None,
        }
    }

    fn push(&mut self, name: &str, help: &str, kind: SampleKind, labels: &[(&str, &str)], value: SampleValue) {
        let family = self.family(name, help, kind);
        // Two kinds under one name would make the whole page unreadable to a scraper; the first one stays.
        if family.kind == kind {
            family.samples.push(Sample { labels: sorted(labels), value });
        }
    }

    fn family(&mut self, name: &str, help: &str, kind: SampleKind) -> &mut SampleFamily {
        self.families.entry(name.to_owned()).or_insert_with(|| SampleFamily { help: help.to_owned(), kind, samples: Vec::new() })
    }

    /// Takes over what the `prometheus` crate gathered.
    pub(super) fn absorb(&mut self, gathered: &[proto::MetricFamily]) {
        for found in gathered {
            let kind = match found.get_field_type() {
                proto::MetricType::COUNTER => SampleKind::Counter,
                proto::MetricType::HISTOGRAM => SampleKind::Histogram,
                proto::MetricType::GAUGE | proto::MetricType::UNTYPED => SampleKind::Gauge,
                proto::MetricType::SUMMARY => continue,
            };
            let family = self.family(found.name(), found.help(), kind);
            if family.kind != kind {
                continue;
            }
            for metric in found.get_metric() {
                let labels: Vec<_> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
                let value = match kind {
                    SampleKind::Counter => SampleValue::Number(metric.get_counter().get_value()),
                    SampleKind::Gauge => SampleValue::Number(metric.get_gauge().get_value()),
                    SampleKind::Histogram => {
                        let histogram = metric.get_histogram();
                        let buckets = histogram.get_bucket().iter();
                        SampleValue::Histogram {
                            buckets: buckets
                                .filter(|bucket| bucket.upper_bound().is_finite())
                                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                                .collect(),
                            count: histogram.get_sample_count(),
                            sum: histogram.get_sample_sum(),
                        }
                    }
                };
                family.samples.push(Sample { labels: sorted(&labels), value });
            }
        }
    }

    pub(super) fn sort(&mut self) {
        for family in self.families.values_mut() {
            family.samples.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
    }
}

fn sorted(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    labels.sort();
    labels
}

/// What became of the items that one consumer was to take, of one signal.
#[derive(Debug, Clone, Copy)]
pub struct Books<'a> {
    /// `traces/shop`.
    pub pipeline: &'a str,
    /// `otlp_grpc/archive`.
    pub component: &'a str,
    pub signal: &'a str,
    pub accepted: u64,
    pub delivered: u64,
    pub dropped: &'a [(&'static str, u64)],
    pub held_items: u64,
    pub held_bytes: u64,
}

/// How far behind one consumer is.
#[derive(Debug, Clone, Copy)]
pub struct Lag<'a> {
    pub pipeline: &'a str,
    pub component: &'a str,
    pub signal: &'a str,
    /// Age of the oldest record that it is not done with.
    pub seconds: f64,
    pub parked_requests: u64,
    /// `None`: it delivers to nobody outside.
    pub failing_seconds: Option<f64>,
}

/// Bytes of the journal's files that there are and may be.
#[derive(Debug, Clone, Copy)]
pub struct JournalRoom {
    /// Records and dead letters together.
    pub whole: (u64, u64),
    pub records: (u64, u64),
    pub letters: (u64, u64),
    pub is_refusing: bool,
}

/// What one topic holds for a consumer that the configuration does not have.
#[derive(Debug, Clone, Copy)]
pub struct Orphan<'a> {
    /// As `weir journal ls` names it.
    pub consumer: &'a str,
    pub topic: &'a str,
    pub items: u64,
    pub bytes: u64,
    pub removed_items: u64,
}
