//! Excerpts and messages keep secrets in.

use proptest::prelude::*;

use super::{shown_url, veiled};

#[test]
fn excerpts_show_no_secret() {
    let text = "\
exporters:
  otlp_http:
    endpoint: https://me:hunter2@example.com/x?y=1&api_key=hunter2&z=3
    proxy_url: http://hunter2@proxy:3128
    headers: {X-Key: hunter2, other: \"hun}ter2\"}   # said
    token: hunter2
    after: open
  other: {API-Key: hunter2, list: [{secret: hunter2}], password: 'hunter2', name: open}
  more:
    headers:
      X-Tenant: hunter2
      - {name: x, value: hunter2}
    headers:
    - name: hunter2
    key_pem: |
      hunter2
        hunter2
    key_file: /k.pem
    tokens:
      - hunter2
      - \"hunter2
        hunter2\"
    open: yes
    sasl: {Password:
      hunter2, user: me}
    api: {key: hunter2, site: eu}
    \"token\":\"hunter2\"
    cookies: [hunter2,
      hunter2]
    path: /p
  broken: {token: hunter2
exporters::otlp_http::headers::x: hunter2
exporters.otlp_http.auth.token: hunter2
endpoint: me:hunter2@host:4317
";
    let veiled = veiled(text);
    assert!(!veiled.contains("hunter2") && !veiled.contains("ter2"), "{veiled}");
    assert_eq!(veiled.len(), text.len());
    let breaks = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(breaks(&veiled), breaks(text));
    for kept in [
        "https://**********@example.com/x?y=1&api_key=*******&z=3",
        "after: open",
        "name: open",
        "X-Tenant: ***",
        "key_file: /k.pem",
        "open: yes",
        "path: /p",
        "@host:4317",
        "exporters::otlp_http::headers::x: ***",
    ] {
        assert!(veiled.contains(kept), "{kept}\n{veiled}");
    }
}

#[test]
fn urls_are_shown_without_their_secrets() {
    for (url, shown) in [
        ("http://a:b@c:1/x", "http://a:[REDACTED]@c:1/x"),
        ("https://token@c", "https://[REDACTED]@c"),
        ("a:b@c:4317", "a:[REDACTED]@c:4317"),
        ("http://c/x?token=t&y=1", "http://c/x?token=[REDACTED]&y=1"),
        ("http://c/x?key=t#z", "http://c/x?key=[REDACTED]#z"),
        ("http://c:4318/v1/traces?x=y", "http://c:4318/v1/traces?x=y"),
        ("[::1]:4317", "[::1]:4317"),
    ] {
        assert_eq!(shown_url(url), shown);
    }
}

proptest! {
    #[test]
    fn places_stay_right_whatever_the_text(text in "([a-z: {}\\[\\],\"'|>\n-]|token: |headers:|é|\u{85}){0,40}") {
        let veiled = veiled(&text);
        prop_assert_eq!(veiled.len(), text.len());
        prop_assert_eq!(veiled.matches('\n').count(), text.matches('\n').count());
    }
}
