//! Operators over images and windows over them.

use kinglet_kernels::Activation;

use crate::tensor::Shape;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Conv {
    pub(in crate::engine) window: Spatial,
    pub(in crate::engine) groups: usize,
    pub(in crate::engine) bias: bool,
    /// Whether the weights of each channel are multiplied by a number of its own while they are packed.
    pub(in crate::engine) scale: bool,
    pub(in crate::engine) residual: bool,
    pub(in crate::engine) activation: Activation,
    /// Whether elements are integers whose sums must be exact.
    pub(in crate::engine) exact: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Pool {
    pub(in crate::engine) kind: PoolKind,
    pub(in crate::engine) window: Spatial,
    /// Whether an output extent is rounded up.
    pub(in crate::engine) ceil: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum PoolKind {
    Max,
    Average { count_padding: bool },
}

/// Sliding windows over one or two axes; one axis is the second of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Spatial {
    pub(in crate::engine) axes: usize,
    pub(in crate::engine) kernel: [usize; 2],
    pub(in crate::engine) stride: [usize; 2],
    pub(in crate::engine) dilation: [usize; 2],
    pub(in crate::engine) padding: Padding,
}

/// Zeros around an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Padding {
    Given {
        before: [usize; 2],
        after: [usize; 2],
    },
    /// As many as make the output's extent the input's over the stride; the odd one behind, or before.
    Same {
        odd_before: bool,
    },
}

/// Windows over any number of axes of a channels-first image, each by itself; in plain code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Windows {
    pub(in crate::engine) kind: WindowKind,
    pub(in crate::engine) axes: Vec<WindowAxis>,
    /// Whether an output extent is rounded up.
    pub(in crate::engine) ceil: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum WindowKind {
    Max,
    /// Where the greatest element stands among all of the operand, an image being counted line by line or by columns.
    Place {
        by_columns: bool,
    },
    Average {
        count_padding: bool,
    },
    /// The root of the sum of powers.
    Length {
        p: u16,
    },
}

/// How windows lie along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct WindowAxis {
    pub(in crate::engine) kernel: usize,
    pub(in crate::engine) stride: usize,
    pub(in crate::engine) dilation: usize,
    pub(in crate::engine) padding: AxisPadding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum AxisPadding {
    Given {
        before: usize,
        after: usize,
    },
    /// As `Padding` has it.
    Same {
        odd_before: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct ConvTranspose {
    /// Its padding is taken off before the first line and pixel, and behind the last.
    pub(in crate::engine) window: Spatial,
    pub(in crate::engine) groups: usize,
    /// Added behind the last.
    pub(in crate::engine) extra: [usize; 2],
    /// The output's extents, where they decide what is taken off.
    pub(in crate::engine) to: Option<[usize; 2]>,
    pub(in crate::engine) bias: bool,
    /// Of a few instructions.
    pub(in crate::engine) activation: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Resize {
    pub(in crate::engine) by_sizes: bool,
    pub(in crate::engine) filter: Filter,
    pub(in crate::engine) place: PixelPlace,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) enum Filter {
    Nearest(Rounding),
    Linear,
    /// Keys' convolution of this parameter.
    Cubic {
        a: f32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Rounding {
    HalfDown,
    HalfUp,
    Floor,
    Ceil,
}

/// Where an output pixel lies between those of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum PixelPlace {
    HalfPixel,
    /// As half pixels, but an axis of one output pixel lies at the first.
    TorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// As half pixels, but the middle of the output lies at the input's.
    Symmetric,
    /// As aligned corners, of a part of the input.
    Crop,
}

impl Conv {
    /// Where the weights, the bias and the scale stand among the operands.
    pub(in crate::engine) fn operands(&self) -> impl Iterator<Item = usize> {
        1..2 + usize::from(self.bias) + usize::from(self.scale)
    }

    /// Where the scale does, if there is one.
    pub(in crate::engine) fn scale_at(&self) -> usize {
        2 + usize::from(self.bias)
    }

    /// Whether each channel is convolved by itself, for weights of this shape.
    pub(in crate::engine) fn is_depthwise(&self, weights: &Shape) -> bool {
        self.groups > 1 && weights.first() == Some(&self.groups) && weights.get(1) == Some(&1)
    }
}

impl Spatial {
    /// Windows over one or two axes.
    pub(in crate::engine) fn of(axes: &[WindowAxis]) -> Option<Self> {
        let alone =
            WindowAxis { kernel: 1, stride: 1, dilation: 1, padding: AxisPadding::Given { before: 0, after: 0 } };
        let pair = match *axes {
            [x] => [alone, x],
            [y, x] => [y, x],
            _ => return None,
        };
        let padding = match pair.map(|axis| axis.padding) {
            [_, AxisPadding::Same { odd_before }] => Padding::Same { odd_before },
            both => {
                let of = |end: fn([usize; 2]) -> usize| {
                    both.map(|padding| match padding {
                        AxisPadding::Given { before, after } => end([before, after]),
                        AxisPadding::Same { .. } => 0,
                    })
                };
                Padding::Given { before: of(|[before, _]| before), after: of(|[_, after]| after) }
            }
        };
        let [kernel, stride, dilation] =
            [pair.map(|axis| axis.kernel), pair.map(|axis| axis.stride), pair.map(|axis| axis.dilation)];
        Some(Self { axes: axes.len(), kernel, stride, dilation, padding })
    }

    fn axis(&self, at: usize) -> WindowAxis {
        let padding = match self.padding {
            Padding::Given { before, after } => AxisPadding::Given { before: before[at], after: after[at] },
            Padding::Same { odd_before } => AxisPadding::Same { odd_before },
        };
        WindowAxis { kernel: self.kernel[at], stride: self.stride[at], dilation: self.dilation[at], padding }
    }

    /// Output extents and the zeros before the image, for extents of the image; `None` where no window fits.
    pub(in crate::engine) fn output(&self, size: [usize; 2], ceil: bool) -> Option<[SpatialAxis; 2]> {
        Some([self.axis(0).output(size[0], ceil)?, self.axis(1).output(size[1], ceil)?])
    }
}

impl WindowAxis {
    /// Elements that a window spans.
    pub(in crate::engine) fn reach(&self) -> Option<usize> {
        (self.kernel - 1).checked_mul(self.dilation)?.checked_add(1)
    }

    pub(in crate::engine) fn output(&self, size: usize, ceil: bool) -> Option<SpatialAxis> {
        let (stride, reach) = (self.stride, self.reach()?);
        match self.padding {
            AxisPadding::Same { odd_before } => {
                let out = size.div_ceil(stride);
                let needed = (out.saturating_sub(1) * stride).checked_add(reach)?.saturating_sub(size);
                let before = if odd_before { needed.div_ceil(2) } else { needed / 2 };
                Some(SpatialAxis { out, before, after: needed - before })
            }
            AxisPadding::Given { before, after } => {
                let slack = size.checked_add(before)?.checked_add(after)?.checked_sub(reach)?;
                let mut out = if ceil { slack.div_ceil(stride) } else { slack / stride } + 1;
                // A window that begins behind the image sees nothing of it.
                if ceil && (out - 1) * stride >= size + before {
                    out -= 1;
                }
                Some(SpatialAxis { out, before, after })
            }
        }
    }
}

impl ConvTranspose {
    /// Output extents and what is taken off before the first line and pixel, for extents of the image.
    pub(in crate::engine) fn output(&self, size: [usize; 2]) -> Option<[SpatialAxis; 2]> {
        let axis = |at: usize| {
            let window = self.window.axis(at);
            let spread = size[at].checked_sub(1)?.checked_mul(window.stride)?;
            let all = spread.checked_add(window.reach()?)?.checked_add(self.extra[at])?;
            let halves = |out: usize, odd_before: bool| {
                let off = all.saturating_sub(out);
                let before = if odd_before { off.div_ceil(2) } else { off / 2 };
                SpatialAxis { out, before, after: off - before }
            };
            Some(match (self.to, window.padding) {
                (Some(to), AxisPadding::Same { odd_before: false }) => halves(to[at], false),
                (Some(to), _) => halves(to[at], true),
                (None, AxisPadding::Same { odd_before }) => halves(size[at].checked_mul(window.stride)?, odd_before),
                (None, AxisPadding::Given { before, after }) => {
                    SpatialAxis { out: all.checked_sub(before)?.checked_sub(after)?, before, after }
                }
            })
        };
        Some([axis(0)?, axis(1)?])
    }
}

/// One axis of a window's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct SpatialAxis {
    pub(in crate::engine) out: usize,
    pub(in crate::engine) before: usize,
    pub(in crate::engine) after: usize,
}
