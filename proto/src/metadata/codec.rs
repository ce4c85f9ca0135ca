//! The durable encoding of metadata: what lies in the raft log and in snapshots.
//!
//! Integers are LEB128 varints (zigzag when signed), strings and lists carry their length, enums and
//! records carry stable numbers. A record is framed as `number, version, length, body`, so that a
//! reader which does not know it can say which one it was. Every length is bounded by the bytes
//! left: no input makes the decoder reserve more than a small multiple of its own size.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::ids::{DirectoryId, NodeId, TopicId, TopicPartition};

/// What is wrong with bytes that should have been metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("metadata ends in the middle of a value")]
    Truncated,
    /// A number does not fit its type.
    #[error("number out of range in metadata")]
    OutOfRange,
    /// A string is not UTF-8.
    #[error("string in metadata is not UTF-8")]
    NotUtf8,
    /// An enum has no such number.
    #[error("unknown {what} number {number} in metadata")]
    UnknownVariant {
        /// Which enum.
        what: &'static str,
        /// The number found.
        number: u64,
    },
    /// A record was written by a newer Firn.
    #[error("metadata record {number} has version {version}, newer than this Firn understands")]
    UnknownVersion {
        /// Record number.
        number: u64,
        /// Version found.
        version: u64,
    },
    /// A record's body is longer than its fields.
    #[error("{left} bytes left over after metadata record {number}")]
    LeftOver {
        /// Record number.
        number: u64,
        /// Bytes not consumed.
        left: usize,
    },
}

/// A value with a stable encoding.
pub trait Durable: Sized {
    /// Appends the encoding to `out`.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes one value off the front of `input`.
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// Takes `length` bytes off the front of `input`.
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (head, rest) = input.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(head)
}

/// Takes a length that cannot exceed the bytes left, each item taking at least one.
fn take_length(input: &mut &[u8]) -> Result<usize, DecodeError> {
    let length = usize::try_from(u64::take(input)?).map_err(|_| DecodeError::OutOfRange)?;
    if length > input.len() {
        return Err(DecodeError::Truncated);
    }
    Ok(length)
}

/// Takes a list, each item with `take`.
pub(crate) fn take_list<T>(
    input: &mut &[u8],
    mut take: impl FnMut(&mut &[u8]) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let length = take_length(input)?;
    // Grown as items turn up: a lying count reserves nothing.
    let mut items = Vec::with_capacity(length.min(64));
    for _ in 0..length {
        items.push(take(input)?);
    }
    Ok(items)
}

impl Durable for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push((rest as u8 & 0x7f) | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
            *input = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::OutOfRange);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::OutOfRange)
    }
}

impl Durable for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        (((*self << 1) ^ (*self >> 63)) as u64).put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let value = u64::take(input)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

macro_rules! narrow {
    ($($narrow:ty as $wide:ty),*) => {$(
        impl Durable for $narrow {
            fn put(&self, out: &mut Vec<u8>) {
                <$wide>::from(*self).put(out);
            }

            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Self::try_from(<$wide>::take(input)?).map_err(|_| DecodeError::OutOfRange)
            }
        }
    )*};
}
narrow!(u8 as u64, u16 as u64, u32 as u64, i16 as i64, i32 as i64);

impl Durable for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::OutOfRange),
        }
    }
}

impl Durable for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length(input)?;
        let bytes = take_bytes(input, length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
    }
}

impl Durable for Uuid {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let bytes = take_bytes(input, 16)?;
        Self::from_slice(bytes).map_err(|_| DecodeError::Truncated)
    }
}

impl<T: Durable> Durable for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_list(input, T::take)
    }
}

impl<T: Durable> Durable for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        if bool::take(input)? { T::take(input).map(Some) } else { Ok(None) }
    }
}

impl<A: Durable, B: Durable> Durable for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok((A::take(input)?, B::take(input)?))
    }
}

impl<K: Durable + Ord, V: Durable> Durable for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let length = take_length(input)?;
        let mut map = Self::new();
        for _ in 0..length {
            map.insert(K::take(input)?, V::take(input)?);
        }
        Ok(map)
    }
}

/// Encodes a struct as its fields in the order given.
#[doc(hidden)]
#[macro_export]
macro_rules! durable_struct {
    ($($name:ident { $($field:ident),* $(,)? })*) => {$(
        impl $crate::metadata::codec::Durable for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::metadata::codec::Durable::put(&self.$field, out);)*
            }

            fn take(input: &mut &[u8]) -> Result<Self, $crate::metadata::codec::DecodeError> {
                Ok(Self { $($field: $crate::metadata::codec::Durable::take(input)?),* })
            }
        }
    )*};
}

/// Encodes an enum without data as the number given.
#[doc(hidden)]
#[macro_export]
macro_rules! durable_enum {
    ($($name:ident { $($variant:ident = $number:literal),* $(,)? })*) => {$(
        impl $crate::metadata::codec::Durable for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let number: u64 = match self { $(Self::$variant => $number),* };
                $crate::metadata::codec::Durable::put(&number, out);
            }

            fn take(input: &mut &[u8]) -> Result<Self, $crate::metadata::codec::DecodeError> {
                match <u64 as $crate::metadata::codec::Durable>::take(input)? {
                    $($number => Ok(Self::$variant),)*
                    number => Err($crate::metadata::codec::DecodeError::UnknownVariant {
                        what: stringify!($name),
                        number,
                    }),
                }
            }
        }
    )*};
}

macro_rules! durable_newtype {
    ($($name:ident),*) => {$(
        impl Durable for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Durable::take(input).map(Self)
            }
        }
    )*};
}
durable_newtype!(NodeId, TopicId, DirectoryId);
crate::durable_struct!(TopicPartition { topic, partition });
