//! What needs no socket: endpoints, proxy rules, message buffers; and certificates that change on disk.

use std::{fs, io::IoSlice};

use bytes::{Buf, Bytes};
use tempfile::TempDir;
use tokio::time::{Duration, advance};

use super::{endpoint::Place, proxy::Proxy, testing::Certificates, *};
use crate::transport::tls::client::{TlsClient, TlsClientSettings};

fn host(host: &str, port: u16) -> Place {
    Place::Host { host: host.to_owned(), port }
}

#[test]
fn reads_grpc_endpoints_in_every_spelling() {
    for (text, place, tls, spread) in [
        ("backend:4317", host("backend", 4317), None, false),
        ("http://backend:4317", host("backend", 4317), Some(false), false),
        ("https://backend:4317/", host("backend", 4317), Some(true), false),
        ("dns:///backend:4317", host("backend", 4317), None, true),
        ("dns://8.8.8.8/backend:4317", host("backend", 4317), None, true),
        ("dns:backend:4317", host("backend", 4317), None, true),
        ("passthrough:///backend:4317", host("backend", 4317), None, false),
        ("[::1]:4317", host("::1", 4317), None, false),
        (":4317", host("localhost", 4317), None, false),
        ("unix:///run/a.sock", Place::Unix("/run/a.sock".into()), None, false),
        ("unix:run/a.sock", Place::Unix("run/a.sock".into()), None, false),
    ] {
        assert_eq!(Endpoint::grpc(text), Ok(Endpoint { place, tls, spread, path: String::new() }), "{text}");
    }
    // The Collector wants a port in every spelling but a socket's.
    for text in ["backend", "https://backend", "dns:///backend", "::1", "[::1]", "user:pw@backend:4317"] {
        let problem = Endpoint::grpc(text).unwrap_err();
        assert!(problem.contains(":4317`") || problem.contains("basic_auth"), "{text}: {problem}");
        assert!(!problem.contains("pw"), "{problem}");
    }
    for text in ["", "a:b", "a:0", "a:70000", "[::1:4317", "a b:1", "a:1/x", "unix:", "tcp://a:1"] {
        assert!(Endpoint::grpc(text).is_err(), "{text}");
    }
}

#[test]
fn reads_http_endpoints() {
    for (text, place, path, header) in [
        ("http://backend:4318/v1/traces?a=b", host("backend", 4318), "/v1/traces?a=b", "backend:4318"),
        ("https://backend#x", host("backend", 443), "", "backend"),
        ("HTTP://backend", host("backend", 80), "", "backend"),
        ("http://[::1]:80", host("::1", 80), "", "[::1]"),
        ("https://[::1]:80", host("::1", 80), "", "[::1]:80"),
    ] {
        let endpoint = Endpoint::http(text).unwrap();
        assert_eq!(
            (endpoint.place.clone(), endpoint.path.as_str(), endpoint.host_header()),
            (place, path, header.to_owned()),
            "{text}"
        );
    }
    for text in ["backend:4318", "ftp://a", "http://", "http://a:b", "http://u@a"] {
        assert!(Endpoint::http(text).is_err(), "{text}");
    }
}

#[test]
fn proxies_what_the_variables_say() {
    let no_proxy = "*.internal, .corp,exact.test , 10.0.0.0/8,port.test:4317,192.168.1.1,2001:db8::/32";
    let rules = ProxyRules::read(|name| match name {
        "HTTPS_PROXY" => Some("http://secure:1".to_owned()),
        "http_proxy" => Some("plain:2".to_owned()),
        "NO_PROXY" => Some(no_proxy.to_owned()),
        _ => None,
    });
    for (name, port, proxied) in [
        ("backend", 4317, true),
        ("localhost", 4317, false),
        ("127.9.9.9", 4317, false),
        ("::1", 4317, false),
        ("a.internal", 4317, false),
        ("internal", 4317, true),
        ("a.b.corp", 4317, false),
        ("notcorp", 4317, true),
        ("exact.test", 4317, false),
        ("below.EXACT.test.", 4317, false),
        ("inexact.test", 4317, true),
        ("10.255.0.1", 4317, false),
        ("11.0.0.1", 4317, true),
        ("port.test", 4317, false),
        ("port.test", 4318, true),
        ("192.168.1.1", 1, false),
        ("192.168.1.2", 1, true),
        ("2001:db8:1::1", 1, false),
        ("2001:db9::1", 1, true),
    ] {
        assert_eq!(rules.of(&host(name, port), true).is_some(), proxied, "{name}:{port}");
    }
    assert_eq!(rules.of(&host("backend", 1), false).unwrap().endpoint.place, host("plain", 2));
    assert_eq!(rules.of(&Place::Unix("/x".into()), true), None);
    let none = ProxyRules::read(|name| Some(if name == "NO_PROXY" { "*" } else { "http://p" }.to_owned()));
    assert_eq!(none.of(&host("backend", 1), true), None);
    let always = ProxyRules::always(Proxy::parse("http://p:3").unwrap());
    assert!(always.of(&host("localhost", 1), false).is_some());
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut copy = message.clone();
    copy.copy_to_bytes(copy.remaining()).to_vec()
}

#[test]
fn a_message_is_its_parts_in_order() {
    let parts: Vec<Bytes> =
        [10, 5000, 3, 4, 0, 100_000, 70, 4095, 4096].iter().map(|len| vec![*len as u8; *len].into()).collect();
    for count in 0..=parts.len() {
        let some = &parts[..count];
        let message = Message::of_parts(some.iter());
        assert_eq!(bytes(&message), some.concat());
        assert_eq!(message.len(), some.concat().len());
    }
}

#[test]
fn large_parts_are_not_copied_and_small_ones_share_a_buffer() {
    let large = Bytes::from(vec![1; 5000]);
    let mut parts = vec![Bytes::from_static(b"small"); 1000];
    parts.push(large.clone());
    let message = Message::of_parts(parts.iter());
    let mut slices = [IoSlice::new(&[]); 16];
    assert_eq!(message.chunks_vectored(&mut slices), 2);
    assert_eq!(slices[1].as_ptr(), large.as_ptr());
    let alone = Bytes::from_static(b"small");
    assert_eq!(Message::of_parts([&alone].into_iter()).chunk().as_ptr(), alone.as_ptr());
}

#[test]
fn a_message_can_be_taken_in_any_steps() {
    let parts: Vec<Bytes> = (1..40).map(|len| vec![len as u8; len * 300].into()).collect();
    let message = Message::of_parts(parts.iter()).framed(false).unwrap();
    let whole = bytes(&message);
    assert_eq!(whole[..5], [&[0][..], &(parts.concat().len() as u32).to_be_bytes()].concat());
    for step in [1, 7, 4096, 100_000] {
        let mut rest = message.clone();
        let mut taken = Vec::new();
        while rest.has_remaining() {
            let count = step.min(rest.remaining());
            let mut left = count;
            while left > 0 {
                let chunk = rest.chunk();
                let here = chunk.len().min(left);
                taken.extend_from_slice(&chunk[..here]);
                rest.advance(here);
                left -= here;
            }
        }
        assert_eq!(taken, whole, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_are_read_again_when_they_change() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("ca.pem");
    fs::write(&path, Certificates::new().ca).unwrap();
    let settings = TlsClientSettings { ca_file: path.display().to_string(), ..TlsClientSettings::default() };
    let client = TlsClient::new(settings, &[b"h2"]).unwrap();
    let first = client.config();
    advance(Duration::from_mins(1)).await;
    assert!(std::sync::Arc::ptr_eq(&first, &client.config()), "nothing has changed");
    fs::write(&path, "no certificate, and of another length").unwrap();
    advance(Duration::from_mins(1)).await;
    assert!(std::sync::Arc::ptr_eq(&first, &client.config()), "what cannot be read is not taken");
    fs::write(&path, [Certificates::new().ca, Certificates::new().ca].concat()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &client.config()), "not so soon");
    advance(Duration::from_mins(1)).await;
    assert!(!std::sync::Arc::ptr_eq(&first, &client.config()));
}

#[test]
fn a_missing_file_is_named() {
    let settings = TlsClientSettings { ca_file: "/nowhere/ca.pem".to_owned(), ..TlsClientSettings::default() };
    let error = TlsClient::new(settings, &[]).err().unwrap().to_string();
    assert_eq!(error, "tls::ca_file: cannot read /nowhere/ca.pem: No such file or directory (os error 2)");
}

#[test]
fn all_files_that_cannot_be_read_are_named_at_once() {
    let nowhere = |name: &str| format!("/nowhere/{name}");
    let settings = TlsClientSettings {
        ca_file: nowhere("ca"),
        cert_file: nowhere("cert"),
        key_file: nowhere("key"),
        ..TlsClientSettings::default()
    };
    let faults = TlsClient::new(settings, &[]).err().unwrap().faults();
    let named: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(named.len(), 3, "{named:?}");
}
