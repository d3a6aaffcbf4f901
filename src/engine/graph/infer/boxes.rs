//! Of boxes that overlap, the best.

use super::{Fact, Facts, InferError};
use crate::engine::graph::{floats, tensor_of_integers};

/// Box numbers by image, class and descending score.
pub(super) fn suppressed(by_centre: bool, inputs: &Facts<'_>) -> Result<Fact, InferError> {
    let &[boxes, scores, count, overlap, least] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 5, got: inputs.len() });
    };
    let (&[images, total, 4], &[score_images, classes, score_total]) = (&boxes.shape[..], &scores.shape[..]) else {
        return Err(InferError::Rank { expected: "[images][boxes][4]", got: boxes.shape.to_string() });
    };
    if (images, total) != (score_images, score_total) {
        return Err(InferError::Mismatch(boxes.shape.to_string(), scores.shape.to_string()));
    }
    let known = |fact: &Fact| {
        let value = fact.value.as_ref().ok_or(InferError::Unknown { what: "which boxes overlap" })?;
        floats(value).ok_or(InferError::Type { expected: "FP32", got: fact.dtype })
    };
    let (corners, scores) = (known(boxes)?, known(scores)?);
    let first = |fact: &Fact, or: f32| Ok(known(fact)?.first().copied().unwrap_or(or));
    let (overlap, least) = (first(overlap, 0.0)?, first(least, f32::NEG_INFINITY)?);
    let count = count.integers("how many boxes at most")?.first().copied().unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(0);
    let corners: Vec<Corners> = corners.chunks_exact(4).map(|numbers| Corners::of(by_centre, numbers)).collect();
    let mut chosen = Vec::new();
    for image in 0..images {
        let corners = &corners[image * total..][..total];
        for class in 0..classes {
            let scores = &scores[(image * classes + class) * total..][..total];
            let place = |box_number: usize| [image, class, box_number].map(|at| i64::try_from(at).unwrap_or(i64::MAX));
            chosen.extend(best(corners, scores, least, overlap, count).into_iter().flat_map(place));
        }
    }
    Ok(Fact::of(tensor_of_integers(&[chosen.len() / 3, 3], &chosen)))
}

/// Boxes of one class from the best on, without those that overlap one before them.
fn best(corners: &[Corners], scores: &[f32], least: f32, overlap: f32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&at| scores[at] > least).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        if kept.len() == count {
            break;
        }
        if kept.iter().all(|&better| corners[at].overlap(&corners[better]) <= overlap) {
            kept.push(at);
        }
    }
    kept
}

#[derive(Clone, Copy, Debug)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn of(by_centre: bool, numbers: &[f32]) -> Self {
        let [a, b, c, d] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        if by_centre {
            let (width, height) = (c / 2.0, d / 2.0);
            return Self { low: [a - width, b - height], high: [a + width, b + height] };
        }
        Self { low: [a.min(c), b.min(d)], high: [a.max(c), b.max(d)] }
    }

    fn area(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// The area of both over the area of either.
    fn overlap(&self, other: &Self) -> f32 {
        let side = |axis: usize| (self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis])).max(0.0);
        let both = side(0) * side(1);
        let either = self.area() + other.area() - both;
        if both > 0.0 && either > 0.0 { both / either } else { 0.0 }
    }
}
