//! The highest values of a row: one order for all who name classes.

use std::cmp::Ordering;

/// Places of the `count` highest values, highest first; of equal values the lower place first.
pub fn highest<T: Copy>(values: &[T], count: usize, order: impl Fn(T, T) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    let order = |a: &usize, b: &usize| order(values[*b], values[*a]).then(a.cmp(b));
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_unstable_by(order);
    places
}

/// The order of floats in which NaN is below all numbers.
pub fn by_number(a: f64, b: f64) -> Ordering {
    // Two numbers have an order; where one is none, `false` is less.
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_highest_stand_first() {
        let check = |values: &[f64], count, places: &[usize]| assert_eq!(highest(values, count, by_number), places);
        check(&[0.5, 2.0, 1.0], 2, &[1, 2]);
        check(&[1.0, 3.0, 3.0, 1.0], 9, &[1, 2, 0, 3]);
        check(&[f64::NAN, -1.0, f64::NEG_INFINITY, -f64::NAN, 0.0, -0.0], 6, &[4, 5, 1, 2, 0, 3]);
        check(&[f64::NAN, 1.0], 1, &[1]);
        check(&[], 1, &[]);
        check(&[1.0], 0, &[]);
    }

    proptest! {
        #[test]
        fn fewer_are_the_first_of_all(values in prop::collection::vec(any::<f64>(), 0..40), count in 0usize..40) {
            let all = highest(&values, values.len(), by_number);
            prop_assert_eq!(highest(&values, count, by_number), &all[..count.min(all.len())]);
        }
    }
}
