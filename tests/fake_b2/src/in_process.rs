//! The embedded B2 without sockets: an [`HttpClient`] that hands requests over and keeps virtual time.

use std::sync::Arc;

use b2sync_core::http::{ExchangeLimits, HttpClient, Request, Response, TransportError, TransportFault};
use b2sync_core::time::Clock as _;

use super::{FakeB2, Outcome, WireFault};
use crate::virtual_world::VirtualClock;

/// Sends requests to a [`FakeB2`] in the same process. A time-out costs virtual time only.
#[derive(Clone, Debug)]
pub struct InProcess {
    fake: Arc<FakeB2>,
    clock: VirtualClock,
    latency_ms: u64,
}

impl InProcess {
    /// A client of `fake` whose time is `clock`.
    pub const fn new(fake: Arc<FakeB2>, clock: VirtualClock) -> Self {
        Self { fake, clock, latency_ms: 0 }
    }

    /// Lets every exchange cost this much virtual time.
    #[must_use]
    pub const fn with_latency_ms(mut self, latency_ms: u64) -> Self {
        self.latency_ms = latency_ms;
        self
    }

    /// The account it speaks to.
    pub const fn fake(&self) -> &Arc<FakeB2> {
        &self.fake
    }
}

impl HttpClient for InProcess {
    async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        if !self.fake.serves(authority) {
            return Err(failed(TransportFault::Unreachable, format!("no such host: {authority:?}")));
        }
        let outcome = self.fake.handle(&request, self.clock.now());
        let (response, delay_ms) = match outcome {
            Outcome::Respond(response) => (response, 0),
            Outcome::Fault(WireFault::Delay { millis, response }) => (response, millis),
            Outcome::Fault(WireFault::Hang) => {
                self.clock.sleep(limits.timeout_ms).await;
                return Err(timed_out(limits));
            }
            Outcome::Fault(WireFault::Reset | WireFault::CutBody { .. }) => {
                self.clock.sleep(self.latency_ms).await;
                return Err(failed(TransportFault::Interrupted, "connection closed before the message completed"));
            }
        };
        let spent_ms = self.latency_ms.saturating_add(delay_ms);
        if spent_ms >= limits.timeout_ms {
            self.clock.sleep(limits.timeout_ms).await;
            return Err(timed_out(limits));
        }
        self.clock.sleep(spent_ms).await;
        if response.body().len() > limits.body_bytes_max {
            let message = format!("the body is longer than {} bytes", limits.body_bytes_max);
            return Err(failed(TransportFault::BodyTooLarge, message));
        }
        Ok(response)
    }
}

fn failed(fault: TransportFault, message: impl Into<String>) -> TransportError {
    TransportError { fault, message: message.into() }
}

fn timed_out(limits: ExchangeLimits) -> TransportError {
    failed(TransportFault::TimedOut, format!("no complete response within {} ms", limits.timeout_ms))
}

#[cfg(test)]
mod tests {
    use b2sync_core::time::Timestamp;
    use bytes::Bytes;

    use super::*;
    use crate::Config;
    use crate::faults::{Fault, Rule, Target};

    fn world() -> (InProcess, VirtualClock) {
        let clock = VirtualClock::starting_at(Timestamp::from_millis(0));
        (InProcess::new(Arc::new(FakeB2::new(Config::like_b2())), clock.clone()), clock)
    }

    fn send(client: &InProcess, host: &str, limits: ExchangeLimits) -> Result<Response, TransportError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = format!("https://{host}/b2api/v4/b2_authorize_account").parse().unwrap();
        pollster::block_on(client.send(request, limits))
    }

    const HOST: &str = "api.backblazeb2.com";

    #[test]
    fn faults_become_transport_errors_and_cost_virtual_time() {
        let (client, clock) = world();
        let delay = |millis| Fault::Delay { millis };
        let table = [
            (Fault::Hang, Err(TransportFault::TimedOut), 15_000),
            (Fault::Reset, Err(TransportFault::Interrupted), 0),
            (Fault::CutBody { after_bytes: 3 }, Err(TransportFault::Interrupted), 0),
            (delay(20_000), Err(TransportFault::TimedOut), 15_000),
            (delay(2_000), Ok(401), 2_000),
            (Fault::slow_down(5), Ok(503), 0),
            (Fault::Garbage, Ok(200), 0),
        ];
        for (fault, expected, spent_ms) in table {
            client.fake().inject(Rule::next(Target::Any, fault.clone()));
            let before = clock.now();
            let answer = send(&client, HOST, ExchangeLimits::SMALL);
            let answer = answer.map(|response| response.status().as_u16()).map_err(|error| error.fault);
            assert_eq!((answer, clock.now().millis_since(before)), (expected, spent_ms), "{fault:?}");
        }
        assert_eq!(send(&client, HOST, ExchangeLimits::SMALL).unwrap().status(), 401);
        assert_eq!(client.fake().counts().authorize, 8);
    }

    #[test]
    fn another_host_is_unreachable() {
        let (client, _) = world();
        let fault = |host| send(&client, host, ExchangeLimits::SMALL).map(drop).map_err(|error| error.fault);
        assert_eq!(fault("api.example.com"), Err(TransportFault::Unreachable));
        assert_eq!(fault("s3.us-west-004.backblazeb2.com"), Ok(()));
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        let (client, _) = world();
        let limits = ExchangeLimits { timeout_ms: 1_000, body_bytes_max: 4 };
        assert_eq!(send(&client, HOST, limits).unwrap_err().fault, TransportFault::BodyTooLarge);
    }
}
