//! Large blocks of memory are kept for the next use of their size.
//!
//! Each training step asks for the same hundreds of MiB as the one before. Given back to the system in between, every page
//! would be taken anew and cleared when it is next written to, which costs more than the arithmetic on it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, PoisonError};

/// Bytes from which a block is kept.
const LARGE: usize = 1 << 20;
/// Blocks that are kept at most.
const SLOTS: usize = 512;
/// Alignment of large blocks; one that needs more is left to the system.
const ALIGN: usize = 16;

/// The system's allocator, with large blocks kept after their use.
///
/// What is in use and what is kept add up to at most a 32nd more than was once in use: a program holds on to memory but
/// hardly needs more of it. A program opts in with `#[global_allocator]`.
pub struct Recycler;

/// Gives what is kept back to the system.
pub fn give_back() {
    let mut shelf = shelf();
    while shelf.evict(usize::MAX) {}
}

struct Shelf {
    /// Address and size, the one kept longest first.
    blocks: [(usize, usize); SLOTS],
    count: usize,
    kept: usize,
    live: usize,
    most: usize,
}

static SHELF: Mutex<Shelf> =
    Mutex::new(Shelf { blocks: [(0, 0); SLOTS], count: 0, kept: 0, live: 0, most: 0 });

fn shelf() -> std::sync::MutexGuard<'static, Shelf> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn remove(&mut self, slot: usize) -> (usize, usize) {
        let block = self.blocks[slot];
        self.blocks.copy_within(slot + 1..self.count, slot);
        self.count -= 1;
        self.kept -= block.1;
        block
    }

    /// The block of this size that was kept last.
    fn take(&mut self, size: usize) -> Option<usize> {
        let slot = self.blocks[..self.count].iter().rposition(|block| block.1 == size)?;
        self.live += size;
        Some(self.remove(slot).0)
    }

    fn keep(&mut self, address: usize, size: usize) {
        if self.count == SLOTS {
            self.evict(usize::MAX);
        }
        self.blocks[self.count] = (address, size);
        self.count += 1;
        self.kept += size;
        self.live -= size;
    }

    /// Gives a block back to the system, for `excess` bytes too many; false where there is none.
    ///
    /// Of blocks that are not far larger than that it is the one kept longest: sizes that are no longer asked for go, and the
    /// one block of all gradient rows does not go for a few activations.
    fn evict(&mut self, excess: usize) -> bool {
        let blocks = &self.blocks[..self.count];
        let oldest = blocks.iter().position(|block| block.1 / 4 <= excess);
        let Some(slot) = oldest.or_else(|| (0..self.count).min_by_key(|&slot| blocks[slot].1)) else {
            return false;
        };
        let (address, size) = self.remove(slot);
        // SAFETY: the block came from the system with this layout, and nobody else knows of it any more.
        #[allow(unsafe_code)]
        unsafe {
            System.dealloc(address as *mut u8, block(size));
        }
        true
    }

    /// Counts a new block of this size, and gives others back for it where there would be too many.
    fn make_room(&mut self, size: usize) {
        self.live += size;
        self.most = self.most.max(self.live);
        loop {
            // blocks that are in use at different times of a step would push each other out in every step
            let excess = (self.live + self.kept).saturating_sub(self.most + self.most / 32);
            if excess == 0 || !self.evict(excess) {
                return;
            }
        }
    }
}

/// Sizes are rounded up by at most a 32nd, so that batches of nearly the same length share blocks.
fn rounded(size: usize) -> usize {
    size.next_multiple_of(size.next_power_of_two() / 64)
}

/// The layout of a block of a rounded size.
fn block(size: usize) -> Layout {
    // a size that was valid before it was rounded up can only fail at the end of the address space
    Layout::from_size_align(size, ALIGN).unwrap_or_else(|_| std::process::abort())
}

fn is_large(layout: Layout) -> bool {
    (LARGE..isize::MAX as usize / 2).contains(&layout.size()) && layout.align() <= ALIGN
}

/// A block that the system gives, or null; `of` asks it.
fn fresh(layout: Layout, of: impl Fn(Layout) -> *mut u8) -> *mut u8 {
    let size = rounded(layout.size());
    shelf().make_room(size);
    let mut address = of(block(size));
    if address.is_null() {
        give_back();
        address = of(block(size));
    }
    if address.is_null() {
        shelf().live -= size;
    }
    address
}

// SAFETY: large blocks come from the system with the layout that `block` gives for their rounded size, are handed out to
// one owner at a time, and go back with the same layout; everything else is the system's.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            return unsafe { System.alloc(layout) };
        }
        let kept = shelf().take(rounded(layout.size()));
        kept.map_or_else(
            || fresh(layout, |layout| unsafe { System.alloc(layout) }),
            |address| address as *mut u8,
        )
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            return unsafe { System.alloc_zeroed(layout) };
        }
        let Some(address) = shelf().take(rounded(layout.size())) else {
            return fresh(layout, |layout| unsafe { System.alloc_zeroed(layout) });
        };
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, layout.size()) };
        address as *mut u8
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        if is_large(layout) {
            shelf().keep(address as usize, rounded(layout.size()));
        } else {
            unsafe { System.dealloc(address, layout) };
        }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // the caller promises that the new size is valid for the alignment
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            (false, false) => unsafe { System.realloc(address, layout, new_size) },
            (true, true) if rounded(layout.size()) == rounded(new_size) => address,
            _ => {
                let moved = unsafe { self.alloc(new) };
                if !moved.is_null() {
                    unsafe {
                        std::ptr::copy_nonoverlapping(address, moved, layout.size().min(new_size));
                        self.dealloc(address, layout);
                    }
                }
                moved
            }
        }
    }
}
