//! `prometheus.WriteRequest` and `io.prometheus.write.v2.Request`, declared for prost: what servers read our requests with.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
    /// Version 2's.
    #[prost(int64, tag = "3")]
    pub(super) start: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
    #[prost(int64, tag = "3")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "3")]
    pub(super) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(super) schema: i32,
    #[prost(double, tag = "5")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, tag = "6")]
    pub(super) zero_count: u64,
    #[prost(message, repeated, tag = "8")]
    pub(super) negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub(super) negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub(super) positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    pub(super) timestamp: i64,
    /// Version 2's.
    #[prost(int64, tag = "17")]
    pub(super) start: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    pub(super) histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) family: String,
    #[prost(string, tag = "4")]
    pub(super) help: String,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) series: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub(super) metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExemplarTwo {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) labels: Vec<u32>,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
    #[prost(int64, tag = "3")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetadataTwo {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(uint32, tag = "3")]
    pub(super) help: u32,
    #[prost(uint32, tag = "4")]
    pub(super) unit: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeSeriesTwo {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) labels: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    pub(super) exemplars: Vec<ExemplarTwo>,
    #[prost(message, optional, tag = "5")]
    pub(super) metadata: Option<MetadataTwo>,
    #[prost(int64, tag = "6")]
    pub(super) created: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestTwo {
    #[prost(string, repeated, tag = "4")]
    pub(super) symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) series: Vec<TimeSeriesTwo>,
}

impl RequestTwo {
    fn text(&self, number: u32) -> String {
        self.symbols[number as usize].clone()
    }

    fn labels(&self, numbers: &[u32]) -> Vec<Label> {
        assert_eq!(numbers.len() % 2, 0, "names and values");
        numbers.chunks(2).map(|two| Label { name: self.text(two[0]), value: self.text(two[1]) }).collect()
    }

    /// The same in version 1's words, with each series' start.
    pub(super) fn in_words_of_one(&self) -> (WriteRequest, Vec<i64>) {
        assert_eq!(self.symbols[0], "", "the first symbol is the empty one");
        let mut one = WriteRequest::default();
        for series in &self.series {
            let labels = self.labels(&series.labels);
            let metadata = series.metadata.clone().expect("version 2 always says what a series is");
            let name = labels.iter().find(|label| label.name == "__name__").unwrap().value.clone();
            one.metadata.push(Metadata {
                kind: metadata.kind,
                family: name,
                help: self.text(metadata.help),
                unit: self.text(metadata.unit),
            });
            let exemplars = series.exemplars.iter().map(|exemplar| Exemplar {
                labels: self.labels(&exemplar.labels),
                value: exemplar.value,
                timestamp: exemplar.timestamp,
            });
            one.series.push(TimeSeries {
                labels,
                samples: series.samples.clone(),
                exemplars: exemplars.collect(),
                histograms: series.histograms.clone(),
            });
        }
        let start = |series: &TimeSeriesTwo| {
            let all = series.samples.iter().map(|it| it.start).chain(series.histograms.iter().map(|it| it.start));
            let last = all.last().expect("a series has samples");
            assert_eq!(series.created, last, "what is said of the series is said of its last sample");
            last
        };
        (one, self.series.iter().map(start).collect())
    }
}
