//! `NaN`, `Infinity` and `-Infinity` in a JSON body: not JSON, but what several languages write.
//!
//! Strict parsing comes first; only a body it refuses is looked at here.

/// The body with those bare tokens turned into strings, or `None` where it has none.
pub(super) fn quoted(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut found = false;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        if in_string {
            let step = if byte == b'\\' { 2 } else { 1 };
            in_string = byte != b'"';
            out.extend_from_slice(&body[at..body.len().min(at + step)]);
            at += step;
        } else if let Some(token) = TOKENS.iter().find(|token| body[at..].starts_with(token)) {
            out.push(b'"');
            out.extend_from_slice(token);
            out.push(b'"');
            found = true;
            at += token.len();
        } else {
            in_string = byte == b'"';
            out.push(byte);
            at += 1;
        }
    }
    found.then_some(out)
}

const TOKENS: &[&[u8]] = &[b"NaN", b"Infinity", b"-Infinity"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_outside_strings_are_quoted() {
        let read = |json: &str| quoted(json.as_bytes()).map(|out| String::from_utf8(out).unwrap());
        assert_eq!(read("[1]"), None);
        assert_eq!(read(r#"["NaN","\"NaN"]"#), None);
        assert_eq!(read("[NaN,-Infinity,Infinity]").as_deref(), Some(r#"["NaN","-Infinity","Infinity"]"#));
        assert_eq!(read("\"\\").as_deref(), None);
    }
}
