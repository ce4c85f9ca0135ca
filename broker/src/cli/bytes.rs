//! Bytes of records as JSON: a text if they are one, else base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Text as a string, nothing as null, and bytes that are no text as an object with one entry, `base64`.
pub(super) fn to_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_text_is_encoded() {
        assert_eq!(to_json(None), Value::Null);
        assert_eq!(to_json(Some(b"")), json!(""));
        assert_eq!(to_json(Some("é".as_bytes())), json!("é"));
        assert_eq!(to_json(Some(&[0xff])), json!({"base64": "/w=="}));
    }
}
