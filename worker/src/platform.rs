//! Time, chance, and the coordinators as the API reaches them.

use std::time::Duration;

use b2sync_core::{
    Error,
    entropy::Entropy,
    job::JobRecord,
    time::{Clock, Timestamp},
};
use b2sync_service::{
    api::Coordinators,
    coordinator::protocol::{Answer, Command},
};
use worker::{Date, Delay, console_error, signal, wasm_bindgen};

use crate::bindings::Bindings;

/// The platform's clock and random generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Platform;

impl Clock for Platform {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(Date::now().as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, millis: u64) {
        Delay::from(Duration::from_millis(millis)).await;
    }

    /// The runtime writes a signal into this module's memory shortly before it ends an invocation for its CPU time, and
    /// takes it back before the next. Where it does not, the answer is always
    /// no: the budget's keys bound the CPU time of a step in any case.
    fn is_near_cpu_limit(&self) -> bool {
        signal::is_near_cpu_limit()
    }
}

impl Entropy for Platform {
    fn fill(&self, bytes: &mut [u8]) {
        // `crypto.getRandomValues` does not fail for so few bytes. Were it to, zeros would be worse than an
        // exception: a nonce must never be one that was used before.
        if let Err(error) = getrandom::fill(bytes) {
            console_error!("No random bytes: {error}");
            wasm_bindgen::throw_str("The platform gives no random bytes.");
        }
    }
}

/// The coordinators in their Durable Objects, and the job history in KV.
pub(crate) struct RemoteCoordinators<'a> {
    bindings: &'a Bindings,
}

impl<'a> RemoteCoordinators<'a> {
    pub(crate) fn new(bindings: &'a Bindings) -> Self {
        Self { bindings }
    }
}

impl Coordinators for RemoteCoordinators<'_> {
    async fn call(&self, sync_id: &str, command: Command) -> Result<Answer, Error> {
        self.bindings.coordinator(sync_id, &command).await
    }

    async fn archived_job(&self, sync_id: &str, job_id: &str) -> Result<Option<JobRecord>, Error> {
        self.bindings.kv()?.job(sync_id, job_id).await
    }

    async fn archived_jobs(&self, sync_id: &str, limit: usize) -> Result<Vec<JobRecord>, Error> {
        self.bindings.kv()?.jobs(sync_id, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test;

    // That it sleeps is seen on workerd only: Node's timers are not a Worker's.
    #[wasm_bindgen_test]
    fn the_clock_tells_the_time() {
        let now = Platform.now();
        assert!(now > Timestamp::from_millis(1_700_000_000_000), "{now}");
        assert!(Platform.now() >= now);
    }

    #[wasm_bindgen_test]
    fn without_a_signal_no_limit_is_near() {
        assert!(!Platform.is_near_cpu_limit());
    }

    #[wasm_bindgen_test]
    fn random_bytes_are_not_repeated() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        Platform.fill(&mut a);
        Platform.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }

    #[wasm_bindgen_test]
    fn sealing_works_in_wasm() {
        use b2sync_core::secret::{ExposeSecret, SecretString};
        use b2sync_service::seal::MasterKeys;
        let keys = MasterKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").ok();
        let opened = keys.and_then(|keys| {
            let sealed = keys.seal(&SecretString::from("K005secret"), "conn_a", &Platform).ok()?;
            assert!(keys.open(&sealed, "conn_b").is_err());
            keys.open(&sealed, "conn_a").ok()
        });
        assert_eq!(opened.as_ref().map(|key| key.expose_secret()), Some("K005secret"));
    }
}
