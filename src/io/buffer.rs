//! Memory that direct writes need: blocks aligned to the journal's block size, zero-padded, reused.

use crate::limits::BLOCK_BYTES;

/// One block of a direct write; the alignment is what `O_DIRECT` asks for.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(align_of::<Block>() == BLOCK_BYTES && size_of::<Block>() == BLOCK_BYTES);

/// A growing byte buffer whose memory starts on a block boundary.
///
/// Bytes behind `len` up to the end of the last block are whatever was written before; [`pad`](Self::pad) zeroes them.
#[derive(Default)]
pub struct AlignedBuffer {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { blocks: Vec::with_capacity(bytes.div_ceil(BLOCK_BYTES)), len: 0 }
    }

    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { blocks: vec![Block([0; BLOCK_BYTES]); len.div_ceil(BLOCK_BYTES)], len }
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        let blocks = end.div_ceil(BLOCK_BYTES);
        if blocks > self.blocks.len() {
            self.blocks.resize(blocks, Block([0; BLOCK_BYTES]));
        }
        self.memory_mut()[..end][end - bytes.len()..].copy_from_slice(bytes);
        self.len = end;
    }

    /// Extends with zeros to the end of the last block, so that no byte of an older use reaches the disk.
    pub fn pad(&mut self) {
        let end = self.len.next_multiple_of(BLOCK_BYTES);
        let start = self.len;
        self.memory_mut()[start..end].fill(0);
        self.len = end;
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.blocks.capacity() * BLOCK_BYTES
    }

    fn memory(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "blocks are plain bytes")]
        // SAFETY: `Block` is `repr(C)` around a byte array without padding (asserted above), so the vector's
        // initialised memory is exactly `blocks.len() * BLOCK_BYTES` initialised bytes.
        unsafe {
            std::slice::from_raw_parts(self.blocks.as_ptr().cast::<u8>(), self.blocks.len() * BLOCK_BYTES)
        }
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "blocks are plain bytes")]
        // SAFETY: as in `memory`; the borrow of `self` is exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<u8>(), self.blocks.len() * BLOCK_BYTES)
        }
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory()[..self.len]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.memory_mut()[..len]
    }
}

/// A bounded set of byte buffers that are used again and again; what is above the bound is given back to the allocator.
#[derive(Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    keep: usize,
    buffer_bytes_max: usize,
}

impl Pool {
    /// A pool that keeps at most `keep` buffers of at most `buffer_bytes_max` each.
    #[must_use]
    pub fn new(keep: usize, buffer_bytes_max: usize) -> Self {
        Self { free: Vec::new(), keep, buffer_bytes_max }
    }

    /// An empty buffer with at least `capacity` bytes of room.
    pub fn take(&mut self, capacity: usize) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.reserve(capacity);
        buffer
    }

    /// Takes a buffer back, emptied.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < self.keep && buffer.capacity() > 0 && buffer.capacity() <= self.buffer_bytes_max {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_buffer_pads_with_zeros_and_stays_aligned() {
        let mut buffer = AlignedBuffer::with_capacity(10);
        buffer.extend_from_slice(&[7; 6000]);
        buffer.clear();
        buffer.extend_from_slice(b"abc");
        buffer.pad();
        assert_eq!(buffer.len(), BLOCK_BYTES);
        assert_eq!(&buffer[..3], b"abc");
        assert!(buffer[3..].iter().all(|&byte| byte == 0));
        assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
    }

    #[test]
    fn a_pool_keeps_no_more_than_it_may() {
        let mut pool = Pool::new(1, 100);
        pool.give(Vec::with_capacity(1000));
        assert_eq!(pool.free.len(), 0, "too large to keep");
        pool.give(Vec::with_capacity(10));
        pool.give(Vec::with_capacity(10));
        assert_eq!(pool.free.len(), 1);
        assert!(pool.take(50).capacity() >= 50);
    }
}
