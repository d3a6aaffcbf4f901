//! Layers run depth first: a band of lines through all of them before the next band, so that what one layer makes is
//! still in the second-level cache when the next reads it (Alwani et al., "Fused-Layer CNN Accelerators", 2016).
//!
//! Between bands the lines that windows share are kept, not computed again. Every element is the same sum as when layers
//! run one after the other: answers do not depend on bands. What a layer computes is not known here, only which lines see
//! which (`ByLines`). Why, and what it costs: docs/adr/009.

use std::ops::Range;

use kinglet_kernels::{Grid, LINE, Window};

use super::layers::{Io, View, ViewMut};
use super::memory;
use super::model::Model;
use super::specialise::fact;
use crate::engine::graph::ValueId;
use crate::engine::graph::samples::GraphFacts;
use crate::engine::pool::Team;

/// Layers of which each takes the image that the one before makes, and nobody else does.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<Link>,
    images: usize,
    /// Lines of the last output that go through all layers together.
    band: usize,
    /// Bytes that each thread needs.
    room: usize,
}

/// One layer of a chain.
#[derive(Clone, Debug)]
struct Link {
    node: usize,
    /// Over one whole image.
    window: Window,
    /// Bytes of a line of the input and of the output.
    line: [usize; 2],
    /// Where the operands behind the image are among those of the chain.
    others: Range<usize>,
    /// Where lines of the output are kept in a thread's room, and what the layer needs besides; the last link writes
    /// where the chain's output is.
    lines: Range<usize>,
    scratch: Range<usize>,
}

/// The layers of some nodes as far as they can be put together.
pub(super) fn find(model: &Model, facts: &GraphFacts) -> Vec<Chain> {
    let mut taken = vec![0usize; model.graph.value_count()];
    let operands = model.layers.iter().flat_map(|layered| &layered.operands);
    operands.chain(&model.graph.outputs).for_each(|value| taken[value.index()] += 1);
    let mut chains = Vec::new();
    let mut open: Option<Chain> = None;
    for node in 0..model.layers.len() {
        if fact(facts, model.graph.nodes[node].output).value.is_some() {
            continue;
        }
        let link = Link::of(model, facts, node);
        let follows = |chain: &Chain| {
            let before = model.graph.nodes[chain.last()].output;
            model.layers[node].operands[0] == before
                && taken[before.index()] == 1
                && fact(facts, before).bytes() >= Some(CHAINED_BYTES_MIN * chain.images)
        };
        let longer = match (&open, &link) {
            (Some(chain), Some(link)) if follows(chain) => chain.with(link.clone(), model, facts),
            _ => None,
        };
        if longer.is_none() {
            chains.extend(open.take());
        }
        open = longer.or_else(|| link.map(|link| Chain::of(link, model, facts)));
    }
    chains.extend(open);
    chains.retain(|chain| chain.links.len() > 1);
    chains
}

impl Link {
    /// `None` where the layer does not go by lines.
    fn of(model: &Model, facts: &GraphFacts, node: usize) -> Option<Self> {
        let (layered, made) = (&model.layers[node], fact(facts, model.graph.nodes[node].output));
        let x = fact(facts, *layered.operands.first()?);
        let window = layered.layer.by_lines()?.window(x)?;
        let alike = |&other: &ValueId| fact(facts, other).bytes() == made.bytes();
        let whole = window.pixels() > 0
            && window.out[0] > 1
            && x.bytes()? > 0
            && made.bytes()? > 0
            && layered.operands[1..].iter().all(alike);
        let line = [
            x.bytes()? / (window.images * window.size[0]).max(1),
            made.bytes()? / (window.images * window.out[0]).max(1),
        ];
        // A window that leaves lines out would have them computed for nothing.
        let dense = window.stride[0] <= reach(&window, 1);
        (whole && dense).then(|| Self {
            node,
            window: Window { images: 1, ..window },
            line,
            others: 0..layered.operands.len() - 1,
            lines: 0..0,
            scratch: 0..0,
        })
    }

    /// The lines of the input that some lines of the output see.
    fn seen(&self, lines: &Range<usize>) -> Range<usize> {
        // Those that padding alone was to be made of.
        if lines.is_empty() {
            return 0..0;
        }
        let Window { size, stride, pad, .. } = self.window;
        let end = reach(&self.window, lines.end).saturating_sub(pad[0]).min(size[0]);
        (lines.start * stride[0]).saturating_sub(pad[0]).min(end)..end
    }

    /// The window of some lines of the output over those lines of the input that they see.
    fn part(&self, lines: &Range<usize>, seen: &Range<usize>) -> Window {
        let before = self.window.pad[0].saturating_sub(lines.start * self.window.stride[0]);
        Window {
            size: [seen.len(), self.window.size[1]],
            pitch: [seen.len() * self.window.pitch[1], self.window.pitch[1], self.window.pitch[2]],
            pad: [before, self.window.pad[1]],
            out: [lines.len(), self.window.out[1]],
            ..self.window
        }
    }
}

impl Chain {
    fn of(link: Link, model: &Model, facts: &GraphFacts) -> Self {
        let operand = model.layers[link.node].operands[0];
        let images = fact(facts, operand).shape.rows().max(1);
        Self { band: link.window.out[0], links: vec![link], images, room: 0 }
    }

    /// The last node.
    pub(super) fn last(&self) -> usize {
        self.end().node
    }

    /// The last link, which makes the chain's output.
    fn end(&self) -> &Link {
        &self.links[self.links.len() - 1]
    }

    /// With another link, if a band still fits the cache.
    fn with(&self, mut link: Link, model: &Model, facts: &GraphFacts) -> Option<Self> {
        let first = self.end().others.end;
        link.others = first..first + link.others.len();
        if 1 + link.others.end > OPERANDS_MAX || self.links.len() == LINKS_MAX {
            return None;
        }
        let mut links = self.links.clone();
        links.push(link);
        let weights: usize = links.iter().map(|link| model.layers[link.node].layer.bytes()).sum();
        let mut chain = Self { links, images: self.images, band: 0, room: 0 };
        for band in (1..=chain.end().window.out[0].min(BAND_LINES_MAX)).rev() {
            chain.band = band;
            chain.lay_out(model, facts)?;
            if chain.room + weights <= CHAIN_BYTES_MAX {
                return Some(chain);
            }
        }
        None
    }

    /// Gives every link its part of a thread's room.
    fn lay_out(&mut self, model: &Model, facts: &GraphFacts) -> Option<()> {
        let place = |bytes: usize, at: &mut usize| {
            let start = *at;
            *at = (start + bytes).next_multiple_of(LINE);
            start..start + bytes
        };
        let (mut at, mut lines) = (0, self.band);
        let last = self.links.len() - 1;
        for (position, link) in self.links.iter_mut().enumerate().rev() {
            let seen = reach(&link.window, lines).min(link.window.size[0]);
            link.lines = if position == last { 0..0 } else { place(lines * link.line[1], &mut at) };
            let layered = &model.layers[link.node];
            let window = link.part(&(0..lines), &(0..seen));
            let x = fact(facts, layered.operands[0]);
            link.scratch = place(layered.layer.by_lines()?.scratch_over(&window, x, 1), &mut at);
            lines = seen;
        }
        self.room = at;
        Some(())
    }

    /// Nodes, in the order they run.
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.links.iter().map(|link| link.node)
    }

    /// What the chain takes from outside: the image, then other operands of its links.
    pub(super) fn operands<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = ValueId> + 'a {
        let of = |link: &Link| &model.layers[link.node].operands;
        of(&self.links[0])[..1].iter().chain(self.links.iter().flat_map(move |link| &of(link)[1..])).copied()
    }

    /// What runs it, in the words of `inspect`.
    pub(super) fn kernel(&self) -> String {
        format!("{} layers, {} lines each", self.links.len(), self.band)
    }

    pub(super) fn scratch(&self, threads: usize) -> usize {
        threads.min(self.end().window.out[0]) * self.room
    }

    /// Runs all layers. Every thread takes lines that lie together.
    pub(super) fn run(&self, model: &Model, facts: &GraphFacts, io: &mut Io<'_>, team: &mut Team) {
        let (height, line) = (self.end().window.out[0], self.end().line[1]);
        let operands = &io.operands[..];
        let stripe = height.div_ceil(team.size());
        for (image, out) in io.output.bytes.chunks_exact_mut(height * line).enumerate() {
            let grid = Grid::new(out, line, [height, line], [stripe, line]);
            // A room for each thread; one that finds none leaves its lines to the others.
            let threads = team.size().min(io.scratch.len() / self.room);
            let rooms = Grid::new(&mut *io.scratch, self.room, [threads, self.room], [1, self.room]);
            team.share(&|| {
                let Some(mut room) = rooms.take() else { return };
                while let Some(mut stripe) = grid.take() {
                    let lines = stripe.first()[0]..stripe.first()[0] + stripe.size()[0];
                    self.run_stripe(&Seen { model, facts, operands, image }, lines, room.row(0), stripe.whole());
                }
            });
        }
    }

    /// Some lines of one image's output, band by band.
    fn run_stripe(&self, seen: &Seen<'_>, stripe: Range<usize>, room: &mut [u8], out: &mut [u8]) {
        let line = self.end().line[1];
        // Lines of each link's output that are there.
        let mut kept: Kept = [const { 0..0 }; LINKS_MAX];
        for first in stripe.clone().step_by(self.band) {
            let band = first..(first + self.band).min(stripe.end);
            let out = &mut out[(band.start - stripe.start) * line..(band.end - stripe.start) * line];
            self.run_band(seen, &band, &mut kept, room, out);
        }
    }

    fn run_band(&self, seen: &Seen<'_>, band: &Range<usize>, kept: &mut Kept, room: &mut [u8], out: &mut [u8]) {
        let last = self.links.len() - 1;
        let mut wanted: Kept = [const { 0..0 }; LINKS_MAX];
        wanted[last] = band.clone();
        for at in (0..last).rev() {
            wanted[at] = self.links[at + 1].seen(&wanted[at + 1]);
        }
        for (at, link) in self.links.iter().enumerate() {
            let mut lines = wanted[at].clone();
            if at < last {
                lines.start = link.keep(&kept[at], &wanted[at], room);
                kept[at] = wanted[at].clone();
            }
            if lines.is_empty() {
                continue;
            }
            let from = link.seen(&lines);
            let window = link.part(&lines, &from);
            let before = at.checked_sub(1).map(|before| (&self.links[before], &kept[before]));
            let image = before.map_or(0..0, |(before, kept)| before.place(kept, &from));
            let to = if at < last { link.place(&kept[at], &lines) } else { 0..0 };
            let ([made, scratch], read) = memory::views(room, [&to, &link.scratch], std::slice::from_ref(&image));
            let layered = &seen.model.layers[link.node];
            let whole = |value: ValueId| fact(seen.facts, value);
            let x = if before.is_some() { read[0] } else { seen.lines_of(0, link.window.size[0], link.line[0], &from) };
            let others =
                link.others.clone().map(|other| seen.lines_of(1 + other, link.window.out[0], link.line[1], &lines));
            let bytes = std::iter::once(x).chain(others);
            let operands = layered.operands.iter().zip(bytes).map(|(&value, bytes)| View { fact: whole(value), bytes });
            let output = if at < last { made } else { &mut *out };
            let output = ViewMut { fact: whole(seen.model.graph.nodes[link.node].output), bytes: output };
            let mut io = Io { operands: operands.collect(), output, scratch };
            if let Some(by_lines) = layered.layer.by_lines() {
                by_lines.run_over(&window, &mut io, &mut Team::alone());
            }
        }
    }
}

impl Link {
    /// Moves the lines that are wanted again to the front. Returns the first that has to be computed.
    fn keep(&self, kept: &Range<usize>, wanted: &Range<usize>, room: &mut [u8]) -> usize {
        let again = wanted.start..kept.end.min(wanted.end);
        if kept.start > wanted.start || again.is_empty() {
            return wanted.start;
        }
        let from = self.place(kept, &again);
        room.copy_within(from, self.lines.start);
        again.end
    }

    /// Where lines are in a thread's room, of which there are those from the first of `kept` on.
    fn place(&self, kept: &Range<usize>, lines: &Range<usize>) -> Range<usize> {
        let at = |line: usize| self.lines.start + (line - kept.start) * self.line[1];
        at(lines.start)..at(lines.end)
    }
}

/// Lines from the first to the last that so many lines of the output see.
fn reach(window: &Window, lines: usize) -> usize {
    (lines - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
}

/// What all threads see of a run.
struct Seen<'a> {
    model: &'a Model,
    facts: &'a GraphFacts,
    operands: &'a [View<'a>],
    image: usize,
}

impl<'a> Seen<'a> {
    /// Lines of one of the chain's operands, which has so many of so many bytes for every image.
    fn lines_of(&self, operand: usize, height: usize, line: usize, lines: &Range<usize>) -> &'a [u8] {
        let first = self.image * height;
        &self.operands[operand].bytes[(first + lines.start) * line..(first + lines.end) * line]
    }
}

/// Lines of every link's output.
type Kept = [Range<usize>; LINKS_MAX];

/// Layers of one chain: there are lists for them on the stack.
const LINKS_MAX: usize = 16;

/// Operands of a chain, as of a layer that takes nothing from the allocator.
const OPERANDS_MAX: usize = 6;

/// What is smaller for each image is read again sooner from where it was written than its lines are handed on (measured
/// with 512 KiB of second-level cache).
const CHAINED_BYTES_MIN: usize = 1 << 20;

/// What a chain's bands and weights may take of the second-level cache.
const CHAIN_BYTES_MAX: usize = 320 << 10;

/// More lines save nothing more.
const BAND_LINES_MAX: usize = 16;
