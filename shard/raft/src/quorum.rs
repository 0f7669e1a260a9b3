//! How many of some voters are enough, and what so many have reached.

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

/// How many of `count` voters commit if half of an even number is enough: any that elect a leader, a
/// majority, have one of them among them.
pub(crate) fn half(count: usize) -> usize {
    count.div_ceil(2)
}

/// The greatest value that so many have reached. Sorts the slice: at most fifteen long.
///
/// # Panics
/// If the slice is shorter than that, or nobody is enough.
pub(crate) fn agreed<T: Copy + Ord>(values: &mut [T], enough: usize) -> T {
    assert!(enough > 0, "nobody agrees on anything");
    values.sort_unstable();
    values[values.len() - enough]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The majority's value for every size that matters, even and odd.
    #[test]
    fn a_majority_has_reached_it() {
        let by_majority = |values: &mut [i32]| agreed(values, majority(values.len()));
        assert_eq!(by_majority(&mut [7]), 7);
        assert_eq!(by_majority(&mut [7, 3]), 3);
        assert_eq!(by_majority(&mut [7, 3, 5]), 5);
        assert_eq!(by_majority(&mut [9, 1, 5, 7]), 5);
        assert_eq!(by_majority(&mut [9, 1, 5, 7, 2]), 5);
        for count in 1..=15 {
            assert!(majority(count) * 2 > count);
            assert!((majority(count) - 1) * 2 <= count);
        }
    }

    /// Half of an even number, a majority of an odd one; and it meets every majority.
    #[test]
    fn half_has_reached_it() {
        let by_half = |values: &mut [i32]| agreed(values, half(values.len()));
        assert_eq!(by_half(&mut [7]), 7);
        assert_eq!(by_half(&mut [7, 3]), 7);
        assert_eq!(by_half(&mut [7, 3, 5]), 5);
        assert_eq!(by_half(&mut [9, 1, 5, 7]), 7);
        for count in 1..=15 {
            assert!(half(count) + majority(count) > count);
            assert!(half(count) == majority(count) || count % 2 == 0);
        }
    }
}
