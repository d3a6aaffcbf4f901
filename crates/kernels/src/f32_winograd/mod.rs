//! Convolutions of 3x3 taps and stride 1 through products of transformed tiles, in `f32`: F(4x4, 3x3) of Lavin and Gray,
//! "Fast Algorithms for Convolutional Neural Networks", 2016. Four times fewer multiply-adds than taps, for a few more
//! roundings: results differ from those of a chain of taps by about 1e-5 of the largest operand.
//!
//! A tile of 4x4 outputs comes from 6x6 inputs. Some tiles are transformed to 36 matrices of `[tile][channel]`, each is
//! multiplied with its weights, and the products are transformed back, all in the cache.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use std::ops::Range;
use std::ptr;

use crate::activation::Activation;
use crate::aligned::{Aligned, LANES_MAX};
use crate::f32_gemm::{Packing, Residual, Weights};
use crate::grid::{Grid, Tile};
use crate::isa::Level;
use crate::window::Window;
pub use generic::{Element, Table};
use generic::{Inward, Outward};

/// Transformed weights of a convolution, packed for the kernels of one instruction set.
#[derive(Debug)]
pub struct Winograd {
    level: Level,
    channels: usize,
    columns: usize,
    /// How the weights of each product lie: there is one for each element of a transformed tile.
    packing: Packing,
    /// One behind the other, so that the end of one product fetches the next one's.
    weights: Aligned,
    bias: Aligned,
    zeros: Aligned,
    activation: Activation,
}

/// How an output is cut into tasks: so many columns of so many lines of so many images each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    images: usize,
    lines: usize,
    columns: usize,
}

impl Winograd {
    /// Transforms and packs weights of 3x3 taps.
    ///
    /// # Panics
    /// When the weights have other taps, or `bias` another length than there are columns.
    pub fn pack(level: Level, weights: &Weights<'_>, bias: Option<&[f32]>, activation: Activation) -> Self {
        let Weights { taps, depth, columns, .. } = *weights;
        assert_eq!(taps, 9, "weights have 3x3 taps");
        assert!(bias.is_none_or(|bias| bias.len() == columns), "there is a bias for each column");
        let packing = Packing::matrix(level, depth, columns);
        let each = packing.elements();
        let mut packed = Aligned::zeroed(POINTS * each * size_of::<f32>());
        let to = packed.elements_mut::<f32>();
        for row in 0..depth {
            let mut column = 0;
            while column < columns {
                let (place, beside) = packing.place(row, column);
                let count = beside.min(TOGETHER);
                for (point, sums) in transformed(weights, row, column..column + count).iter().enumerate() {
                    let to = &mut to[point * each + place..][..count];
                    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = narrowed(*sum));
                }
                column += count;
            }
        }
        Self {
            level,
            channels: depth,
            columns,
            packing,
            weights: packed,
            bias: bias.map_or_else(|| Aligned::zeroed(columns * size_of::<f32>()), Aligned::of),
            zeros: Aligned::zeroed(depth * size_of::<f32>()),
            activation,
        }
    }

    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.bias.bytes() + self.zeros.bytes()
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn kernel(&self) -> String {
        format!("f32_winograd_4x4__{}", f32::table(self.level).name)
    }

    /// Tasks that hold enough tiles to read weights rarely and few enough to stay in the cache, and as many tasks as
    /// there are `threads` where the image allows it. Where one task could hold all tiles they share out the columns, and
    /// with them the weights, of which each would read all otherwise.
    pub fn tasks(&self, window: &Window, threads: usize) -> Tasks {
        let [tile_lines, across] = tiles(window).out;
        let per_image = (tile_lines * across).max(1);
        let (threads, columns) = (threads.max(1), self.columns.max(1));
        let whole = Tasks { images: window.images.max(1), lines: window.out[0], columns };
        if per_image * window.images <= TASK_TILES {
            return Tasks { columns: self.packing.columns_of(threads), ..whole };
        }
        if per_image <= TASK_TILES && window.images >= threads {
            return Tasks { images: (TASK_TILES / per_image).clamp(1, (window.images / threads).max(1)), ..whole };
        }
        let wanted = TASK_TILES.min(per_image.div_ceil(threads)).div_ceil(across.max(1)).max(1);
        Tasks { images: 1, lines: (wanted * OUT).min(window.out[0].max(1)), columns }
    }

    /// Images that one grid may cover: all, or one where tasks are some of its lines.
    pub fn images_of_grid(window: &Window, tasks: Tasks) -> usize {
        if tasks.lines == window.out[0] { window.images } else { 1 }
    }

    /// Elements of scratch that each thread needs for tasks of this size.
    pub fn scratch(&self, window: &Window, tasks: Tasks) -> usize {
        let tiles = tasks.images * tasks.lines.div_ceil(OUT) * tiles(window).out[1];
        POINTS * (matrix(tiles, self.channels) + matrix(tiles, tasks.columns))
    }

    /// Cuts the lines of some images of the output into tasks for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the images.
    pub fn grid<'a, E>(&self, out: &'a mut [E], window: &Window, images: usize, tasks: Tasks) -> Grid<'a, E> {
        let rows = tasks.images * tasks.lines * window.out[1];
        let pixels = images * window.out[0] * window.out[1];
        Grid::new(out, self.columns, [pixels, self.columns], [rows.max(1), tasks.columns])
    }

    /// Computes tasks until none is left; any number of threads may do so at once, each with scratch of its own. The
    /// grid's first line is that of `image`.
    ///
    /// # Panics
    /// When the window has not 3x3 taps and stride 1, or reaches beyond `left`; when sizes of residual, output, tasks or
    /// scratch are not what they must be; when the instruction set has no kernels of such elements.
    pub fn run<E: Element>(
        &self,
        left: &[E],
        window: &Window,
        residual: Option<Residual<'_, E>>,
        image: usize,
        grid: &Grid<'_, E>,
        scratch: &mut [f32],
    ) {
        let shape = (window.kernel, window.stride, window.dilation);
        assert_eq!(shape, ([3, 3], [1, 1], [1, 1]), "the window has 3x3 taps and stride 1");
        assert!(window.reach(self.channels) <= left.len(), "the window lies within the image");
        assert_eq!(grid.size()[1], self.columns, "the output is pixels by columns");
        let before = image * window.out[0] * window.out[1];
        assert!(before + grid.size()[0] <= window.pixels(), "the output has pixels of the window's images");
        if let Some(Residual { elements, pitch }) = residual {
            let end = if window.pixels() == 0 { 0 } else { (window.pixels() - 1) * pitch + self.columns };
            assert!(end <= elements.len(), "the residual is pixels by columns");
        }
        while let Some(task) = grid.take() {
            self.run_task(left, window, residual, image * window.out[0], &task, scratch);
        }
    }

    fn run_task<E: Element>(
        &self,
        left: &[E],
        window: &Window,
        residual: Option<Residual<'_, E>>,
        first_line: usize,
        task: &Tile<'_, E>,
        scratch: &mut [f32],
    ) {
        let [height, width] = window.out;
        let (line, lines) = (first_line + task.first[0] / width, task.size[0] / width);
        let whole = |line: usize| (line % height).is_multiple_of(OUT);
        let is_whole = task.first[0].is_multiple_of(width) && task.size[0].is_multiple_of(width);
        assert!(is_whole && whole(line) && whole(line + lines), "a task is whole tiles");
        let tiled = tiles(window);
        let places: Tiles = Tiles::of(window, &tiled, line, lines);
        let (count, [first, columns]) = (places.count, [task.first[1], task.size[1]]);
        let (packing, of_columns) = self.packing.part(first..first + columns);
        let (inner_matrix, outer_matrix) = (matrix(count, self.channels), matrix(count, columns));
        let (inner, rest) = scratch.split_at_mut(POINTS * inner_matrix);
        let outer = &mut rest[..POINTS * outer_matrix];
        let mut pointers = [ptr::null(); POINTS];
        let (table, mut walk) = (E::table(self.level), tiled.walk(places.first));
        for tile in 0..count {
            walk.find(left, self.zeros.elements(), 1, 0..POINTS, 0, &mut pointers);
            walk.advance(1);
            let job = Inward {
                taps: &pointers,
                channels: self.channels,
                // The tile's row in the first of the matrices.
                out: inner[tile * self.channels..].as_mut_ptr(),
                matrix: inner_matrix,
            };
            generic::inward(table, &job, inner.len() - tile * self.channels);
        }
        let weights: &[f32] = self.weights.elements();
        for (point, to) in outer.chunks_exact_mut(outer_matrix.max(1)).enumerate() {
            let packed = &weights[point * self.packing.elements()..][of_columns.clone()];
            let grid = packing.grid_of_one(to, columns, count);
            packing.run(&inner[point * inner_matrix..], self.channels, packed, &grid);
        }
        for tile in 0..count {
            let place = tiled.place(places.first + tile);
            let [y, x] = [place.y * OUT, place.x * OUT];
            let line = place.image * window.out[0] + y;
            let pixel = line * window.out[1] + x;
            let residual =
                residual.map(|Residual { elements, pitch }| (elements[pixel * pitch + first..].as_ptr(), pitch));
            let row = (line - first_line) * window.out[1] + x - task.first[0];
            let job = Outward {
                tile: outer[tile * columns..].as_ptr(),
                matrix: outer_matrix,
                columns,
                bias: self.bias.elements::<f32>()[first..].as_ptr(),
                residual,
                activation: self.activation,
                // Within the task: its lines are whole tiles' but for the image's last.
                out: task.out.wrapping_add(row * task.pitch),
                pitch: task.pitch,
                pixels: window.out[1],
                size: [OUT.min(window.out[0] - y), OUT.min(window.out[1] - x)],
            };
            generic::outward(table, &job);
        }
    }
}

/// Tiles of some lines, which begin where a tile does.
struct Tiles {
    first: usize,
    count: usize,
}

impl Tiles {
    fn of(window: &Window, tiled: &Window, line: usize, lines: usize) -> Self {
        let [per_image, across] = tiled.out;
        let at = |line: usize| (line / window.out[0] * per_image + line % window.out[0] / OUT) * across;
        let (first, last) = (at(line), at(line + lines - 1));
        Self { first, count: last + across - first }
    }
}

/// Each tile as an output pixel that sees 6x6 inputs.
fn tiles(window: &Window) -> Window {
    Window { kernel: [IN, IN], stride: [OUT, OUT], out: window.out.map(|extent| extent.div_ceil(OUT)), ..*window }
}

/// Elements from one matrix of so many rows to the next: an odd number of cache lines, because the same element of all
/// matrices is touched together and a power of two between them would put all in the same few sets of the cache.
fn matrix(rows: usize, width: usize) -> usize {
    ((rows * width).div_ceil(LANES_MAX) | 1) * LANES_MAX
}

/// `G w G'` of some columns' taps of a row.
fn transformed(weights: &Weights<'_>, row: usize, columns: Range<usize>) -> [[f64; TOGETHER]; POINTS] {
    let mut down = [[[0.0; TOGETHER]; IN]; 3];
    for (x, down) in down.iter_mut().enumerate() {
        let taps = [0, 1, 2].map(|y| {
            let mut taken = [0.0; TOGETHER];
            let at = |column: usize| f64::from(weights.at(y * 3 + x, row, column));
            taken.iter_mut().zip(columns.clone()).for_each(|(to, column)| *to = at(column));
            taken
        });
        *down = spread(&taps);
    }
    let mut points = [[0.0; TOGETHER]; POINTS];
    for (y, points) in points.chunks_exact_mut(IN).enumerate() {
        points.copy_from_slice(&spread(&[0, 1, 2].map(|x| down[x][y])));
    }
    points
}

/// `G` times three taps, for the points 0, 1, -1, 2, -2 and infinity.
fn spread([a, b, c]: &[[f64; TOGETHER]; 3]) -> [[f64; TOGETHER]; IN] {
    let mut out = [[0.0; TOGETHER]; IN];
    for at in 0..TOGETHER {
        let (a, b, c) = (a[at], b[at], c[at]);
        let (even, far) = (a + c, a / 24.0 + c / 6.0);
        let points = [a / 4.0, (even + b) / -6.0, (even - b) / -6.0, far + b / 12.0, far - b / 12.0, c];
        out.iter_mut().zip(points).for_each(|(out, point)| out[at] = point);
    }
    out
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
fn narrowed(x: f64) -> f32 {
    x as f32
}

/// Outputs and inputs of a tile along each axis, and elements of a transformed tile.
const OUT: usize = 4;
const IN: usize = 6;
pub(crate) const POINTS: usize = IN * IN;

/// Columns that are transformed together: a few vectors of each tap.
const TOGETHER: usize = 16;

/// Tiles of a task: four blocks of rows for the products.
const TASK_TILES: usize = 24;
