//! The operator dies, has a twin, or has no API server; rollouts end all the same.

use std::time::Duration;

use serde_json::Value;
use wasmlet_e2e::operator::{CHANGE, Change, Recorder};
use wasmlet_e2e::{LONG, eventually};

use crate::case::Case;
use crate::site::Site;
use crate::upgrade::{Before, variant};
use wasmlet_e2e::fleet::Fleet;
use wasmlet_e2e::nodes::OnNode;

pub(crate) const CASES: &[Case] = &[
    Case::installed("a_killed_operator_goes_on_where_it_was", killed),
    Case::installed("of_two_operators_one_works_and_the_other_takes_over", two),
    Case::installed(
        "an_api_server_that_is_away_for_a_minute_is_only_waited_for",
        no_api_server,
    ),
];

/// The pod that holds the lease.
fn try_leader(site: &Site<'_>) -> Result<String, String> {
    let said = site.kubectl().run(&["get", "leases", "--output", "json"]);
    let leases: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr)?;
    let holder = leases["items"][0]["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default();
    let pods = site.kubectl().answer(&[
        "get",
        "pods",
        "--selector",
        "app.kubernetes.io/component=operator",
        "--field-selector=status.phase=Running",
        "--output",
        "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}",
    ]);
    // An identity may have more than the pod's name in it.
    let pod = pods.lines().find(|pod| holder.contains(pod));
    pod.map(str::to_owned)
        .ok_or(format!("{holder:?} of {pods:?}"))
}

#[track_caller]
fn leader(site: &Site<'_>) -> String {
    eventually("a running pod holds the lease", LONG, || try_leader(site))
}

#[track_caller]
fn kill(site: &Site<'_>, pod: &str) {
    site.kubectl()
        .answer(&["delete", "pod", pod, "--grace-period=0", "--force"]);
}

fn killed(site: &Site<'_>) {
    let before = Before::of(site);
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "while-killed", Change::Version("0.97.0"));
    site.wasmlet.patch(&next.as_patch());
    // Once in each node's change.
    for count in 1..=site.nodes().len() {
        eventually(&format!("{count} nodes are claimed"), CHANGE, || {
            let claimed = recorder.claimed();
            (claimed.len() >= count)
                .then_some(())
                .ok_or(format!("{claimed:?}"))
        });
        kill(site, &leader(site));
    }
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_no_restart(site);
    let mut claimed = recorder.claimed();
    claimed.sort();
    assert_eq!(claimed, site.names(), "each node once");
    assert_eq!(recorder.most_at_once().len(), 1);
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
}

fn two(site: &Site<'_>) {
    let first = leader(site);
    let pods = site.kubectl().answer(&[
        "get",
        "pods",
        "--selector",
        "app.kubernetes.io/component=operator",
        "--output",
        "name",
    ]);
    assert_eq!(
        pods.lines().count(),
        2,
        "the chart's default is two: {pods}"
    );
    kill(site, &first);
    eventually("another one holds the lease", LONG, || {
        let now = try_leader(site)?;
        (now != first).then_some(()).ok_or(now)
    });
    // And works.
    let next = variant(site, "of-the-second", Change::Version("0.97.1"));
    let recorder = Recorder::start(site.cluster());
    site.wasmlet.patch(&next.as_patch());
    site.wasmlet.until_ready(site.nodes().len());
    assert_eq!(recorder.claimed().len(), site.nodes().len());
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
}

/// How long the API server is away: longer than watches, leases and most clients' patience.
const AWAY: Duration = Duration::from_secs(60);

fn no_api_server(site: &Site<'_>) {
    let node = OnNode::first(site.ns);
    let fleet = Fleet::start(site.ns, &node);
    let (seen, before) = (fleet.seen(), Before::of(site));
    let recorder = Recorder::start(site.cluster());
    let next = variant(site, "while-away", Change::Version("0.97.2"));
    site.wasmlet.patch(&next.as_patch());
    eventually("a node is claimed", CHANGE, || {
        let claimed = recorder.claimed();
        (!claimed.is_empty()).then_some(()).ok_or("none".to_owned())
    });
    drop(recorder);
    site.control.stop_program("kube-apiserver");
    // The length of the fault, not a wait for anything.
    std::thread::sleep(AWAY);
    site.control.start_program("kube-apiserver");
    site.wasmlet.until_ready(site.nodes().len());
    before.assert_no_restart(site);
    fleet.assert_untouched(&seen, |_| true);
    fleet.assert_alive();
    fleet.delete();
    site.wasmlet.patch(&site.released().as_patch());
    site.wasmlet.until_ready(site.nodes().len());
}
