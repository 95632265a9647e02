//! Large blocks that are used again.
#![allow(unsafe_code)]

use std::alloc::Layout;

use proptest::prelude::*;

/// Bytes around and above the size from which blocks are kept.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..6 << 20, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn zeroed_memory_is_zero_whatever_was_there_before(sizes in sizes()) {
        for size in sizes {
            let mut block = vec![0u8; size];
            prop_assert!(block.iter().all(|&x| x == 0));
            block.fill(0xff);
        }
    }

    #[test]
    fn blocks_in_use_do_not_overlap_and_keep_their_contents(sizes in sizes(), threads in 1usize..4) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let sizes = &sizes;
                scope.spawn(move || {
                    let mut held: Vec<(u8, Vec<u8>)> = Vec::new();
                    for (i, &size) in sizes.iter().enumerate() {
                        let mark = (16 * thread + i) as u8;
                        held.push((mark, vec![mark; size]));
                        if i % 3 == 2 {
                            held.remove(i / 3 % held.len());
                        }
                        if i % 7 == 6 {
                            raco::recycle::give_back();
                        }
                    }
                    for (mark, block) in &held {
                        assert!(block.iter().all(|x| x == mark));
                    }
                });
            }
        });
    }

    #[test]
    fn blocks_are_aligned(sizes in sizes(), log_align in 0u32..16) {
        let blocks: Vec<(*mut u8, Layout)> = sizes
            .into_iter()
            .map(|size| {
                let layout = Layout::from_size_align(size, 1 << log_align).unwrap();
                // SAFETY: no size is zero.
                let block = unsafe { std::alloc::alloc(layout) };
                assert!(!block.is_null());
                // SAFETY: the block holds this many bytes.
                unsafe { block.write_bytes(1, size) };
                (block, layout)
            })
            .collect();
        for (block, layout) in blocks {
            prop_assert_eq!(block.align_offset(layout.align()), 0);
            // SAFETY: the block was allocated with this layout.
            unsafe { std::alloc::dealloc(block, layout) };
        }
    }

    #[test]
    fn growing_and_shrinking_keep_the_contents(steps in sizes()) {
        let mut block: Vec<u8> = Vec::new();
        let value = |i: usize| (i % 251) as u8;
        for size in steps {
            if size < block.len() {
                block.truncate(size);
                block.shrink_to_fit();
            } else {
                block.reserve_exact(size - block.len());
                block.extend((block.len()..size).map(value));
            }
            prop_assert!(block.iter().enumerate().all(|(i, &x)| x == value(i)));
        }
    }
}
