//! Numbers read back as what they were, spelled as others spell them.

use crate::exposition::numbers::{put_bound, put_seconds, put_value};

#[track_caller]
fn bound(value: f64, plain: &str, canonical: &str) {
    let spell = |point| {
        let mut out = Vec::new();
        put_bound(&mut out, value, point);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(spell(false), plain);
    assert_eq!(spell(true), canonical);
}

#[test]
fn spells_bounds_as_every_go_exporter_does() {
    bound(0.0, "0", "0.0");
    bound(1.0, "1", "1.0");
    bound(-5.0, "-5", "-5.0");
    bound(10.0, "10", "10.0");
    bound(0.005, "0.005", "0.005");
    bound(0.0001, "0.0001", "0.0001");
    bound(0.00001, "1e-05", "1e-05");
    bound(2.5, "2.5", "2.5");
    bound(15000.0, "15000", "15000.0");
    bound(100_000.0, "100000", "100000.0");
    bound(1_000_000.0, "1e+06", "1e+06");
    bound(1_234_567.0, "1.234567e+06", "1.234567e+06");
    bound(1e100, "1e+100", "1e+100");
    bound(123_456.789, "123456.789", "123456.789");
    bound(f64::INFINITY, "+Inf", "+Inf");
    bound(f64::NEG_INFINITY, "-Inf", "-Inf");
    bound(f64::NAN, "NaN", "NaN");
}

#[test]
fn values_and_bounds_read_back_as_the_same_number() {
    proptest::proptest!(|(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO)| {
        for canonical in [None, Some(false), Some(true)] {
            let mut out = Vec::new();
            match canonical {
                None => put_value(&mut out, value),
                Some(canonical) => put_bound(&mut out, value, canonical),
            }
            let text = String::from_utf8(out).unwrap();
            proptest::prop_assert_eq!(text.parse::<f64>().unwrap().to_bits() << 1, value.to_bits() << 1, "{}", text);
        }
    });
}

#[test]
fn writes_time_in_seconds_with_milliseconds() {
    let mut out = Vec::new();
    put_seconds(&mut out, 1_700_000_000_045_999_999);
    assert_eq!(out, b"1700000000.045");
}
