//! bcrypt checksums, several at once on one core. This is a separate package so that debug builds can optimize it,
//! because the tests spend most of their time here.
//!
//! A checksum of cost `c` takes 2^`c` rounds of a key schedule. [`Lanes`] advances up to [`MAX_LANES`] computations
//! together, in less than half of the time that they take one after the other. Computations can be added and removed
//! between two rounds. Each counts its own rounds, so costs can differ.

mod blowfish;
mod pi;

use std::str::FromStr;

use base64::Engine as _;
use bcrypt::{BASE_64, BcryptError, HashParts};
use zeroize::Zeroize;

use self::blowfish::{Cipher, advance};

/// The most computations that advance together. Their states take 34 KiB, about the size of a core's first-level cache.
pub const MAX_LANES: usize = 8;
/// The length of a checksum in bcrypt's base64, in characters.
pub const CHECKSUM_CHARACTERS: usize = 31;
/// The maximum length of a key, in bytes. bcrypt ignores further bytes.
const KEY_BYTES: usize = 72;
/// "OrpheanBeholderScryDoubt", the text that bcrypt encrypts.
const PLAIN_TEXT: [[u32; 2]; 3] = [[0x4f727068, 0x65616e42], [0x65686f6c, 0x64657253], [0x63727944, 0x6f756274]];

/// A salt of 16 bytes, by which the hashes of equal passwords differ.
pub type Salt = [u8; 16];
/// The result of bcrypt: the first 23 bytes of the encrypted text.
pub type Checksum = [u8; 23];

/// A parsed hash in bcrypt's own format: `$2b$<cost>$<22 characters of salt><31 characters of checksum>`. The version
/// can also be `2a`, `2x` or `2y`.
pub struct Stored {
    /// The binary logarithm of the number of rounds. It is not validated here; see [`Input::new`].
    pub cost: u32,
    /// The salt.
    pub salt: Salt,
    /// The checksum of the correct password.
    pub checksum: Checksum,
}

impl FromStr for Stored {
    type Err = BcryptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: HashParts = text.parse()?;
        // `HashParts` does not expose the decoded checksum.
        let encoded = text.get(text.len().saturating_sub(CHECKSUM_CHARACTERS)..).unwrap_or_default();
        let mut checksum = [0; 23];
        match BASE_64.decode_slice(encoded, &mut checksum) {
            Ok(_) => Ok(Self { cost: parts.get_cost(), salt: parts.get_salt_raw(), checksum }),
            Err(_) => Err(BcryptError::InvalidHash("the checksum is not valid base64")),
        }
    }
}

/// The input of a computation. The key is overwritten on drop.
pub struct Input {
    cost: u32,
    salt: Salt,
    key: [u8; KEY_BYTES],
    key_length: usize,
}

impl Input {
    /// An input whose key is the password and a NUL byte, truncated to 72 bytes.
    ///
    /// Errors: [`BcryptError::CostNotAllowed`] for a cost outside 4 to 31.
    pub fn new(password: &[u8], salt: Salt, cost: u32) -> Result<Self, BcryptError> {
        if !(4..=31).contains(&cost) {
            return Err(BcryptError::CostNotAllowed(cost));
        }
        let mut key = [0; KEY_BYTES];
        key.iter_mut().zip(password).for_each(|(target, source)| *target = *source);
        Ok(Self { cost, salt, key, key_length: KEY_BYTES.min(password.len() + 1) })
    }

    /// Computes the checksum in a single lane.
    pub fn checksum(&self) -> Checksum {
        let mut lanes = Lanes::default();
        lanes.add((), self);
        loop {
            if let Some(((), checksum)) = lanes.advance(u32::MAX).pop() {
                return checksum;
            }
        }
    }

    /// Computes the checksum with the bcrypt crate.
    pub fn reference_checksum(&self) -> Checksum {
        first_23(bcrypt::bcrypt(self.cost, self.salt, self.key()))
    }

    fn key(&self) -> &[u8] {
        self.key.get(..self.key_length).unwrap_or(&self.key)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn first_23(bytes: [u8; 24]) -> Checksum {
    let [checksum @ .., _] = bytes;
    checksum
}

/// Computations that advance together. Each has an owner, which identifies its result.
pub struct Lanes<T> {
    /// Contiguous in memory; see [`Cipher`]. The length never exceeds the capacity, because a reallocation would leave
    /// a copy of the secret states behind.
    ciphers: Vec<Cipher>,
    /// The progress of each computation, in the order of `ciphers`.
    progress: Vec<Progress<T>>,
}

struct Progress<T> {
    owner: T,
    rounds_left: u32,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { ciphers: Vec::with_capacity(MAX_LANES), progress: Vec::with_capacity(MAX_LANES) }
    }
}

impl<T> Lanes<T> {
    /// The number of computations in progress.
    pub fn in_use(&self) -> usize {
        self.progress.len()
    }

    /// Adds a computation. Fewer than [`MAX_LANES`] must be in progress.
    pub fn add(&mut self, owner: T, input: &Input) {
        assert!(self.in_use() < MAX_LANES, "no lane is free");
        self.ciphers.push(Cipher::initial());
        if let Some(cipher) = self.ciphers.last_mut() {
            cipher.set_keys(input.key(), &input.salt);
        }
        self.progress.push(Progress { owner, rounds_left: 1 << input.cost });
    }

    /// Advances all computations by `rounds` rounds, or by fewer if one of them finishes before. Returns the finished
    /// ones.
    pub fn advance(&mut self, rounds: u32) -> Vec<(T, Checksum)> {
        let rounds = self.progress.iter().map(|lane| lane.rounds_left).fold(rounds, u32::min);
        match self.in_use() {
            0 => {}
            1 => self.advance_lanes::<1>(rounds),
            2 => self.advance_lanes::<2>(rounds),
            3 => self.advance_lanes::<3>(rounds),
            4 => self.advance_lanes::<4>(rounds),
            5 => self.advance_lanes::<5>(rounds),
            6 => self.advance_lanes::<6>(rounds),
            7 => self.advance_lanes::<7>(rounds),
            _ => self.advance_lanes::<MAX_LANES>(rounds),
        }
        self.progress.iter_mut().for_each(|lane| lane.rounds_left -= rounds);
        let mut finished = Vec::new();
        while let Some(lane) = self.progress.iter().position(|lane| lane.rounds_left == 0) {
            let checksum = self.ciphers.get(lane).map(encrypted_text).unwrap_or_default();
            finished.push((self.remove(lane), checksum));
        }
        finished
    }

    /// Removes the computations for whose owner `is_wanted` returns `false`.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        while let Some(lane) = self.progress.iter().position(|lane| !is_wanted(&lane.owner)) {
            self.remove(lane);
        }
    }

    fn advance_lanes<const LANES: usize>(&mut self, rounds: u32) {
        if let Some(lanes) = self.ciphers.first_chunk_mut::<LANES>() {
            advance(lanes, rounds);
        }
    }

    fn remove(&mut self, lane: usize) -> T {
        if let Some((last, others)) = self.ciphers.split_last_mut()
            && let Some(free) = others.get_mut(lane)
        {
            free.copy_from(last);
        }
        // Drops the last cipher in place. `pop` would move it, and the destructor would overwrite only the moved copy.
        self.ciphers.truncate(self.progress.len() - 1);
        self.progress.swap_remove(lane).owner
    }
}

fn encrypted_text(cipher: &Cipher) -> Checksum {
    let mut bytes = [0; 24];
    let encrypted = PLAIN_TEXT.map(|block| cipher.encrypt_64_times(block));
    let words = encrypted.as_flattened().iter().flat_map(|word| word.to_be_bytes());
    bytes.iter_mut().zip(words).for_each(|(target, source)| *target = source);
    first_23(bytes)
}

/// Passwords, and their hashes as computed by the bcrypt crate.
const VECTORS: [(&[u8], &str); 3] = [
    (b"", "$2b$04$KBCwKxOzLha2MUDgW0PjXeg/oaNzVlQFb3jg.67P.r1snBL8ZffHa"),
    (b"correct horse battery staple", "$2b$04$KBCwKxOzLha2MUDgW0PjXenJMlrhgwNx1O/qUMv3/Jyrr2ELpMvSy"),
    (&[0xff; KEY_BYTES], "$2b$04$KBCwKxOzLha2MUDgW0PjXee5Gdn5lNLI/ae1Alg1JzJzm/1.kA.9W"),
];
/// The number of rounds of each hash.
const VECTOR_ROUNDS: u32 = 1 << 4;

/// A self-test: whether computations in 1 to `lanes` lanes yield the checksums of the bcrypt crate.
///
/// Computations of three passwords are added one after the other until `lanes` are in progress, and finish in the same
/// order, so that each number of lanes does a part of the work. This takes about as long as three hashes of cost 4.
pub fn check(lanes: usize) -> bool {
    let step = u32::try_from(lanes).map_or(VECTOR_ROUNDS, |lanes| VECTOR_ROUNDS.div_ceil(lanes));
    let (mut running, mut finished) = (Lanes::default(), Vec::new());
    for (password, hash) in VECTORS.iter().cycle().take(lanes) {
        let Ok(stored) = hash.parse::<Stored>() else { return false };
        let Ok(input) = Input::new(password, stored.salt, stored.cost) else { return false };
        running.add(stored.checksum, &input);
        finished.append(&mut running.advance(step));
    }
    while running.in_use() > 0 {
        finished.append(&mut running.advance(step));
    }
    finished.len() == lanes && finished.iter().all(|(expected, checksum)| expected == checksum)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Published test vectors of jBCrypt and of Openwall's crypt_blowfish.
    const PUBLISHED: [(&[u8], &str); 11] = [
        (b"", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
        (b"a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        (b"abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
        (b"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        (b"U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
        (b"U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
        (b"\xa3", "$2a$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
        (b"\xff\xff\xa3", "$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        (&[0xaa; 72], "$2a$05$/OK.fbVrR/bpIqNJ5ianF.swQOIzjOiJ9GHEPuhEkvqrUyvWhEMx6"),
        ([[0xaa, 0x55]; 36].as_flattened(), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.R9xrDjiycxMbQE2bp.vgqlYpW5wx2yy"),
        ([[0x55, 0xaa, 0xff]; 24].as_flattened(), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.9tQZzcJfm3uj2NvJ/n5xkhpqLrMpWCe"),
    ];

    fn published_inputs() -> Vec<(Input, Checksum)> {
        let read = |(password, hash): &(&[u8], &str)| {
            let stored: Stored = hash.parse().unwrap();
            (Input::new(password, stored.salt, stored.cost).unwrap(), stored.checksum)
        };
        PUBLISHED.iter().map(read).collect()
    }

    /// Computes all checksums, at most `lanes` at once. Adds one computation after each step.
    fn compute(inputs: &[Input], lanes: usize, step: u32) -> Vec<Checksum> {
        let mut checksums = vec![[0; 23]; inputs.len()];
        let (mut running, mut waiting) = (Lanes::default(), inputs.iter().enumerate());
        loop {
            if running.in_use() < lanes
                && let Some((owner, input)) = waiting.next()
            {
                running.add(owner, input);
            }
            if running.in_use() == 0 {
                return checksums;
            }
            for (owner, checksum) in running.advance(step) {
                checksums[owner] = checksum;
            }
        }
    }

    #[test]
    fn published_hashes_are_computed_alone_and_together() {
        let (inputs, expected): (Vec<_>, Vec<_>) = published_inputs().into_iter().unzip();
        assert_eq!(inputs.iter().map(Input::reference_checksum).collect::<Vec<_>>(), expected);
        assert_eq!(compute(&inputs, 1, u32::MAX), expected);
        assert_eq!(compute(&inputs, 3, 5), expected);
    }

    #[test]
    fn the_vectors_of_the_self_test_are_hashes_of_the_bcrypt_crate() {
        for (password, hash) in VECTORS {
            let stored: Stored = hash.parse().unwrap();
            assert_eq!(1 << stored.cost, VECTOR_ROUNDS);
            let input = Input::new(password, stored.salt, stored.cost).unwrap();
            assert_eq!(input.reference_checksum(), stored.checksum);
        }
        assert!(check(MAX_LANES));
    }

    #[test]
    fn costs_outside_4_to_31_are_rejected() {
        for cost in [0, 3, 32, u32::MAX] {
            assert!(matches!(Input::new(b"", [0; 16], cost), Err(BcryptError::CostNotAllowed(of)) if of == cost));
        }
        assert!(Input::new(b"", [0; 16], 31).is_ok());
    }

    #[test]
    fn a_key_ends_with_a_nul_or_at_72_bytes() {
        for (length, expected) in [(0, 1), (1, 2), (71, 72), (72, 72), (73, 72), (512, 72)] {
            assert_eq!(Input::new(&vec![1; length], [0; 16], 4).unwrap().key().len(), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_removed_computation_does_not_affect_the_others() {
        let inputs: Vec<Input> = (0..3_u8).map(|salt| Input::new(b"x", [salt; 16], 4).unwrap()).collect();
        for removed in 0..3 {
            let mut lanes = Lanes::default();
            inputs.iter().enumerate().for_each(|(owner, input)| lanes.add(owner, input));
            assert!(lanes.advance(3).is_empty());
            lanes.retain(|owner| *owner != removed);
            assert_eq!(lanes.in_use(), 2);
            let finished = lanes.advance(13);
            assert_eq!(finished.len(), 2);
            for (owner, checksum) in finished {
                assert_ne!(owner, removed);
                assert_eq!(checksum, inputs[owner].reference_checksum());
            }
        }
    }

    fn cases() -> impl Strategy<Value = (Vec<u8>, Salt, u32)> {
        let length = prop_oneof![0_usize..=100, Just(0), Just(1), Just(71), Just(72), Just(73), Just(512)];
        let password = length.prop_flat_map(|length| vec(prop_oneof![4 => any::<u8>(), 1 => Just(0)], length));
        (password, any::<Salt>(), 4_u32..=6)
    }

    /// Compares the checksums of random inputs, with random steps, about `count` for each number of lanes.
    fn compare_with_the_crate(count: usize) {
        for lanes in 1..=MAX_LANES {
            let batches = u32::try_from(count.div_ceil(lanes + 1)).unwrap();
            proptest!(ProptestConfig::with_cases(batches), |(batch in vec(cases(), lanes + 1), step in 1_u32..40)| {
                let input = |(password, salt, cost): &(Vec<u8>, Salt, u32)| Input::new(password, *salt, *cost).unwrap();
                let inputs: Vec<Input> = batch.iter().map(input).collect();
                let expected: Vec<Checksum> = inputs.iter().map(Input::reference_checksum).collect();
                prop_assert_eq!(compute(&inputs, lanes, step), expected);
            });
        }
    }

    #[test]
    fn every_number_of_lanes_computes_what_the_crate_computes() {
        compare_with_the_crate(1);
    }

    /// `cargo test --release --package bcrypt-lanes -- --ignored`
    #[test]
    #[ignore = "takes minutes without optimization"]
    fn every_number_of_lanes_computes_what_the_crate_computes_10000_times() {
        compare_with_the_crate(10_000);
    }
}
