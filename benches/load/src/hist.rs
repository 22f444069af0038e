//! Latency histogram with about 1.5% resolution and no allocation after start.

const SUB: usize = 64;

#[derive(Clone)]
pub struct Hist {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Hist {
    pub fn new() -> Hist {
        Hist { buckets: vec![0; SUB * 64], count: 0, max: 0 }
    }

    fn index(v: u64) -> usize {
        if v < SUB as u64 {
            return v as usize;
        }
        let log = 63 - v.leading_zeros() as usize;
        let shift = log - 6;
        (shift + 1) * SUB + ((v >> shift) as usize - SUB)
    }

    fn floor(i: usize) -> u64 {
        if i < SUB {
            return i as u64;
        }
        let shift = i / SUB - 1;
        ((i % SUB + SUB) as u64) << shift
    }

    pub fn add(&mut self, v: u64) {
        self.buckets[Hist::index(v)] += 1;
        self.count += 1;
        self.max = self.max.max(v);
    }

    pub fn merge(&mut self, other: &Hist) {
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn quantile(&self, q: f64) -> u64 {
        let want = (self.count as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= want {
                return Hist::floor(i).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::Hist;

    #[test]
    fn quantiles_are_close() {
        let mut h = Hist::new();
        for v in 1..=100_000u64 {
            h.add(v * 1000);
        }
        for (q, want) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0)] {
            let got = h.quantile(q) as f64;
            assert!((got / want - 1.0).abs() < 0.02, "{q}: {got}");
        }
        assert_eq!(h.quantile(1.0).max(h.max()), 100_000_000);
    }
}
