//! Rates of packed products and convolutions by instruction set and panel width, in 10^9 multiply-adds a second; the
//! least time of many runs. `cargo bench -p kinglet-kernels -- NAME` runs those whose names contain NAME.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::time::{Duration, Instant};

use kinglet_kernels::f32_attention::{Attention, Extents, Order, Strided};
use kinglet_kernels::f32_depthwise::{Depthwise, Filters};
use kinglet_kernels::f32_functions::{rows_grid, softmax};
use kinglet_kernels::f32_gemm::{Gemm, PairGemm, SparseGemm, Weights};
use kinglet_kernels::f32_winograd::Winograd;
use kinglet_kernels::u8s8_depthwise::{ByteDepthwise, ByteFilters};
use kinglet_kernels::{Activation, Aligned, Level, Window, u8s8_gemm};

/// A name, a window, and how many elements of every tap meet how many columns.
type Case = (&'static str, Window, usize, usize);

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for case in cases().iter().filter(|case| case.0.contains(&filter)) {
        print!("{:24}", case.0);
        for level in Level::all() {
            print!(" | {level}");
            for vectors in Gemm::widths(level) {
                print!(" {:6.1}", rate(case, level, vectors));
            }
            print!(" bf16");
            for vectors in PairGemm::widths(level) {
                print!(" {:6.1}", pair_rate(case, level, vectors));
            }
            print!(" bytes");
            for vectors in u8s8_gemm::Gemm::widths(level) {
                print!(" {:6.1}", bytes_rate(case, level, vectors));
            }
            if case.1.kernel == [3, 3] {
                print!(" winograd {:6.1}", winograd_rate(case, level));
            }
            for one_in in [3, 10, 20] {
                print!(" 1/{one_in}");
                for block in SparseGemm::blocks() {
                    print!(" {:6.1}", sparse_rate(case, level, one_in, block));
                }
                print!(" bf16");
                for block in SparseGemm::blocks() {
                    print!(" {:6.1}", sparse_pairs_rate(case, level, one_in, block));
                }
                print!(" bytes");
                for block in u8s8_gemm::SparseGemm::blocks() {
                    print!(" {:6.1}", sparse_bytes_rate(case, level, one_in, block));
                }
            }
        }
        println!();
    }
    for [size, channels, kernel, stride] in
        [[112, 32, 3, 1], [112, 96, 3, 2], [56, 144, 3, 1], [14, 384, 3, 1], [28, 120, 5, 1], [7, 960, 3, 1]]
    {
        let name = format!("depthwise {size}x{size}x{channels} {kernel}x{kernel}/{stride}");
        if name.contains(&filter) {
            print!("{name:24}");
            for level in Level::all() {
                let [floats, bytes] = depthwise_rates([size, channels, kernel, stride], level);
                print!(" | {level} {floats:6.1} bytes {bytes:6.1}");
            }
            println!();
        }
    }
    for size in [[12, 128, 32], [12, 128, 64], [12, 512, 64]].iter() {
        let name = format!("attention {}x{}x{}", size[0], size[1], size[2]);
        if name.contains(&filter) {
            print!("{name:24}");
            for level in Level::all() {
                let [pack, products, softmax, all] = attention_times(*size, level).map(|time| time.as_secs_f64() * 1e6);
                print!(" | {level} us: pack {pack:.0}, products {products:.0}, softmax {softmax:.0}, all {all:.0}");
            }
            println!();
        }
    }
}

fn cases() -> Vec<Case> {
    let pixels = |size: usize, channels| Window::image(1, [size, size], channels);
    let taps = |size: usize, channels| Window { kernel: [3, 3], pad: [1, 1], ..pixels(size, channels) };
    vec![
        ("rows 1x128x512", Window::rows(1, 128), 128, 512),
        ("rows 4x128x512", Window::rows(4, 128), 128, 512),
        ("rows 1x784x512", Window::rows(1, 784), 784, 512),
        ("rows 8x784x512", Window::rows(8, 784), 784, 512),
        ("rows 32x784x512", Window::rows(32, 784), 784, 512),
        ("rows 128x384x1536", Window::rows(128, 384), 384, 1536),
        ("rows 128x1536x384", Window::rows(128, 1536), 1536, 384),
        ("1x1 112x112 16-96", pixels(112, 16), 16, 96),
        ("1x1 4x112 16-96", Window::image(1, [4, 112], 16), 16, 96),
        ("1x1 4x112 32-16", Window::image(1, [4, 112], 32), 32, 16),
        ("1x1 8x56 24-144", Window::image(1, [8, 56], 24), 24, 144),
        ("1x1 8x56 144-24", Window::image(1, [8, 56], 144), 144, 24),
        ("1x1 28x28 32-192", pixels(28, 32), 32, 192),
        ("1x1 56x56 64-256", pixels(56, 64), 64, 256),
        ("1x1 14x14 1024-256", pixels(14, 1024), 1024, 256),
        ("1x1 7x7 512-2048", pixels(7, 512), 512, 2048),
        ("3x3 56x56 64-64", taps(56, 64), 64, 64),
        ("3x3 28x28 128-128", taps(28, 128), 128, 128),
        ("3x3 14x14 256-256", taps(14, 256), 256, 256),
        ("3x3 7x7 512-512", taps(7, 512), 512, 512),
    ]
}

fn rate((_, window, depth, columns): &Case, level: Level, vectors: usize) -> f64 {
    let (left, elements) = (made_up(window.reach(*depth)), made_up(window.taps() * depth * columns));
    let weights = Weights::new(&elements, [window.taps(), *depth, *columns]);
    let gemm = Gemm::pack(level, &weights, None, Activation::RELU, Some(vectors));
    let mut out = vec![0.0; window.pixels() * columns];
    let time = least(|| gemm.run(&left, window, None, &gemm.grid(&mut out, *columns, window.pixels())));
    (window.pixels() * elements.len()) as f64 / time.as_secs_f64() / 1e9
}

fn pair_rate((_, window, depth, columns): &Case, level: Level, vectors: usize) -> f64 {
    let (left, elements) = (made_up(window.reach(*depth)), made_up(window.taps() * depth * columns));
    let weights = Weights::new(&elements, [window.taps(), *depth, *columns]);
    let gemm = PairGemm::pack(level, &weights, None, Activation::RELU, Some(vectors));
    let each = gemm.rounding().elements(*depth);
    let mut rounded = vec![0.0; left.len() / depth * each];
    let paired = Window { pitch: Window::image(window.images, window.size, each).pitch, ..*window };
    let mut out = vec![0.0; window.pixels() * columns];
    let time = least(|| {
        gemm.rounding().run(&left, *depth, &gemm.rounding().grid(&mut rounded, *depth));
        gemm.run(&rounded, &paired, None, &gemm.grid(&mut out, *columns, window.pixels()));
    });
    (window.pixels() * elements.len()) as f64 / time.as_secs_f64() / 1e9
}

fn bytes_rate((_, window, depth, columns): &Case, level: Level, vectors: usize) -> f64 {
    let count = window.taps() * depth * columns;
    let (left, elements) = (vec![3u8; window.reach(*depth)], trained(count));
    let weights = u8s8_gemm::Weights { elements: &elements, taps: window.taps(), depth: *depth, columns: *columns };
    let finish = u8s8_gemm::Finish::Bytes { zero: 0, low: 0, high: 255 };
    let (bias, scale) = (vec![1; *columns], vec![1e-4; *columns]);
    let then = u8s8_gemm::Requantize { bias: &bias, scale: &scale, finish, plus: None };
    let gemm = u8s8_gemm::Gemm::pack(level, &weights, 3, &then, Some(vectors));
    let mut out = vec![0; window.pixels() * columns];
    let time = least(|| gemm.run(&left, window, None, &gemm.grid(&mut out, *columns, window.pixels())));
    (window.pixels() * count) as f64 / time.as_secs_f64() / 1e9
}

/// Weights of which one in so many is not zero, for as many columns together.
fn thinned(rows: usize, columns: usize, one_in: usize, block: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut kept = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).is_multiple_of(one_in as u64)
    };
    let mut elements = vec![0.0; rows * columns];
    for row in elements.chunks_exact_mut(columns) {
        let kept: Vec<bool> = (0..columns.div_ceil(block)).map(|_| kept()).collect();
        row.iter_mut().enumerate().filter(|(at, _)| kept[at / block]).for_each(|(_, weight)| *weight = 0.5);
    }
    elements
}

/// Of the multiply-adds of a dense product.
fn sparse_rate((_, window, depth, columns): &Case, level: Level, one_in: usize, block: usize) -> f64 {
    let left = made_up(window.reach(*depth));
    let elements = thinned(window.taps() * depth, *columns, one_in, block);
    let weights = Weights::new(&elements, [window.taps(), *depth, *columns]);
    let gemm = SparseGemm::pack(level, &weights, None, Activation::RELU, block);
    let mut out = vec![0.0; window.pixels() * columns];
    let time = least(|| gemm.run(&left, window, None, &gemm.grid(&mut out, *columns, window.pixels(), 1)));
    (window.pixels() * elements.len()) as f64 / time.as_secs_f64() / 1e9
}

/// As `sparse_rate`, of words of pairs of bf16, with the rounding of the image.
fn sparse_pairs_rate((_, window, depth, columns): &Case, level: Level, one_in: usize, block: usize) -> f64 {
    let left = made_up(window.reach(*depth));
    let kept = thinned(window.taps() * depth / 2, *columns, one_in, block);
    let elements: Vec<f32> = kept.chunks(*columns).flat_map(|row| [row, row].concat()).collect();
    let weights = Weights::new(&elements, [window.taps(), *depth, *columns]);
    let gemm = SparseGemm::pack_in_pairs(level, &weights, None, Activation::RELU, block);
    let rounding = gemm.rounding().expect("images are rounded for pairs");
    let each = rounding.elements(*depth);
    let mut rounded = vec![0.0; left.len() / depth * each];
    let paired = Window { pitch: Window::image(window.images, window.size, each).pitch, ..*window };
    let mut out = vec![0.0; window.pixels() * columns];
    let time = least(|| {
        rounding.run(&left, *depth, &rounding.grid(&mut rounded, *depth));
        gemm.run(&rounded, &paired, None, &gemm.grid(&mut out, *columns, window.pixels(), 1));
    });
    (window.pixels() * elements.len()) as f64 / time.as_secs_f64() / 1e9
}

/// As `sparse_rate`, of words of bytes.
fn sparse_bytes_rate((_, window, depth, columns): &Case, level: Level, one_in: usize, block: usize) -> f64 {
    let count = window.taps() * depth * columns;
    let kept = thinned(window.taps() * depth / 4, *columns, one_in, block);
    let elements: Vec<i8> =
        (0..count).map(|at| if kept[at / columns / 4 * columns + at % columns] == 0.0 { 0 } else { 3 }).collect();
    let left = vec![3u8; window.reach(*depth)];
    let weights = u8s8_gemm::Weights { elements: &elements, taps: window.taps(), depth: *depth, columns: *columns };
    let finish = u8s8_gemm::Finish::Bytes { zero: 0, low: 0, high: 255 };
    let (bias, scale) = (vec![1; *columns], vec![1e-4; *columns]);
    let then = u8s8_gemm::Requantize { bias: &bias, scale: &scale, finish, plus: None };
    let gemm = u8s8_gemm::SparseGemm::pack(level, &weights, 3, &then, block);
    let mut out = vec![0; window.pixels() * columns];
    let time = least(|| gemm.run(&left, window, None, &gemm.grid(&mut out, *columns, window.pixels(), 1)));
    (window.pixels() * count) as f64 / time.as_secs_f64() / 1e9
}

fn winograd_rate((_, window, depth, columns): &Case, level: Level) -> f64 {
    let (left, elements) = (made_up(window.reach(*depth)), made_up(9 * depth * columns));
    let weights = Weights::new(&elements, [9, *depth, *columns]);
    let winograd = Winograd::pack(level, &weights, None, Activation::RELU);
    let tasks = winograd.tasks(window, 1);
    let mut scratch = vec![0.0; winograd.scratch(window, tasks)];
    let mut out = vec![0.0; window.pixels() * columns];
    let time = least(|| {
        winograd.run(&left, window, None, 0, &winograd.grid(&mut out, window, 1, tasks), &mut scratch);
    });
    (window.pixels() * elements.len()) as f64 / time.as_secs_f64() / 1e9
}

fn depthwise_rates([size, channels, kernel, stride]: [usize; 4], level: Level) -> [f64; 2] {
    let whole = Window::image(1, [size, size], channels);
    let out = [size.div_ceil(stride); 2];
    let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 2], out, ..whole };
    let weights = made_up(window.taps() * channels);
    // As they lie in an arena.
    let mut image = Aligned::zeroed(window.reach(channels) * size_of::<f32>());
    image.elements_mut().copy_from_slice(&made_up(window.reach(channels)));
    let mut out = Aligned::zeroed(window.pixels() * channels * size_of::<f32>());
    let filters = Filters { weights: &weights, taps: window.taps(), channels, bias: None };
    let depthwise = Depthwise::pack(level, &filters, Activation::RELU);
    let floats = least(|| {
        let grid = depthwise.grid(out.elements_mut(), channels, &window);
        depthwise.run(image.elements(), &window, &grid);
    });
    let (trained, bias, scale) = (trained(weights.len()), vec![1; channels], vec![1e-2; channels]);
    let filters = ByteFilters {
        weights: &trained,
        kernel: window.kernel,
        across: [stride, 1],
        channels,
        bias: &bias,
        scale: &scale,
    };
    let depthwise = ByteDepthwise::pack(level, &filters, 0, u8s8_gemm::Finish::Bytes { zero: 0, low: 0, high: 255 });
    let bytes = least(|| {
        let grid = depthwise.grid(out.elements_mut(), channels, &window);
        depthwise.run(image.elements(), &window, &grid);
    });
    [floats, bytes].map(|time| (window.pixels() * weights.len()) as f64 / time.as_secs_f64() / 1e9)
}

/// Packing, the products and softmax by themselves, and all together.
fn attention_times([heads, tokens, depth]: [usize; 3], level: Level) -> [Duration; 4] {
    let extents = Extents { batch: 1, heads, queries: tokens, keys: tokens, depth, width: depth };
    let elements = made_up(heads * tokens * depth);
    let x = Strided { elements: &elements, strides: [heads * tokens * depth, depth, heads * depth, 1] };
    let attention = Attention::new(level, extents, 0.2);
    let (mut packed, mut room) = (vec![0.0; attention.packed_elements()], vec![0.0; attention.room_elements()]);
    let mut out = vec![0.0; elements.len()];
    let pack = least(|| attention.pack(&x, &x, &attention.packed_grid(&mut packed)));
    let run = least(|| {
        let grid = attention.grid(&mut out, Order::HeadsInside);
        attention.run(&x, None, &packed, Order::HeadsInside, &grid, &mut room);
    });
    let scores = made_up(heads * tokens * tokens);
    let mut weights = vec![0.0; scores.len()];
    let softmax = least(|| softmax(level, &scores, &rows_grid(&mut weights, heads * tokens, tokens)));
    [pack, run.saturating_sub(softmax), softmax, pack + run]
}

fn least(mut run: impl FnMut()) -> Duration {
    let (begun, mut least) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < MEASURED {
        let started = Instant::now();
        run();
        least = least.min(started.elapsed());
    }
    least
}

fn made_up(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at % 17) as f32 * 0.1).collect()
}

/// Weights as training makes them, most of them much smaller than the largest.
fn trained(count: usize) -> Vec<i8> {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as i8 / 4
    };
    (0..count).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

const MEASURED: Duration = Duration::from_millis(100);
