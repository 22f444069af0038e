//! The promises of the store.
#![expect(clippy::float_cmp, reason = "sums of few whole numbers are exact")]

use proptest::prelude::*;

use super::{
    ExponentialHistogram, Key, KeyHead, Observation, RowStore, Shape,
    snapshot::{Reader, Writer},
};

fn key(owner: u32, name: &str) -> Key<'_> {
    Key { head: KeyHead { owner, name_len: name.len() as u32, ..KeyHead::default() }, tail: name.as_bytes() }
}

fn store() -> RowStore<()> {
    RowStore::new(Shape { bounds: Box::new([1.0, 2.0]), exponential: None })
}

fn seen(value: f64) -> Observation {
    Observation { value, weight: 1.0, size: 0.0, received_unix_nanos: 5, error: false }
}

#[test]
fn finds_each_of_many_rows_again() {
    let mut store = store();
    let names: Vec<String> = (0..5000).map(|n| format!("{n}{}", "x".repeat(n % 60))).collect();
    for (at, name) in names.iter().enumerate() {
        let found = store.find_or_insert(&key(at as u32 % 3, name), 1);
        assert!(found.new);
        store.observe(found.row, &seen(at as f64));
    }
    for (at, name) in names.iter().enumerate() {
        let found = store.find_or_insert(&key(at as u32 % 3, name), 1);
        assert!(!found.new);
        let (sum, ..) = store.numbers(found.row).unwrap();
        assert!((sum - at as f64).abs() < 1e-9);
    }
    assert_eq!(store.len(), 5000);
    assert_eq!(store.rows().count(), 5000);
}

#[test]
fn owner_and_name_do_not_run_together() {
    let mut store = store();
    let mut longer = key(0, "ab");
    longer.head.name_len = 1;
    let rows = [key(0, "ab"), key(1, "ab"), key(0, "a"), longer].map(|key| store.find_or_insert(&key, 1).row);
    assert_eq!(rows.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
}

#[test]
fn a_place_is_used_again_with_nothing_left_in_it() {
    let mut store = store();
    let first = store.find_or_insert(&key(0, "a"), 1).row;
    store.observe(first, &seen(1.5));
    store.remove(first);
    assert!(store.is_empty());
    assert!(store.numbers(first).is_none());
    let again = store.find_or_insert(&key(0, "b"), 7);
    assert!(again.new);
    assert_eq!(again.row, first);
    let (sum, _, last, counts) = store.numbers(again.row).unwrap();
    assert_eq!((sum, last, counts.collect::<Vec<_>>()), (0.0, 7, vec![0.0; 3]));
    assert_eq!(store.find(store.hash(&key(0, "a")), &key(0, "a")), None);
}

#[test]
fn rows_are_written_down_as_they_stood_whatever_changes_meanwhile() {
    let filled = || {
        let mut store = store();
        for number in 0..700 {
            let row = store.find_or_insert(&key(0, &format!("row {number}")), 1).row;
            store.observe(row, &seen(f64::from(number)));
        }
        store
    };
    let written = |meddle: &dyn Fn(&mut RowStore<()>)| {
        let (mut store, mut out) = (filled(), Writer::new());
        store.begin_saving(&mut out);
        assert!(store.save_page(), "one of two pages");
        meddle(&mut store);
        while store.save_page() {}
        store.saved().unwrap().finish(&mut out);
        out.into_bytes()
    };
    let calm = written(&|_| {});
    let beside = written(&|store| {
        for number in [3, 511, 512, 600, 699] {
            let row = store.find_or_insert(&key(0, &format!("row {number}")), 1).row;
            store.observe(row, &seen(1.0));
        }
        let row = store.find_or_insert(&key(0, "row 650"), 1).row;
        store.remove(row);
        // The first takes the place of the one that went; the page gets longer with the others, and another page comes.
        for number in 0..400 {
            store.find_or_insert(&key(1, &format!("new {number}")), 1);
        }
        store.all_were_seen();
    });
    assert!(calm == beside);
    assert_eq!(RowStore::<()>::read(filled().shape().clone(), &mut Reader::new(&calm)).unwrap().len(), 700);
}

#[test]
fn exponential_buckets_hold_what_their_bounds_say() {
    for max_size in [2, 5, 160] {
        let mut histogram = ExponentialHistogram::new(max_size, super::EXPONENTIAL_SCALE_MAX);
        let values: Vec<f64> = (1..400).map(|n| f64::from(n * n) / 7.0).chain([1.0, 2.0, 4.0, 0.25, 1e-6]).collect();
        for value in &values {
            histogram.observe(*value, 1.0);
        }
        assert!(histogram.counts().len() <= max_size as usize);
        let base = 2_f64.powf(2_f64.powi(-histogram.scale()));
        let mut total = 0.0;
        for (at, count) in histogram.counts().iter().enumerate() {
            let low = base.powi(histogram.offset() + at as i32);
            let high = low * base;
            let near = |value: f64, bound: f64| (value / bound - 1.0).abs() < 1e-9;
            let surely = values.iter().filter(|v| **v > low && **v <= high && !near(**v, low) && !near(**v, high)).count();
            let maybe = values.iter().filter(|v| near(**v, low) || near(**v, high)).count();
            assert!(*count >= surely as f64 && *count <= (surely + maybe) as f64, "bucket {at} of {max_size}");
            total += count;
        }
        assert_eq!(total, values.len() as f64);
    }
}

#[test]
fn powers_of_two_are_upper_bounds() {
    for scale in -3..=20 {
        for power in [-3, 0, 1, 10] {
            let value = 2_f64.powi(power);
            let index = super::exponential::index_of(value, scale);
            let bound = f64::from(index + 1) * 2_f64.powi(-scale);
            assert!(bound >= f64::from(power) && bound - 2_f64.powi(-scale) < f64::from(power), "2^{power} at scale {scale}");
        }
    }
}

#[test]
fn adding_histograms_loses_nothing() {
    let mut fine = ExponentialHistogram::new(20, 20);
    let mut coarse = ExponentialHistogram::new(20, 20);
    for n in 1..50 {
        fine.observe(1.0 + f64::from(n) / 1e4, 1.0);
        coarse.observe(f64::from(n * n * n), 2.0);
    }
    coarse.observe(0.0, 1.0);
    for (mut to, from) in [(fine.clone(), &coarse), (coarse.clone(), &fine)] {
        to.add(from);
        assert_eq!(to.counts().iter().sum::<f64>() + to.zero_count(), 49.0 + 98.0 + 1.0);
        assert!(to.counts().len() <= 20);
        assert_eq!(to.range(), Some((0.0, 49.0 * 49.0 * 49.0)));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        number: u64, signed: i64, bits: u64, flag: bool, text: String, bytes: Vec<u8>, option: Option<u32>, small: u32,
    ) {
        let mut out = Writer::new();
        out.number(number);
        out.signed(signed);
        out.double(f64::from_bits(bits));
        out.flag(flag);
        out.text(&text);
        out.bytes(&bytes);
        out.option(option, Writer::number);
        out.number(small);
        let written = out.into_bytes();
        let mut from = Reader::new(&written);
        prop_assert_eq!(from.number(), Ok(number));
        prop_assert_eq!(from.signed(), Ok(signed));
        prop_assert_eq!(from.double().map(f64::to_bits), Ok(bits));
        prop_assert_eq!(from.flag(), Ok(flag));
        prop_assert_eq!(from.text(), Ok(&*text));
        prop_assert_eq!(from.bytes(), Ok(&*bytes));
        prop_assert_eq!(from.option(Reader::small::<u32>), Ok(option));
        prop_assert_eq!(from.small::<u16>().ok(), u16::try_from(small).ok());
        prop_assert_eq!(from.end(), Ok(()));
    }
}

#[test]
fn a_count_is_held_against_what_follows() {
    let mut out = Writer::new();
    out.number(u64::MAX);
    out.raw(&[0; 40]);
    let bytes = out.into_bytes();
    assert!(Reader::new(&bytes).count(1).is_err());
    assert!(Reader::new(&bytes).bytes().is_err());
    assert!(Reader::new(&[0xff; 11]).number().is_err());
    assert!(Reader::new(&[5, 0, 0, 0, 0]).count(1).is_err());
    assert_eq!(Reader::new(&[5, 0, 0, 0, 0, 0]).count(1), Ok(5));
}
