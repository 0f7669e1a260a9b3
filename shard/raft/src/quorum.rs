//! Majorities over a slice of numbers.

#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};

/// How many of `count` voters are a majority.
pub(crate) fn majority(count: usize) -> usize {
    #[cfg(ringraft_plant)]
    if planted(Plant::HalfIsMajority) {
        return count.div_ceil(2);
    }
    count / 2 + 1
}

/// The greatest value that a majority has reached. Sorts the slice: at most fifteen long.
///
/// # Panics
/// If the slice is empty: nobody asks for the majority of nobody.
pub(crate) fn agreed<T: Copy + Ord>(values: &mut [T]) -> T {
    assert!(!values.is_empty());
    values.sort_unstable();
    values[values.len() - majority(values.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The majority's value for every size that matters, even and odd.
    #[test]
    fn a_majority_has_reached_it() {
        assert_eq!(agreed(&mut [7]), 7);
        assert_eq!(agreed(&mut [7, 3]), 3);
        assert_eq!(agreed(&mut [7, 3, 5]), 5);
        assert_eq!(agreed(&mut [9, 1, 5, 7]), 5);
        assert_eq!(agreed(&mut [9, 1, 5, 7, 2]), 5);
        for count in 1..=15 {
            assert!(majority(count) * 2 > count);
            assert!((majority(count) - 1) * 2 <= count);
        }
    }
}
