//! One habit of hand-written text formats that the parser lacks: a list without the colon before it, as in
//! `input [ { ... } ]`.
//!
//! Only colons are added, so that every line keeps its number. Nothing else about the text is known here.

use std::borrow::Cow;

/// The text with a colon between every name and the list behind it.
pub(super) fn with_colons(text: &str) -> Cow<'_, str> {
    let places = missing_colons(text);
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut whole = String::with_capacity(text.len() + places.len());
    let mut copied = 0;
    for place in places {
        whole.push_str(&text[copied..place]);
        whole.push(':');
        copied = place;
    }
    whole.push_str(&text[copied..]);
    Cow::Owned(whole)
}

/// Where a list follows a name at once, outside of strings and comments.
fn missing_colons(text: &str) -> Vec<usize> {
    let mut places = Vec::new();
    let mut before = b' ';
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'#' => _ = bytes.find(|&(_, byte)| byte == b'\n'),
            b'"' | b'\'' => {
                let mut escaped = false;
                // The end of a string: its quote, unless a backslash stands before it.
                let _ = bytes.find(|&(_, inner)| {
                    let ends = inner == byte && !escaped;
                    escaped = inner == b'\\' && !escaped;
                    ends
                });
                before = byte;
            }
            b'[' => {
                if before == b'_' || before.is_ascii_alphanumeric() {
                    places.push(at);
                }
                before = byte;
            }
            _ if byte.is_ascii_whitespace() => {}
            _ => before = byte,
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_go_before_lists_that_lack_them() {
        for (text, expected) in [
            ("input [ { dims: [ 1 ] } ]", "input :[ { dims: [ 1 ] } ]"),
            ("dims[1]\n", "dims:[1]\n"),
            ("input # [ a\n [", "input # [ a\n :["),
            ("name: \"a [ b\" x [", "name: \"a [ b\" x :["),
            (r#"name: "a \" x [" y: [ ["#, r#"name: "a \" x [" y: [ ["#),
            (r#"name: 'a\\' x ["#, r#"name: 'a\\' x :["#),
            ("é [", "é ["),
            ("\"open [", "\"open ["),
            ("", ""),
        ] {
            assert_eq!(with_colons(text), expected);
        }
    }
}
