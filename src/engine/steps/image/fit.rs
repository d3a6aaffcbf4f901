//! Where an image comes to lie: pure arithmetic on extents.

use super::resample::Part;
use super::settings::{Fit, ImageSettings, Position, ResizeTo};

/// What is computed of an image, and where it lies in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) across: Part,
    pub(super) down: Part,
    /// The first column and row of the output that it takes.
    pub(super) at: [usize; 2],
    /// Of the output.
    pub(super) width: usize,
    pub(super) height: usize,
}

/// How an image of this size, which is not empty, becomes what the settings ask for; they were checked.
pub(super) fn placed(width: usize, height: usize, settings: &ImageSettings) -> Placed {
    let out = [settings.width.unwrap_or(0), settings.height];
    let whole = |extent: usize| Part { of: extent, from: 0, count: extent };
    match (settings.fit, settings.resize_to) {
        (Fit::Crop, Some(to)) => {
            let [across, down] = match to {
                ResizeTo::Exactly(to) => to,
                ResizeTo::Shorter(side) if width <= height => [side, scaled(side, height, width)],
                ResizeTo::Shorter(side) => [scaled(side, width, height), side],
            };
            let middle = |of: usize, count: usize| Part { of, from: half(of - count), count };
            let (across, down) = (middle(across, out[0]), middle(down, out[1]));
            Placed { across, down, at: [0, 0], width: out[0], height: out[1] }
        }
        (Fit::Pad, _) => {
            let ratio = (out[0] as f64 / width as f64).min(out[1] as f64 / height as f64);
            let side = |extent: usize, most: usize| rounded(extent as f64 * ratio).clamp(1, most);
            let [across, down] = [side(width, out[0]), side(height, out[1])];
            let at = match settings.position {
                Position::Centre => [(out[0] - across) / 2, (out[1] - down) / 2],
                Position::Start => [0, 0],
            };
            Placed { across: whole(across), down: whole(down), at, width: out[0], height: out[1] }
        }
        (Fit::Height, _) => {
            let ratio = width as f64 / height as f64;
            let wide = out[1] as f64 * ratio;
            let most = settings.width.unwrap_or_else(|| {
                let bounds = [settings.width_min.unwrap_or(1), settings.width_max.unwrap_or(1)];
                rounded(wide.floor()).clamp(bounds[0], bounds[1])
            });
            let across = rounded(wide.ceil()).clamp(1, most);
            Placed { across: whole(across), down: whole(out[1]), at: [0, 0], width: most, height: out[1] }
        }
        _ => Placed { across: whole(out[0]), down: whole(out[1]), at: [0, 0], width: out[0], height: out[1] },
    }
}

/// The longer side for a shorter one, the fraction left out, as torchvision and Hugging Face have it.
fn scaled(side: usize, longer: usize, shorter: usize) -> usize {
    side * longer / shorter
}

/// Half of it; of two middles the even one, as torchvision's crop has it.
fn half(extent: usize) -> usize {
    rounded(extent as f64 / 2.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "extents are positive and below 2^32")]
fn rounded(extent: f64) -> usize {
    extent.round_ties_even() as usize
}
