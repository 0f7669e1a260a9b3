//! Which keys a run touches: random, seeded, and without allocating.

/// Bytes of a key: its number in hexadecimal.
pub(super) const KEY_BYTES: usize = 16;

/// A key's bytes: its number in hexadecimal, so that all keys are equally long.
pub(super) fn key_bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
    }
    bytes
}

/// The golden ratio in 64 bits: an odd number that spreads neighbours.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood 2014): small, fast, and the same everywhere.
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// The numbers of one connection: others with the same seed get others.
    pub(super) fn new(seed: u64, connection: usize) -> Self {
        Self(seed.wrapping_add(connection as u64).wrapping_mul(MIX))
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(MIX);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, by multiplication: the bias is below one in 2^32 here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are spread evenly and come again with the same seed.
    #[test]
    fn keys_are_seeded_and_spread() {
        let mut counts = [0u32; 8];
        let (mut one, mut other) = (SplitMix::new(7, 0), SplitMix::new(7, 0));
        for _ in 0..80_000 {
            let key = one.below(8);
            assert_eq!(key, other.below(8));
            counts[key as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(&key_bytes(0xab), b"00000000000000ab");
    }
}
