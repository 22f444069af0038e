//! What tells the records of a segment from what lay in the same blocks before.

use std::collections::HashSet;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::signal::UnixNanos;

/// Gives each segment a number of its own. They begin at random: neither a clock nor what is found on the disk tells what an earlier life gave, a clock
/// may go back, and a power cut may take a segment's name today and bring it back tomorrow.
#[derive(Debug)]
pub(super) struct Nonces {
    next: u64,
    /// What is found on the disk, as far as a checksum tells it apart.
    found: HashSet<u32>,
}

impl Nonces {
    pub(super) fn random(now: UnixNanos) -> Self {
        let mut bytes = [0; 8];
        // Without randomness the clock has to do.
        Self::from(SystemRandom::new().fill(&mut bytes).map_or(now.0, |()| u64::from_le_bytes(bytes)))
    }

    /// This one is not given to another segment.
    pub(super) fn found(&mut self, nonce: u64) {
        self.found.insert(folded(nonce));
    }

    pub(super) fn next(&mut self) -> u64 {
        // There are fewer files than numbers.
        loop {
            let next = self.next;
            self.next = next.wrapping_add(1);
            if !self.found.contains(&folded(next)) {
                return next;
            }
        }
    }
}

impl From<u64> for Nonces {
    fn from(first: u64) -> Self {
        Self { next: first, found: HashSet::new() }
    }
}

/// What the checksum of a record begins with.
pub(super) fn folded(nonce: u64) -> u32 {
    nonce as u32 ^ (nonce >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_not_given_again_by_either_half() {
        let mut nonces = Nonces::from(5);
        nonces.found(5);
        // The same to a checksum as 6.
        nonces.found(6 << 32);
        assert_eq!((nonces.next(), nonces.next()), (7, 8));
    }

    #[test]
    fn each_life_begins_elsewhere_whatever_the_clock_says() {
        let [mut one, mut other] = [(); 2].map(|()| Nonces::random(UnixNanos(1)));
        assert_ne!(one.next(), other.next());
    }
}
