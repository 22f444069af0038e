//! Views against prost.

use proptest::prelude::*;

use super::TracesView;
use crate::{
    otlp::{arbitrary::Draw, oracle},
    signal::Signal,
};

proptest! {
    #[test]
    fn every_field_reads_as_prost_reads_it(seed: u64) {
        for signal in Signal::ALL {
            let payload = Draw::new(seed).request(signal);
            let expected = oracle::decode(signal, &payload).unwrap();
            prop_assert_eq!(oracle::view(signal, &payload).encode(), expected.encode());
        }
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(payload: Vec<u8>) {
        for signal in Signal::ALL {
            oracle::view(signal, &payload);
        }
    }

    #[test]
    fn damaged_requests_are_walked_without_a_panic(seed: u64, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        for signal in Signal::ALL {
            let mut payload = Draw::new(seed).request(signal);
            for (at, byte) in &damage {
                if !payload.is_empty() {
                    let at = at.index(payload.len());
                    payload[at] = *byte;
                }
            }
            oracle::view(signal, &payload);
        }
    }
}

#[test]
fn attributes_are_found_by_key() {
    let payload = crate::otlp::tests::one_span();
    let (resource, scope, span) = TracesView::new(&payload).items().next().unwrap();
    assert_eq!(resource.resource().service_name(), Some("cart"));
    assert_eq!(scope.scope().name, "lib");
    assert_eq!(span.attributes.string("http.request.method"), Some("GET"));
    assert_eq!(span.attributes.get("absent"), None);
}
