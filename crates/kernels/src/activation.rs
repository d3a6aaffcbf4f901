//! Functions of one element that a kernel applies to what it has just computed, while it is still in registers or in the
//! nearest cache.

use crate::f32_functions::Function;

/// An elementwise function that follows a product.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    #[default]
    None,
    /// `min(max(x, low), high)`. ReLU is `(0, inf)`, ReLU6 `(0, 6)`.
    Clip { low: f32, high: f32 },
    /// `x` where it is not negative, `slope * x` elsewhere.
    LeakyRelu { slope: f32 },
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `x * min(max(x / 6 + 0.5, 0), 1)`.
    HardSwish,
    /// More than a few instructions: applied to tiles once they are written.
    Function(Function),
}

impl Activation {
    pub const RELU: Self = Self::Clip { low: 0.0, high: f32::INFINITY };

    /// What kernels do in registers, and what is left to do to what they have written.
    pub fn split(self) -> (Self, Option<Function>) {
        match self {
            Self::Function(function) => (Self::None, Some(function)),
            other => (other, None),
        }
    }

    /// The function of one element, in the order of operations that the vector form has. NaN stays NaN.
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Clip { low, high } => clip(x, low, high),
            Self::LeakyRelu { slope } => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::HardSigmoid { alpha, beta } => clip(alpha * x + beta, 0.0, 1.0),
            Self::HardSwish => x * clip(x * SIXTH + 0.5, 0.0, 1.0),
            Self::Function(function) => function.apply(x),
        }
    }
}

/// `f32::clamp` panics where the bounds are the wrong way round, and a model may have them so.
#[inline]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    let raised = if low > x { low } else { x };
    if high < raised { high } else { raised }
}

pub(crate) const SIXTH: f32 = 1.0 / 6.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_nan() {
        assert_eq!([-1.0, 0.0, 7.0].map(|x| Activation::RELU.apply(x)), [0.0, 0.0, 7.0]);
        assert_eq!([-1.0, 7.0].map(|x| Activation::Clip { low: 0.0, high: 6.0 }.apply(x)), [0.0, 6.0]);
        assert_eq!([-2.0, 2.0].map(|x| Activation::LeakyRelu { slope: 0.5 }.apply(x)), [-1.0, 2.0]);
        assert_eq!([-9.0, 9.0].map(|x| Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }.apply(x)), [0.0, 1.0]);
        assert_eq!([-4.0, 4.0].map(|x| Activation::HardSwish.apply(x)), [-0.0, 4.0]);
        assert!(Activation::RELU.apply(f32::NAN).is_nan());
    }
}
