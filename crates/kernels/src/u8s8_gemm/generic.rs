//! The inner loop over one tile, for any vector: `M` rows by `N` vectors of columns stay in registers.

use crate::aligned::LANES_MAX;
use crate::panels::{ROWS_MAX, Table};
use crate::u8_functions::Added;
use crate::vector::{ToBytes, Vector};

/// What a tile kernel works on. All pointers are valid for the extents beside them.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) taps: usize,
    /// Elements of every tap.
    pub(super) depth: usize,
    /// Times `M` rows, each with all panels before the next.
    pub(super) blocks: usize,
    /// `[blocks][taps][M]`: where a row's elements of a tap begin.
    pub(super) rows: *const *const u8,
    /// Panels that the rows meet, one after the other.
    pub(super) panels: usize,
    /// `[panels][taps * groups][N * LANES][4]`, a group being four elements of the depth, the last filled with zeros.
    pub(super) weights: *const i8,
    /// For kernels that take groups in an order of their own, `[panels][taps][HEAD + groups]`: see `order`.
    pub(super) order: *const u32,
    /// What will be read next, or anything: it is only fetched, so many bytes with each group.
    pub(super) next: *const i8,
    pub(super) next_step: usize,
    /// From what one panel fetches to what the next does, and from what one block does.
    pub(super) next_pitch: usize,
    pub(super) next_block: usize,
    /// The first element, and bytes from a row to the next.
    pub(super) out: *mut u8,
    pub(super) out_pitch: usize,
    /// Columns to write, with more than `(N - 1) * LANES` of each panel.
    pub(super) columns: usize,
    /// `[panels][N * LANES]`, added to the sums.
    pub(super) bias: *const i32,
    /// `[blocks][M]`, added to the sums of a row by kernels that do so.
    pub(super) row_bias: *const i32,
    /// `[panels][N * LANES]`, what sums are multiplied with.
    pub(super) scale: *const f32,
    /// How products become bytes; without it they are written as they are.
    pub(super) bytes: Option<ToBytes>,
    /// What bytes are added to.
    pub(super) plus: Option<Plus>,
    /// Whether products and sums surely stay within the integers of 32 bits.
    pub(super) is_small: bool,
}

/// The other operand of a sum that bytes are an operand of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plus {
    pub(super) added: Added,
    /// The first element, and elements from a row to the next.
    pub(super) other: *const u8,
    pub(super) pitch: usize,
}

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) plain: Table<Job>,
    /// Those that add to the sums of a row.
    pub(super) by_row: Table<Job>,
    /// Those that add to the sums of a row, and meet weights that nobody has looked at.
    pub(super) computed: Table<Job>,
    /// Whether the first two take groups in the order of `order`.
    pub(super) is_ordered: bool,
    /// What follows sums that lie column by column.
    pub(super) planes: unsafe fn(&Planes),
}

/// Sums that lie column by column, with what becomes of them: a job without a product.
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) sums: *const i32,
    /// From the sums of a column to those of the next. There are some of as many columns as fill the last vector.
    pub(super) pitch: usize,
    pub(super) rows: usize,
    pub(super) results: Job,
}

/// `LANES` sums, and what is multiplied for them.
///
/// # Safety
/// Every method may be called only where the processor has the instructions of the implementing type. Loads touch
/// exactly `LANES` elements or groups of four and need no alignment.
pub(super) trait Sums: Copy {
    const LANES: usize;
    type Floats: Vector;
    /// Four bytes for every lane.
    type Bytes: Copy;
    /// Four weights of each lane.
    type Weights: Copy;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const i32) -> Self;
    unsafe fn splat(value: i32) -> Self;
    unsafe fn bytes(four: u32) -> Self::Bytes;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    /// The sums, each with four products more, exact but for a wrap at 2^31.
    unsafe fn dot(self, bytes: Self::Bytes, weights: Self::Weights) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn floats(self) -> Self::Floats;
}

/// Runs a kernel of a table.
pub(super) fn call(kernel: unsafe fn(&Job), job: &Job) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Gemm::run` has checked
    // the extents that the job's pointers cover, and the job has as many rows as the kernel.
    unsafe { kernel(job) }
}

/// As `call`.
pub(super) fn call_planes(kernel: unsafe fn(&Planes), job: &Planes) {
    // SAFETY: as in `call`; sums are those of a room, which has them for whole vectors.
    unsafe { kernel(job) }
}

/// Where a block finds its rows, writes results and finds what is added to the sums of a row.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) rows: *const *const u8,
    pub(super) out: *mut u8,
    row_bias: *const i32,
    other: *const u8,
}

impl Block {
    #[inline(always)]
    pub(super) fn first(job: &Job) -> Self {
        let other = job.plus.map_or(std::ptr::null(), |plus| plus.other);
        Self { rows: job.rows, out: job.out, row_bias: job.row_bias, other }
    }

    /// The next block, of blocks of so many rows.
    #[inline(always)]
    pub(super) fn below(self, job: &Job, rows: usize) -> Self {
        Self {
            rows: self.rows.wrapping_add(job.taps * rows),
            out: self.out.wrapping_add(rows * job.out_pitch),
            row_bias: self.row_bias.wrapping_add(rows),
            other: self.other.wrapping_add(job.plus.map_or(0, |plus| rows * plus.pitch)),
        }
    }
}

/// # Safety
/// The processor has the instructions of `S`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile<S: Sums, const M: usize, const N: usize, const BY_ROW: bool>(job: &Job) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut block = Block::first(job);
        for nth in 0..job.blocks {
            let mut weights = job.weights;
            for panel in 0..job.panels {
                let next = job.next.wrapping_add(panel * job.next_pitch + nth * job.next_block);
                let column = panel * N * S::LANES;
                let (sums, behind) = sums::<S, M, N>(job, block, column, (weights, next));
                finish::<S, M, N, BY_ROW>(job, block, column, &sums);
                weights = behind;
            }
            block = block.below(job, M);
        }
    }
}

/// The sums of a block with one panel, and where its weights end.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn sums<S: Sums, const M: usize, const N: usize>(
    job: &Job,
    block: Block,
    column: usize,
    (mut weights, mut next): (*const i8, *const i8),
) -> ([[S; N]; M], *const i8) {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let (groups, rest) = (job.depth / 4, job.depth % 4);
        let mut sums = begin::<S, M, N>(job.bias.add(column));
        for tap in 0..job.taps {
            let mut rows = [std::ptr::null(); M];
            for (m, row) in rows.iter_mut().enumerate() {
                *row = *block.rows.add(tap * M + m);
            }
            for group in 0..groups {
                let w = load::<S, N>(weights);
                for m in 0..M {
                    let x = S::bytes(rows[m].add(group * 4).cast::<u32>().read_unaligned());
                    for n in 0..N {
                        sums[m][n] = sums[m][n].dot(x, w[n]);
                    }
                }
                S::Floats::prefetch(next.cast());
                next = next.wrapping_add(job.next_step);
                weights = weights.add(N * S::LANES * 4);
            }
            if rest > 0 {
                let w = load::<S, N>(weights);
                for m in 0..M {
                    let x = S::bytes(first(rows[m].add(groups * 4), rest));
                    for n in 0..N {
                        sums[m][n] = sums[m][n].dot(x, w[n]);
                    }
                }
                weights = weights.add(N * S::LANES * 4);
            }
        }
        (sums, weights)
    }
}

/// The first `count` of four bytes, and zeros.
///
/// # Safety
/// So many bytes are readable.
#[inline(always)]
pub(super) unsafe fn first(bytes: *const u8, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    let byte = |at: usize| if at < count { unsafe { *bytes.add(at) } } else { 0 };
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

/// What follows the sums of a tile.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn finish<S: Sums, const M: usize, const N: usize, const BY_ROW: bool>(
    job: &Job,
    block: Block,
    column: usize,
    sums: &[[S; N]; M],
) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let (pitch, count) = (job.out_pitch, (N * S::LANES).min(job.columns - column));
        if BY_ROW || (job.bytes.is_some() && !job.is_small) {
            return finish_by_row::<S, M, N>(job, block, column, sums);
        }
        let mut scales = [S::Floats::splat(0.0); N];
        for (n, scale) in scales.iter_mut().enumerate() {
            *scale = S::Floats::load(job.scale.add(column + n * S::LANES));
        }
        // A loop of so much is not unrolled, and an array that a loop indexes does not stay in registers.
        macro_rules! rows {
            (|$m:ident, $products:ident| $write:expr) => { rows!(|$m, $products| $write; 0 1 2 3 4 5 6 7 8 9 10 11) };
            (|$m:ident, $products:ident| $write:expr; $($nth:literal)*) => { $(if $nth < M {
                let ($m, $products) = ($nth, products(&sums[$nth % M], &scales));
                $write;
            })* };
        }
        // Whole tiles have their own code, in which the count is a constant.
        macro_rules! counted {
            (|$count:ident, $m:ident, $products:ident| $write:expr) => {
                if count == N * S::LANES {
                    let $count = N * S::LANES;
                    rows!(|$m, $products| $write);
                } else {
                    let $count = count;
                    rows!(|$m, $products| $write);
                }
            };
        }
        const { assert!(M <= ROWS_MAX, "there is a number for each row") }
        // Copies are not read again after every write.
        match (job.bytes, job.plus) {
            (None, _) => {
                let out = block.out.cast::<f32>().add(column);
                rows!(|m, products| write_floats::<S, N>(products, out.byte_add(m * pitch), count));
            }
            (Some(bytes), None) => {
                let out = block.out.add(column);
                counted!(|count, m, products| S::Floats::store_as_bytes::<N, true>(
                    products,
                    bytes,
                    out.add(m * pitch),
                    count
                ));
            }
            (Some(bytes), Some(plus)) => {
                let (out, other) = (block.out.add(column), block.other.add(column));
                let at = |m: usize| (other.wrapping_add(m * plus.pitch), out.wrapping_add(m * pitch));
                counted!(|count, m, products| write_sums::<S, N>(products, (bytes, &plus), at(m), count));
            }
        }
    }
}

/// The products of a row.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn products<S: Sums, const N: usize>(sums: &[S; N], scales: &[S::Floats; N]) -> [S::Floats; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut products = *scales;
        for (n, product) in products.iter_mut().enumerate() {
            *product = sums[n].floats().mul(*product);
        }
        products
    }
}

/// Writes the first `count` sums of a row's products, as bytes, and what is added to them.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn write_sums<S: Sums, const N: usize>(
    products: [S::Floats; N],
    (bytes, plus): (ToBytes, &Plus),
    (other, to): (*const u8, *mut u8),
    count: usize,
) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut sums = products;
        for (n, sum) in sums.iter_mut().enumerate() {
            let first = n * S::LANES;
            let other = S::Floats::load_bytes(other.add(first), S::LANES.min(count - first));
            *sum = plus.added.of([bytes.as_floats(*sum), other]);
        }
        S::Floats::store_as_bytes::<N, true>(sums, plus.added.bytes, to, count);
    }
}

/// With what is added to the sums of a row, and whatever else is rare. So long an end is a loop, and an array that a loop
/// indexes lies in memory from its beginning: sums are copied there once, and stay in registers until then.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn finish_by_row<S: Sums, const M: usize, const N: usize>(
    job: &Job,
    block: Block,
    column: usize,
    sums: &[[S; N]; M],
) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut copied = [[S::zero(); N]; M];
        let (bytes, plus) = (job.bytes, job.plus);
        let copied = std::hint::black_box(copied.as_mut_ptr()).cast::<S>();
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                copied.add(m * N + n).write(*sum);
            }
        }
        for n in 0..N {
            let at = column + n * S::LANES;
            let (scale, left) = (S::Floats::load(job.scale.add(at)), S::LANES.min(job.columns - at));
            for m in 0..M {
                let sum = copied.add(m * N + n).read().add(S::splat(*block.row_bias.add(m)));
                let products = sum.floats().mul(scale);
                let to = block.out.add(m * job.out_pitch);
                match (bytes, plus) {
                    (None, _) => write_floats::<S, 1>([products], to.cast::<f32>().add(at), left),
                    (Some(bytes), None) => bytes.store(products, to.add(at), left),
                    (Some(bytes), Some(plus)) => {
                        let other = S::Floats::load_bytes(block.other.add(m * plus.pitch + at), left);
                        plus.added.bytes.store(plus.added.of([bytes.as_floats(products), other]), to.add(at), left);
                    }
                }
            }
        }
    }
}

/// Writes the first `count` of a row's products.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn write_floats<S: Sums, const N: usize>(products: [S::Floats; N], to: *mut f32, count: usize) {
    // SAFETY: the caller's promise is that of these writes.
    unsafe {
        for (n, products) in products.into_iter().enumerate() {
            let (to, left) = (to.add(n * S::LANES), count - n * S::LANES);
            if left < S::LANES { products.store_first(to, left) } else { products.store(to) }
        }
    }
}

/// Sums of a block that begin with a number for each column.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn begin<S: Sums, const M: usize, const N: usize>(bias: *const i32) -> [[S; N]; M] {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut row = [S::zero(); N];
        for (n, sum) in row.iter_mut().enumerate() {
            *sum = S::load(bias.add(n * S::LANES));
        }
        let mut sums = [[S::zero(); N]; M];
        // As in `finish`.
        macro_rules! rows {
            ($($m:literal)*) => { $(if $m < M { sums[$m % M] = row; })* };
        }
        rows!(0 1 2 3 4 5 6 7 8 9 10 11);
        sums
    }
}

/// `N` vectors of columns at a time.
///
/// # Safety
/// As `tile`; sums are readable for whole vectors of rows.
#[inline(always)]
pub(super) unsafe fn planes<S: Sums, const N: usize>(job: &Planes) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut block = Block::first(&job.results);
        // All columns of a row are written before the next rows are.
        for row in (0..job.rows).step_by(S::LANES) {
            let count = S::LANES.min(job.rows - row);
            let mut column = 0;
            while column + N * S::LANES <= job.results.columns {
                planes_of::<S, N>(job, block, [row, count], column);
                column += N * S::LANES;
            }
            while column < job.results.columns {
                planes_of::<S, 1>(job, block, [row, count], column);
                column += S::LANES;
            }
            block = block.below(&job.results, count);
        }
    }
}

/// What follows the sums of a vector of rows with `N` vectors of columns.
///
/// # Safety
/// As `planes`.
#[inline(always)]
pub(super) unsafe fn planes_of<S: Sums, const N: usize>(
    job: &Planes,
    block: Block,
    [row, count]: [usize; 2],
    column: usize,
) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let mut turned = Turned([[0; LANES_MAX * LANES_MAX]; N]);
        let mut columns = [std::ptr::null::<f32>(); LANES_MAX];
        for (n, turned) in turned.0.iter_mut().enumerate() {
            for (lane, from) in columns.iter_mut().enumerate() {
                *from = job.sums.wrapping_add((column + n * S::LANES + lane) * job.pitch).cast();
            }
            // Bits are moved, whatever they mean.
            S::Floats::transpose(columns.as_ptr(), row, turned.as_mut_ptr().cast(), S::LANES);
        }
        let (mut below, mut at) = (block, 0);
        macro_rules! rows {
            ($count:literal) => {{
                let mut sums = [[S::zero(); N]; $count];
                for (m, sums) in sums.iter_mut().enumerate() {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        let bias = S::load(job.results.bias.add(column + n * S::LANES));
                        *sum = S::load(turned.0[n].as_ptr().add((at + m) * S::LANES)).add(bias);
                    }
                }
                finish::<S, $count, N, false>(&job.results, below, column, &sums);
                below = below.below(&job.results, $count);
                at += $count;
            }};
        }
        while at + 4 <= count {
            rows!(4);
        }
        while at < count {
            rows!(1);
        }
    }
}

/// Vectors on cache lines.
#[repr(C, align(64))]
struct Turned<const N: usize>([[i32; LANES_MAX * LANES_MAX]; N]);

/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn load<S: Sums, const N: usize>(from: *const i8) -> [S::Weights; N] {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut weights = [S::weights(from); N];
        for (n, weights) in weights.iter_mut().enumerate().skip(1) {
            *weights = S::weights(from.add(n * S::LANES * 4));
        }
        weights
    }
}
