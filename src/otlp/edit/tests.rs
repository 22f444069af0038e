//! What an edit changes, and that it changes nothing else.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{ResourceSpans, Span},
};
use proptest::prelude::*;
use prost::Message;

use super::{AttributesWriter, Edit, Editor, Place, edit};
use crate::{
    otlp::{
        ScanLimits,
        arbitrary::Draw,
        count,
        oracle::{self, Request},
        scan,
        tests::{attribute, one_span, request, span},
        view::{AttributesView, LogRecordView, MetricView, PointView, ResourceView, SpanView},
        wire::{put_bytes_always, put_message},
    },
    signal::Signal,
};

/// Decides by a function of the attributes, alike for resources and items.
struct All<F>(F);

impl<F: FnMut(AttributesView<'_>, &mut AttributesWriter) -> Edit> Editor for All<F> {
    fn resource(&mut self, resource: &ResourceView<'_>, out: &mut AttributesWriter) -> Edit {
        self.0(resource.attributes, out)
    }

    fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, out: &mut AttributesWriter) -> Edit {
        self.0(span.attributes, out)
    }

    fn log_record(&mut self, _: &Place<'_>, record: &LogRecordView<'_>, out: &mut AttributesWriter) -> Edit {
        self.0(record.attributes, out)
    }

    fn data_point(&mut self, _: &Place<'_>, _: &MetricView<'_>, point: &PointView<'_>, out: &mut AttributesWriter) -> Edit {
        self.0(point.attributes(), out)
    }
}

/// Decides about items only, by their number.
struct Items<F> {
    at: usize,
    decide: F,
}

impl<F: FnMut(usize) -> Edit> Items<F> {
    fn next(&mut self) -> Edit {
        self.at += 1;
        (self.decide)(self.at - 1)
    }
}

impl<F: FnMut(usize) -> Edit> Editor for Items<F> {
    fn span(&mut self, _: &Place<'_>, _: &SpanView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }

    fn log_record(&mut self, _: &Place<'_>, _: &LogRecordView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }

    fn data_point(&mut self, _: &Place<'_>, _: &MetricView<'_>, _: &PointView<'_>, _: &mut AttributesWriter) -> Edit {
        self.next()
    }
}

/// Changes the attribute lists of resources and items of a decoded request.
fn for_each_list(request: &mut Request, mut change: impl FnMut(&mut Vec<KeyValue>)) {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    match request {
        Request::Traces(request) => {
            for of_resource in &mut request.resource_spans {
                change(&mut of_resource.resource.get_or_insert_default().attributes);
                for span in of_resource.scope_spans.iter_mut().flat_map(|of_scope| &mut of_scope.spans) {
                    change(&mut span.attributes);
                }
            }
        }
        Request::Logs(request) => {
            for of_resource in &mut request.resource_logs {
                change(&mut of_resource.resource.get_or_insert_default().attributes);
                for record in of_resource.scope_logs.iter_mut().flat_map(|of_scope| &mut of_scope.log_records) {
                    change(&mut record.attributes);
                }
            }
        }
        Request::Metrics(request) => {
            for of_resource in &mut request.resource_metrics {
                change(&mut of_resource.resource.get_or_insert_default().attributes);
                for metric in of_resource.scope_metrics.iter_mut().flat_map(|of_scope| &mut of_scope.metrics) {
                    match &mut metric.data {
                        Some(Data::Gauge(data)) => data.data_points.iter_mut().for_each(|point| change(&mut point.attributes)),
                        Some(Data::Sum(data)) => data.data_points.iter_mut().for_each(|point| change(&mut point.attributes)),
                        Some(Data::Histogram(data)) => {
                            data.data_points.iter_mut().for_each(|point| change(&mut point.attributes));
                        }
                        Some(Data::ExponentialHistogram(data)) => {
                            data.data_points.iter_mut().for_each(|point| change(&mut point.attributes));
                        }
                        Some(Data::Summary(data)) => data.data_points.iter_mut().for_each(|point| change(&mut point.attributes)),
                        None => {}
                    }
                }
            }
        }
    }
}

fn decoded(signal: Signal, payload: &[u8]) -> Request {
    oracle::decode(signal, payload).unwrap()
}

proptest! {
    #[test]
    fn an_untouched_request_is_the_same_bytes_not_a_copy(seed: u64) {
        for signal in Signal::ALL {
            let payload = Bytes::from(Draw::new(seed).request(signal));
            let edited = edit(signal, &payload, &mut Items { at: 0, decide: |_| Edit::Keep });
            prop_assert_eq!(edited.payload.as_ptr(), payload.as_ptr());
            prop_assert_eq!((edited.payload.len(), edited.dropped), (payload.len(), 0));
        }
    }

    #[test]
    fn appended_attributes_stand_behind_the_others(seed: u64, key: String, value: String) {
        for signal in Signal::ALL {
            let payload = Bytes::from(Draw::new(seed).request(signal));
            let edited = edit(signal, &payload, &mut All(|_: AttributesView<'_>, out: &mut AttributesWriter| {
                out.string(&key, &value);
                Edit::Append
            }));
            let mut expected = decoded(signal, &payload);
            for_each_list(&mut expected, |list| list.push(attribute(&key, &value)));
            prop_assert_eq!(decoded(signal, &edited.payload).encode(), expected.encode());
            prop_assert!(scan(signal, &edited.payload, &ScanLimits::default(), None).unwrap().is_regular());
        }
    }

    #[test]
    fn replaced_attributes_are_those_written(seed: u64, long: bool) {
        let value = if long { "x".repeat(300) } else { String::new() };
        for signal in Signal::ALL {
            let payload = Bytes::from(Draw::new(seed).request(signal));
            let edited = edit(signal, &payload, &mut All(|list: AttributesView<'_>, out: &mut AttributesWriter| {
                for attribute in list.iter().filter(|attribute| attribute.key().len() % 2 == 0) {
                    out.keep(&attribute);
                }
                out.string("new", &value);
                Edit::Replace
            }));
            let mut expected = decoded(signal, &payload);
            for_each_list(&mut expected, |list| {
                list.retain(|attribute| attribute.key.len() % 2 == 0);
                list.push(attribute("new", &value));
            });
            prop_assert_eq!(decoded(signal, &edited.payload).encode(), expected.encode());
        }
    }

    #[test]
    fn all_attributes_can_be_taken_away(seed: u64) {
        for signal in Signal::ALL {
            let payload = Bytes::from(Draw::new(seed).request(signal));
            let edited = edit(signal, &payload, &mut All(|_: AttributesView<'_>, _: &mut AttributesWriter| Edit::Replace));
            let mut request = decoded(signal, &edited.payload);
            for_each_list(&mut request, |list| assert!(list.is_empty()));
            prop_assert_eq!(request.items().len() as u64, count::items(signal, &payload));
        }
    }

    #[test]
    fn dropping_items_leaves_the_others_as_they_were(seed: u64, of in 1_usize..5) {
        for signal in Signal::ALL {
            let payload = Bytes::from(Draw::new(seed).request(signal));
            let before = count::items(signal, &payload);
            let edited = edit(signal, &payload, &mut Items { at: 0, decide: |n| if n % of == 0 { Edit::Drop } else { Edit::Keep } });
            let after = decoded(signal, &edited.payload).items();
            prop_assert_eq!(before, after.len() as u64 + edited.dropped);
            let mut all = decoded(signal, &payload).items();
            for item in after {
                let at = all.binary_search(&item);
                prop_assert!(at.is_ok());
                all.remove(at.unwrap());
            }
            prop_assert_eq!(all.len() as u64, edited.dropped);
        }
    }

    #[test]
    fn damaged_requests_are_edited_without_a_panic(seed: u64, at: prop::sample::Index, byte: u8) {
        for signal in Signal::ALL {
            let mut payload = Draw::new(seed).request(signal);
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            edit(signal, &Bytes::from(payload), &mut All(|_: AttributesView<'_>, out: &mut AttributesWriter| {
                out.int("n", 1);
                Edit::Append
            }));
        }
    }
}

#[test]
fn envelopes_that_lose_all_items_go() {
    let mut all = request(vec![span("a")]);
    all.resource_spans.extend(request(vec![span("b"), span("c")]).resource_spans);
    let payload = Bytes::from(all.encode_to_vec());
    let edited = edit(Signal::Traces, &payload, &mut Items { at: 0, decide: |n| if n == 0 { Edit::Drop } else { Edit::Keep } });
    all.resource_spans.remove(0);
    assert_eq!(edited.payload, all.encode_to_vec());
    let nothing = edit(Signal::Traces, &payload, &mut Items { at: 0, decide: |_| Edit::Drop });
    assert_eq!((&nothing.payload[..], nothing.dropped), (&[][..], 3));
}

#[test]
fn a_dropped_resource_takes_its_items_along() {
    struct NoCart;
    impl Editor for NoCart {
        fn resource(&mut self, resource: &ResourceView<'_>, _: &mut AttributesWriter) -> Edit {
            if resource.service_name() == Some("cart") { Edit::Drop } else { Edit::Keep }
        }
    }
    let mut all = request(vec![span("a"), span("b")]);
    let other = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::default()] };
    all.resource_spans.extend(other.clone().resource_spans);
    let edited = edit(Signal::Traces, &Bytes::from(all.encode_to_vec()), &mut NoCart);
    assert_eq!((&edited.payload[..], edited.dropped), (&other.encode_to_vec()[..], 2));
}

#[test]
fn a_resource_behind_its_spans_is_edited_as_well() {
    let mut payload = Vec::new();
    put_message(&mut payload, 1, |out| {
        put_message(out, 2, |out| put_bytes_always(out, 2, &span("a").encode_to_vec()));
        put_message(out, 1, |_| {});
    });
    let edited = edit(
        Signal::Traces,
        &Bytes::from(payload),
        &mut All(|list: AttributesView<'_>, out: &mut AttributesWriter| {
            out.string(if list.is_empty() { "resource" } else { "span" }, "x");
            Edit::Append
        }),
    );
    let decoded = ExportTraceServiceRequest::decode(&edited.payload[..]).unwrap();
    let of_resource = &decoded.resource_spans[0];
    assert_eq!(of_resource.resource.as_ref().unwrap().attributes, [attribute("resource", "x")]);
    let span: &Span = &of_resource.scope_spans[0].spans[0];
    assert_eq!(span.attributes[1], attribute("span", "x"));
}

#[test]
fn every_kind_of_value_can_be_written() {
    let payload = Bytes::from(one_span());
    let edited = edit(
        Signal::Traces,
        &payload,
        &mut All(|list: AttributesView<'_>, out: &mut AttributesWriter| {
            let first = list.iter().next().unwrap();
            out.bool("bool", true);
            out.int("int", -1);
            out.double("double", 1.5);
            out.bytes("bytes", &[0xff]);
            out.encoded("copy", first.value_bytes().unwrap());
            Edit::Replace
        }),
    );
    let decoded = ExportTraceServiceRequest::decode(&edited.payload[..]).unwrap();
    let list = &decoded.resource_spans[0].scope_spans[0].spans[0].attributes;
    assert_eq!(format!("{list:?}").matches("key: ").count(), 5);
    assert_eq!(list[4], attribute("copy", "GET"));
}
