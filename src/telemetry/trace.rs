//! W3C trace context: which trace a request belongs to, taken over from the client or begun here.
//!
//! Pure but for new ids. What is recorded and sent of a span is the matter of `spans`; this file knows no request.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// One span of a trace, as the headers `traceparent` and `tracestate` carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    trace_id: u128,
    /// Never zero.
    span_id: u64,
    /// The span that this one is in; nothing for one that was read, and for the first of a trace.
    parent_id: Option<u64>,
    flags: u8,
    /// What tracing systems on the way have left, in our bounds; empty where nothing came.
    state: String,
}

/// What another span needs to name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    pub trace_id: u128,
    pub span_id: u64,
}

impl SpanIds {
    /// Of the only span of a new trace.
    pub fn root() -> Self {
        Self { trace_id: u128::from(random()) << 64 | u128::from(random()), span_id: random() }
    }
}

impl TraceContext {
    /// Reads version 00, whose form is fixed to the byte, and of later versions the fields they share with it. An
    /// invalid `tracestate` is dropped, as the standard asks, and does not spoil the rest.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let (text, more) = traceparent.as_bytes().split_first_chunk::<TRACEPARENT_BYTES>()?;
        let version = hex(&text[..2])?;
        let dashes = [text[2], text[35], text[52]] == *b"---";
        // Version ff is forbidden; what a later one adds stands behind a dash.
        let ends = more.is_empty() || version > 0 && more[0] == b'-';
        if !dashes || !ends || version == 0xff {
            return None;
        }
        let trace_id = hex(&text[3..35])?;
        let span_id = u64::try_from(hex(&text[36..52])?).ok()?;
        let flags = u8::try_from(hex(&text[53..])?).ok()?;
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        let state = tracestate.map(bounded_state).unwrap_or_default();
        Some(Self { trace_id, span_id, parent_id: None, flags: flags & KNOWN_FLAGS, state })
    }

    /// The first span of a new trace. It is not marked as sampled: nobody asked for it to be recorded.
    pub fn root() -> Self {
        let SpanIds { trace_id, span_id } = SpanIds::root();
        Self { trace_id, span_id, parent_id: None, flags: 0, state: String::new() }
    }

    /// The same, marked as sampled.
    pub fn sampled(self) -> Self {
        Self { flags: self.flags | SAMPLED, ..self }
    }

    /// A number below `DRAWS` that is the same for the whole trace: its random part, as the standard has it.
    pub fn draw(&self) -> u64 {
        u64::try_from(self.trace_id & u128::from(Self::DRAWS - 1)).expect("it has 56 bits")
    }

    pub const DRAWS: u64 = 1 << 56;

    /// A new span of the same trace.
    pub fn child(&self) -> Self {
        Self { span_id: random(), parent_id: Some(self.span_id), ..self.clone() }
    }

    /// As 32 hexadecimal digits, for the span of the logs.
    pub fn trace_id(&self) -> impl fmt::Display + fmt::Debug + use<> {
        TraceId(self.trace_id)
    }

    pub fn ids(&self) -> SpanIds {
        SpanIds { trace_id: self.trace_id, span_id: self.span_id }
    }

    pub fn parent_id(&self) -> Option<u64> {
        self.parent_id
    }

    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the trace is to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of `tracestate`, where there is one to send.
    pub fn tracestate(&self) -> Option<&str> {
        (!self.state.is_empty()).then_some(&self.state)
    }
}

/// The value of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[derive(Debug)]
struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Lower-case digits only: the standard calls others invalid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// The members in their order, empty ones left out; those that no longer fit are dropped whole, from the end. One
/// invalid member, or the same key twice, drops everything.
fn bounded_state(text: &str) -> String {
    let mut state = String::new();
    let mut keys: Vec<&str> = Vec::new();
    for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()) {
        let Some((key, value)) = member.split_once('=').filter(|(key, value)| is_key(key) && is_value(value)) else {
            return String::new();
        };
        if keys.contains(&key) {
            return String::new();
        }
        if keys.len() == STATE_MEMBERS_MAX || state.len() + 1 + member.len() > STATE_BYTES_MAX {
            break;
        }
        keys.push(key);
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(key);
        state.push('=');
        state.push_str(value);
    }
    state
}

fn is_key(key: &str) -> bool {
    let starts = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/@".contains(&c);
    starts && key.len() <= 256 && key.bytes().all(rest)
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.len() <= 256 && value.bytes().all(|c| matches!(c, b' '..=b'~') && c != b'=' && c != b',')
}

/// A number for an id, never zero. Ids must differ between threads and processes, not resist guessing: SplitMix64 from a
/// seed of the system's, one generator a thread.
pub fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).max(1)
    })
}

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TRACEPARENT_BYTES: usize = 55;
const SAMPLED: u8 = 1;
/// Sampled, and "the trace id is random"; the others have no meaning yet and are sent as zero.
const KNOWN_FLAGS: u8 = 0b11;
/// The standard allows no more members, and asks for no more bytes to be passed on.
const STATE_MEMBERS_MAX: usize = 32;
const STATE_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn valid_headers_are_read() {
        for (text, sampled) in [
            (PARENT, true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", true),
        ] {
            let context = TraceContext::parse(text, None).unwrap();
            assert_eq!((context.to_string().as_str(), context.is_sampled()), (text, sampled));
            assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
        let unknown_flags = PARENT.replace("-01", "-ff");
        let sent = PARENT.replace("-01", "-03");
        assert_eq!(TraceContext::parse(&unknown_flags, None).unwrap().to_string(), sent);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for version in ["01", "cc", "fe"] {
            for more in ["", "-", "-what the future brings"] {
                let text = format!("{version}{}{more}", &PARENT[2..]);
                let context = TraceContext::parse(&text, None).unwrap();
                assert_eq!(context.to_string(), PARENT, "{text}: what is sent on is ours");
            }
        }
    }

    #[test]
    fn invalid_headers_are_not() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text, None), None, "{text:?}");
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace_and_a_root_of_a_new_one() {
        let parent = TraceContext::parse(PARENT, Some("a=1")).unwrap();
        let child = parent.child();
        assert_ne!(child.span_id, parent.span_id);
        assert_eq!(child.parent_id, Some(parent.span_id));
        assert_eq!(TraceContext { span_id: parent.span_id, parent_id: None, ..child }, parent);

        let (first, second) = (TraceContext::root(), TraceContext::root());
        assert_ne!(first.trace_id, second.trace_id);
        assert!(!first.is_sampled() && first.clone().sampled().is_sampled());
        assert!(first.draw() < TraceContext::DRAWS && first.draw() == first.child().draw());
        assert_eq!(TraceContext::parse(&first.to_string(), None), Some(first));
    }

    #[test]
    fn ids_do_not_repeat_between_threads() {
        let draw = || (0..1000).map(|_| random()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let ids: HashSet<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 4000);
        assert!(!ids.contains(&0));
    }

    #[test]
    fn states_are_checked_and_bounded() {
        let long = format!("a={}", "x".repeat(257));
        let filling = format!("a={0},b={0},c={0}", "x".repeat(250));
        let many = |count: usize| (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        for (text, wanted) in [
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (" a=1 ,\tb=2,,", "a=1,b=2"),
            ("fw529a3039@dt=x y", "fw529a3039@dt=x y"),
            ("", ""),
            ("a", ""),
            ("a=", ""),
            ("=1", ""),
            ("A=1", ""),
            ("a=1,b=2=3", ""),
            ("a=1,a=2", ""),
            ("a=ü", ""),
            ("a=1\nb", ""),
            (&long, ""),
            (&filling, &filling[..505]),
            (&many(32), &many(32)),
            (&many(33), &many(32)),
        ] {
            let context = TraceContext::parse(PARENT, Some(text)).unwrap();
            assert_eq!(context.tracestate().unwrap_or_default(), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1u128.., span_id in 1u64.., flags in 0..=3u8) {
            let context = TraceContext { trace_id, span_id, parent_id: None, flags, state: String::new() };
            prop_assert_eq!(TraceContext::parse(&context.to_string(), None), Some(context));
        }

        #[test]
        fn what_is_passed_on_is_valid(parent in "\\PC*", state in "[a-c=, @\\PC]{0,80}") {
            let _ = TraceContext::parse(&parent, Some(&state));
            let passed = bounded_state(&state);
            prop_assert_eq!(&bounded_state(&passed), &passed);
            prop_assert!(passed.len() <= STATE_BYTES_MAX && passed.is_ascii());
        }
    }
}
