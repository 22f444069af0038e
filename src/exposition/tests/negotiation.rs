//! The headers that scrapers really send.

use http::{HeaderMap, HeaderValue, header};

use crate::exposition::{Choice, Escaping, Format, choose, takes_gzip};

fn accept(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
    headers
}

#[track_caller]
fn check(text: &str, format: Format, escaping: Escaping) {
    assert_eq!(choose(&accept(text), true), Choice { format, escaping }, "{text}");
}

const V2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const V2_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const V3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
const V3_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
const V3_UNDERSCORES: &str = "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

#[test]
fn gives_prometheus_2_what_it_asks_for() {
    check(V2, Format::OpenMetrics1_0_0, Escaping::Underscores);
    check(V2_NATIVE, Format::Protobuf, Escaping::Underscores);
}

#[test]
fn gives_prometheus_3_what_it_asks_for() {
    check(V3, Format::OpenMetrics1_0_0, Escaping::AllowUtf8);
    check(V3_NATIVE, Format::Protobuf, Escaping::Underscores);
    check(V3_UNDERSCORES, Format::OpenMetrics1_0_0, Escaping::Underscores);
}

#[test]
fn gives_text_where_open_metrics_is_off() {
    let choice = choose(&accept(V2), false);
    assert_eq!(choice, Choice { format: Format::Text0_0_4, escaping: Escaping::Underscores });
    let choice = choose(&accept(V3), false);
    assert_eq!(choice, Choice { format: Format::Text1_0_0, escaping: Escaping::AllowUtf8 });
    assert_eq!(choose(&accept(V3_NATIVE), false).format, Format::Protobuf);
}

#[test]
fn gives_plain_text_to_everybody_else() {
    for text in [
        "",
        "*/*",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "text/plain",
        "application/json",
        "text/plain;version=9.9.9",
        ";;,,=q",
    ] {
        check(text, Format::Text0_0_4, Escaping::Underscores);
    }
    assert_eq!(choose(&HeaderMap::new(), true).format, Format::Text0_0_4);
}

#[test]
fn weighs_by_q_and_then_by_order() {
    check(
        "text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.4",
        Format::OpenMetrics1_0_0,
        Escaping::Underscores,
    );
    check("text/plain;version=1.0.0,application/openmetrics-text;version=1.0.0", Format::Text1_0_0, Escaping::Underscores);
    check("application/openmetrics-text;version=1.0.0;q=0,text/plain;q=0.1", Format::Text0_0_4, Escaping::Underscores);
    check("application/openmetrics-text;version=1.0.0;q=bad,text/plain;q=0.1", Format::Text0_0_4, Escaping::Underscores);
    check("Application/OpenMetrics-Text; Version=\"1.0.0\" ; ESCAPING=dots", Format::OpenMetrics1_0_0, Escaping::Dots);
    check("application/openmetrics-text", Format::OpenMetrics0_0_1, Escaping::Underscores);
}

#[test]
fn keeps_quoted_names_out_of_formats_that_have_no_syntax_for_them() {
    check("text/plain;version=0.0.4;escaping=allow-utf-8", Format::Text0_0_4, Escaping::Underscores);
    check("text/plain;version=0.0.4;escaping=values", Format::Text0_0_4, Escaping::Values);
    check("text/plain;version=1.0.0;escaping=unheard-of", Format::Text1_0_0, Escaping::Underscores);
}

#[test]
fn reads_the_second_accept_header_too() {
    let mut headers = accept("application/json");
    headers.append(header::ACCEPT, HeaderValue::from_static("application/openmetrics-text;version=1.0.0"));
    assert_eq!(choose(&headers, true).format, Format::OpenMetrics1_0_0);
}

#[test]
fn says_what_it_sends() {
    assert_eq!(
        Format::OpenMetrics1_0_0.content_type(Escaping::AllowUtf8),
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    );
    assert_eq!(
        Format::Text0_0_4.content_type(Escaping::Underscores),
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
}

#[test]
fn compresses_only_where_it_is_asked_to() {
    let takes = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
        takes_gzip(&headers)
    };
    assert!(takes("gzip"));
    assert!(takes("deflate, GZIP;q=0.5"));
    assert!(takes("*"));
    assert!(!takes("gzip;q=0, *"));
    assert!(!takes("identity"));
    assert!(!takes("br"));
    assert!(!takes_gzip(&HeaderMap::new()));
}
