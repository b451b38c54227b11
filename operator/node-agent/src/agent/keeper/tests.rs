//! A keeper on the machine of apply's tests.

use wasmlet_api::node::AgentState;

use super::*;
use crate::agent::report::{Applied, Report, Trust};
use crate::apply::tests::{CACHE, CONFIG, Fault, Fixture, RUNC};
use crate::facts::Choices;

fn order(target: &NodeTarget, attempt: i64) -> For {
    For {
        revision: target.revision(),
        attempt,
    }
}

#[tokio::test]
async fn who_cannot_be_repaired_loses_its_trust_until_it_is_verified_again() {
    let fixture = Fixture::new(Fault::None);
    let config = below(fixture.dir.path(), Path::new(CONFIG));
    let (reports, report) = watch::channel(Report::default());
    let (root, applier) = (fixture.dir.path().to_owned(), fixture.lock());
    let mut keeper = Keeper::new(fixture.machine, &root, Choices::default(), applier, reports)
        .await
        .unwrap();
    assert_eq!(keeper.check().await, Check::Nothing);
    let target = NodeTarget::new(vec![]);
    keeper.order(order(&target, 1), &target).await;
    assert_eq!(report.borrow().applied, Applied::Yes);
    assert_eq!(keeper.check().await, Check::InSync);

    // Nobody can read it like that.
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    assert!(matches!(keeper.check().await, Check::Failed(_)));
    assert!(matches!(report.borrow().drift, Drift::Failed(..)));
    assert_eq!(report.borrow().trust, Trust::Yes, "once may be chance");
    assert!(matches!(keeper.check().await, Check::Failed(_)));
    assert_eq!(report.borrow().trust, Trust::No);

    // The operator orders the same again, which fails for the same cause.
    keeper.order(order(&target, 2), &target).await;
    assert_eq!(report.borrow().agent.state, AgentState::RolledBack);
    assert_eq!(report.borrow().trust, Trust::No);

    std::fs::remove_dir(&config).unwrap();
    std::fs::write(&config, RUNC).unwrap();
    assert!(matches!(keeper.check().await, Check::Repaired(_)));
    {
        let now = report.borrow();
        assert_eq!((now.trust, &now.applied), (Trust::Yes, &Applied::Yes));
        assert_eq!((now.agent.observed_attempt, now.agent.repairs), (2, 1));
        assert!(now.last_error.is_none(), "{:?}", now.last_error);
    }
    assert_eq!(keeper.check().await, Check::InSync);
    assert_eq!(report.borrow().drift, Drift::InSync);
}

#[tokio::test]
async fn a_removal_counts_when_nothing_is_left() {
    let fixture = Fixture::new(Fault::None);
    let root = fixture.dir.path().to_owned();
    let bundle = below(&root, Path::new(NODE_STORE)).join(Digest::of(b"old").hex());
    std::fs::create_dir_all(bundle.join("bin")).unwrap();
    let (reports, report) = watch::channel(Report::default());
    let applier = fixture.lock();
    let mut keeper = Keeper::new(fixture.machine, &root, Choices::default(), applier, reports)
        .await
        .unwrap();
    let target = NodeTarget::new(vec![]);
    keeper.order(order(&target, 1), &target).await;
    assert_eq!(report.borrow().applied, Applied::Yes);
    let cache = below(&root, Path::new(CACHE));
    assert!(!bundle.exists());
    assert!(!cache.exists());

    // Somebody installs the shim by hand: not ours to remove.
    std::fs::create_dir_all(&cache).unwrap();
    keeper.tidy().await;
    assert!(cache.exists());
}
