//! Bytes of records as JSON: a text if they are one, else base64.

use serde_json::{Value, json};

/// Text as a string, nothing as null, and bytes that are no text as an object with one entry, `base64`.
pub(super) fn to_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({"base64": base64(bytes)}),
    }
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| group << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            // Three bytes make four characters, one makes two.
            let letter = if at <= chunk.len() { ALPHABET[group >> (18 - 6 * at) & 63] } else { b'=' };
            out.push(char::from(letter));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let expected =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in expected {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn only_what_is_no_text_is_encoded() {
        assert_eq!(to_json(None), Value::Null);
        assert_eq!(to_json(Some(b"")), json!(""));
        assert_eq!(to_json(Some("é".as_bytes())), json!("é"));
        assert_eq!(to_json(Some(&[0xff])), json!({"base64": "/w=="}));
    }
}
