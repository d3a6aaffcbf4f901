use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::{Activation, Level, Window};
use std::time::Instant;
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for (name, window, depth, columns) in [
        ("gemm 128x384x1536", Window::rows(128, 384), 384, 1536),
        ("gemm 128x1536x384", Window::rows(128, 1536), 1536, 384),
        ("gemm 1x784x512", Window::rows(1, 784), 784, 512),
        ("gemm 8x784x512", Window::rows(8, 784), 784, 512),
        ("c1x1 56 64-256", Window::image(1, [56, 56], 64), 64, 256),
        ("c1x1 56 256-64", Window::image(1, [56, 56], 256), 256, 64),
        ("c3x3 56 64-64", Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [56, 56], 64) }, 64, 64),
        ("c3x3 28 128", Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [28, 28], 128) }, 128, 128),
        ("c3x3 14 256", Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [14, 14], 256) }, 256, 256),
        ("c3x3 7 512", Window { kernel: [3, 3], pad: [1, 1], ..Window::image(1, [7, 7], 512) }, 512, 512),
        ("c1x1 7 512-2048", Window::image(1, [7, 7], 512), 512, 2048),
        ("c1x1 7 2048-512", Window::image(1, [7, 7], 2048), 2048, 512),
        ("c1x1 14 1024-256", Window::image(1, [14, 14], 1024), 1024, 256),
        ("c1x1 112 16-96", Window::image(1, [112, 112], 16), 16, 96),
        ("c1x1 56 96-24", Window::image(1, [56, 56], 96), 96, 24),
        ("c1x1 14 96-576", Window::image(1, [14, 14], 96), 96, 576),
        (
            "stem 7x21",
            Window {
                images: 1,
                size: [230, 218],
                pitch: [230 * 230 * 3, 230 * 3, 3],
                kernel: [7, 1],
                stride: [2, 2],
                out: [112, 112],
                dilation: [1, 1],
                pad: [0, 0],
            },
            21,
            64,
        ),
    ] {
        if !name.contains(&filter) {
            continue;
        }
        let left: Vec<f32> = (0..window.reach(depth)).map(|i| (i % 17) as f32 * 0.1).collect();
        let elements: Vec<f32> = (0..window.taps() * depth * columns).map(|i| (i % 13) as f32 * 0.1).collect();
        let w = Weights { elements: &elements, taps: window.taps(), depth, columns };
        print!("{name:20}");
        for level in Level::all().skip(1) {
            for vectors in Gemm::widths(level) {
                let gemm = Gemm::pack(level, &w, None, Activation::RELU, Some(vectors));
                let mut out = vec![0.0; window.pixels() * columns];
                let mut best = f64::MAX;
                let begun = Instant::now();
                while begun.elapsed().as_secs_f64() < 0.15 {
                    let t = Instant::now();
                    gemm.run(&left, &window, None, &gemm.grid(&mut out, columns, window.pixels()));
                    best = best.min(t.elapsed().as_secs_f64());
                }
                let macs = (window.pixels() * window.taps() * depth * columns) as f64;
                print!(" {:6.1}", macs / best / 1e9);
            }
            print!(" |");
        }
        println!(" GMAC/s");
    }
}
