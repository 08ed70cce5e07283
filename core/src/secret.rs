//! Values that must never be printed.

pub use secrecy::{ExposeSecret, SecretBox, SecretString};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        let secret = SecretString::from("K005 the key itself");
        assert!(!format!("{secret:?}").contains("K005"), "{secret:?}");
    }
}
