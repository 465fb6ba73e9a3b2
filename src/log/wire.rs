//! Little-endian fields read one after the other from bytes that may be damaged.

use thiserror::Error;

/// Bytes that are not what their format says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Something whole, with a right checksum, that only a newer version of Eddyline understands. It is neither torn nor
/// damaged: whoever finds it where it counts refuses to go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} of {found}; this version of Eddyline knows {known}: start the newer version")]
pub struct Newer {
    what: &'static str,
    found: String,
    known: String,
}

impl Newer {
    /// Refuses every version but the one that is known, and every feature that is not.
    ///
    /// # Errors
    /// What was found.
    pub fn refuse(what: &'static str, version: (u8, u8), features: (u16, u16)) -> Result<(), Self> {
        let ((found, known), (features, known_features)) = (version, features);
        if found != known {
            return Err(Self { what, found: format!("version {found}"), known: format!("version {known}") });
        }
        match features & !known_features {
            0 => Ok(()),
            unknown => Err(Self {
                what,
                found: format!("version {found} with features {unknown:#06x}"),
                known: format!("features {known_features:#06x}"),
            }),
        }
    }

    /// A kind of thing whose number is not known.
    #[must_use]
    pub fn kind(what: &'static str, found: u8) -> Self {
        Self { what, found: format!("kind {found}"), known: "no such kind".to_owned() }
    }
}

/// Why bytes cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    /// They are cut, damaged, or something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They are whole, and of a newer version.
    #[error(transparent)]
    Newer(#[from] Newer),
}

/// Takes fields from the front of a slice; never reads past its end.
#[derive(Clone, Copy)]
pub struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been taken.
    #[must_use]
    pub fn rest(&self) -> &'b [u8] {
        self.0
    }

    /// Takes `length` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("a field reaches behind the end"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("a field reaches behind the end"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// When none is left.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes 16 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes 32 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes 64 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes 128 bits, most significant byte first, as UUIDs are written.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn uuid(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_be_bytes)
    }

    /// Takes a 16-bit length and that many bytes.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn short_bytes(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.u16()?;
        self.bytes(length as usize)
    }

    /// Takes a 16-bit length and that many bytes of UTF-8.
    ///
    /// # Errors
    /// When fewer bytes are left, or they are not UTF-8.
    pub fn short_text(&mut self) -> Result<&'b str, Malformed> {
        std::str::from_utf8(self.short_bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }
}

/// Appends a 16-bit length and the bytes.
///
/// # Panics
/// When there are more than 65 535: callers bound what they store.
pub fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a short field is bounded by its limit");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}
