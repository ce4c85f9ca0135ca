//! Headers between a frame's length and its message. Written by hand: a request's header version follows from the two
//! fields it begins with, and its client id keeps the old string form even in the flexible version
//! (KIP-482), so that a broker can read the header of an ApiVersions request it does not know.

use super::{Decoder, Encoder, WireError};
use crate::messages::ApiKey;

/// What a request begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeader {
    /// Which API, as sent; see [`ApiKey::from_code`].
    pub api_key: i16,
    /// The version that the rest of the request is in.
    pub api_version: i16,
    /// Sent back in the response's header.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads a header of the version that its API key and version call for. An API key that Kafka does not have is an error,
    /// since the header's end is unknown; an unknown version of a known API is not.
    pub fn decode(d: &mut Decoder) -> Result<Self, WireError> {
        let api_key = d.i16()?;
        let api_version = d.i16()?;
        let key = ApiKey::from_code(api_key).ok_or(WireError::UnknownApiKey(api_key))?;
        let version = key.request_header_version(api_version);
        let correlation_id = d.i32()?;
        let client_id = if version >= 1 { d.nullable_string(false)? } else { None };
        if version >= 2 {
            d.skip_tags()?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header in the version that its API key and version call for.
    pub fn encode(&self, e: &mut Encoder) -> Result<(), WireError> {
        let key = ApiKey::from_code(self.api_key).ok_or(WireError::UnknownApiKey(self.api_key))?;
        let version = key.request_header_version(self.api_version);
        e.i16(self.api_key);
        e.i16(self.api_version);
        e.i32(self.correlation_id);
        if version >= 1 {
            e.nullable_string(false, self.client_id.as_deref())?;
        }
        if version >= 2 {
            e.uvarint(0);
        }
        Ok(())
    }
}

/// What a response begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of a response to `key` in `api_version`.
    pub fn decode(d: &mut Decoder, key: ApiKey, api_version: i16) -> Result<Self, WireError> {
        let correlation_id = d.i32()?;
        if key.response_header_version(api_version) >= 1 {
            d.skip_tags()?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header of a response to `key` in `api_version`.
    pub fn encode(self, e: &mut Encoder, key: ApiKey, api_version: i16) {
        e.i32(self.correlation_id);
        if key.response_header_version(api_version) >= 1 {
            e.uvarint(0);
        }
    }
}
