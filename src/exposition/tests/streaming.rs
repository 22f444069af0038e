//! Large pages: in chunks, compressed, and gone when the client is.

use std::{io::Read as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;

use super::{
    super::{
        Escaping, FamilyKind, Format, PageSource, Scrapes,
        render::render,
        sink::{CHUNK, Gone},
    },
    Said, Source, family, labels, left_out, messages, number, page_of, style,
};

fn large() -> Source {
    let series = (0..20_000).map(|at| (labels(&[("number", &at.to_string())]), number(f64::from(at)))).collect();
    Source(vec![(family("m", FamilyKind::Gauge), series)])
}

#[test]
fn sends_a_large_page_in_chunks() {
    let sources: [Arc<dyn PageSource>; 1] = [Arc::new(large())];
    let mut sizes = Vec::new();
    let mut keep = |piece: Bytes| {
        sizes.push(piece.len());
        Ok(())
    };
    assert_eq!(render(&sources, style(Format::Text0_0_4, Escaping::Underscores), &left_out(), &mut keep), Ok(()));
    assert!(sizes.len() > 5, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 2 * CHUNK), "{sizes:?}");
}

#[test]
fn splits_a_large_family_into_messages_of_one_name() {
    let families = messages::read(&page_of(vec![large()], style(Format::Protobuf, Escaping::Underscores), &left_out()));
    assert!(families.len() > 1);
    assert!(families.iter().all(|family| family.name == "m" && family.kind == 1 && !family.metric.is_empty()));
    assert_eq!(families.iter().map(|family| family.metric.len()).sum::<usize>(), 20_000);
}

#[test]
fn stops_when_nobody_reads() {
    struct Counting(Source, std::sync::atomic::AtomicUsize);
    impl PageSource for Counting {
        fn families(&self) -> Vec<super::Family> {
            self.0.families()
        }
        fn render(&self, number: usize, page: &mut super::Page<'_>) {
            for (labels, said) in &self.0.0[number].1 {
                if page.is_gone() {
                    return;
                }
                self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if let Said::Number { value, .. } = said {
                    page.number(labels, *value, 0, None, None);
                }
            }
        }
    }
    let source = Arc::new(Counting(large(), std::sync::atomic::AtomicUsize::new(0)));
    let sources: [Arc<dyn PageSource>; 1] = [source.clone()];
    let mut leave = |_: Bytes| Err(Gone);
    assert_eq!(render(&sources, style(Format::Text0_0_4, Escaping::Underscores), &left_out(), &mut leave), Err(Gone));
    assert!(source.1.load(std::sync::atomic::Ordering::Relaxed) < 10_000);
}

fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn answers_with_gzip_that_unpacks_to_the_plain_page() {
    let scrapes = Scrapes::new(true, false, Arc::new(left_out()));
    let accept = headers(&[(header::ACCEPT, "application/openmetrics-text;version=1.0.0"), (header::ACCEPT_ENCODING, "gzip")]);
    let answer = scrapes.answer(&Method::GET, &accept, vec![Arc::new(large())]);
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    );
    let packed = answer.into_body().collect().await.unwrap().to_bytes();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
    let plain = page_of(vec![large()], style(Format::OpenMetrics1_0_0, Escaping::Underscores), &left_out());
    assert!(text == plain, "{} bytes, not {}", text.len(), plain.len());
}

#[tokio::test]
async fn answers_head_without_a_body_and_refuses_other_methods() {
    let scrapes = Scrapes::new(true, false, Arc::new(left_out()));
    let answer = scrapes.answer(&Method::HEAD, &HeaderMap::new(), vec![Arc::new(large())]);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    let answer = scrapes.answer(&Method::POST, &HeaderMap::new(), Vec::new());
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn ends_a_page_that_nobody_waits_for_any_more() {
    let scrapes = Scrapes::new(true, false, Arc::new(left_out()));
    let mut wanted = HeaderMap::new();
    wanted.insert("x-prometheus-scrape-timeout-seconds", HeaderValue::from_static("0.01"));
    /// Says nothing until it is let go.
    struct Stuck(parking_lot::Mutex<std::sync::mpsc::Receiver<()>>);
    impl PageSource for Stuck {
        fn families(&self) -> Vec<super::Family> {
            self.0.lock().recv().ok();
            Vec::new()
        }
        fn render(&self, _: usize, _: &mut super::Page<'_>) {}
    }
    let (release, stuck) = std::sync::mpsc::channel();
    let answer = scrapes.answer(&Method::GET, &wanted, vec![Arc::new(Stuck(parking_lot::Mutex::new(stuck)))]);
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
    drop(release);
}

#[tokio::test]
async fn a_page_cut_short_is_an_error_and_not_a_short_page() {
    struct Broken;
    impl PageSource for Broken {
        fn families(&self) -> Vec<super::Family> {
            panic!("a bug in a source")
        }
        fn render(&self, _: usize, _: &mut super::Page<'_>) {}
    }
    let scrapes = Scrapes::new(true, false, Arc::new(left_out()));
    let answer = scrapes.answer(&Method::GET, &HeaderMap::new(), vec![Arc::new(Broken)]);
    assert!(answer.into_body().collect().await.is_err());
}
