//! Writes Kafka's primitive types.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{Chunks, WireError};

/// Pieces below this many bytes are copied into the buffer: one more piece of a vectored write costs more.
const COPY_BELOW: usize = 256;
/// Enough for most answers, so that most frames need one allocation.
const FIRST_CAPACITY: usize = 512;
/// Length of the length prefix.
const PREFIX: usize = 4;

/// Collects a message. Small fields go into one buffer; record data is kept as the [`Bytes`] it came in and
/// finds its place in [`finish`](Self::finish).
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
    /// Foreign pieces and the position in `buffer` before which each belongs, ascending.
    inserts: Vec<(usize, Bytes)>,
    inserted: usize,
    /// Tagged fields being written; inside one everything is copied, so that its size is known.
    open_tags: usize,
    framed: bool,
}

/// Where a tagged field's content begins; given back to [`Encoder::end_tag`].
#[derive(Debug)]
#[must_use]
pub struct TagMark(usize);

impl Encoder {
    /// Writes a bare message, such as a coordinator's record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a frame: four bytes of length come first, and are filled in at the end.
    pub fn frame() -> Self {
        let mut buffer = BytesMut::with_capacity(FIRST_CAPACITY);
        buffer.put_u32(0);
        Self { buffer, framed: true, ..Self::default() }
    }

    /// Bytes written so far, the length prefix included.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.inserted
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in pieces. Fails if a frame is longer than its prefix can say.
    pub fn finish(mut self) -> Result<Chunks, WireError> {
        let length = self.len();
        if self.framed {
            let body = length - PREFIX;
            let body = i32::try_from(body).map_err(|_| WireError::TooLong { length })?;
            if let Some(prefix) = self.buffer.first_chunk_mut::<PREFIX>() {
                *prefix = body.to_be_bytes();
            }
        }
        let mut rest = self.buffer.freeze();
        let mut cut = 0;
        let mut chunks = Chunks::new();
        for (at, piece) in self.inserts {
            chunks.push(rest.split_to(at - cut));
            cut = at;
            chunks.push(piece);
        }
        chunks.push(rest);
        Ok(chunks)
    }

    /// The message in one piece, for what is small or has to be contiguous.
    pub fn into_bytes(self) -> Result<Bytes, WireError> {
        Ok(self.finish()?.to_bytes())
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.buffer.put_u8(value.into());
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Two bytes, big endian.
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Two bytes, big endian, unsigned.
    pub fn u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Four bytes, big endian.
    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Four bytes, big endian, unsigned.
    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Eight bytes, big endian.
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Eight bytes, IEEE 754, big endian.
    pub fn f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_slice(value.as_bytes());
    }

    /// Unsigned base 128, least significant group first.
    pub fn uvarint(&mut self, value: u32) {
        self.uvarlong(value.into());
    }

    /// As [`uvarint`](Self::uvarint) with up to 64 bits.
    pub fn uvarlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// Zigzag over [`uvarint`](Self::uvarint).
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// Zigzag over [`uvarlong`](Self::uvarlong).
    pub fn varlong(&mut self, value: i64) {
        self.uvarlong(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A length or count that is not null: as four bytes, or compact (plus one).
    fn length(&mut self, flex: bool, length: usize) -> Result<(), WireError> {
        let value = i32::try_from(length).map_err(|_| WireError::TooLong { length })?;
        if flex {
            self.uvarint(value as u32 + 1);
        } else {
            self.i32(value);
        }
        Ok(())
    }

    /// A null array, byte field or records; `flex` chooses the compact form.
    pub fn null(&mut self, flex: bool) {
        if flex {
            self.uvarint(0);
        } else {
            self.i32(-1);
        }
    }

    /// A string; `flex` chooses the compact form. At most 32,767 bytes in both.
    pub fn string(&mut self, flex: bool, value: &str) -> Result<(), WireError> {
        let length = value.len();
        let short = i16::try_from(length).map_err(|_| WireError::TooLong { length })?;
        if flex {
            self.uvarint(short as u32 + 1);
        } else {
            self.i16(short);
        }
        self.buffer.put_slice(value.as_bytes());
        Ok(())
    }

    /// A string or null.
    pub fn nullable_string(&mut self, flex: bool, value: Option<&str>) -> Result<(), WireError> {
        match value {
            Some(value) => return self.string(flex, value),
            None if flex => self.uvarint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    /// Bytes, taken without copying unless they are few; `flex` chooses the compact form.
    pub fn bytes(&mut self, flex: bool, value: &Bytes) -> Result<(), WireError> {
        self.length(flex, value.len())?;
        self.raw(value);
        Ok(())
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, flex: bool, value: Option<&Bytes>) -> Result<(), WireError> {
        match value {
            Some(value) => self.bytes(flex, value),
            None => {
                self.null(flex);
                Ok(())
            }
        }
    }

    /// Records in pieces, taken without copying unless they are few.
    pub fn records(&mut self, flex: bool, value: &Chunks) -> Result<(), WireError> {
        self.length(flex, value.len())?;
        for part in value {
            self.raw(part);
        }
        Ok(())
    }

    /// Records or null.
    pub fn nullable_records(&mut self, flex: bool, value: Option<&Chunks>) -> Result<(), WireError> {
        match value {
            Some(value) => self.records(flex, value),
            None => {
                self.null(flex);
                Ok(())
            }
        }
    }

    /// Bytes without a length.
    pub fn raw(&mut self, value: &Bytes) {
        if self.open_tags > 0 || value.len() < COPY_BELOW {
            self.buffer.put_slice(value);
        } else {
            self.inserted += value.len();
            self.inserts.push((self.buffer.len(), value.clone()));
        }
    }

    /// An array; `version` is passed to `element`.
    pub fn array<T>(
        &mut self,
        flex: bool,
        version: i16,
        values: &[T],
        element: fn(&T, &mut Self, i16) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.length(flex, values.len())?;
        for value in values {
            element(value, self, version)?;
        }
        Ok(())
    }

    /// An array or null; see [`array`](Self::array).
    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        version: i16,
        values: Option<&[T]>,
        element: fn(&T, &mut Self, i16) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        match values {
            Some(values) => self.array(flex, version, values, element),
            None => {
                self.null(flex);
                Ok(())
            }
        }
    }

    /// A structure or null: 1 or -1 before the structure.
    pub fn nullable_struct<T>(
        &mut self,
        version: i16,
        value: Option<&T>,
        encode: fn(&T, &mut Self, i16) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        match value {
            Some(value) => {
                self.i8(1);
                encode(value, self, version)
            }
            None => {
                self.i8(-1);
                Ok(())
            }
        }
    }

    /// A structure or null as the content of a tagged field, where null is 0 and not -1.
    pub fn tagged_nullable_struct<T>(
        &mut self,
        version: i16,
        value: Option<&T>,
        encode: fn(&T, &mut Self, i16) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.uvarint(value.is_some().into());
        value.map_or(Ok(()), |value| encode(value, self, version))
    }

    /// Begins tagged field `tag`. Tags have to be written in ascending order, after their count.
    pub fn begin_tag(&mut self, tag: u32) -> TagMark {
        self.uvarint(tag);
        self.open_tags += 1;
        TagMark(self.buffer.len())
    }

    /// Ends a tagged field and puts its size before its content. Tagged contents are small, so moving them by
    /// the one or two bytes of their size costs less than computing it beforehand.
    pub fn end_tag(&mut self, mark: TagMark) -> Result<(), WireError> {
        let end = self.buffer.len();
        let length = end - mark.0;
        self.uvarint(u32::try_from(length).map_err(|_| WireError::TooLong { length })?);
        let size_len = self.buffer.len() - end;
        if let Some(field) = self.buffer.get_mut(mark.0..) {
            field.rotate_right(size_len);
        }
        self.open_tags -= 1;
        Ok(())
    }
}

/// Arrays of plain values, spelled out once for all messages.
macro_rules! value_arrays {
    ($($nullable:ident, $array:ident: $ty:ty, $write:expr;)*) => {
        impl Encoder {
            $(
                #[doc = concat!("An array of `", stringify!($ty), "`; `flex` chooses the compact form.")]
                pub fn $array(&mut self, flex: bool, values: &[$ty]) -> Result<(), WireError> {
                    self.array(flex, flex.into(), values, $write)
                }

                #[doc = concat!("An array of `", stringify!($ty), "` or null; `flex` chooses the compact form.")]
                pub fn $nullable(&mut self, flex: bool, values: Option<&[$ty]>) -> Result<(), WireError> {
                    self.nullable_array(flex, flex.into(), values, $write)
                }
            )*
        }
    };
}

value_arrays! {
    nullable_i8_array, i8_array: i8, |x, e, _| { e.i8(*x); Ok(()) };
    nullable_i16_array, i16_array: i16, |x, e, _| { e.i16(*x); Ok(()) };
    nullable_i32_array, i32_array: i32, |x, e, _| { e.i32(*x); Ok(()) };
    nullable_i64_array, i64_array: i64, |x, e, _| { e.i64(*x); Ok(()) };
    nullable_uuid_array, uuid_array: Uuid, |x, e, _| { e.uuid(*x); Ok(()) };
    nullable_string_array, string_array: String, |x, e, flex| e.string(flex != 0, x);
}
