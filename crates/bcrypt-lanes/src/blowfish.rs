//! Blowfish with the expensive key schedule of bcrypt (Provos and Mazières 1999), for several independent states at
//! once.
//!
//! An encryption is a chain of 16 rounds. Each round loads four words at addresses that the previous round computes, so
//! a processor core that works on one state waits for memory most of the time. [`advance`] works on `LANES` states in
//! one loop, so that the loads of one lane overlap with those of the others.
#![expect(
    clippy::indexing_slicing,
    reason = "every index is a constant, or a byte or a loop counter that is below the length of its array"
)]
#![expect(clippy::as_conversions, reason = "the conversions are from words to indices, which have more bits")]

use std::array;

use zeroize::Zeroize;

use crate::pi;

/// The number of subkeys: one for each of the 16 rounds, and two that are applied after the last round.
const SUBKEYS: usize = 18;
/// The number of words in a state: the subkeys, and four substitution boxes of 256 words.
const WORDS: usize = SUBKEYS + 4 * 256;

/// A cipher state, with the two keys that the key schedule alternates between: bcrypt's key and its salt. All of it is
/// secret and is overwritten on drop.
pub(crate) struct Cipher {
    /// The subkeys, followed by the substitution boxes: the order in which an expansion replaces them. With one array,
    /// a single pointer reaches every word of every lane.
    words: [u32; WORDS],
    keys: [[u32; SUBKEYS]; 2],
}

impl Cipher {
    /// A cipher in the initial state, without keys.
    pub(crate) fn initial() -> Self {
        let mut words = [0; WORDS];
        words[..SUBKEYS].copy_from_slice(&pi::SUBKEYS);
        words[SUBKEYS..].copy_from_slice(pi::BOXES.as_flattened());
        Self { words, keys: [[0; SUBKEYS]; 2] }
    }

    /// Sets the keys of an initial cipher, and expands both into the state (`ExpandKey(state, salt, key)`). This works
    /// in place, so that no copy of the state is left in memory. `key` must not be empty.
    pub(crate) fn set_keys(&mut self, key: &[u8], salt: &[u8; 16]) {
        repeat_key(&mut self.keys[0], key);
        repeat_key(&mut self.keys[1], salt);
        self.xor_key_into_subkeys(0);
        let (mut left, mut right) = ([0], [0]);
        for block in 0..WORDS / 2 {
            let salt = &self.keys[1][2 * (block % 2)..];
            left[0] ^= salt[0];
            right[0] ^= salt[1];
            (left, right) = encrypt(array::from_ref(self), left, right);
            self.words[2 * block] = left[0];
            self.words[2 * block + 1] = right[0];
        }
    }

    /// Overwrites this cipher with a copy of `other`.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.words = other.words;
        self.keys = other.keys;
    }

    /// Encrypts a block 64 times in a row.
    pub(crate) fn encrypt_64_times(&self, [left, right]: [u32; 2]) -> [u32; 2] {
        let (mut left, mut right) = ([left], [right]);
        for _ in 0..64 {
            (left, right) = encrypt(array::from_ref(self), left, right);
        }
        [left[0], right[0]]
    }

    /// XORs one of the two keys into the subkeys.
    fn xor_key_into_subkeys(&mut self, key: usize) {
        for position in 0..SUBKEYS {
            self.words[position] ^= self.keys[key][position];
        }
    }

    /// Blowfish's round function F.
    #[inline(always)]
    fn round_function(&self, half: u32) -> u32 {
        let a = self.words[SUBKEYS + (half >> 24) as usize];
        let b = self.words[SUBKEYS + 256 + (half >> 16 & 0xff) as usize];
        let c = self.words[SUBKEYS + 512 + (half >> 8 & 0xff) as usize];
        let d = self.words[SUBKEYS + 768 + (half & 0xff) as usize];
        (a.wrapping_add(b) ^ c).wrapping_add(d)
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.words.zeroize();
        self.keys.zeroize();
    }
}

/// Fills `words` with the bytes of `key`, which is repeated or truncated to their length.
fn repeat_key(words: &mut [u32; SUBKEYS], key: &[u8]) {
    let mut bytes = key.iter().cycle();
    for word in words {
        for byte in bytes.by_ref().take(4) {
            *word = *word << 8 | u32::from(*byte);
        }
    }
}

/// Runs `rounds` rounds of the key schedule in every lane. A round expands the key and then the salt.
#[inline(never)]
pub(crate) fn advance<const LANES: usize>(lanes: &mut [Cipher; LANES], rounds: u32) {
    for _ in 0..rounds {
        for key in 0..2 {
            lanes.iter_mut().for_each(|lane| lane.xor_key_into_subkeys(key));
            let (mut left, mut right) = ([0; LANES], [0; LANES]);
            for block in 0..WORDS / 2 {
                (left, right) = encrypt(lanes, left, right);
                for lane in 0..LANES {
                    lanes[lane].words[2 * block] = left[lane];
                    lanes[lane].words[2 * block + 1] = right[lane];
                }
            }
        }
    }
}

/// Encrypts one block per lane with the cipher of the lane.
///
/// The rounds are unrolled by hand, because the compiler does not unroll a loop of this size. A loop would cost 8 %
/// with 4 lanes and 15 % with 5.
#[inline(always)]
fn encrypt<const LANES: usize>(
    lanes: &[Cipher; LANES],
    mut left: [u32; LANES],
    mut right: [u32; LANES],
) -> ([u32; LANES], [u32; LANES]) {
    let (l, r) = (&mut left, &mut right);
    two_rounds::<0, LANES>(lanes, l, r);
    two_rounds::<2, LANES>(lanes, l, r);
    two_rounds::<4, LANES>(lanes, l, r);
    two_rounds::<6, LANES>(lanes, l, r);
    two_rounds::<8, LANES>(lanes, l, r);
    two_rounds::<10, LANES>(lanes, l, r);
    two_rounds::<12, LANES>(lanes, l, r);
    two_rounds::<14, LANES>(lanes, l, r);
    for lane in 0..LANES {
        left[lane] ^= lanes[lane].words[16];
        right[lane] ^= lanes[lane].words[17];
    }
    (right, left)
}

#[inline(always)]
fn two_rounds<const FIRST: usize, const LANES: usize>(
    lanes: &[Cipher; LANES],
    left: &mut [u32; LANES],
    right: &mut [u32; LANES],
) {
    for lane in 0..LANES {
        left[lane] ^= lanes[lane].words[FIRST];
        right[lane] ^= lanes[lane].round_function(left[lane]);
    }
    for lane in 0..LANES {
        right[lane] ^= lanes[lane].words[FIRST + 1];
        left[lane] ^= lanes[lane].round_function(right[lane]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number in base 2^32: one integer digit, followed by the digits of the fraction.
    type Fixed = Vec<u32>;

    fn divide(number: &mut Fixed, divisor: u64) {
        let leading_zeros = number.iter().take_while(|digit| **digit == 0).count();
        let mut remainder = 0;
        for digit in &mut number[leading_zeros..] {
            let dividend = remainder << 32 | u64::from(*digit);
            *digit = (dividend / divisor) as u32;
            remainder = dividend % divisor;
        }
    }

    /// Adds `other`, or subtracts it, modulo 2^32.
    fn add(number: &mut Fixed, other: &Fixed, subtract: bool) {
        let mut carry = 0;
        for (digit, other) in number.iter_mut().zip(other).rev() {
            let (sum, overflows) = if subtract {
                let (sum, first) = digit.overflowing_sub(*other);
                let (sum, second) = sum.overflowing_sub(carry);
                (sum, first || second)
            } else {
                let (sum, first) = digit.overflowing_add(*other);
                let (sum, second) = sum.overflowing_add(carry);
                (sum, first || second)
            };
            *digit = sum;
            carry = u32::from(overflows);
        }
    }

    /// Computes `factor` × arctan(1 ÷ `x`) by its Taylor series.
    fn arctan_of_inverse(x: u64, factor: u32, digits: usize) -> Fixed {
        let mut power = vec![0; digits];
        power[0] = factor;
        divide(&mut power, x);
        let mut sum = power.clone();
        for n in 1.. {
            divide(&mut power, x * x);
            let mut term = power.clone();
            divide(&mut term, 2 * n + 1);
            if term.iter().all(|digit| *digit == 0) {
                break;
            }
            add(&mut sum, &term, n % 2 == 1);
        }
        sum
    }

    #[test]
    fn the_initial_state_is_the_fraction_of_pi() {
        // Two more digits, because the divisions truncate.
        let digits = 1 + WORDS + 2;
        // Machin: pi = 16 arctan(1/5) - 4 arctan(1/239).
        let mut pi = arctan_of_inverse(5, 16, digits);
        add(&mut pi, &arctan_of_inverse(239, 4, digits), true);
        assert_eq!(pi[0], 3);
        assert_eq!(pi[1..=WORDS], Cipher::initial().words);
    }

    #[test]
    fn a_key_is_repeated_or_truncated() {
        let mut words = [0; SUBKEYS];
        repeat_key(&mut words, b"abc");
        assert_eq!(words[..4], [0x61626361, 0x62636162, 0x63616263, 0x61626361]);
        let long: Vec<u8> = (0..=255).collect();
        let (mut whole, mut cut) = ([0; SUBKEYS], [0; SUBKEYS]);
        repeat_key(&mut whole, &long);
        repeat_key(&mut cut, &long[..72]);
        assert_eq!(whole, cut);
    }
}
