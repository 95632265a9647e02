//! Pages of large blocks of memory are kept for the next block.
//!
//! Each training step asks for the same hundreds of MiB as the one before. Given back to the system in between, every page
//! would be taken anew and cleared when it is next written to, which costs more than the arithmetic on it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes from which a block is made of pages of its own.
const LARGE: usize = 1 << 20;
/// Blocks are a multiple of this; the largest page of common systems.
const PAGE: usize = 1 << 16;
/// Stretches of kept pages at most.
const SLOTS: usize = 512;

/// The system's allocator, but for large blocks, whose pages are kept after their use.
///
/// A new block is cut from the smallest kept stretch that holds it, and neighbours that are kept become one stretch: a step
/// whose batches are of other lengths than the last finds its memory all the same. What is in use and what is kept add up to
/// at most a 32nd more than was once in use: a program holds on to memory but hardly needs more of it. For Unix; a program
/// opts in with `#[global_allocator]`.
pub struct Recycler;

/// Gives what is kept back to the system, and forgets what was once in use.
pub fn give_back() {
    let mut pages = pages();
    pages.release(usize::MAX);
    pages.most_used = pages.used_bytes;
}

/// Stretches of pages that no block uses.
struct Pages {
    /// Address and bytes, the one kept longest first; no two touch.
    kept: [(usize, usize); SLOTS],
    count: usize,
    kept_bytes: usize,
    used_bytes: usize,
    most_used: usize,
}

static PAGES: Mutex<Pages> =
    Mutex::new(Pages { kept: [(0, 0); SLOTS], count: 0, kept_bytes: 0, used_bytes: 0, most_used: 0 });

fn pages() -> MutexGuard<'static, Pages> {
    PAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages {
    fn kept(&self) -> &[(usize, usize)] {
        &self.kept[..self.count]
    }

    fn remove(&mut self, slot: usize) -> (usize, usize) {
        let stretch = self.kept[slot];
        self.kept.copy_within(slot + 1..self.count, slot);
        self.count -= 1;
        stretch
    }

    /// Address of `bytes` that were kept, counted as used; `None` where new ones shall be mapped, which are counted too.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        self.used_bytes += bytes;
        self.most_used = self.most_used.max(self.used_bytes);
        let fits = (0..self.count).filter(|&slot| self.kept[slot].1 >= bytes);
        let Some(slot) = fits.min_by_key(|&slot| (self.kept[slot].1, self.count - slot)) else {
            self.release(self.excess());
            return None;
        };
        let (address, size) = self.kept[slot];
        self.kept_bytes -= bytes;
        if size == bytes {
            self.remove(slot);
        } else {
            self.kept[slot] = (address + bytes, size - bytes);
        }
        Some(address)
    }

    fn keep(&mut self, mut address: usize, mut bytes: usize) {
        self.used_bytes -= bytes;
        self.kept_bytes += bytes;
        while let Some(slot) =
            self.kept().iter().position(|&(start, size)| start + size == address || address + bytes == start)
        {
            let (start, size) = self.remove(slot);
            address = address.min(start);
            bytes += size;
        }
        if self.count == SLOTS {
            let (address, bytes) = self.remove(0);
            self.kept_bytes -= bytes;
            unmap(address, bytes);
        }
        self.kept[self.count] = (address, bytes);
        self.count += 1;
    }

    /// Bytes in use and kept beyond what may be.
    fn excess(&self) -> usize {
        // what is in use at different times of a step would push each other out in every step
        (self.used_bytes + self.kept_bytes).saturating_sub(self.most_used + self.most_used / 32)
    }

    /// Gives so many bytes that are kept back to the system, or all.
    ///
    /// Of stretches that are not far larger than that it is the one kept longest: sizes that are no longer asked for go, and
    /// the room of all gradient rows is not broken up for a few activations.
    fn release(&mut self, mut excess: usize) {
        while excess > 0 && self.count > 0 {
            let oldest = self.kept().iter().position(|stretch| stretch.1 / 4 <= excess);
            let smallest = || (0..self.count).min_by_key(|&slot| self.kept[slot].1).unwrap_or(0);
            let slot = oldest.unwrap_or_else(smallest);
            let (address, size) = self.kept[slot];
            let bytes = size.min(excess).next_multiple_of(PAGE);
            if bytes == size {
                self.remove(slot);
            } else {
                self.kept[slot] = (address + bytes, size - bytes);
            }
            self.kept_bytes -= bytes;
            unmap(address, bytes);
            excess = excess.saturating_sub(bytes);
        }
    }
}

/// New pages, all zero; null where the system has none.
#[allow(unsafe_code)]
fn map(bytes: usize) -> *mut u8 {
    // SAFETY: asks for memory at an address of the system's choice.
    let address = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0)
    };
    if address == libc::MAP_FAILED { std::ptr::null_mut() } else { address.cast() }
}

#[allow(unsafe_code)]
fn unmap(address: usize, bytes: usize) {
    // SAFETY: these pages were mapped by `map`, and nobody else knows of them any more.
    unsafe {
        libc::munmap(address as *mut libc::c_void, bytes);
    }
}

/// A large block, and whether it is known to be zero; null where the system has no memory.
fn block(layout: Layout) -> (*mut u8, bool) {
    let bytes = layout.size().next_multiple_of(PAGE);
    let kept = pages().take(bytes);
    if let Some(address) = kept {
        return (address as *mut u8, false);
    }
    let mut address = map(bytes);
    if address.is_null() {
        give_back();
        address = map(bytes);
    }
    if address.is_null() {
        let mut pages = pages();
        pages.used_bytes -= bytes;
        pages.most_used = pages.used_bytes;
    }
    (address, true)
}

fn is_large(layout: Layout) -> bool {
    // every system's pages have at least this alignment
    (LARGE..isize::MAX as usize / 2).contains(&layout.size()) && layout.align() <= 4096
}

// SAFETY: large blocks are pages that `map` gave, handed out to one owner at a time, as many again when they come back;
// everything else is the system's.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) { block(layout).0 } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            return unsafe { System.alloc_zeroed(layout) };
        }
        let (address, is_zero) = block(layout);
        if !is_zero {
            unsafe { address.write_bytes(0, layout.size()) };
        }
        address
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        if is_large(layout) {
            pages().keep(address as usize, layout.size().next_multiple_of(PAGE));
        } else {
            unsafe { System.dealloc(address, layout) };
        }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // the caller promises that the new size is valid for the alignment
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            (false, false) => unsafe { System.realloc(address, layout, new_size) },
            (true, true) if layout.size().next_multiple_of(PAGE) == new_size.next_multiple_of(PAGE) => {
                address
            }
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
