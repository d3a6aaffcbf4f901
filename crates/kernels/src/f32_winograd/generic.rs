//! The transformations of one tile, for any vector; lanes are channels.

use bytemuck::Pod;
use half::bf16;

use super::{POINTS, portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::activation::Activation;
use crate::isa::{Level, choose, halves};
use crate::vector::{Stored, Vector, activate};

/// From the taps of a tile to its row in each of the matrices.
pub(super) struct Inward<'a, E> {
    /// Where each of 6x6 inputs has its channels.
    pub(super) taps: &'a [*const E; POINTS],
    pub(super) channels: usize,
    /// The row in the first matrix.
    pub(super) out: *mut f32,
    /// Elements from a matrix to the next.
    pub(super) matrix: usize,
}

/// From a tile's row in each of the matrices to at most 4x4 pixels.
pub(super) struct Outward<E> {
    pub(super) tile: *const f32,
    pub(super) matrix: usize,
    pub(super) columns: usize,
    /// Whole vectors are readable.
    pub(super) bias: *const f32,
    /// The tile's first pixel and the distance of pixels; lines of pixels are as in the output.
    pub(super) residual: Option<(*const E, usize)>,
    pub(super) activation: Activation,
    /// The tile's first pixel and the distance of pixels.
    pub(super) out: *mut E,
    pub(super) pitch: usize,
    /// Pixels from a line to the next.
    pub(super) pixels: usize,
    /// Lines and pixels of a line to write.
    pub(super) size: [usize; 2],
}

/// The transformations of an instruction set.
#[derive(Debug)]
pub struct Table<E> {
    pub(super) name: &'static str,
    pub(super) inward: unsafe fn(&Inward<'_, E>),
    pub(super) outward: unsafe fn(&Outward<E>),
}

/// What images consist of.
pub trait Element: Pod + Send + Sync {
    /// # Panics
    /// When the level has no kernels of such elements.
    #[doc(hidden)]
    fn table(level: Level) -> &'static Table<Self>;
}

impl Element for f32 {
    fn table(level: Level) -> &'static Table<Self> {
        choose!(level, &TABLE)
    }
}

impl Element for bf16 {
    fn table(level: Level) -> &'static Table<Self> {
        halves!(level, HALVES)
    }
}

/// `room` elements are writable from the job's `out` on.
pub(super) fn inward<E>(table: &Table<E>, job: &Inward<'_, E>, room: usize) {
    assert!((POINTS - 1) * job.matrix + job.channels <= room, "the matrices lie within the scratch");
    // SAFETY: the table was found by its level, which proves its instructions; `Winograd::run` has checked what the
    // taps reach, and the matrices were checked above.
    unsafe { (table.inward)(job) }
}

pub(super) fn outward<E>(table: &Table<E>, job: &Outward<E>) {
    // SAFETY: the table was found by its level, which proves its instructions; `Winograd::run` has checked residual and
    // output, of which the tile's pixels are within the task, and the matrices are those that `inward` and the products
    // have filled.
    unsafe { (table.outward)(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile_in<V: Vector, E: Stored<V>>(job: &Inward<'_, E>) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut channel = 0;
        while channel < job.channels {
            let count = V::LANES.min(job.channels - channel);
            let mut half = [[V::splat(0.0); 6]; 6];
            for (x, half) in half.iter_mut().enumerate() {
                let mut d = [V::splat(0.0); 6];
                for (y, d) in d.iter_mut().enumerate() {
                    *d = E::load(job.taps[y * 6 + x].add(channel), count);
                }
                *half = spread(d);
            }
            for (y, row) in turned(&half).into_iter().enumerate() {
                for (x, value) in spread(row).into_iter().enumerate() {
                    let to = job.out.add((y * 6 + x) * job.matrix + channel);
                    Stored::store(value, to, count);
                }
            }
            channel += count;
        }
    }
}

/// Columns as rows.
#[inline(always)]
fn turned<V: Copy, const Y: usize>(columns: &[[V; Y]; 6]) -> [[V; 6]; Y] {
    let mut rows = [[columns[0][0]; 6]; Y];
    for (x, column) in columns.iter().enumerate() {
        for (row, value) in rows.iter_mut().zip(column) {
            row[x] = *value;
        }
    }
    rows
}

/// The inputs' transformation of six elements.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn spread<V: Vector>(d: [V; 6]) -> [V; 6] {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let k = |factor: f32| V::splat(factor);
        let near = d[2].mul_add(k(-4.0), d[4]);
        let near_odd = d[1].mul_add(k(-4.0), d[3]);
        let far = d[4].add(d[2].mul(k(-1.0)));
        let far_odd = d[3].add(d[1].mul(k(-1.0))).mul(k(2.0));
        [
            d[0].mul_add(k(4.0), d[2].mul_add(k(-5.0), d[4])),
            near.add(near_odd),
            near_odd.mul_add(k(-1.0), near),
            far.add(far_odd),
            far_odd.mul_add(k(-1.0), far),
            d[1].mul_add(k(4.0), d[3].mul_add(k(-5.0), d[5])),
        ]
    }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile_out<V: Vector, E: Stored<V>>(job: &Outward<E>) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut column = 0;
        while column < job.columns {
            let count = V::LANES.min(job.columns - column);
            let mut half = [[V::splat(0.0); 4]; 6];
            for (x, half) in half.iter_mut().enumerate() {
                let mut m = [V::splat(0.0); 6];
                for (y, m) in m.iter_mut().enumerate() {
                    let from = job.tile.add((y * 6 + x) * job.matrix + column);
                    *m = Stored::load(from, count);
                }
                *half = gather(m);
            }
            let bias = V::load(job.bias.add(column));
            for (y, row) in turned(&half).into_iter().enumerate().take(job.size[0]) {
                for (x, &value) in gather(row).iter().enumerate().take(job.size[1]) {
                    let pixel = y * job.pixels + x;
                    let mut value = value.add(bias);
                    if let Some((residual, pitch)) = job.residual {
                        value = value.add(E::load(residual.add(pixel * pitch + column), count));
                    }
                    E::store(activate(value, job.activation), job.out.add(pixel * job.pitch + column), count);
                }
            }
            column += count;
        }
    }
}

/// The outputs' transformation of six elements.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn gather<V: Vector>(m: [V; 6]) -> [V; 4] {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let k = |factor: f32| V::splat(factor);
        let (near, near_odd) = (m[1].add(m[2]), m[2].mul_add(k(-1.0), m[1]));
        let (far, far_odd) = (m[3].add(m[4]), m[4].mul_add(k(-1.0), m[3]));
        [
            m[0].add(near).add(far),
            far_odd.mul_add(k(2.0), near_odd),
            far.mul_add(k(4.0), near),
            far_odd.mul_add(k(8.0), near_odd).add(m[5]),
        ]
    }
}
