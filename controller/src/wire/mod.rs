//! What members say to each other, in bytes: kinds of calls and their bodies, commands and their outcomes.
//!
//! Bodies are in the encoding of the metadata ([`Durable`]). Their version is that of the control protocol, which each
//! envelope carries; a member that does not speak it refuses the call and says what it speaks.

pub(crate) mod calls;
mod command;
pub(crate) mod outcome;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use proto::metadata::{DecodeError, Durable};

/// Encodes a body.
pub(crate) fn encode(value: &impl Durable) -> Bytes {
    let mut out = Vec::with_capacity(64);
    value.put(&mut out);
    out.into()
}

/// Decodes a body: all of it.
pub(crate) fn decode<T: Durable>(mut bytes: &[u8]) -> Result<T, DecodeError> {
    let value = T::take(&mut bytes)?;
    if bytes.is_empty() { Ok(value) } else { Err(DecodeError::LeftOver { number: 0, left: bytes.len() }) }
}

/// Encodes an enum whose variants carry data: the number given, then the data in the order given.
macro_rules! durable_union {
    ($($name:ident { $($number:literal = $variant:ident $(($($item:ident),*))? $({$($field:ident),*})?),* $(,)? })*) => {$(
        impl proto::metadata::Durable for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {$(
                    Self::$variant $(($($item),*))? $({$($field),*})? => {
                        let number: u64 = $number;
                        number.put(out);
                        $($($item.put(out);)*)?
                        $($($field.put(out);)*)?
                    }
                )*}
            }

            fn take(input: &mut &[u8]) -> Result<Self, proto::metadata::DecodeError> {
                Ok(match u64::take(input)? {
                    $($number => Self::$variant
                        $(($({ let $item = proto::metadata::Durable::take(input)?; $item }),*))?
                        $({$($field: proto::metadata::Durable::take(input)?),*})?,)*
                    number => {
                        let what = stringify!($name);
                        return Err(proto::metadata::DecodeError::UnknownVariant { what, number });
                    }
                })
            }
        }
    )*};
}
pub(crate) use durable_union;
