//! What metrics, units and attributes are called, by either convention.

use super::{
    super::host::Host,
    Rig,
    fake::{ALL, host},
};

fn table(conventions: &str) -> String {
    let root = host();
    let yaml = format!("{ALL}\nsemantic_conventions: {conventions}\n");
    let mut rig = Rig::new(&yaml, Host::whole(root.path()));
    rig.collect();
    let told = rig.collect();
    let rows = told.metrics.into_iter().map(|((name, keys), (unit, kind))| format!("{name} {unit} {kind} [{keys}]\n"));
    rows.collect()
}

/// By the Collector's documentation of its receiver, 0.160.
#[test]
fn the_older_names_are_those_of_the_collector() {
    assert_eq!(table("v0"), include_str!("../testdata/v0.txt"));
}

/// By the semantic conventions 1.44.
#[test]
fn the_newer_names_are_those_of_the_conventions() {
    assert_eq!(table("v1"), include_str!("../testdata/v1.txt"));
}

#[test]
fn both_is_either_once() {
    let both = table("both");
    let mut expected: Vec<&str> =
        include_str!("../testdata/v0.txt").lines().chain(include_str!("../testdata/v1.txt").lines()).collect();
    let key = |row: &&str| row.split(' ').next().unwrap().to_owned() + row.rsplit(' ').next().unwrap();
    expected.sort_by_key(key);
    expected.dedup_by_key(|row| key(row));
    let mut told: Vec<&str> = both.lines().collect();
    told.sort_by_key(key);
    let names = |rows: &[&str]| rows.iter().map(key).collect::<Vec<_>>();
    assert_eq!(names(&told), names(&expected));
}
