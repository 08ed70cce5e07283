//! Identifiers: random ones from injected entropy, and the deterministic one of an object.

use crate::entropy::Entropy;

/// Characters after the prefix of a random id. Five bits each: 100 bits, so that a collision is not worth checking for.
const RANDOM_CHARS: usize = 20;

/// Bytes of a sync's salt.
const SALT_BYTES: usize = 16;

/// What the hash of an object id is for, so that no other hash of the same bytes equals it.
const OBJECT_ID_CONTEXT: &str = "b2sync 2026-11 object id of (sync, key)";

/// A new `conn_…`.
pub fn connection_id(entropy: &impl Entropy) -> String {
    random_id("conn_", entropy)
}

/// A new `sync_…`.
pub fn sync_id(entropy: &impl Entropy) -> String {
    random_id("sync_", entropy)
}

/// A new `job_…`.
pub fn job_id(entropy: &impl Entropy) -> String {
    random_id("job_", entropy)
}

/// A new salt of a sync: 32 hexadecimal digits, the key of its segment hash.
pub fn salt(entropy: &impl Entropy) -> String {
    let mut bytes = [0; SALT_BYTES];
    entropy.fill(&mut bytes);
    hex::encode(bytes)
}

/// The id of the object that a key becomes: `obj_` and 32 hexadecimal digits, the same for each change of a
/// key in one sync, so that a repeated delivery never makes a second object.
///
/// ```
/// use b2sync_core::ids::object_id;
/// assert_eq!(object_id("sync_a", "videos/a.mp4"), object_id("sync_a", "videos/a.mp4"));
/// assert_ne!(object_id("sync_a", "videos/a.mp4"), object_id("sync_b", "videos/a.mp4"));
/// ```
pub fn object_id(sync_id: &str, key: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(OBJECT_ID_CONTEXT);
    hasher.update(&(sync_id.len() as u64).to_le_bytes()); // Or (`a`, `bc`) and (`ab`, `c`) would be the same object.
    hasher.update(sync_id.as_bytes());
    hasher.update(key.as_bytes());
    let mut digits = hasher.finalize().to_hex().to_string();
    digits.truncate(32);
    format!("obj_{digits}")
}

fn random_id(prefix: &str, entropy: &impl Entropy) -> String {
    let mut bytes = [0; RANDOM_CHARS];
    entropy.fill(&mut bytes);
    let digits = bytes.iter().map(|byte| match byte & 31 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'2' + digit - 26),
    });
    prefix.chars().chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(u8);
    impl Entropy for Bytes {
        fn fill(&self, bytes: &mut [u8]) {
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = self.0.wrapping_add((i * 7) as u8);
            }
        }
    }

    #[test]
    fn random_ids_have_their_prefix_and_alphabet() {
        for seed in 0..=255 {
            let id = connection_id(&Bytes(seed));
            assert_eq!(id.len(), "conn_".len() + RANDOM_CHARS);
            let digits = id.strip_prefix("conn_").unwrap();
            assert!(digits.chars().all(|c| c.is_ascii_lowercase() || ('2'..='7').contains(&c)), "{id}");
        }
        assert!(sync_id(&Bytes(0)).starts_with("sync_"));
        assert!(job_id(&Bytes(0)).starts_with("job_"));
        assert_eq!(salt(&Bytes(0)).len(), 32);
    }

    #[test]
    fn an_object_id_is_stored_and_must_never_change() {
        assert_eq!(object_id("sync_a", "videos/a.mp4"), "obj_d3800227792921e3a41088c5470db8e7");
        assert_ne!(object_id("sync_a", "bc"), object_id("sync_ab", "c"));
    }
}
