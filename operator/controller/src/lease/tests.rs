//! Against a scripted API server, with a clock that the test owns.

use serde_json::{Value, json};

use super::*;
use crate::script::{Answer, Script, refusal};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/n/leases";
const ONE: &str = "/apis/coordination.k8s.io/v1/namespaces/n/leases/l";

fn lease(holder: &str, version: &str) -> Answer {
    Answer::Json(200, object(holder, version))
}

fn object(holder: &str, version: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "l", "namespace": "n", "resourceVersion": version },
        "spec": { "holderIdentity": holder, "leaseTransitions": 3 },
    })
}

fn candidate(script: &Script) -> Candidate {
    Candidate::new(script.client(), "n", "l", "me")
}

/// The clock goes on by itself, so a candidate that is never elected would try for ever.
async fn elected(script: &Script) -> Leader {
    tokio::time::timeout(Duration::from_secs(60), candidate(script).elected())
        .await
        .expect("elected")
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_there_is_made() {
    let script = Script::default()
        .then("GET", ONE, refusal(404, "no such lease"))
        .then("POST", LEASES, lease("me", "1"));
    elected(&script).await;
    let calls = script.played();
    assert_eq!(calls[1].body["spec"]["holderIdentity"], "me");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_not_taken_and_one_that_is_not_is() {
    let script = Script::default()
        .then("GET", ONE, lease("other", "1"))
        .then("GET", ONE, lease("other", "2"));
    let begun = Instant::now();
    let waits = tokio::time::timeout(Duration::from_secs(4), candidate(&script).elected()).await;
    assert!(waits.is_err(), "it is the other's");
    script.played();

    // The other has died: looks every three seconds or so, until twenty have passed.
    let mut script = Script::default();
    for _ in 0..20 {
        script = script.then("GET", ONE, lease("other", "2"));
    }
    let patient = tokio::time::timeout(Duration::from_secs(19), candidate(&script).elected()).await;
    assert!(patient.is_err(), "taken after {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_leaders_lease_is_taken_once_under_the_version_that_was_seen() {
    // Exactly how many looks fit depends on jitter: a server that always answers the same.
    let taken = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = std::sync::Arc::clone(&taken);
    let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
        let seen = std::sync::Arc::clone(&seen);
        async move {
            let answer = if request.method() == "PUT" {
                use http_body_util::BodyExt as _;
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&bytes).unwrap();
                *seen.lock().unwrap() = Some(body.clone());
                body
            } else {
                object("other", "7")
            };
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
        }
    });
    let begun = Instant::now();
    let candidate = Candidate::new(kube::Client::new(service, "n"), "n", "l", "me");
    tokio::time::timeout(Duration::from_secs(60), candidate.elected())
        .await
        .expect("elected");
    assert!(begun.elapsed() >= DURATION, "{:?}", begun.elapsed());
    let body = taken.lock().unwrap().take().expect("it was written");
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    assert_eq!(body["spec"]["leaseTransitions"], 4);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_try_one_fails_and_waits() {
    let script = Script::default()
        .then("GET", ONE, lease("", "1"))
        .then("PUT", ONE, refusal(409, "the other was faster"))
        .then("GET", ONE, lease("other", "2"));
    let waits = tokio::time::timeout(Duration::from_secs(4), candidate(&script).elected()).await;
    assert!(waits.is_err());
    script.played();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
    let mut script =
        Script::default()
            .then("GET", ONE, lease("", "1"))
            .then("PUT", ONE, lease("me", "2"));
    for _ in 0..8 {
        script = script.then("PUT", ONE, Answer::Silence);
    }
    let mut leader = elected(&script).await;
    let begun = Instant::now();
    let error = leader.keep().await;
    assert!(matches!(error, LeaseError::Lost { .. }), "{error}");
    assert!(
        begun.elapsed() + CALL_TIMEOUT <= DURATION,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_cost_the_lease_and_a_foreign_label_neither() {
    let script = Script::default()
        .then("GET", ONE, lease("", "1"))
        .then("PUT", ONE, lease("me", "2"))
        .then("PUT", ONE, refusal(500, "scripted"))
        .then("PUT", ONE, refusal(409, "somebody put a label on it"))
        .then("GET", ONE, lease("me", "4"))
        .then("PUT", ONE, lease("me", "5"))
        .then("PUT", ONE, refusal(409, "another replica"))
        .then("GET", ONE, lease("other", "6"));
    let mut leader = elected(&script).await;
    let error = leader.keep().await;
    let LeaseError::Taken { holder, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(holder, "other");
    script.played();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_released_has_no_holder() {
    let script = Script::default()
        .then("GET", ONE, lease("", "1"))
        .then("PUT", ONE, lease("me", "2"))
        .then("PUT", ONE, lease("", "3"));
    let leader = elected(&script).await;
    leader.release().await.unwrap();
    assert_eq!(script.played()[2].body["spec"]["holderIdentity"], "");
}
