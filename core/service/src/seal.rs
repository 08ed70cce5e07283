//! Sealing: application keys are encrypted before they are stored.
//!
//! AES-256-GCM under a master key that the home keeps as a secret of its platform. A random 96-bit nonce for each
//! sealing; a master key may seal 2^32 times before nonces become likely to repeat (NIST SP 800-38D, 8.3). The
//! associated data are the format, the master key's id and what the secret is bound to (the id of its connection), so a
//! ciphertext that is copied into another connection does not open.
//!
//! Rotation: put a new key in front, keep the old one behind it until everything is sealed again
//! ([`MasterKeys::is_current`]), then drop it. No error and no `Debug` here shows a key or a plaintext.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use b2sync_core::{
    entropy::Entropy,
    error::{Error, ErrorKind, quoted},
    secret::{ExposeSecret, SecretBox, SecretString},
};

/// The most master keys at a time: the current one and those being rotated out.
pub const MASTER_KEYS_MAX: usize = 8;
/// The longest id of a master key, in characters.
pub const KEY_ID_CHARS_MAX: usize = 32;
/// The longest secret that is sealed, in bytes.
pub const PLAINTEXT_BYTES_MAX: usize = 4_096;

const FORMAT_VERSION: u32 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const FIELD: &str = "MASTER_KEY";
const KEY_ADVICE: &str = "Set MASTER_KEY to <key-id>:<base64 of 32 random bytes>, for instance \
     \"k1:$(openssl rand -base64 32)\", older keys behind it with commas between.";

/// The master keys: the first seals, all open.
///
/// ```
/// use b2sync_core::secret::{ExposeSecret, SecretString};
/// use b2sync_service::seal::{MasterKeys, Sealed};
/// # struct Seeded;
/// # impl b2sync_core::entropy::Entropy for Seeded { fn fill(&self, bytes: &mut [u8]) { bytes.fill(7) } }
/// let keys = MasterKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
/// let sealed = keys.seal(&SecretString::from("K005secret"), "conn_1", &Seeded)?;
/// let stored = serde_json::to_string(&sealed)?;
/// assert!(stored.starts_with(r#"{"v":1,"kid":"k1","nonce":""#));
///
/// let sealed: Sealed = serde_json::from_str(&stored)?;
/// assert_eq!(keys.open(&sealed, "conn_1")?.expose_secret(), "K005secret");
/// assert!(keys.open(&sealed, "conn_2").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MasterKeys {
    current: MasterKey,
    older: Vec<MasterKey>,
}

struct MasterKey {
    id: String,
    key: SecretBox<[u8; KEY_BYTES]>,
}

impl MasterKeys {
    /// Parses `<key-id>:<base64 of 32 bytes>[,<older-id>:<base64>…]`, the current key first. Ids are letters, digits,
    /// `-` and `_`.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`], field `MASTER_KEY`, saying which key (by its place) breaks which rule, never what
    /// it is.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, part) in text.split(',').enumerate() {
            let key = MasterKey::parse(part.trim()).map_err(|what| invalid(&format!("key {} {what}", index + 1)))?;
            if keys.len() == MASTER_KEYS_MAX {
                return Err(invalid(&format!("there are more than {MASTER_KEYS_MAX} keys")));
            }
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(invalid(&format!("key {} has the id of an earlier one", index + 1)));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or_else(|| invalid("there is no key"))?;
        Ok(Self { current, older: keys.collect() })
    }

    /// Seals `plaintext` under the current key, so that it opens only for the same `bound_to`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `plaintext` is longer than [`PLAINTEXT_BYTES_MAX`].
    pub fn seal(&self, plaintext: &SecretString, bound_to: &str, entropy: &impl Entropy) -> Result<Sealed, Error> {
        let message = plaintext.expose_secret();
        if message.len() > PLAINTEXT_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("The secret is longer than {PLAINTEXT_BYTES_MAX} bytes."),
                "Check that it is an application key.",
            ));
        }
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let aad = associated_data(&self.current.id, bound_to);
        let payload = Payload { msg: message.as_bytes(), aad: aad.as_bytes() };
        let ciphertext = self
            .current
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| Error::internal("A secret cannot be sealed."))?;
        Ok(Sealed {
            v: FORMAT_VERSION,
            kid: self.current.id.clone(),
            nonce: STANDARD.encode(nonce),
            ct: STANDARD.encode(ciphertext),
        })
    }

    /// Opens what [`MasterKeys::seal`] made for the same `bound_to`.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`]: the master key is not among these, or the ciphertext was altered or belongs elsewhere.
    /// [`ErrorKind::StateCorrupt`]: another version, or not base64.
    pub fn open(&self, sealed: &Sealed, bound_to: &str) -> Result<SecretString, Error> {
        if sealed.v != FORMAT_VERSION {
            return Err(corrupt(&format!("has version {}; this code knows {FORMAT_VERSION}", sealed.v)));
        }
        let key =
            std::iter::once(&self.current).chain(&self.older).find(|key| key.id == sealed.kid).ok_or_else(|| {
                Error::new(
                    ErrorKind::Sealing,
                    format!(
                        "The secret was sealed with the master key {}, which is not configured.",
                        quoted(&sealed.kid)
                    ),
                    "Put that key back behind the current one in MASTER_KEY, or enter the application key of the \
                 connection again.",
                )
            })?;
        let nonce: [u8; NONCE_BYTES] = STANDARD
            .decode(&sealed.nonce)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| corrupt("has no nonce of 12 bytes"))?;
        let ciphertext = STANDARD.decode(&sealed.ct).map_err(|_| corrupt("is not base64"))?;
        let aad = associated_data(&sealed.kid, bound_to);
        let payload = Payload { msg: &ciphertext, aad: aad.as_bytes() };
        let plaintext = key.cipher().decrypt(&Nonce::from(nonce), payload).map_err(|_| {
            Error::new(
                ErrorKind::Sealing,
                format!(
                    "The secret of {} cannot be opened: it was altered, or sealed with another master key.",
                    quoted(bound_to)
                ),
                "Check that MASTER_KEY is the one it was sealed with, or enter the application key of the connection \
                 again.",
            )
        })?;
        String::from_utf8(plaintext).map(SecretString::from).map_err(|_| corrupt("is not text"))
    }

    /// Whether `sealed` was sealed with the current master key; otherwise it should be sealed again.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        sealed.v == FORMAT_VERSION && sealed.kid == self.current.id
    }
}

/// Only the ids.
impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = std::iter::once(&self.current).chain(&self.older).map(|key| &key.id);
        f.write_str("MasterKeys")?;
        f.debug_list().entries(ids).finish()
    }
}

impl MasterKey {
    fn parse(text: &str) -> Result<Self, String> {
        // Without a colon the text may be the bare key: nothing of it is said.
        let (id, encoded) = text.split_once(':').ok_or("has no id before a colon")?;
        if id.is_empty() || id.len() > KEY_ID_CHARS_MAX {
            return Err(format!("needs an id of 1 to {KEY_ID_CHARS_MAX} characters"));
        }
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err("has an id with other characters than letters, digits, - and _".to_owned());
        }
        let mut bytes = STANDARD.decode(encoded.trim()).map_err(|_| "is not base64")?;
        let length = bytes.len();
        let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
        bytes.fill(0);
        let key = key.map_err(|_| format!("has {length} bytes, not {KEY_BYTES}"))?;
        Ok(Self { id: id.to_owned(), key: SecretBox::new(Box::new(key)) })
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.key.expose_secret().into())
    }
}

/// A sealed secret as it is stored: JSON `{"v":1,"kid":…,"nonce":…,"ct":…}`, the last two in base64; the ciphertext
/// ends with its 16-byte tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    v: u32,
    kid: String,
    nonce: String,
    ct: String,
}

/// Neither part but the last can hold a NUL, so no two triples read the same.
fn associated_data(key_id: &str, bound_to: &str) -> String {
    format!("b2sync sealed v{FORMAT_VERSION}\0{key_id}\0{bound_to}")
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::Misconfigured, format!("MASTER_KEY cannot be read: {what}."), KEY_ADVICE).with_field(FIELD)
}

fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorKind::StateCorrupt,
        format!("A sealed secret {what}."),
        "Enter the application key of the connection again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use b2sync_core::testing::Seeded;
    use proptest::prelude::*;
    use std::cell::Cell;

    const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NEW: &str = "new-2:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    fn keys(text: &str) -> MasterKeys {
        MasterKeys::parse(text).unwrap()
    }

    fn sealed(keys: &MasterKeys) -> Sealed {
        keys.seal(&SecretString::from("K005secret"), "conn_1", &Seeded(Cell::new(1))).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_only_where_it_belongs() {
        let old = keys(OLD);
        let sealed = sealed(&old);
        assert_eq!(old.open(&sealed, "conn_1").unwrap().expose_secret(), "K005secret");
        assert_eq!(old.open(&sealed, "conn_2").unwrap_err().kind(), ErrorKind::Sealing);
        let error = keys(NEW).open(&sealed, "conn_1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sealing);
        assert!(error.message().contains("\"old\", which is not configured"), "{error}");
        let renamed = keys(&NEW.replace("new-2", "old"));
        assert_eq!(renamed.open(&sealed, "conn_1").unwrap_err().kind(), ErrorKind::Sealing, "same id, other key");
    }

    #[test]
    fn a_master_key_can_be_rotated() {
        let before = sealed(&keys(OLD));
        let both = keys(&format!("{NEW}, {OLD}\n"));
        assert_eq!(both.open(&before, "conn_1").unwrap().expose_secret(), "K005secret");
        assert!(!both.is_current(&before));
        let after = sealed(&both);
        assert!(both.is_current(&after));
        assert_eq!(keys(NEW).open(&after, "conn_1").unwrap().expose_secret(), "K005secret");
    }

    #[test]
    fn every_alteration_is_noticed() {
        let keys = keys(&format!("{OLD},{NEW}"));
        let sealed = sealed(&keys);
        let ciphertext = STANDARD.decode(&sealed.ct).unwrap();
        for index in 0..ciphertext.len() {
            let mut altered = ciphertext.clone();
            altered[index] ^= 1;
            let altered = Sealed { ct: STANDARD.encode(altered), ..sealed.clone() };
            assert_eq!(keys.open(&altered, "conn_1").unwrap_err().kind(), ErrorKind::Sealing);
        }
        for altered in [
            Sealed { kid: "new-2".into(), ..sealed.clone() },
            Sealed { nonce: STANDARD.encode([0; 12]), ..sealed.clone() },
            Sealed { ct: STANDARD.encode(&ciphertext[1..]), ..sealed.clone() },
            Sealed { ct: String::new(), ..sealed.clone() },
        ] {
            assert_eq!(keys.open(&altered, "conn_1").unwrap_err().kind(), ErrorKind::Sealing);
        }
        for altered in [
            Sealed { v: 2, ..sealed.clone() },
            Sealed { nonce: STANDARD.encode([0; 11]), ..sealed.clone() },
            Sealed { ct: "%".into(), ..sealed.clone() },
        ] {
            assert_eq!(keys.open(&altered, "conn_1").unwrap_err().kind(), ErrorKind::StateCorrupt);
        }
    }

    #[test]
    fn a_wrong_master_key_is_explained_and_never_echoed() {
        let material = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let many: Vec<String> = (0..9).map(|index| format!("k{index}:{material}")).collect();
        for (text, what) in [
            (String::new(), "key 1 has no id before a colon"),
            (material.to_owned(), "key 1 has no id before a colon"),
            (format!(":{material}"), "key 1 needs an id"),
            (format!("{material}:k1"), "key 1 needs an id"),
            (format!("a b:{material}"), "other characters"),
            (format!("k1:{material}!"), "key 1 is not base64"),
            ("k1:AAEC".to_owned(), "has 3 bytes, not 32"),
            (format!("{OLD},"), "key 2 has no id"),
            (format!("{OLD},{OLD}"), "key 2 has the id of an earlier one"),
            (many.join(","), "more than 8"),
        ] {
            let error = MasterKeys::parse(&text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::Misconfigured, Some("MASTER_KEY")));
            assert!(error.message().contains(what), "{error}");
            assert!(!error.to_string().contains("AAEC"), "{error}");
        }
    }

    #[test]
    fn debug_shows_only_ids() {
        assert_eq!(format!("{:?}", keys(&format!("{NEW},{OLD}"))), r#"MasterKeys["new-2", "old"]"#);
        assert!(!format!("{:?}", sealed(&keys(OLD))).contains("K005"));
    }

    #[test]
    fn too_long_a_secret_is_refused() {
        let secret = SecretString::from("x".repeat(PLAINTEXT_BYTES_MAX + 1));
        assert_eq!(keys(OLD).seal(&secret, "c", &Seeded(Cell::new(1))).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// Test case 16 of "The Galois/Counter Mode of Operation (GCM)", McGrew and Viega, the paper NIST SP 800-38D rests
    /// on.
    #[test]
    fn the_primitive_is_aes_256_gcm() {
        let bytes = |text: &str| hex::decode(text).unwrap();
        let key: [u8; 32] =
            bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let key = MasterKey { id: "k".into(), key: SecretBox::new(Box::new(key)) };
        let nonce: [u8; 12] = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let plaintext = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let ciphertext = key.cipher().encrypt(&Nonce::from(nonce), Payload { msg: &plaintext, aad: &aad }).unwrap();
        let expected = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10\
             56828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b";
        assert_eq!(hex::encode(ciphertext), expected);
    }

    proptest! {
        #[test]
        fn sealing_is_undone_by_opening(secret in any::<String>(), bound_to in any::<String>(), seed in any::<u64>()) {
            let keys = keys(OLD);
            let sealed = keys.seal(&SecretString::from(secret.as_str()), &bound_to, &Seeded(Cell::new(seed))).unwrap();
            let stored: Sealed = serde_json::from_str(&serde_json::to_string(&sealed).unwrap()).unwrap();
            let opened = keys.open(&stored, &bound_to).unwrap();
            prop_assert_eq!(opened.expose_secret(), secret.as_str());
            let elsewhere = bound_to + "x";
            prop_assert!(keys.open(&stored, &elsewhere).is_err());
        }

        #[test]
        fn no_text_panics(text in "[a-z:,=A-Z0-9+/ ]{0,60}") {
            let _ = MasterKeys::parse(&text);
        }
    }
}
