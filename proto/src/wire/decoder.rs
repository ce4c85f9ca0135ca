//! Reads Kafka's primitive types from a frame.

use bytes::Bytes;
use uuid::Uuid;

use super::WireError;

/// Kafka's strings are at most this long, in bytes, in compact form, too.
const MAX_STRING: usize = i16::MAX as usize;

/// What a decoded message may take is this many times its frame ...
const LIMIT_FACTOR: usize = 16;
/// ... plus this many bytes, so that small frames are never refused.
const LIMIT_FLOOR: usize = 64 * 1024;

/// A position in a frame. Byte fields come out as slices of the frame, which they keep alive: copy what is kept for
/// longer than the request takes.
///
/// After an error the position is unspecified; give the decoder up.
#[derive(Debug)]
pub struct Decoder {
    frame: Bytes,
    at: usize,
    /// Bytes that may still be reserved ahead of the elements they are for.
    ahead: usize,
    /// Bytes of memory that array elements may still take.
    memory: usize,
    limit: usize,
}

impl Decoder {
    /// Reads `frame` (without its length prefix) from its first byte. What array elements may take in memory is
    /// limited to 16 times the frame and 64 KiB: ordinary messages need two to eight times their size, and only
    /// arrays of empty strings and the like come near.
    pub fn new(frame: Bytes) -> Self {
        let limit = Self::usual_limit(frame.len());
        Self::with_limit(frame, limit)
    }

    /// What [`new`](Self::new) allows a frame of `size` bytes to take, in bytes.
    pub const fn usual_limit(size: usize) -> usize {
        size.saturating_mul(LIMIT_FACTOR).saturating_add(LIMIT_FLOOR)
    }

    /// Allows array elements to take `limit` bytes of memory in all, those that were read included, if that is less than before.
    pub fn limit_to(&mut self, limit: usize) {
        let limit = limit.min(self.limit);
        self.memory = self.memory.saturating_sub(self.limit - limit);
        self.limit = limit;
    }

    /// What array elements take in memory so far, in bytes.
    pub const fn booked_bytes(&self) -> usize {
        self.limit - self.memory
    }

    /// As [`new`](Self::new), where array elements may take `limit` bytes of memory in all (strings, which are never
    /// longer than in the frame, and byte fields, which are slices of it, are not counted).
    pub fn with_limit(frame: Bytes, limit: usize) -> Self {
        let ahead = frame.len();
        Self { frame, at: 0, ahead, memory: limit, limit }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The rest of the frame, without reading it.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..)
    }

    /// Fails if anything is left.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(WireError::TrailingBytes(left)),
        }
    }

    fn take(&mut self, n: usize) -> Result<&[u8], WireError> {
        let left = self.frame.len() - self.at;
        let short = WireError::Truncated { needed: n, left };
        let end = self.at.checked_add(n).ok_or(short.clone())?;
        let bytes = self.frame.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let left = self.frame.len() - self.at;
        let short = WireError::Truncated { needed: N, left };
        let bytes = self.frame.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).copied();
        let bytes = bytes.ok_or(short)?;
        self.at += N;
        Ok(bytes)
    }

    fn slice(&mut self, n: usize) -> Result<Bytes, WireError> {
        let start = self.at;
        self.take(n)?;
        Ok(self.frame.slice(start..self.at))
    }

    /// One byte; anything but zero is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.fixed::<1>()? != [0])
    }

    /// One byte, signed.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, big endian.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, big endian, unsigned.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, big endian.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, big endian, unsigned.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, big endian.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, IEEE 754, big endian.
    pub fn f64(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    /// Unsigned base 128, least significant group first, at most five bytes.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            if shift == 28 && byte > 0x0f {
                return Err(WireError::BadVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint)
    }

    /// As [`uvarint`](Self::uvarint) with up to 64 bits in at most ten bytes.
    pub fn uvarlong(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.fixed()?;
            if shift == 63 && byte > 1 {
                return Err(WireError::BadVarint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint)
    }

    /// Zigzag over [`uvarint`](Self::uvarint).
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Zigzag over [`uvarlong`](Self::uvarlong).
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let raw = self.uvarlong()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A compact length: the value plus one, zero for null.
    fn compact_len(&mut self) -> Result<i64, WireError> {
        Ok(i64::from(self.uvarint()?) - 1)
    }

    /// Checks a length in bytes: `None` for -1, an error for less or for more than is left.
    fn checked_len(&self, length: i64) -> Result<Option<usize>, WireError> {
        if length == -1 {
            return Ok(None);
        }
        let left = self.remaining();
        let bad = WireError::BadLength { length, left };
        let n = usize::try_from(length).map_err(|_| bad.clone())?;
        if n > left { Err(bad) } else { Ok(Some(n)) }
    }

    /// A string or null; `flex` chooses the compact form.
    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<String>, WireError> {
        let length = if flex { self.compact_len()? } else { i64::from(self.i16()?) };
        let Some(n) = self.checked_len(length)? else { return Ok(None) };
        if n > MAX_STRING {
            return Err(WireError::BadLength { length, left: self.remaining() });
        }
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| WireError::BadUtf8)?;
        Ok(Some(text.to_owned()))
    }

    /// A string; `flex` chooses the compact form.
    pub fn string(&mut self, flex: bool) -> Result<String, WireError> {
        self.nullable_string(flex)?.ok_or(WireError::UnexpectedNull)
    }

    /// Bytes or null, as a slice of the frame; `flex` chooses the compact form. Records are written the same way.
    pub fn nullable_bytes(&mut self, flex: bool) -> Result<Option<Bytes>, WireError> {
        let length = if flex { self.compact_len()? } else { i64::from(self.i32()?) };
        match self.checked_len(length)? {
            None => Ok(None),
            Some(n) => self.slice(n).map(Some),
        }
    }

    /// Bytes, as a slice of the frame; `flex` chooses the compact form.
    pub fn bytes(&mut self, flex: bool) -> Result<Bytes, WireError> {
        self.nullable_bytes(flex)?.ok_or(WireError::UnexpectedNull)
    }

    /// The count in front of an array whose elements take at least `min_wire` bytes each; `None` for null.
    fn array_len(&mut self, flex: bool, min_wire: usize) -> Result<Option<usize>, WireError> {
        let length = if flex { self.compact_len()? } else { i64::from(self.i32()?) };
        let count = self.checked_len(length)?;
        let left = self.remaining();
        match count {
            Some(n) if n > left / min_wire.max(1) => Err(WireError::BadLength { length, left }),
            count => Ok(count),
        }
    }

    /// Books the memory of `count` elements and returns how many of them may be reserved at once: all of them as long as
    /// everything reserved for this frame stays within the frame's size, else none (the array then grows with
    /// the elements that are really there).
    fn book(&mut self, count: usize, size: usize) -> Result<usize, WireError> {
        let too_dense = WireError::TooDense { limit: self.limit };
        let bytes = count.checked_mul(size).ok_or(too_dense.clone())?;
        self.memory = self.memory.checked_sub(bytes).ok_or(too_dense)?;
        match self.ahead.checked_sub(bytes) {
            Some(rest) => {
                self.ahead = rest;
                Ok(count)
            }
            None => Ok(0),
        }
    }

    /// An array or null. `min_wire` is the least an element takes in the frame, in bytes; `version` is
    /// passed to `element`.
    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        version: i16,
        min_wire: usize,
        element: fn(&mut Self, i16) -> Result<T, WireError>,
    ) -> Result<Option<Vec<T>>, WireError> {
        let Some(count) = self.array_len(flex, min_wire)? else { return Ok(None) };
        let mut array = Vec::with_capacity(self.book(count, size_of::<T>())?);
        for _ in 0..count {
            array.push(element(self, version)?);
        }
        Ok(Some(array))
    }

    /// An array; see [`nullable_array`](Self::nullable_array).
    pub fn array<T>(
        &mut self,
        flex: bool,
        version: i16,
        min_wire: usize,
        element: fn(&mut Self, i16) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        self.nullable_array(flex, version, min_wire, element)?.ok_or(WireError::UnexpectedNull)
    }

    /// A structure or null: one byte, negative for null, before the structure.
    pub fn nullable_struct<T>(
        &mut self,
        version: i16,
        decode: fn(&mut Self, i16) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.i8()? < 0 { Ok(None) } else { decode(self, version).map(Some) }
    }

    /// A structure or null as the content of a tagged field, where null is 0 and not -1.
    pub fn tagged_nullable_struct<T>(
        &mut self,
        version: i16,
        decode: fn(&mut Self, i16) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.uvarint()? == 0 { Ok(None) } else { decode(self, version).map(Some) }
    }

    /// How many tagged fields follow. Each takes at least two bytes.
    pub fn tag_count(&mut self) -> Result<u32, WireError> {
        let count = self.uvarint()?;
        let left = self.remaining();
        if count as usize > left / 2 {
            return Err(WireError::BadLength { length: i64::from(count), left });
        }
        Ok(count)
    }

    /// The next field's tag and the bytes that must be left when it has been read.
    pub fn tag(&mut self) -> Result<(u32, usize), WireError> {
        let tag = self.uvarint()?;
        let size = self.uvarint()?;
        let left = self.remaining();
        let after = left.checked_sub(size as usize);
        let after = after.ok_or(WireError::BadLength { length: i64::from(size), left })?;
        Ok((tag, after))
    }

    /// Skips a tagged field of an unknown tag.
    pub fn skip_tag(&mut self, after: usize) -> Result<(), WireError> {
        let size = self.remaining().saturating_sub(after);
        self.take(size).map(|_| ())
    }

    /// Checks that tagged field `tag` was as long as [`tag`](Self::tag) said.
    pub fn end_tag(&self, tag: u32, after: usize) -> Result<(), WireError> {
        if self.remaining() == after { Ok(()) } else { Err(WireError::BadTag { tag }) }
    }

    /// Skips all tagged fields, where none is known.
    pub fn skip_tags(&mut self) -> Result<(), WireError> {
        for _ in 0..self.tag_count()? {
            let (_, after) = self.tag()?;
            self.skip_tag(after)?;
        }
        Ok(())
    }
}

/// Arrays of plain values, spelled out once for all messages.
macro_rules! value_arrays {
    ($($nullable:ident, $array:ident: $ty:ty, $min:literal, $read:expr;)*) => {
        impl Decoder {
            $(
                #[doc = concat!("An array of `", stringify!($ty), "` or null; `flex` chooses the compact form.")]
                pub fn $nullable(&mut self, flex: bool) -> Result<Option<Vec<$ty>>, WireError> {
                    self.nullable_array(flex, flex.into(), $min, $read)
                }

                #[doc = concat!("An array of `", stringify!($ty), "`; `flex` chooses the compact form.")]
                pub fn $array(&mut self, flex: bool) -> Result<Vec<$ty>, WireError> {
                    self.$nullable(flex)?.ok_or(WireError::UnexpectedNull)
                }
            )*
        }
    };
}

value_arrays! {
    nullable_i8_array, i8_array: i8, 1, |d, _| d.i8();
    nullable_i16_array, i16_array: i16, 2, |d, _| d.i16();
    nullable_i32_array, i32_array: i32, 4, |d, _| d.i32();
    nullable_i64_array, i64_array: i64, 8, |d, _| d.i64();
    nullable_uuid_array, uuid_array: Uuid, 16, |d, _| d.uuid();
    nullable_string_array, string_array: String, 1, |d, flex| d.string(flex != 0);
}
