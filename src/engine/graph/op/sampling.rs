//! Operators that read images between their pixels, or put pieces of images together. Images are channels-first here.

use super::{Filter, PixelPlace};

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Sampling {
    /// `x`, scales or sizes, and the part of `x` that is seen if that is asked for.
    Resample(Resample),
    /// `x` and, for every output pixel, where it lies in `x`.
    Grid(Grid),
    /// Affine maps and the extents of an image: where its pixels come to lie.
    AffineGrid { align_corners: bool },
    /// Blocks as columns, the image's extents and the block's: sums of what falls on a pixel.
    Fold(Fold),
    /// `x`, corners of regions and the image of each.
    Regions(Regions),
    /// Determinants of the matrices of the last two axes.
    Determinant,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Resample {
    pub(in crate::engine) by_sizes: bool,
    /// Those that scales or sizes are for; all where there are none.
    pub(in crate::engine) axes: Option<Vec<isize>>,
    pub(in crate::engine) filter: Filter,
    pub(in crate::engine) place: PixelPlace,
    /// Whether a filter is as wide as the distance of output pixels.
    pub(in crate::engine) antialias: bool,
    /// Whether pixels outside the image count for nothing rather than as those at its edge.
    pub(in crate::engine) exclude_outside: bool,
    /// What lies outside the part that is seen.
    pub(in crate::engine) extrapolation: f32,
    pub(in crate::engine) aspect: Aspect,
}

/// Whether sizes are met, or bound an image that keeps its proportions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Grid {
    pub(in crate::engine) filter: Filter,
    pub(in crate::engine) outside: Outside,
    /// Whether -1 and 1 are the centres of the outermost pixels rather than their edges.
    pub(in crate::engine) align_corners: bool,
}

/// What lies outside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Outside {
    Zeros,
    Edge,
    Reflection,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Regions {
    /// Lines and columns of what a region becomes.
    pub(in crate::engine) out: [usize; 2],
    /// Of corners.
    pub(in crate::engine) scale: f32,
    /// Places that are read along each axis of an output pixel; as many as the region has pixels there where it is zero.
    pub(in crate::engine) samples: usize,
    pub(in crate::engine) half_pixel: bool,
    /// Whether the greatest of what is read counts, rather than the average.
    pub(in crate::engine) greatest: bool,
}

/// Lists have an element for each axis of the image; none at all stands for ones, or for no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Fold {
    pub(in crate::engine) strides: Vec<usize>,
    pub(in crate::engine) dilations: Vec<usize>,
    /// Before each axis, then behind each.
    pub(in crate::engine) pads: Vec<usize>,
}

impl Sampling {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Resample(_) => "Resample",
            Self::Grid(_) => "GridSample",
            Self::AffineGrid { .. } => "AffineGrid",
            Self::Fold(_) => "Fold",
            Self::Regions(_) => "Regions",
            Self::Determinant => "Determinant",
        }
    }
}
