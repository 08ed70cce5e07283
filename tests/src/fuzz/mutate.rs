//! Makes inputs from inputs: a few changes each, of the kinds that break decoders.

use crate::virtual_world::SeededEntropy;

/// The most changes that one input gets.
const CHANGES_MAX: u64 = 6;
/// Numbers at the edges of encodings: varints, counts, lengths, text.
const EDGES: [&[u8]; 14] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0x80, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
    b"-1",
    b"18446744073709551616",
    "\u{feff}".as_bytes(),
    "🎬".as_bytes(),
    &[0xed, 0xa0, 0x80],
];

/// A sequence of inputs that a seed decides.
#[derive(Debug)]
pub struct Mutator {
    entropy: SeededEntropy,
    words: &'static [&'static [u8]],
    bytes_max: usize,
}

impl Mutator {
    /// That of `seed`; inputs of at most `bytes_max` bytes, with `words` strewn in.
    pub fn new(seed: u64, words: &'static [&'static [u8]], bytes_max: usize) -> Self {
        Self { entropy: SeededEntropy::new(seed), words, bytes_max }
    }

    /// One of `corpus`, changed.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(corpus).cloned().unwrap_or_default();
        for _ in 0..=self.below(CHANGES_MAX as usize) {
            self.change(&mut input, corpus);
            input.truncate(self.bytes_max);
        }
        input
    }

    fn below(&self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.entropy.next_u64() % bound as u64) as usize }
    }

    fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// A place in `input`, and one behind it; mostly a short way.
    fn range(&self, input: &[u8]) -> (usize, usize) {
        let begin = self.below(input.len() + 1);
        let rest = input.len() - begin;
        let length = if self.below(4) == 0 { rest } else { rest.min(16) };
        (begin, begin + self.below(length + 1))
    }

    fn change(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let (begin, end) = self.range(input);
        let at = self.below(input.len());
        match self.below(10) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.entropy.next_u64() as u8;
                }
            }
            2 => drop(input.drain(begin..end)),
            3 => {
                let part = input[begin..end].to_vec();
                input.splice(begin..begin, part);
            }
            4 => {
                let part = input[begin..end].to_vec();
                input.splice(at..at, part);
            }
            5 | 6 => {
                let word = self.one_of(self.words).or_else(|| self.one_of(&EDGES)).copied().unwrap_or_default();
                // In the place of something, or between two things.
                let end = if self.below(2) == 0 { begin } else { end };
                input.splice(begin..end, word.iter().copied());
            }
            7 => {
                let edge = self.one_of(&EDGES).copied().unwrap_or_default();
                let end = if self.below(2) == 0 { begin } else { (begin + edge.len()).min(input.len()) };
                input.splice(begin..end, edge.iter().copied());
            }
            8 => {
                // The beginning of this one, the end of another.
                if let Some(other) = self.one_of(corpus) {
                    input.truncate(begin);
                    input.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
            _ => {
                // Many of the same: counts and depths that no person writes by hand.
                let part = input[begin..end].to_vec();
                let times = self.below(200).min(self.bytes_max / part.len().max(1));
                input.splice(begin..begin, part.repeat(times));
            }
        }
    }
}
