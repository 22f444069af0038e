//! What becomes of pages: types, names, units, times, exemplars, resources and scopes.

use super::*;

#[test]
fn each_type_becomes_what_the_specification_says() {
    let page = "\
# HELP hits_total Requests \\\\ lines\\n seen
# TYPE hits_total counter
hits_total{code=\"200\",job=\"own\"} 3 1700000000123
# TYPE temp gauge
temp -1.5
# TYPE lat histogram
lat_bucket{le=\"0.1\",path=\"/\"} 1
lat_bucket{le=\"1\",path=\"/\"} 4
lat_bucket{path=\"/\",le=\"+Inf\"} 5
lat_sum{path=\"/\"} 3.25
lat_count{path=\"/\"} 5
# TYPE size summary
size{quantile=\"0.5\"} 10
size{quantile=\"0.9\"} 20
size_sum 100
size_count 7
untold{a=\"\"} NaN
odd +Inf
# TYPE build info
build_info{v=\"1\"} 1
# TYPE st stateset
st{st=\"a\"} 1
";
    let expected = [
        "counter hits_total {code=200,exported_job=own} 3 @1700000000123000000",
        "gauge temp {} -1.5",
        "histogram lat {path=/} 5 Some(3.25) [0.1, 1.0] [1, 3, 1]",
        "summary size {} 7 100 [(0.5, 10.0), (0.9, 20.0)]",
        "gauge untold {} NaN",
        "gauge odd {} inf",
        "level build {v=1} 1",
        "level st {st=a} 1",
    ];
    assert_eq!(points("", page), expected);
}

#[test]
fn open_metrics_has_units_exemplars_seconds_and_beginnings() {
    let page = "\
# TYPE req counter
# UNIT req_seconds seconds
# TYPE req_seconds counter
req_seconds_total{a=\"b\"} 2 1700000000.5 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\",span_id=\"b7ad6b7169203331\",k=\"v\"} 0.5 1700000000
req_seconds_created{a=\"b\"} 1600000000.25 1700000000.5
# TYPE lat histogram
lat_bucket{le=\"1.0\"} 1 # {} 0.5
lat_bucket{le=\"+Inf\"} 2 # {trace_id=\"zz\"} 3
lat_count 2
lat_created 1600000000
# TYPE gh gaugehistogram
gh_bucket{le=\"+Inf\"} 1
gh_gcount 1
gh_gsum 1
# EOF
";
    let lines = told(&job(""), Format::Open, page.as_bytes()).unwrap();
    let expected = [
        "[service.name=j,server.address=h,service.instance.id=h:1,server.port=1,url.scheme=http]",
        "(prometheusreceiver   )",
        "counter req_seconds_total in s {a=b} 2 since 1600000000250000000 @1700000000500000000 \
         ex(0.5 1700000000000000000 0af7651916cd43dd8448eb211c80319c/b7ad6b7169203331 k=v)",
        "histogram lat {} 2 None [1.0] [1, 1] since 1600000000000000000 ex(0.5 0 / ) ex(3 0 / trace_id=zz)",
    ];
    assert_eq!(lines, expected);
    let whole = page.strip_suffix("# EOF\n").unwrap();
    let fault = told(&job(""), Format::Open, whole.as_bytes()).unwrap_err();
    assert_eq!(fault.0, 14);
    assert!(told(&job(""), Format::Open, format!("{page}x 1\n").as_bytes()).is_err());
}

#[test]
fn names_in_quotes_are_names_of_any_letters() {
    let page = "{\"http.requests\", \"the label\"=\"x\", plain = \"y\\\"\\\\\\n\" ,} 1\n# TYPE \"a b\" counter\n{\"a b\"} 2\n";
    assert_eq!(points("", page), ["gauge http.requests {plain=y\"\\\n,the label=x} 1", "counter a b {} 2"]);
}

#[test]
fn target_info_is_of_the_resource_and_scope_labels_are_of_the_scope() {
    let page = "\
# TYPE target_info gauge
target_info{host_name=\"n1\",server_port=\"9\"} 1
a{otel_scope_name=\"lib\",otel_scope_version=\"2\",otel_scope_schema_url=\"u\",otel_scope_k=\"v\",x=\"y\"} 1
b{otel_scope_name=\"lib\",otel_scope_version=\"2\",otel_scope_schema_url=\"u\",otel_scope_k=\"v\"} 1
c 1
";
    let lines = told(&job(""), Format::Text, page.as_bytes()).unwrap();
    let expected = [
        "[service.name=j,server.address=h,service.instance.id=h:1,server.port=1,url.scheme=http,host_name=n1,server_port=9]",
        "(lib 2 u k=v)",
        "gauge a {x=y} 1",
        "gauge b {} 1",
        "(prometheusreceiver   )",
        "gauge c {} 1",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn honoured_labels_are_the_pages_own() {
    let page = "a{job=\"x\",instance=\"127.0.0.1:8\",z=\"1\"} 1\nb{instance=\"\"} 2\nc 3\n";
    let lines = told(&job("honor_labels: true"), Format::Text, page.as_bytes()).unwrap();
    let expected = [
        "[service.name=x,service.instance.id=127.0.0.1:8,server.port=8,url.scheme=http]",
        "(prometheusreceiver   )",
        "gauge a {z=1} 1",
        "[service.name=j,server.address=h,service.instance.id=h:1,server.port=1,url.scheme=http]",
        "(prometheusreceiver   )",
        "gauge b {} 2",
        "gauge c {} 3",
    ];
    assert_eq!(lines, expected);
    assert_eq!(points("", "a{job=\"x\",exported_job=\"y\"} 1\n"), ["gauge a {exported_exported_job=x,exported_job=y} 1"]);
}

#[test]
fn times_of_the_page_count_only_where_they_are_honoured() {
    assert_eq!(points("honor_timestamps: false", "a 1 1700000000000\n"), ["gauge a {} 1"]);
    assert_eq!(points("", "a 1 1700000000000\nb 1 -5\n"), ["gauge a {} 1 @1700000000000000000"]);
}

#[test]
fn suffixes_go_where_it_is_asked_for() {
    let job = read("{trim_metric_suffixes: true, config: {scrape_configs: [{job_name: j}]}}").remove(0);
    let page = "# UNIT a_seconds seconds\n# TYPE a_seconds counter\na_seconds_total 1\n# TYPE b_total counter\n# TYPE c gauge\nc 1\n# EOF\n";
    let lines = told(&job, Format::Open, page.as_bytes()).unwrap();
    assert_eq!(lines[2..], ["counter a in s {} 1", "gauge c {} 1"]);
}

#[test]
fn what_does_not_fit_together_is_left_out_and_counted() {
    let page = "\
a 1
a 2
# TYPE h histogram
h_bucket{le=\"1\"} 5
h_bucket{le=\"2\"} 4
h_count 6
h_sum 1
h_bucket{x=\"1\"} 5
# TYPE n histogram
n_bucket{le=\"1\"} 5
n_sum 1
";
    let (job, labels) = (job(""), target_labels());
    let mut out = Page::new(&job, &labels, "http", NOW);
    text::read(page.as_bytes(), false, &mut out).unwrap();
    let mut sheet = Sheet::default();
    assert_eq!(out.write(&mut sheet).unwrap().len(), 1);
    assert_eq!(sheet.finish().iter().flat_map(|body| lines(&body.payload)).skip(2).collect::<Vec<_>>(), ["gauge a {} 1"]);
    // One `a` twice; h: its four lines and the bucket without a bound; n: two lines.
    assert_eq!((out.scraped, out.kept, out.lost), (9, 9, [1, 7, 0, 0]));
}

#[test]
fn a_beginning_may_stand_before_or_behind_what_began() {
    let page = "a_created 1600000000\n# TYPE a_total counter\na_created 1600000000\na_total 1\n# TYPE b_total counter\nb_total 2 1700000000000\nb_created 1600000000\n";
    let expected = [
        "gauge a_created {} 1600000000",
        "counter a_total {} 1 since 1600000000000000000",
        "counter b_total {} 2 since 1600000000000000000 @1700000000000000000",
    ];
    assert_eq!(points("", page), expected);
    let typed = "# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created 1600000000\n";
    assert_eq!(points("", typed), ["counter a_total {} 1", "gauge a_created {} 1600000000"]);
}
